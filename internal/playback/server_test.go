package playback

import (
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"myrmidon/object"
)

// request is what a player asked for and got.
type request struct {
	path        string
	status      int
	contentType string
}

// origin serves a stream's folder, as a store behind a web server would: with the
// content types that the store gives, to pages of any origin. It remembers requests.
type origin struct {
	url string // of the folder, without a slash at the end

	answers  sync.WaitGroup // under way: the player may have its answer, and it is not remembered yet
	mu       sync.Mutex
	requests []request
}

func serve(t *testing.T, dir string) *origin {
	t.Helper()
	o := new(origin)
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.answers.Add(1)
		defer o.answers.Done()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Cache-Control", "no-store") // so that every use is a request
		w.Header().Set("Content-Type", object.TypeOf(strings.TrimPrefix(r.URL.Path, "/")))
		answer := &recorder{ResponseWriter: w, status: http.StatusOK}
		files.ServeHTTP(answer, r)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.requests = append(o.requests, request{r.URL.Path, answer.status, w.Header().Get("Content-Type")})
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// types are RFC 8216's for playlists (section 10) and the registered ones of fragmented
// MP4, written down here once more: what object.TypeOf says is tested, too.
var types = map[string]string{
	".m3u8": "application/vnd.apple.mpegurl",
	".m4s":  "video/iso.segment",
	".mp4":  "video/mp4",
}

// check looks at what was asked for: everything was there, of the right type, and no
// segment was fetched more often than most.
func (o *origin) check(t *testing.T, most int) {
	t.Helper()
	o.answers.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.requests) == 0 {
		t.Error("the player asked for nothing")
	}
	fetched := make(map[string]int)
	for _, r := range o.requests {
		if r.status != http.StatusOK && r.status != http.StatusPartialContent {
			t.Errorf("%s: status %d", r.path, r.status)
		}
		if want := types[path.Ext(r.path)]; r.contentType != want {
			t.Errorf("%s: content type %q, want %q", r.path, r.contentType, want)
		}
		fetched[r.path]++
	}
	for p, n := range fetched {
		if path.Ext(p) == ".m4s" && n > most {
			t.Errorf("%s was fetched %d times, want %d at most", p, n, most)
		}
	}
}

// renditions returns the folders of which segments were fetched, in order.
func (o *origin) renditions() []string {
	o.answers.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, r := range o.requests {
		if name := path.Base(path.Dir(r.path)); path.Ext(r.path) == ".m4s" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
