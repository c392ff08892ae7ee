package natsserver

import (
	"strings"
	"testing"
)

func TestOutputKeepsItsEnd(t *testing.T) {
	var o output
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 * saidLimit / len(line) {
		if _, err := o.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	got := o.String()
	if len(got) != saidLimit || !strings.HasSuffix(got, "x\nthe end") {
		t.Errorf("%d bytes are kept, the last are %q", len(got), got[max(0, len(got)-10):])
	}
	if got := o.tail(3); got != "end" {
		t.Errorf("its last three bytes are %q", got)
	}
	if cap(o.data) > 4*saidLimit {
		t.Errorf("%d bytes of memory are held", cap(o.data))
	}
}
