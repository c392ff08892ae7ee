package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/object"
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

// TestATimeIsTheLines, to the microsecond and in UTC, under either kind of names.
func TestATimeIsTheLines(t *testing.T) {
	at := noon.Add(7*time.Second + 999_600*time.Microsecond)
	for _, filter := range []Filter{{}, {ECS: true}, {ECS: true, Fields: []string{"client_ip"}}} {
		p, err := filter.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		r := parsed(t, albLine(at, 200, "https://h:443/", "a"))
		when, ok := r.Time()
		var doc struct {
			Time string `json:"@timestamp"`
		}
		text := newPrefix("s3://b/k", "etag", filter.ECS).document(p, r, when)
		if err := json.Unmarshal(text, &doc); err != nil || !ok || doc.Time != "2026-11-20T12:00:07.999600Z" {
			t.Errorf("%+v: %v, %s", filter, err, text)
		}
	}
}

// TestAFollowerGoesOnBehindWhatArrived: the store broke off, and a destination that confirms nothing
// has closed in order since.
func TestAFollowerGoesOnBehindWhatArrived(t *testing.T) {
	b, u := newUnsure(t)
	text := someLines(50)
	b.put("k", []byte(text))
	half := int64(strings.Index(text, "https://h:443/25 "))
	store := &breaking{Mem: b.store, at: half}
	cfg := b.config(u)
	cfg.OpenBucket = func(string) (object.Store, error) { return store, nil }
	f, err := cfg.NewFollower(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Ship(t.Context(), b.spec.Address, "k"); !errors.Is(err, errReset) {
		t.Errorf("Ship of an object that breaks off: %v", err)
	}
	if len(b.sink.docs) != 25 {
		t.Errorf("%d lines have arrived before the break, want 25", len(b.sink.docs))
	}
	store.at = -1
	if got, err := f.Ship(t.Context(), b.spec.Address, "k"); err != nil || got.Counts.Acked != 50 {
		t.Errorf("%v, %+v", err, got)
	}
	if twice := b.delivered("k", text); twice > 0 {
		t.Errorf("%d lines came twice", twice)
	}
}

// breaking is a store whose objects break off at a byte, unless that is -1.
type breaking struct {
	*object.Mem
	at int64
}

func (s *breaking) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	raw, info, err := s.Mem.Get(ctx, key, offset, length)
	if err != nil || s.at < 0 {
		return raw, info, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(raw, s.at-offset), iotest.ErrReader(errReset)), raw}, info, nil
}

func TestASourcesErrorIsOfItsLastObject(t *testing.T) {
	s := NewSourceCount("a", "s3://a")
	for i, err := range []error{errReset, nil, errReset} {
		s.Begin()
		s.End(Shipped{Counts: Counts{Encountered: 1, Parsed: 1, Acked: 1}}, err)
		want := ""
		if err != nil {
			want = err.Error()
		}
		if got := s.Summary(); got.LastError != want || got.Lines.Acked != int64(i+1)/2 || got.Objects.Read != int64(i+1)/2 {
			t.Errorf("after object %d: %+v", i+1, got)
		}
	}
}

// TestAPackedObjectThatBreaksOffIsNotDamaged: it is the store that failed, for now.
func TestAPackedObjectThatBreaksOffIsNotDamaged(t *testing.T) {
	b := newBench(t)
	text := someLines(500)
	body := packed(t, text)
	b.put("k", body)
	store := &breaking{Mem: b.store}
	cfg := b.config(b.sink)
	cfg.OpenBucket = func(string) (object.Store, error) { return store, nil }
	f, err := cfg.NewFollower(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, store.at = range []int64{0, 1, 5, int64(len(body)) / 2, int64(len(body)) - 1} {
		if got, err := f.Ship(t.Context(), b.spec.Address, "k"); !errors.Is(err, errReset) || myrmidon.IsPermanent(err) {
			t.Errorf("broken off at byte %d of %d: %v, %+v", store.at, len(body), err, got)
		}
	}
	store.at = -1
	if got, err := f.Ship(t.Context(), b.spec.Address, "k"); err != nil || got.Counts.Acked != 500 || len(got.Rejects) > 0 {
		t.Errorf("%v, %+v", err, got)
	}
	if twice := b.delivered("k", text); twice > 0 {
		t.Errorf("%d lines came twice", twice)
	}
}

func TestAJobIsBounded(t *testing.T) {
	sizes := []int64{20 << 20, 12 << 20, 1, 40 << 20, 16 << 20, 16 << 20}
	var objects []object.Info
	for i, size := range sizes {
		objects = append(objects, object.Info{Key: fmt.Sprint(i), Size: size})
	}
	for range 33 {
		objects = append(objects, object.Info{Key: "small"})
	}
	jobs, err := new(Spec).jobs(objects)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for _, j := range jobs {
		got = append(got, j.Count)
	}
	if want := []uint32{2, 1, 1, 16, 16, 3}; !slices.Equal(got, want) {
		t.Errorf("jobs of %v objects, want %v", got, want)
	}
}
