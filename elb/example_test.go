package elb_test

import (
	"fmt"
	"strings"

	"myrmidon/elb"
)

func Example() {
	object := `http 2018-07-02T22:23:00.186641Z app/web/50dc6c495c0c9188 192.0.2.7:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - -
what is this?
http 2018-07-02T22:23:01.000000Z app/web/50dc6c495c0c9188 192.0.2.7:2818 - -1 -1 -1 503 - 34 0 "GET http://www.example.com:80/a b HTTP/1.1" "curl/7.46.0" - -
`
	var out []byte
	for record, err := range elb.NewReader(strings.NewReader(object), elb.Config{}).Lines() {
		if err != nil {
			fmt.Println(err)
			continue
		}
		if status, ok := record.Get("elb_status_code").Int(); ok && status < 500 {
			continue
		}
		out = elb.Encoder{}.AppendJSON(out[:0], record)
		fmt.Printf("%s\n", out)
	}
	// Output:
	// elb: line 2 at byte 178, 13 bytes long: not a line of format alb: column 2 (time) at byte 5 is no time such as 2018-07-02T22:23:00.186641Z
	// {"type":"http","time":"2018-07-02T22:23:01.000000Z","elb":"app/web/50dc6c495c0c9188","client_ip":"192.0.2.7","client_port":2818,"request_processing_time":-1,"target_processing_time":-1,"response_processing_time":-1,"elb_status_code":503,"received_bytes":34,"sent_bytes":0,"request_method":"GET","request_url":"http://www.example.com:80/a b","request_protocol":"HTTP/1.1","user_agent":"curl/7.46.0"}
}
