package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"myrmidon/haproxy"
	"myrmidon/internal/testkit/haproxyd"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/textgrid"
)

// statsOf is what a process answers to "show info;show stat".
func statsOf(pid int, rows string) string {
	return fmt.Sprintf("Name: HAProxy\nVersion: 2.6.12\nPid: %d\nUptime_sec: 3700\nStart_time_sec: 100\nStopping: 0\nnode: n%d\n\n", pid, pid) +
		"# pxname,svname,qcur,scur,smax,slim,stot,bin,bout,ereq,econ,eresp,status,type,rate,req_tot,eint,ttime,\n" + rows + "\n"
}

const goodRows = "www,FRONTEND,,2,5,100,10,100,200,1,,,OPEN,0,3,10,0,,\n" +
	"api,web-1,0,1,2,50,4,40,80,,0,0,UP,2,1,4,0,12,\n" +
	"api,BACKEND,0,1,2,50,4,40,80,,0,0,UP,1,1,4,0,12,\n" +
	"old,BACKEND,0,0,0,50,0,0,0,,0,0,UP,1,0,0,0,0,\n"

// fakeSocket answers what is asked first by answer.
func fakeSocket(tb testing.TB, path string, answer func(conn net.Conn)) {
	tb.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				if _, err := conn.Read(make([]byte, 4096)); err == nil {
					answer(conn)
				}
			})
		}
	})
	tb.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
}

