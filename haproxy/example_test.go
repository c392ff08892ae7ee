package haproxy_test

import (
	"fmt"
	"os"

	"myrmidon/haproxy"
)

// Two processes of one HAProxy as one.
func Example() {
	var tables []*haproxy.Table
	for _, dump := range []string{
		"# pxname,svname,scur,stot,status,qtime,req_tot,type,\napp,web1,3,100,UP,10,100,2,\napp,web2,0,40,UP,4,40,2,\n\n",
		"# pxname,svname,scur,stot,status,qtime,req_tot,type,\napp,web1,2,300,UP,30,300,2,\napp,web2,0,10,DOWN,4,10,2,\n\n",
	} {
		t, err := haproxy.ParseCSV([]byte(dump))
		if err != nil {
			fmt.Println(err)
			return
		}
		tables = append(tables, t)
	}
	all, err := haproxy.Merge(haproxy.DefaultRules(), tables...)
	if err != nil {
		fmt.Println(err)
		return
	}
	view := all.View(haproxy.Filter{Match: []string{"app"}})
	if err := view.WriteCSV(os.Stdout); err != nil {
		fmt.Println(err)
	}
	fmt.Println(all.State(1))
	// Output:
	// # pxname,svname,scur,stot,status,qtime,req_tot,type,
	// app,web1,5,400,UP,25,400,2,
	// app,web2,0,50,"DOWN 1/2, UP 1/2",4,50,2,
	//
	// DOWN
}
