package object_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/object"
)

// site is an HTTP server of files with index pages.
type site struct {
	t      *testing.T
	url    string
	format string        // of index pages: nginx, apache, json, none
	bare   bool          // it knows no ranges, ETags or conditions
	stall  time.Duration // how long its bodies may stand still; a minute unless set

	mu    sync.Mutex
	files map[string][]byte
	etags map[string]string
	seen  []string // requests: "GET path range"
	// fault answers in the server's place and returns true; n counts requests from 1.
	fault func(w http.ResponseWriter, r *http.Request, n int) bool
}

var published = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newSite(t *testing.T, files map[string]string) *site {
	t.Helper()
	s := &site{t: t, format: "nginx", files: make(map[string][]byte), etags: make(map[string]string)}
	for name, data := range files {
		s.set(name, data)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	s.url = srv.URL + "/pub x/"
	return s
}

func (s *site) set(name, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name], s.etags[name] = []byte(data), fmt.Sprintf(`"%x-%d"`, len(s.seen), len(data))
}

func (s *site) origin() *object.Origin {
	s.t.Helper()
	o, err := object.NewOrigin(strings.ReplaceAll(s.url, " ", "%20"))
	if err != nil {
		s.t.Fatal(err)
	}
	stall := time.Minute
	if s.stall > 0 {
		stall = s.stall
	}
	o.Hurry(time.Millisecond, stall)
	return o
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	n, fault := len(s.seen), s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r, n) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/pub x/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if name == "" || strings.HasSuffix(name, "/") {
		s.index(w, r, name)
		return
	}
	s.mu.Lock()
	data, there := s.files[name]
	etag := s.etags[name]
	s.mu.Unlock()
	switch {
	case !there:
		http.NotFound(w, r)
	case s.bare:
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Header().Set("Last-Modified", published.Format(http.TimeFormat))
		if r.Method == http.MethodGet {
			_, _ = w.Write(data)
		}
	default:
		w.Header().Set("ETag", etag)
		w.Header().Set("Cache-Control", "max-age=5")
		http.ServeContent(w, r, name, published, bytes.NewReader(data))
	}
}

