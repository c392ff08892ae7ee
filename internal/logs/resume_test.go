package logs

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// TestAnObjectThatIsReplacedByALongerOneIsReadWhole: its checkpoint's offset is inside of it.
func TestAnObjectThatIsReplacedByALongerOneIsReadWhole(t *testing.T) {
	b := newBench(t)
	old, fresh := someLines(10), someLines(30)
	b.put("k", []byte(old))
	info, err := b.store.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	at := checkpoint{ETag: info.ETag, Plain: true, Offset: int64(len(old)), Line: 10, Counts: Counts{Encountered: 10, Parsed: 10, Sent: 10, Acked: 10, Bytes: int64(len(old))}}
	if b.kept.m["RUN0-0"], err = json.Marshal(at); err != nil {
		t.Fatal(err)
	}
	b.put("k", []byte(fresh))
	if err := b.do(t.Context(), b.jobs()[0]); err != nil {
		t.Fatal(err)
	}
	b.delivered("k", fresh)
	if s := b.summary(); s.Lines.Acked != 30 || s.Lines.Bytes != int64(len(fresh)) {
		t.Errorf("%+v", s.Lines)
	}
}

// TestAHeaderOutlivesItsJob: CloudFront says at the top of an object which columns its lines have.
func TestAHeaderOutlivesItsJob(t *testing.T) {
	for _, name := range []string{"E1.2026-11-20-12.abcd", "E1.2026-11-20-12.abcd.gz"} {
		synctest.Test(t, func(t *testing.T) {
			const lines = 800
			var text strings.Builder
			text.WriteString("#Version: 1.0\n#Fields: time date sc-status c-ip x-new\n")
			for i := range lines {
				fmt.Fprintf(&text, "12:00:%02d\t2026-11-20\t%d\t10.0.%d.%d\tnew\n", i%60, 200+i%2, i/250, i%250)
			}
			b := newBench(t)
			b.spec.Memory = 8 << 10
			b.put(name, []byte(text.String()))
			if strings.HasSuffix(name, ".gz") {
				b.put(name, packed(t, text.String()))
			}
			clients := make(map[string]int)
			b.sink.seen = func(doc string) {
				var d struct {
					Time   time.Time `json:"@timestamp"`
					Client string    `json:"c_ip"`
					Status int       `json:"sc_status"`
				}
				if err := json.Unmarshal([]byte(doc), &d); err != nil || d.Time.Hour() != 12 || d.Status/2 != 100 {
					t.Errorf("%v: %s", err, doc)
				}
				clients[d.Client]++
			}
			b.sink.wrong = func([]sink.Record) error { time.Sleep(200 * time.Millisecond); return nil }
			if n := b.going(b.jobs()[0], 5*time.Second, 300); n < 2 {
				t.Errorf("%d jobs: nothing was resumed", n)
			}
			if s := b.summary(); s.Lines.Acked != lines || len(clients) != lines {
				t.Errorf("%+v, of %d clients", s.Lines, len(clients))
			}
		})
	}
}

// TestARefusedLineIsListedOnce, however many checkpoints follow, and a retry changes neither the
// bytes of its object nor the time of the newest line.
func TestARefusedLineIsListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.spec.Memory = 8 << 10
		text := someLines(400)
		b.put("k", []byte(text))
		refuse := true
		b.sink.wrong = func(records []sink.Record) error {
			time.Sleep(time.Second)
			p := &sink.PartialError{Total: len(records)}
			for i, r := range records {
				if refuse && strings.Contains(string(r.Data), `https://h:443/7"`) {
					p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(fmt.Errorf("refused"))})
				}
			}
			if p.Failed == nil {
				return nil
			}
			return p
		}
		job := b.jobs()[0]
		check := func(acked, refused int64) {
			t.Helper()
			if err := b.do(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			var n Note
			if err := json.Unmarshal(b.items[0].Note, &n); err != nil {
				t.Fatal(err)
			}
			s := b.summary()
			if s.Lines.Acked != acked || s.Lines.Failed != refused || n.Rejected != refused || s.Lines.Bytes != int64(len(text)) || !s.Newest.Equal(noon.Add(399*time.Second)) {
				t.Errorf("rejected %d, newest %v, %+v", n.Rejected, s.Newest, s.Lines)
			}
		}
		check(399, 1)
		if b.kept.midway < 2 {
			t.Errorf("%d checkpoints midway", b.kept.midway)
		}
		refuse = false
		check(400, 0)
	})
}

func TestAThousandRejectsAreKept(t *testing.T) {
	var c checkpoint
	for i := range keptRejects + 2 {
		c.keep(Reject{Offset: int64(i), Reason: strings.Repeat("é", 200)})
	}
	if len(c.Rejects) != 1000 || c.More != 2 || c.Rejects[999].Offset != 999 {
		t.Errorf("%d are kept, and %d more", len(c.Rejects), c.More)
	}
	if got := c.Rejects[0].Reason; got != strings.Repeat("é", 150)+"…" {
		t.Errorf("a long reason becomes %q", got)
	}
}
