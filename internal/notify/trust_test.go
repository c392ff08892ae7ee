package notify

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/sqsstub"
	"myrmidon/object"
)

// TestAFullDiskKeepsWhatWasThere: an event that is half on disk would have been answered.
func TestAFullDiskKeepsWhatWasThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "event.json")
	if err := writeSynced(file, []byte("first")); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	less := was
	less.Cur = 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &less); err != nil {
		t.Fatal(err)
	}
	err := writeSynced(file, []byte(strings.Repeat("second", 10)))
	if back := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); back != nil {
		t.Fatal(back)
	}
	data, readErr := os.ReadFile(file)
	if err == nil || readErr != nil || string(data) != "first" {
		t.Errorf("writeSynced: %v; the file has %q, %v", err, data, readErr)
	}
}

// TestWhatIsLookedAtAgainIsDoneOnce: the overlap is remembered whole, and not more.
func TestWhatIsLookedAtAgainIsDoneOnce(t *testing.T) {
	now := time.Now()
	objectOf := func(key string, age time.Duration) object.Info {
		return object.Info{Key: key, ETag: "e", Modified: now.Add(-age)}
	}
	newest, edge, old := objectOf("newest", 0), objectOf("edge", overlap), objectOf("old", overlap+time.Second)
	var s Seen
	for _, o := range []object.Info{old, edge, newest} {
		s.Finish(o)
	}
	if !s.Advance(now.Add(time.Hour)) || !s.Newest.Equal(newest.Modified) {
		t.Fatalf("the mark is at %v, want %v", s.Newest, newest.Modified)
	}
	after := s.After(time.Time{})
	for _, o := range []object.Info{old, edge, newest} {
		if s.New(o, after) {
			t.Errorf("%s is done, and new", o.Key)
		}
	}
	if edge.ETag = "replaced"; !s.New(edge, after) {
		t.Error("what was replaced is not new")
	}
	if _, known := s.Done[old.Key]; known || len(s.Done) != 2 {
		t.Errorf("%v are remembered, and %v is never looked at", s.Done, old.Key)
	}
}

// TestAMessageStaysForEachOfItsObjects: the last one being done says nothing of those before.
func TestAMessageStaysForEachOfItsObjects(t *testing.T) {
	stub := new(sqsstub.Queue)
	stub.Put(put("a", "bad", "c"))
	f, _ := queueFeed(t, config(1), stub, "logs")
	var came calls
	run(t, f, func(_ context.Context, o Object) error {
		if n := came.add(o.Key); o.Key == "bad" && n < 3 {
			return errors.New("not now")
		}
		return nil
	})
	until(t, "the message is deleted", func() bool { return stub.Deleted() == 1 })
	if came.of("bad") != 3 || came.of("c") != 3 {
		t.Errorf("the object that failed twice came %d times, the one behind it %d times, want 3", came.of("bad"), came.of("c"))
	}
}

// TestWhatIsDoneWhenAllIsCutOffIsDeleted: else it comes again to somebody else.
func TestWhatIsDoneWhenAllIsCutOffIsDeleted(t *testing.T) {
	stub := new(sqsstub.Queue)
	stub.Put(put("a"))
	f, _ := queueFeed(t, config(1), stub, "logs")
	working, cut := context.WithCancel(t.Context())
	defer cut()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(working, working, func(context.Context, Object) error { cut(); return nil }, func(error) {})
	}()
	<-ended
	if stub.Deleted() != 1 {
		t.Error("a message whose object is done is not deleted")
	}
}

// TestWhatIsFoundAndNotDoneComesAgain: lines that could not be parked are not listed yet.
func TestWhatIsFoundAndNotDoneComesAgain(t *testing.T) {
	var d Done
	o := Object{Bucket: "b", Key: "k", ETag: "e", Sequencer: "1"}
	full, calls := errors.New("the disk is full"), 0
	for i, want := range []error{full, nil, nil} {
		err := d.Once(t.Context(), "s3://b/k", o, func() (string, error) { calls++; return "e", want })
		if !errors.Is(err, want) || calls != min(i+1, 2) {
			t.Errorf("time %d: %v after %d calls, want %v", i+1, err, calls, want)
		}
	}
}

// TestAnOldObjectThatFailsStaysKnown, also where it fails before its pass has ended: the mark would
// leave it behind.
func TestAnOldObjectThatFailsStaysKnown(t *testing.T) {
	now := time.Now()
	old := object.Info{Key: "old", ETag: "e", Modified: now.Add(-50 * time.Minute)}
	young := object.Info{Key: "young", ETag: "e", Modified: now.Add(-time.Minute)}
	var came, failed calls
	passes := 0
	var l *listing
	noted := func() bool { // or a pass does not find it: it is still being worked on
		l.mu.Lock()
		defer l.mu.Unlock()
		o := l.open["old"]
		return o != nil && !o.busy
	}
	cfg := ListingConfig{
		Name: "here", File: filepath.Join(t.TempDir(), "seen.json"), Every: 5 * time.Millisecond,
		List: func(ctx context.Context, _ time.Time, fn func(object.Info) error) error {
			if err := errors.Join(fn(old), fn(young)); err != nil {
				return err
			}
			passes++
			for (failed.of("old") < passes || !noted()) && ctx.Err() == nil && passes < 5 {
				time.Sleep(time.Millisecond)
			}
			return nil
		},
	}
	f, err := config(2).Listing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l = f.source.(*listing)
	end := run(t, f, func(_ context.Context, o Object) error {
		if came.add(o.Key); o.Key == "young" {
			return nil
		}
		failed.add(o.Key)
		return errors.New("not now")
	})
	until(t, "the old one came five times", func() bool { return came.of("old") >= 5 })
	end()
	if came.of("young") != 1 {
		t.Errorf("what was done came %d times", came.of("young"))
	}
}

// TestAnEventThatIsCutOffStaysOnDisk: it was answered, and nobody sends it again.
func TestAnEventThatIsCutOffStaysOnDisk(t *testing.T) {
	dir := t.TempDir()
	f, err := config(1).Webhook(WebhookConfig{Address: "webhook://127.0.0.1:0/s3", Dir: filepath.Join(dir, "events")})
	if err != nil {
		t.Fatal(err)
	}
	working, cut := context.WithCancel(t.Context())
	defer cut()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(working, working, func(ctx context.Context, _ Object) error { cut(); <-ctx.Done(); return ctx.Err() }, func(error) {})
	}()
	resp, err := http.Post("http://"+strings.TrimPrefix(f.String(), "webhook://"), "application/json", strings.NewReader(put("a")))
	if err == nil {
		err = resp.Body.Close()
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the event is not taken: %v", err)
	}
	<-ended
	if left := LeftIn(dir); len(left) != 1 || left[0].Events != 1 {
		t.Errorf("left on disk: %v, want the event", left)
	}
}