// index writes a folder's page as servers do.
func (s *site) index(w http.ResponseWriter, r *http.Request, folder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.files {
		if rest, ok := strings.CutPrefix(name, folder); ok {
			if part, _, deeper := strings.Cut(rest, "/"); deeper {
				rest = part + "/"
			}
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch s.format {
	case "json":
		w.Header().Set("Content-Type", "application/json")
		list := []map[string]any{}
		for _, name := range names {
			e := map[string]any{"name": strings.TrimSuffix(name, "/"), "type": "directory", "mtime": published.Format(http.TimeFormat)}
			if !strings.HasSuffix(name, "/") {
				e["type"], e["size"] = "file", len(s.files[folder+name])
			}
			list = append(list, e)
		}
		_ = json.NewEncoder(w).Encode(list)
	case "apache":
		fmt.Fprintf(w, "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2 Final//EN\">\n<html>\n <head>\n  <title>Index of %s</title>\n </head>\n <body>\n<table>\n", html.EscapeString(r.URL.Path))
		io.WriteString(w, `<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr><tr><td><a href="/">Parent Directory</a></td></tr>`)
		for _, name := range names {
			fmt.Fprintf(w, "<tr><td valign=\"top\"><img src=\"/icons/x.gif\" alt=\"[ ]\"></td><td><a href=\"%s\">%s</a></td><td align=\"right\">1.2K</td></tr>\n",
				html.EscapeString((&url.URL{Path: name}).String()), html.EscapeString(name))
		}
		io.WriteString(w, "</table>\n</body></html>\n")
	case "none":
		io.WriteString(w, "<html><head><title>Welcome</title></head><body><a href=\"a\">the first page</a></body></html>")
	default:
		fmt.Fprintf(w, "<html>\r\n<head><title>Index of %s</title></head>\r\n<body>\r\n<h1>Index of</h1><hr><pre><a href=\"../\">../</a>\r\n", html.EscapeString(r.URL.Path))
		for _, name := range names {
			fmt.Fprintf(w, "<a href=\"%s\">%s</a>    21-Nov-2026 10:00    7\r\n", (&url.URL{Path: name}).String(), html.EscapeString(name))
		}
		io.WriteString(w, "</pre><hr></body>\r\n</html>\r\n")
	}
}

// requests returns how many requests begin with what, and forgets all.
func (s *site) requests(what string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if strings.HasPrefix(r, what) {
			n++
		}
	}
	return n
}

func fetch(o *object.Origin, key string, offset, length int64) (string, object.Info, error) {
	r, info, err := o.Get(context.Background(), key, offset, length)
	if err != nil {
		return "", info, err
	}
	data, err := io.ReadAll(r)
	return string(data), info, errors.Join(err, r.Close())
}

var website = map[string]string{
	"a/b": "ab", "a-b": "a-b", "a/c/d.mp4": "deep", "top": "top", "z z+%?#.txt": "odd", "é/ü": "letters", "a/c.txt": "", "<&>'\"": "quoted", "a:b": "colon",
}

func TestAnOriginIsListedInTheOrderOfKeys(t *testing.T) {
	var want []string
	for key := range website {
		want = append(want, key)
	}
	slices.Sort(want)
	for _, format := range []string{"nginx", "apache", "json"} {
		s := newSite(t, website)
		s.format = format
		o := s.origin()
		var got []string
		for info, err := range o.List(t.Context(), "", "") {
			if err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			got = append(got, info.Key)
			if int(info.Size) != len(website[info.Key]) || !info.Modified.Equal(published) {
				t.Errorf("%s: %+v", format, info)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
		if n := s.requests("HEAD"); (format == "json") != (n == 0) {
			t.Errorf("%s: %d HEADs", format, n)
		}
		// From anywhere, in pages, and only where it leads.
		for i := range want {
			page, more, err := o.Page(t.Context(), "", want[i], 2)
			rest := want[i+1:]
			if err != nil || more != (len(rest) > 2) || len(page) != min(2, len(rest)) || len(page) > 0 && page[0].Key != rest[0] {
				t.Errorf("%s: behind %q: %v, %v, %v", format, want[i], page, more, err)
			}
		}
		s.mu.Lock()
		s.seen = nil
		s.mu.Unlock()
		if page, _, err := o.Page(t.Context(), "a/c/", "", 0); err != nil || len(page) != 1 || s.requests("GET") != 1 {
			t.Errorf("%s: below a/c/: %v, %v, with %q", format, page, err, s.seen)
		}
		if page, _, err := o.Page(t.Context(), "no/such/", "", 0); err != nil || len(page) != 0 {
			t.Errorf("%s: below what is not there: %v, %v", format, page, err)
		}
	}
}

func TestAnOriginThatHasNoList(t *testing.T) {
	s := newSite(t, map[string]string{"a": "a"})
	s.format = "none"
	o := s.origin()
	s.fault = nil
	_, _, err := o.Page(t.Context(), "", "", 0)
	if !myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), "--files-from") {
		t.Errorf("a page of somebody's: %v, %q", err, myrmidon.Hint(err))
	}
	for _, status := range []int{403, 404, 500} {
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool { w.WriteHeader(status); return true }
		if _, _, err := o.Page(t.Context(), "", "", 0); err == nil {
			t.Errorf("a status of %d is an empty list", status)
		}
	}
	s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"message":"hello"}`)
		return true
	}
	if _, _, err := o.Page(t.Context(), "", "", 0); !myrmidon.IsPermanent(err) {
		t.Errorf("JSON that is no list: %v", err)
	}
}

// A folder that lies in itself, as by a link, ends.
func TestAnOriginThatGoesInCircles(t *testing.T) {
	s := newSite(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		fmt.Fprintf(w, "<title>Index of x</title><a href='again/'>")
		return true
	}
	if _, _, err := s.origin().Page(t.Context(), "", "", 0); !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), "circle") {
		t.Errorf("got %v", err)
	}
	if n := s.requests("GET"); n > 100 {
		t.Errorf("after %d requests", n)
	}
}

func TestLinksThatLeadElsewhere(t *testing.T) {
	const page = `<html><title> Index of /dir/</title><body>
<a href="good">x</a><A HREF='also%20good'>x</A><a class=x href=/dir/absolute>x</a><a href="http://h/dir/whole">x</a><a href="sub/">x</a>
<a href="../up"><a href="/other/x"><a href="//evil/dir/x"><a href="https://h/dir/x"><a href="javascript:alert(1)"><a href="?C=N"><a href="x?y=1"><a href="#top">
<a href="sub/deeper"><a href="a%2Fb"><a href="..%2F..%2Fetc"><a href="%00"><a href=""><a><a href="."><a href="%zz"><abbr href="no"><a href="unclosed>`
	got, ok := object.ParseIndexHTML([]byte(page), "http://h/dir/")
	want := []string{"good", "also good", "absolute", "whole", "sub/"}
	if !ok || !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzIndexHTML(f *testing.F) {
	f.Add([]byte(`<title>Index of /</title><a href="a">a</a><a href="b/">`))
	f.Add([]byte(`<title>Directory listing for /</title><li><a href="x%2fy">`))
	f.Add([]byte("<title>index of <a\thref=&quot;x"))
	f.Fuzz(func(t *testing.T, page []byte) {
		names, _ := object.ParseIndexHTML(page, "http://h/dir/")
		for _, name := range names {
			if err := object.CheckKey("dir/" + strings.TrimSuffix(name, "/")); err != nil || strings.Contains(strings.TrimSuffix(name, "/"), "/") {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

func TestReadingAnOrigin(t *testing.T) {
	for _, bare := range []bool{false, true} {
		s := newSite(t, website)
		s.bare = bare
		o := s.origin()
		for key, data := range website {
			if got, info, err := fetch(o, key, 0, -1); got != data || err != nil || int(info.Size) != len(data) || info.Key != key {
				t.Errorf("%q: %q, %+v, %v", key, got, info, err)
			}
			if info, err := o.Head(t.Context(), key); err != nil || int(info.Size) != len(data) || !info.Modified.Equal(published) {
				t.Errorf("%q: %+v, %v", key, info, err)
			}
		}
		for _, c := range []struct {
			offset, length int64
			want           string
		}{{0, 0, ""}, {1, 2, "ee"}, {1, -1, "eep"}, {3, 100, "p"}, {4, -1, ""}, {4, 5, ""}, {0, 1 << 62, "deep"}, {2, 1<<63 - 1, "ep"}} {
			if got, info, err := fetch(o, "a/c/d.mp4", c.offset, c.length); got != c.want || err != nil || info.Size != 4 {
				t.Errorf("bare %t, %d from %d: %q, %+v, %v", bare, c.length, c.offset, got, info, err)
			}
		}
		for _, offset := range []int64{-1, 5} {
			if _, _, err := fetch(o, "a/c/d.mp4", offset, -1); !errors.Is(err, object.ErrRange) {
				t.Errorf("from %d: %v, want ErrRange", offset, err)
			}
		}
		if _, _, err := fetch(o, "nothing", 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what is not there: %v", err)
		}
		if err := o.Put(t.Context(), "k", strings.NewReader(""), 0, object.Attrs{}); !errors.Is(err, fs.ErrPermission) || !myrmidon.IsPermanent(err) {
			t.Errorf("Put: %v", err)
		}
		if err := o.Delete(t.Context(), "k"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Delete: %v", err)
		}
		if _, err := o.Head(t.Context(), "../x"); !myrmidon.IsPermanent(err) {
			t.Errorf("a bad key: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := o.Get(ended, "top", 0, -1); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	}
}

// cut sends only the first n bytes of a file, and breaks the connection.
func cut(w http.ResponseWriter, data, etag string, n int) bool {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Header().Set("Last-Modified", published.Format(http.TimeFormat))
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	_, _ = io.WriteString(w, data[:n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestBodiesOfAnOriginThatBreakOff(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB
	for name, tt := range map[string]struct {
		bare  bool
		stall time.Duration
		fault func(s *site) func(http.ResponseWriter, *http.Request, int) bool
		want  error // nil: all is read
		says  string
	}{
		"resumed by range": {fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				return n == 1 && cut(w, data, s.etags["k"], 1_000_000)
			}
		}},
		"read again where there are no ranges": {bare: true, fault: func(*site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				return n <= 2 && cut(w, data, "", 1_000_000*n)
			}
		}},
		"a storm of 503 between": {fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 3 {
					return cut(w, data, s.etags["k"], 5)
				}
				if n < 6 {
					w.WriteHeader(503)
				}
				return n < 6
			}
		}},
		"stands still": {stall: 300 * time.Millisecond, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n > 1 {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				w.Header().Set("ETag", s.etags["k"])
				w.Header().Set("Last-Modified", published.Format(http.TimeFormat))
				_, _ = io.WriteString(w, data[:100_000])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return true
			}
		}},
		"replaced meanwhile": {want: object.ErrChanged, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					etag := s.etags["k"]
					s.set("k", strings.ToUpper(data))
					return cut(w, data, etag, 1_000_000)
				}
				return false
			}
		}},
		"replaced on a server without conditions": {bare: true, want: object.ErrChanged, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				switch {
				case n == 1:
					return cut(w, data, "", 1_000_000)
				case r.Method == http.MethodHead:
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				w.Header().Set("Last-Modified", published.Add(time.Second).Format(http.TimeFormat))
				_, _ = io.WriteString(w, strings.ToUpper(data))
				return true
			}
		}},
		"replaced when it had been read": {want: object.ErrChanged, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(_ http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Method == http.MethodHead {
					s.set("k", strings.ToUpper(data))
				}
				return false
			}
		}},
		"gone meanwhile": {want: fs.ErrNotExist, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					return cut(w, data, s.etags["k"], 1_000_000)
				}
				http.NotFound(w, r)
				return true
			}
		}},
		"for ever": {says: "broke off", want: io.ErrUnexpectedEOF, fault: func(s *site) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					return cut(w, data, s.etags["k"], 10)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 10-%d/%d", len(data)-1, len(data)))
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-10))
				w.Header().Set("Last-Modified", published.Format(http.TimeFormat))
				w.Header().Set("ETag", s.etags["k"])
				w.WriteHeader(206)
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, map[string]string{"k": data})
			s.bare, s.stall = tt.bare, tt.stall
			s.fault = tt.fault(s)
			got, _, err := fetch(s.origin(), "k", 0, -1)
			if tt.want == nil && (err != nil || got != data) || !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%d bytes, %v; want %v", len(got), err, tt.want)
			}
		})
	}
}

