package elb_test

import (
	"bytes"
	"strings"
	"testing"

	"myrmidon/elb"
)

// The paths that look at eight bytes at a time are held against each byte there is.
func TestEachByteAtEachPlace(t *testing.T) {
	if testing.Short() {
		t.Skip("long: make test runs it")
	}
	const agent = "0123456789abcdef0123456789abcdefXYZ"
	line := strings.Replace(string(ordinaryLine), "curl/7.46.0", agent, 1)
	at := strings.Index(line, agent)
	for c := range 256 {
		for i := range len(agent) {
			text := []byte(line)
			text[at+i] = byte(c)
			if c == '"' && i == 0 {
				continue // "" and what follows: no other quote closes
			}
			var r elb.Record
			if err := r.Parse(elb.ALB, text); err != nil {
				t.Fatalf("byte %#x at %d: %v", c, i, err)
			}
			want := agent[:i] + string(rune(c)) + agent[i+1:]
			if c >= 0x80 {
				want = agent[:i] + "\ufffd" + agent[i+1:]
			}
			if got := decode(t, elb.Encoder{}.AppendJSON(nil, &r))["user_agent"]; got != want {
				t.Fatalf("byte %#x at %d: %q, want %q", c, i, got, want)
			}
		}
		// In numbers, of which short ones are looked at in one go.
		for _, number := range []string{"0", "?", "1?", "?1", "1?1", "12?4567", "1234567?", "12345678?"} {
			if c == ' ' || c == '"' {
				continue
			}
			number = strings.ReplaceAll(number, "?", string([]byte{byte(c)}))
			checkNumber(t, line, number)
		}
	}
	for _, number := range []string{"", "-", "--1", "-1", "-1.5", "-.5", ".", "1.", ".5", "0.5", "1.2.3", "1.2.", "00", "007", "-007", "00.5", "123456789012345678", "1234567890123456789", "1234567.8", "123456789.123456"} {
		checkNumber(t, line, number)
	}
}

// checkNumber puts a number in the place of an integer and of a decimal.
func checkNumber(t *testing.T, line, number string) {
	t.Helper()
	line = strings.Replace(line, " 0.001 ", " "+number+" ", 1)
	line = strings.Replace(line, " 34 ", " "+number+" ", 1)
	var r elb.Record
	if err := r.Parse(elb.ALB, []byte(line)); err != nil {
		t.Fatalf("number %q: %v", number, err)
	}
	got := decode(t, elb.Encoder{}.AppendJSON(nil, &r))
	digits := strings.TrimPrefix(number, "-")
	whole, part, point := strings.Cut(digits, ".")
	integer := isDigits(digits) && len(digits) < 19
	decimal := isDigits(whole) && (!point || isDigits(part)) && len(digits) < 19
	if _, is := got["received_bytes"].(float64); is != integer {
		t.Errorf("integer %q: %v", number, got["received_bytes"])
	}
	if _, is := got["target_processing_time"].(float64); is != decimal {
		t.Errorf("decimal %q: %v", number, got["target_processing_time"])
	}
	if _, is := r.Get("received_bytes").Int(); is != integer {
		t.Errorf("Int of %q: %t", number, is)
	}
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func TestJSONIsTheSameInAnyBuffer(t *testing.T) {
	if testing.Short() {
		t.Skip("long: make test runs it")
	}
	controls := strings.Repeat("\x01", 200)
	lines := []string{
		string(fullLine),
		strings.Replace(string(fullLine), "Mozilla/5.0", controls, 1),
		strings.Replace(string(fullLine), "app/web-frontend", controls, 1),
		string(fullLine) + " " + controls + " " + controls,
	}
	for n := range 1000 { // each room that is left when a buffer has grown
		lines = append(lines, strings.Replace(string(fullLine), "app/web-frontend", controls[:n%len(controls)]+strings.Repeat("-", n/2), 1),
			strings.Replace(string(fullLine), " HTTP/2.0", strings.Repeat("u", n), 1)) // written twice, without an escape
	}
	for i, line := range lines {
		var r elb.Record
		if err := r.Parse(elb.ALB, []byte(line)); err != nil {
			t.Fatal(err)
		}
		for _, e := range []elb.Encoder{{}, {Names: elb.ECS, Nulls: true}} {
			want := e.AppendJSON(make([]byte, 0, 1<<16), &r)
			decode(t, want)
			for size := 0; size < 8192 && (size == 0 || i < 4); size += 61 {
				buf := bytes.Repeat([]byte("x"), size+10)
				got := e.AppendJSON(buf[:7:size+7], &r)
				if string(got[:7]) != "xxxxxxx" || !bytes.Equal(got[7:], want) || string(buf[size+7:]) != "xxx" {
					t.Fatalf("in a buffer of %d bytes: %s", size, got)
				}
			}
		}
	}
}