func says(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// badDays are sockets as they go wrong, by name.
func badDays(tb testing.TB) (dir string) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "hap") // paths of sockets are short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	whole := statsOf(7, goodRows)
	for name, answer := range map[string]func(net.Conn){
		"good.sock":       says(whole),
		"good2.sock":      says(strings.ReplaceAll(statsOf(8, goodRows), "web-1,0,1,2,50,4,40,80,,0,0,UP", "web-1,20,1,2,50,4,40,80,,3,0,DOWN")),
		"hang.sock":       func(conn net.Conn) { conn.Read(make([]byte, 1)) },
		"half.sock":       func(conn net.Conn) { io.WriteString(conn, whole[:300]); conn.Read(make([]byte, 1)) },
		"cut.sock":        says(whole[:len(whole)-20]),
		"nothing.sock":    says(""),
		"denied.sock":     says("Permission denied\n\n"),
		"unknown.sock":    says("Unknown command: 'show'. Please enter one of the following commands only :\n\n"),
		"other.sock":      says("220 mail.example.com ESMTP\r\n"),
		"newer.sock":      says(strings.NewReplacer("ttime,\n", "ttime,h3_new,\n", "12,\n", "12,5,\n", ",,\n", ",,,\n", "0,0,\n", "0,0,9,\n").Replace(whole)),
		"twins.sock":      says(statsOf(9, goodRows+"api,web-1,0,1,2,50,5,40,80,,0,0,UP,2,1,5,0,12,\n")),
		"utf8.sock":       says(statsOf(10, "b\xff\x1b[2J,BACKEND,0,1,2,50,4,40,80,,0,0,UP,1,1,4,0,12,\n")),
		"wide.sock":       says(statsOf(11, strings.Repeat("x", 10<<20)+",BACKEND,0,1,2,50,4,40,80,,0,0,UP,1,1,4,0,12,\n")),
		"extreme.sock":    says(statsOf(12, "api,BACKEND,0,-5,2,50,18446744073709551615,40,80,,0,0,UP,1,1,9223372036854775807,0,12,\n")),
		"otherextra.sock": says(statsOf(13, "api,BACKEND,0,-5,2,50,18446744073709551615,40,80,,0,0,UP,1,1,9223372036854775807,0,12,\n")),
	} {
		fakeSocket(tb, filepath.Join(dir, name), answer)
	}
	if err := os.WriteFile(filepath.Join(dir, "file.sock"), []byte("no socket"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// TestHAProxyScripts runs testdata/haproxy/*.txt on real processes ($A and $B, which share a
// configuration, and the master socket $MASTER) and on sockets that go wrong ($BAD).
func TestHAProxyScripts(t *testing.T) {
	long.Test(t)
	cfg := haproxyd.Config{Frontends: 2, Backends: 2, Servers: 3}
	a, b := haproxyd.Start(t, cfg), haproxyd.Start(t, cfg)
	cfg.Master = true
	master := haproxyd.Start(t, cfg)
	for _, s := range []*haproxyd.Server{a, b, master} {
		s.WaitState("be_000", "web-000-01", "DOWN")
		s.WaitState("be_000", "web-000-00", "UP")
		s.Get(0, 5, "/")
	}
	b.Get(0, 2, "/missing")
	bad := badDays(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/haproxy",
		Setup: func(e *testscript.Env) error {
			for name, value := range map[string]string{
				"A": a.Socket, "B": b.Socket, "TCP": a.TCP, "PAGE": b.Page, "MASTER": master.Master, "BAD": bad, "HOME": e.WorkDir,
			} {
				e.Setenv(name, value)
			}
			return nil
		},
	})
}

func TestServe(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 1, Backends: 1, Servers: 3})
	s.WaitState("be_000", "web-000-01", "DOWN")
	s.Get(0, 7, "/")
	t.Setenv(tokenVariable, "a secret")
	get, end := startServe(t, "--listen", "127.0.0.1:0", "--every", "50ms", s.Socket)
	want := func(path, token string, status int, parts ...string) string {
		t.Helper()
		code, body := get(path, token)
		if code != status {
			t.Fatalf("%s: status %d, want %d: %s", path, code, status, body)
		}
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("%s lacks %q:\n%.2000s", path, p, body)
			}
		}
		return body
	}
	want("/metrics", "", 401, "token")
	want("/metrics", "a secre", 401)
	want("/stats.csv", "", 401)
	want("/metrics", "a secret", 200, `haproxy_backend_status{proxy="be_000",state="UP"} 1`, "myrmidon_haproxy_target_up{target=\""+s.Socket+"\"} 1", "haproxy_frontend_http_requests_total{proxy=\"fe_000\"} 7\n")
	csv := want("/stats.csv?match=be_000&type=server&fields=scur,stot", "a secret", 200, "# pxname,svname,type,scur,stot,", "be_000,web-000-00,2,")
	if table, err := haproxy.ParseCSV([]byte(csv)); err != nil || table.Len() != 3 {
		t.Errorf("/stats.csv: %v\n%s", err, csv)
	}
	want("/stats.csv?type=horse", "a secret", 400, "horse")
	want("/stats.csv?top=-1", "a secret", 400, "top")
	want("/stats.json?fields=nonsense", "a secret", 400, "nonsense")
	var doc struct {
		Targets []struct{ Up bool }
		Rows    []map[string]any
	}
	if err := json.Unmarshal([]byte(want("/stats.json?sort=req_tot&top=1&type=backend", "a secret", 200)), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Targets) != 1 || !doc.Targets[0].Up || len(doc.Rows) != 1 || doc.Rows[0]["pxname"] != "be_000" {
		t.Errorf("/stats.json: %+v", doc)
	}
	want("/healthz", "", 200, `"status":"ok"`)
	s.Freeze()
	waitFor(t, func() bool { code, body := get("/healthz", ""); return code == 503 && strings.Contains(body, `"down"`) })
	want("/metrics", "a secret", 200, "haproxy_frontend_http_requests_total{proxy=\"fe_000\"} 7\n", "target_up{target=\""+s.Socket+"\"} 0")
	s.Thaw()
	waitFor(t, func() bool { code, _ := get("/healthz", ""); return code == 200 })
	if status := end(); status != 0 {
		t.Errorf("it ended with %d", status)
	}
}