func TestBodiesOfUnknownSize(t *testing.T) {
	data := strings.Repeat("x", 300_000)
	s := newSite(t, nil)
	chunks := func(w http.ResponseWriter, r *http.Request, n int) bool {
		_ = http.NewResponseController(w).Flush()
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, data)
		}
		return true
	}
	s.fault = chunks
	o := s.origin()
	if got, info, err := fetch(o, "k", 0, -1); got != data || info.Size != -1 || err != nil {
		t.Errorf("in chunks: %d bytes, %+v, %v", len(got), info, err)
	}
	if info, err := o.Head(t.Context(), "k"); info.Size != -1 || err != nil {
		t.Errorf("Head: %+v, %v", info, err)
	}
	// Chunks that break off cannot be resumed where nothing names the version.
	s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		_, _ = io.WriteString(w, data[:100_000])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if got, _, err := fetch(o, "k", 0, -1); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("chunks that break off: %d bytes, %v", len(got), err)
	}
	// What ends with the connection might have been cut off.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nsome")
			_ = c.Close()
		}
	}()
	old, err := object.NewOrigin("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	old.Hurry(time.Millisecond, time.Minute)
	if got, _, err := fetch(old, "k", 0, -1); !myrmidon.IsPermanent(err) {
		t.Errorf("HTTP/1.0 without a length: %q, %v", got, err)
	}
}

