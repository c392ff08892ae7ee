package transcode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
)

// plain is a store with the methods of [object.Store] and no other, as a bucket has
// them. Its hooks may be nil.
type plain struct {
	in *object.Mem
	// call comes before each call. An error of it is the call's, which is not made.
	call func(op, key string) error
	// body changes what a Get reads.
	body func(key string, offset int64, r io.Reader) io.Reader
	// info changes what a Get and a Head say.
	info func(*object.Info)
	// lost says that a Put's answer gets lost: it fails after it has stored.
	lost func(key string) error
	read atomic.Int64 // bytes asked for by Get
}

var _ object.Store = (*plain)(nil)

func (s *plain) before(op, key string) error {
	if s.call == nil {
		return nil
	}
	return s.call(op, key)
}

func (s *plain) Put(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	if err := s.before("put", key); err != nil {
		return err
	}
	if err := s.in.Put(ctx, key, body, size, attrs); err != nil {
		return err
	}
	if s.lost != nil {
		return s.lost(key)
	}
	return nil
}

func (s *plain) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	if err := s.before("get", key); err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.in.Get(ctx, key, offset, length)
	if err != nil {
		return nil, info, err
	}
	s.read.Add(max(length, 0))
	if s.info != nil {
		s.info(&info)
	}
	if s.body != nil {
		return struct {
			io.Reader
			io.Closer
		}{s.body(key, offset, r), r}, info, nil
	}
	return r, info, nil
}

func (s *plain) Head(ctx context.Context, key string) (object.Info, error) {
	if err := s.before("head", key); err != nil {
		return object.Info{}, err
	}
	info, err := s.in.Head(ctx, key)
	if err == nil && s.info != nil {
		s.info(&info)
	}
	return info, err
}

func (s *plain) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	if err := s.before("list", prefix); err != nil {
		return func(yield func(object.Info, error) bool) { yield(object.Info{}, err) }
	}
	return s.in.List(ctx, prefix, after)
}

func (s *plain) Delete(ctx context.Context, key string) error {
	if err := s.before("delete", key); err != nil {
		return err
	}
	return s.in.Delete(ctx, key)
}

// remote is a bench between two stores that are no folders.
type remote struct {
	*bench
	from, to *plain
}