func TestServeBreaksDownByProcessAndLabels(t *testing.T) {
	long.Test(t)
	dir := badDays(t)
	file := filepath.Join(dir, "targets.yaml")
	text := "targets:\n  - {address: " + dir + "/good.sock, name: one, labels: {site: fra}}\n  - {address: " + dir + "/hang.sock, name: two}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	get, end := startServe(t, "--listen", "127.0.0.1:0", "--every", "50ms", "--timeout", "100ms", "--breakdown", "--type", "backend", "--targets", file)
	// A poll may find that the good one, too, is late.
	shows := func(path string, status int, parts ...string) (body string) {
		t.Helper()
		waitFor(t, func() bool {
			code, text := get(path, "")
			body = text
			return code == status && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
		})
		return body
	}
	body := shows("/metrics", 200, `haproxy_backend_http_requests_total{process="one",site="fra",proxy="api"} 4`, `target_up{target="one"} 1`, `target_up{target="two"} 0`)
	if strings.Contains(body, "haproxy_frontend") {
		t.Errorf("/metrics:\n%s", body)
	}
	shows("/healthz", 503, "partial", "two")
	// The file is looked at again.
	if err := os.WriteFile(file, []byte("targets:\n  - {address: "+dir+"/good.sock, name: one}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { code, _ := get("/healthz", ""); return code == 200 })
	if status := end(); status != 0 {
		t.Errorf("it ended with %d", status)
	}
}

// startServe runs serve within the test. get asks it, end ends it and returns its status.
func startServe(t *testing.T, args ...string) (get func(path, token string) (int, string), end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var stderr lockedBuffer
	a := &app{stdout: io.Discard, stderr: &stderr}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, append([]string{"haproxy", "serve"}, args...)) }()
	t.Cleanup(cancel)
	var base string
	waitFor(t, func() bool {
		_, rest, found := strings.Cut(stderr.String(), "serving ")
		base, _, _ = strings.Cut(rest, "/metrics")
		return found && strings.Contains(rest, "/metrics")
	})
	client := http.Client{Timeout: 10 * time.Second}
	get = func(path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	return get, func() int {
		client.CloseIdleConnections()
		cancel()
		select {
		case status := <-done:
			return status
		case <-time.After(20 * time.Second):
			t.Fatal("it does not end")
		}
		return -1
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
	}
}

func TestListeningBeyondLoopbackNeedsATokenOrTLS(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:9101": true, "[::1]:9101": true, "localhost:9101": true, "127.9.9.9:1": true,
		":9101": false, "0.0.0.0:9101": false, "[::]:9101": false, "10.0.0.1:9101": false, "lb.example.com:9101": false, "nonsense": false,
	} {
		if got := loopback(listen); got != want {
			t.Errorf("loopback(%s) = %v", listen, got)
		}
	}
}

func TestTheTableOfStatsFitsTheTerminal(t *testing.T) {
	rows := strings.ReplaceAll(goodRows, "api,", "a_backend_with_a_rather_long_name_indeed,")
	data := []byte(statsOf(1, rows))
	table, err := haproxy.ParseCSV(data[bytes.Index(data, []byte("# ")):])
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{40, 80, 120, 200} {
		var out bytes.Buffer
		grid := statsTable(table.View(haproxy.Filter{}), width)
		if err := grid.Write(&out, width, false); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		for _, l := range lines {
			if n := textgrid.Width(l); n > width {
				t.Errorf("%d columns: a line takes %d: %q", width, n, l)
			}
		}
		for _, must := range []string{"PROXY/SERVER", "STATE"} {
			if !strings.Contains(lines[0], must) {
				t.Errorf("%d columns: %q lacks %s", width, lines[0], must)
			}
		}
		if width >= 80 && !strings.Contains(lines[0], "ERRORS") || width == 200 && !strings.Contains(out.String(), "_indeed/web-1") {
			t.Errorf("%d columns:\n%s", width, out.String())
		}
	}
}

func TestShortNumbers(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", -5: "-5", 9999: "9999", 10000: "10.0k", 99949: "99.9k", 123456: "123k", 999999: "1.0M", 12_345_678: "12.3M", 1 << 62: "4.6E",
	} {
		if got := short(n); got != want {
			t.Errorf("short(%d) = %s, want %s", n, got, want)
		}
	}
}