func TestOpenOfAnOriginComparesWithTheListing(t *testing.T) {
	s := newSite(t, map[string]string{"k": "data"})
	o := s.origin()
	src, err := o.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.Open(t.Context(), src, true)
	if err != nil || got.Info.ETag != src.ETag || got.CacheControl != "max-age=5" {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := got.Body.Close(); err != nil {
		t.Error(err)
	}
	s.set("k", "DATA")
	if _, err := o.Open(t.Context(), src, true); !errors.Is(err, object.ErrChanged) {
		t.Errorf("of what was replaced: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	s := newSite(t, map[string]string{"k": "data"})
	var to string
	s.fault = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if !strings.HasSuffix(r.URL.Path, "/from") {
			return false
		}
		http.Redirect(w, r, to, http.StatusFound)
		return true
	}
	port := s.url[strings.LastIndexByte(s.url, ':'):]
	for name, tt := range map[string]struct {
		to, want, says string
	}{
		"within":               {"/pub%20x/k", "data", ""},
		"to an address within": {"http://localhost" + port + "k", "", "no public address"},
		"to a cloud's own":     {"http://169.254.169.254/latest", "", "no public address"},
		"in a circle":          {"/pub%20x/from", "", "there were 5 before"},
		"with a password":      {"http://a:b@127.0.0.1/", "", "user name"},
		"to a file":            {"file:///etc/passwd", "", ""},
	} {
		to = tt.to
		got, _, err := fetch(s.origin(), "from", 0, -1)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestOriginsThatAreRefused(t *testing.T) {
	for _, address := range []string{"ftp://h/", "http://", "http://u:sesame@h/", "https://h/?token=sesame", "https://h/#sesame", "http://h/%zz", "://"} {
		o, err := object.NewOrigin(address)
		if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v, %v", address, o, err)
		}
	}
	if o, err := object.NewOrigin("https://h/a%20b"); err != nil || o.String() != "https://h/a%20b/" {
		t.Errorf("%v, %v", o, err)
	}
}