// newRemote puts the file into a store, as KEY.
func newRemote(t testing.TB, file, key string) *remote {
	t.Helper()
	r := &remote{from: &plain{in: object.NewMem()}, to: &plain{in: object.NewMem()}}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.from.in.Put(t.Context(), key, bytes.NewReader(b), int64(len(b)), object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	r.bench = newBenchWith(t,
		func(addr string) (object.Store, error) {
			if addr != "test" {
				return nil, fmt.Errorf("no store %q", addr)
			}
			return r.to, nil
		},
		func(addr string) (object.Store, string, error) {
			key, ok := strings.CutPrefix(addr, "mem://masters/")
			if !ok {
				return nil, "", fmt.Errorf("no store of %q", addr)
			}
			return r.from, key, nil
		})
	return r
}

// objects are the store's objects. Folders named by a version are called V, and so are
// links to them, since that name is made of the source's identity.
func objects(t *testing.T, m object.Store, version string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for info, err := range m.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(info.Key, "/"+workFolder+"/") {
			continue // notes on the way, which hold the identity itself
		}
		r, _, err := m.Get(t.Context(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if strings.HasSuffix(info.Key, ".m3u8") {
			text = strings.ReplaceAll(text, version, "V")
		}
		out[strings.ReplaceAll(info.Key, version, "V")] = text
	}
	return out
}

// moving is a clip of so many seconds with sound.
func moving(t testing.TB, name string, seconds float64, options ...string) string {
	return clip(t, name, join(lavfi("320x180", "24", seconds), tone(seconds, "stereo"), fast("-g", "30", "-bf", "2", "-c:a", "aac"), options)...)
}

// TestAnObjectGivesTheSameStreamAsAFile runs from folder to folder, and from one plain
// store to another.
func TestAnObjectGivesTheSameStreamAsAFile(t *testing.T) {
	long.Test(t)
	for _, tt := range []struct{ name, file string }{
		{"MP4 with its index at the end", "a.mp4"},
		{"Matroska", "a.mkv"},
		{"transport stream", "a.ts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := moving(t, tt.file, 5)
			spec := specOf(source, small())
			spec.Verify = VerifyDecode
			local := newBench(t)
			out := local.mustRun(spec)
			dir, err := object.NewDir(local.dir)
			if err != nil {
				t.Fatal(err)
			}
			want := objects(t, dir, out.Version)

			far := newRemote(t, source, "talks/"+tt.file)
			spec.Source = "mem://masters/talks/" + tt.file
			farOut := far.mustRun(spec)
			if diff := cmp.Diff(want, objects(t, far.to.in, farOut.Version)); diff != "" {
				t.Errorf("(-file +object)\n%s", diff)
			}
			if n := len(want); n < 20 {
				t.Errorf("only %d objects to compare", n)
			}
			if farOut.Version == out.Version {
				t.Error("ETag and hash give the same version")
			}
			// The same object elsewhere is the same source, and all is found finished.
			written := make(map[string]bool)
			far.to.call = func(op, key string) error {
				if op == "put" && strings.HasSuffix(key, ".m4s") {
					written[key] = true
				}
				return nil
			}
			moved := newRemote(t, source, "renamed")
			moved.to = far.to
			spec.Source = "mem://masters/renamed"
			if again := moved.mustRun(spec); again.Version != farOut.Version || len(written) > 0 {
				t.Errorf("from another place it is version %s instead of %s, and %d segments were made again", again.Version, farOut.Version, len(written))
			}
		})
	}
}

func TestAJobReadsLittleMoreThanItsChunk(t *testing.T) {
	long.Test(t)
	// Noise is what makes the file large: 24 s in two chunks at 8 Mbit/s.
	source := clip(t, "a.mp4", join(lavfi("640x360", "24", 24), tone(24, "stereo"),
		fast("-vf", "noise=alls=20:allf=t", "-g", "48", "-b:v", "8M", "-minrate", "8M", "-maxrate", "8M", "-bufsize", "8M", "-c:a", "aac"))...)
	info, err := os.Stat(source)
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	r := newRemote(t, source, "a.mp4")
	product := small()
	product.Segment = 4
	spec := specOf(source, product)
	spec.Source = "mem://masters/a.mp4"
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := r.jobs(raw, phaseEncode)
	if err != nil {
		t.Fatal(err)
	}
	if read := r.from.read.Swap(0); read < size*9/10 || read > size*11/10 || read != r.usage.Read {
		t.Errorf("planning read %d bytes of %d, metered %d", read, size, r.usage.Read)
	}
	if len(jobs) != 3 {
		t.Fatalf("%d jobs, want 3", len(jobs))
	}
	for _, job := range jobs {
		made, err := r.handlers[job.Kind].Handle(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		read := r.from.read.Swap(0)
		t.Logf("%s read %.1f of %.1f MB", job.Name, float64(read)/1e6, float64(size)/1e6)
		// What the plan takes besides is a few KB.
		if made.Usage.Read < read || made.Usage.Read > read+64<<10 {
			t.Errorf("%s: read %d bytes, metered %d", job.Name, read, made.Usage.Read)
		}
		// A chunk is half of the file; steps add a quarter of what was read.
		if most := size*5/8 + 1<<20; job.Kind == KindEncode && read > most {
			t.Errorf("%s: read %d bytes of %d, want at most %d", job.Name, read, size, most)
		}
	}
}

var errFire = errors.New("the store is on fire")

// TestAStoreThatFailsNowAndThenIsEnough fails each tenth call at both ends; every other
// failing Put has stored all the same, and reads break off in the middle.
func TestAStoreThatFailsNowAndThenIsEnough(t *testing.T) {
	long.Test(t)
	source := moving(t, "a.mp4", 5)
	spec := specOf(source, small())
	spec.Source = "mem://masters/a.mp4"
	calm := newRemote(t, source, "a.mp4")
	out := calm.mustRun(spec)
	want := objects(t, calm.to.in, out.Version)

	r := newRemote(t, source, "a.mp4")
	var mu sync.Mutex
	calls, failed := map[int]int{}, map[string]int{}
	flaky := func(every int, what string) error {
		mu.Lock()
		defer mu.Unlock()
		if calls[every]++; calls[every]%every != 0 {
			return nil
		}
		failed[what]++
		return errFire
	}
	tenth := func(op, _ string) error { return flaky(10, op) }
	r.from.call, r.to.call = tenth, tenth
	r.to.lost = func(string) error { return flaky(7, "lost answer") }
	r.from.body = func(_ string, _ int64, b io.Reader) io.Reader {
		if flaky(3, "body") == nil {
			return b
		}
		return io.MultiReader(io.LimitReader(b, 1000), failingReader{})
	}
	got := r.mustRun(spec)
	if diff := cmp.Diff(want, objects(t, r.to.in, got.Version)); diff != "" || got.Version != out.Version {
		t.Errorf("(-calm +flaky)\n%s", diff)
	}
	for _, what := range []string{"get", "put", "lost answer", "body"} {
		if failed[what] == 0 {
			t.Errorf("no %s has failed: %v", what, failed)
		}
	}
	if left, err := os.ReadDir(r.temp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errFire }

// TestASourceThatCannotBeReadIsNotCalledDamaged breaks the source's store for good, while
// planning and in each kind of job.
func TestASourceThatCannotBeReadIsNotCalledDamaged(t *testing.T) {
	source := moving(t, "a.mp4", 6, "-b:v", "2M")
	for _, tt := range []struct {
		name string
		job  int // -1 is planning
		err  error
	}{
		{"while it is planned", -1, errFire},
		{"while a chunk is encoded", 1, errFire},
		{"while the sound is encoded", 2, errFire},
		{"for good, while a chunk is encoded", 1, myrmidon.Permanent(errFire)},
		{"because it is gone", 1, fmt.Errorf("get a.mp4: %w", fs.ErrNotExist)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRemote(t, source, "a.mp4")
			spec := specOf(source, small())
			spec.Source = "mem://masters/a.mp4"
			raw, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			gets := 0
			breaks := func(op, _ string) error {
				// The index has been read by then: ffmpeg is at work.
				if gets++; op == "get" && gets > 4 {
					return tt.err
				}
				return nil
			}
			if tt.job < 0 {
				r.from.call = breaks
				_, err = r.jobs(raw, phaseEncode)
			} else {
				jobs, planErr := r.jobs(raw, phaseEncode)
				if planErr != nil || len(jobs) != 3 {
					t.Fatal(len(jobs), planErr)
				}
				r.from.call = breaks
				job := jobs[tt.job]
				_, err = r.handlers[job.Kind].Handle(t.Context(), job)
			}
			t.Logf("%v (%s)", err, myrmidon.Hint(err))
			permanent := myrmidon.IsPermanent(tt.err) || errors.Is(tt.err, fs.ErrNotExist)
			if !errors.Is(err, errors.Unwrap(tt.err)) && !errors.Is(err, tt.err) || myrmidon.IsPermanent(err) != permanent ||
				!strings.Contains(err.Error(), "a.mp4") || strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "cut off") {
				t.Errorf("got %v (permanent: %v), want the store's error (permanent: %v)", err, myrmidon.IsPermanent(err), permanent)
			}
			for key := range objects(t, r.to.in, "-") {
				if strings.HasSuffix(key, ".m4s") {
					t.Errorf("%s was stored", key)
				}
			}
			if left, err := os.ReadDir(r.temp); err != nil || len(left) > 0 {
				t.Errorf("left in the temporary folder: %v, %v", left, err)
			}
		})
	}
}

// TestAnObjectThatChangesIsNoticed replaces it under a run.
func TestAnObjectThatChangesIsNoticed(t *testing.T) {
	source := moving(t, "a.mp4", 6, "-b:v", "2M")
	replace := func(t *testing.T, r *remote, cut int) {
		b, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1 // the same size
		if err := r.from.in.Put(t.Context(), "a.mp4", bytes.NewReader(b[:len(b)-cut]), -1, object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		after int // calls of the job's
		cut   int // bytes off the end
		info  func(*object.Info)
	}{
		{"before a job", 0, 0, nil},
		{"under a job", 4, 0, nil},
		{"under a job, and is shorter than where it reads", 4, 1 << 20, nil},
		{"under a job, in a store without ETags", 4, 0, func(i *object.Info) { i.ETag = "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRemote(t, source, "a.mp4")
			r.from.info = tt.info
			spec := specOf(source, small())
			spec.Source = "mem://masters/a.mp4"
			raw, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			jobs, err := r.jobs(raw, phaseEncode)
			if err != nil {
				t.Fatal(err)
			}
			calls := 0
			r.from.call = func(string, string) error {
				if calls++; calls == tt.after+1 {
					replace(t, r, tt.cut)
				}
				return nil
			}
			_, err = r.handlers[jobs[1].Kind].Handle(t.Context(), jobs[1])
			if err == nil || !strings.Contains(err.Error(), "a.mp4 has changed since it was planned") || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
				t.Errorf("got %v (permanent: %v, hint %q)", err, myrmidon.IsPermanent(err), myrmidon.Hint(err))
			}
			if calls <= tt.after {
				t.Errorf("only %d calls: it was not replaced", calls)
			}
		})
	}
}

func TestAPlaylistInAStoreOpensNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.mp4")
	if err := os.WriteFile(file, []byte("#EXTM3U\n#EXTINF:3,\nmem://masters/secret.ts\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRemote(t, file, "a.mp4")
	r.from.call = func(op, key string) error {
		if key != "a.mp4" {
			t.Errorf("%s of %s", op, key)
		}
		return nil
	}
	spec := specOf(file, small())
	spec.Source = "mem://masters/a.mp4"
	if _, err := r.run(spec); err == nil || !strings.Contains(err.Error(), "a.mp4 is an HLS playlist") || !myrmidon.IsPermanent(err) {
		t.Errorf("got %v", err)
	}
}

func TestFindSaysWhatASourceIs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "talk.mp4")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder, err := object.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	mem := object.NewMem()
	if err := mem.Put(t.Context(), "a/talk.mp4", strings.NewReader("content"), 7, object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	bare := &plain{in: mem, info: func(i *object.Info) { i.ETag, i.Modified = "", time.Unix(1000, 5) }}
	blank := &plain{in: mem, info: func(i *object.Info) { i.ETag, i.Modified = "", time.Time{} }}
	c := Config{OpenObject: func(address string) (object.Store, string, error) {
		scheme, key, _ := strings.Cut(address, "://")
		store, ok := map[string]object.Store{"file": folder, "mem": &plain{in: mem}, "bare": bare, "blank": blank}[scheme]
		if !ok {
			return nil, "", myrmidon.Permanent(errors.New("no such scheme"))
		}
		return store, key, nil
	}}
	info, err := mem.Head(t.Context(), "a/talk.mp4")
	if err != nil {
		t.Fatal(err)
	}
	const sum = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73" // of "content"
	for _, tt := range []struct {
		name, address string
		want          Source
		problem       string
	}{
		{"a path is hashed", file, Source{Name: "talk.mp4", SHA256: sum, Size: 7}, ""},
		{"an object that is a file is one", "file://talk.mp4", Source{Name: "talk.mp4", SHA256: sum, Size: 7}, ""},
		{"an object is its ETag", "mem://a/talk.mp4", Source{Name: "talk.mp4", ETag: info.ETag, Size: 7}, ""},
		{"without an ETag it is its time", "bare://a/talk.mp4", Source{Name: "talk.mp4", ETag: "modified 1970-01-01T00:16:40.000000005Z", Size: 7}, ""},
		{"without either it is refused", "blank://a/talk.mp4", Source{}, "neither an ETag nor a time"},
		{"what is not there", "mem://a/other.mp4", Source{}, "source mem://a/other.mp4"},
		{"a file that is not there", file + "x", Source{}, "no such file"},
		{"an unknown scheme", "gopher://a", Source{}, "no such scheme"},
	} {
		src, err := c.find(t.Context(), tt.address)
		if tt.problem != "" {
			if err == nil || !strings.Contains(err.Error(), tt.problem) || !myrmidon.IsPermanent(err) {
				t.Errorf("%s: got %v, want a permanent error about %q", tt.name, err, tt.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, err := src.identify(t.Context())
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			err   error
			calls int
			least time.Duration
			most  time.Duration
		}{
			{"a failure that lasts", errFire, 4, 1050 * time.Millisecond, 2100 * time.Millisecond},
			{"a permanent one", myrmidon.Permanent(errFire), 1, 0, 0},
			{"what is not there", fmt.Errorf("a: %w", fs.ErrNotExist), 1, 0, 0},
			{"a store that asks for two seconds", myrmidon.RetryAfter(errFire, 2*time.Second), 4, 6 * time.Second, 6 * time.Second},
			{"a store that asks for a minute", myrmidon.RetryAfter(errFire, time.Minute), 1, 0, 0},
		} {
			calls, start := 0, time.Now()
			err := again(t.Context(), func() error { calls++; return tt.err })
			if took := time.Since(start); calls != tt.calls || !errors.Is(err, tt.err) || took < tt.least || took > tt.most {
				t.Errorf("%s: %d calls in %v, %v; want %d in %v to %v", tt.name, calls, took, err, tt.calls, tt.least, tt.most)
			}
		}
		calls := 0
		if err := again(t.Context(), func() error {
			if calls++; calls < 3 {
				return errFire
			}
			return nil
		}); err != nil || calls != 3 {
			t.Errorf("after two failures: %d calls, %v", calls, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := again(ctx, func() error { return errFire }); !errors.Is(err, errFire) || ctx.Err() == nil {
			t.Errorf("when its context ends: %v", err)
		}
	})
}

// TestPublishingRemovesWhatOldRunsLeft leaves the origins of three runs that never
// published.
func TestPublishingRemovesWhatOldRunsLeft(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 1), fast())...)
	b := newBench(t)
	spec := specOf(source, small())
	put := func(name string, age time.Duration) string {
		file := filepath.Join(b.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	old := put("a/hls/run-OLD.json", 31*24*time.Hour)
	recent := put("a/hls/run-RECENT.json", 29*24*time.Hour)
	other := put("a/hls/runner/x.json", 31*24*time.Hour)
	b.mustRun(spec)
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old run's is still there: %v", err)
	}
	for _, file := range []string{recent, other} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "a/hls/run-"+testRun+".json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its own is still there: %v", err)
	}
}

// TestAPutThatFailsFailsItsJob refuses one segment of many for good.
func TestAPutThatFailsFailsItsJob(t *testing.T) {
	source := moving(t, "a.mp4", 6)
	r := newRemote(t, source, "a.mp4")
	spec := specOf(source, small())
	spec.Source = "mem://masters/a.mp4"
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := r.jobs(raw, phaseEncode)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range map[int]string{1: "90p/00003.m4s", 2: "audio/00001.m4s"} {
		r.to.call = func(op, key string) error {
			switch {
			case op == "put" && strings.HasSuffix(key, file):
				return myrmidon.Permanent(errFire)
			case op == "put" && strings.HasSuffix(key, ".json"):
				t.Errorf("%s was stored all the same", key)
			}
			return nil
		}
		_, err := r.handlers[jobs[i].Kind].Handle(t.Context(), jobs[i])
		if !errors.Is(err, errFire) || !myrmidon.IsPermanent(err) || errors.Is(err, context.Canceled) {
			t.Errorf("%s, without %s: %v", jobs[i].Name, file, err)
		}
	}
}
