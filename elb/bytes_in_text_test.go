package elb_test

import (
	"encoding/json"
	"strings"
	"testing"

	"myrmidon/elb"
)

// TestEachByteArrives: whatever a client has sent is in the document, as JSON has it; what is not
// UTF-8 is U+FFFD.
func TestEachByteArrives(t *testing.T) {
	for c := 1; c < 256; c++ {
		if c == '\n' || c == '"' || c == '\\' { // the line's own
			continue
		}
		agent := strings.Repeat("x", c%11) + string([]byte{byte(c)}) + "y"
		line := strings.Replace(albLine, `"Agent \x22quoted\x22"`, `"`+agent+`"`, 1)
		r := new(elb.Record)
		if err := r.Parse(elb.ALB, []byte(line)); err != nil {
			t.Fatalf("byte %#x: %v", c, err)
		}
		var doc map[string]any
		text := elb.Encoder{}.AppendJSON(nil, r)
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatalf("byte %#x: %v in %q", c, err, text)
		}
		if want := strings.ToValidUTF8(agent, "\ufffd"); doc["user_agent"] != want || doc["ip_address"] != "10.0.9.9" {
			t.Errorf("byte %#x becomes %q, want %q", c, doc["user_agent"], want)
		}
	}
}

// TestAByteOrderMarkIsNoText: editors put one before the first line, and nowhere else.
func TestAByteOrderMarkIsNoText(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	for text, want := range map[string][]bool{
		mark + clbLine + "\n" + clbLine + "\r\n": {true, true},
		clbLine + "\n" + mark + clbLine + "\n":   {true, false},
	} {
		var got []bool
		for r, err := range elb.NewReader(strings.NewReader(text), elb.Config{}).Lines() {
			got = append(got, err == nil && string(r.Text()) == clbLine)
		}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%.20q…: records %v, want %v", text, got, want)
		}
	}
}
