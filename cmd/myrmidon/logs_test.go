package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elastic/go-lumber/lj"
	lumber "github.com/elastic/go-lumber/server/v2"

	"myrmidon/engine"
	"myrmidon/internal/logs"
	"myrmidon/internal/testkit/kinesalite"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3server"
	"myrmidon/internal/testkit/sinkfault"
)

// logShop is the program beside a real S3 server with logs in it.
type logShop struct {
	t       *testing.T
	program string
	dir     string
	s3      *s3server.Server
	env     []string
	lines   int
}

const logFolder = "AWSLogs/123456789012/elasticloadbalancing/eu-west-1/2026/11/20/"

func newLogShop(t *testing.T, objects, lines int) *logShop {
	t.Helper()
	program, err := exec.LookPath("myrmidon") // TestMain puts it there
	if err != nil {
		t.Fatal(err)
	}
	s := &logShop{t: t, program: program, dir: t.TempDir(), s3: s3server.Start(t)}
	s.s3.Bucket(t, "logs")
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for o := range objects {
		var b bytes.Buffer
		for i := range lines {
			b.WriteString(balancerLine(at.Add(time.Duration(o*lines+i)*time.Millisecond), 200+(i%4)*100, i))
		}
		key := fmt.Sprintf("%s123456789012_elasticloadbalancing_eu-west-1_app.web.50dc6c495c0c9188_20261120T%02d%02dZ_10.0.0.1_%x.log", logFolder, 12+o/60, o%60, o)
		if o%3 == 0 {
			key += "+odd key%41"
		}
		if o%4 == 3 {
			s.put(key, b.Bytes()) // plain
		} else {
			s.put(key+".gz", zipped(t, b.Bytes()))
		}
		s.lines += lines
	}
	return s
}

func balancerLine(at time.Time, status, n int) string {
	when := at.Format("2006-01-02T15:04:05.000000Z")
	return fmt.Sprintf(`https %s app/web/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 %d 200 0 57 "GET https://www.example.com:443/item/%d?token=s3cret HTTP/1.1" "curl/7.46.0" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/t/73e2d6bc24d8a067 "Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "-" 1 %s "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"`+"\n", when, status, n, when)
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// put stores an object by the folder that the server keeps its bucket in.
func (s *logShop) put(key string, data []byte) {
	s.t.Helper()
	path := filepath.Join(s.s3.Dir(), "logs", filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *logShop) command(args ...string) *exec.Cmd {
	c := exec.Command(s.program, args...)
	c.Dir = s.dir
	c.Env = append(append(os.Environ(), s.s3.Env()...), "MYRMIDON_STATE="+filepath.Join(s.dir, "state"))
	c.Env = append(c.Env, s.env...)
	return c
}

// run runs a command to its end, and returns its summary.
func (s *logShop) run(want int, args ...string) (sum logs.Summary, problems string) {
	s.t.Helper()
	c := s.command(args...)
	var out, told bytes.Buffer
	c.Stdout, c.Stderr = &out, &told
	if exit := status(c.Run()); exit != want {
		s.t.Fatalf("myrmidon %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), exit, want, out.String(), told.String())
	}
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		s.t.Fatalf("%v\n%s%s", err, out.String(), told.String())
	}
	if err := sum.Lines.Check(); err != nil {
		s.t.Error(err)
	}
	return sum, told.String()
}

// ids counts documents by their ID.
func ids(t *testing.T, docs []string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	for _, d := range docs {
		var doc struct {
			ID   string    `json:"id"`
			Time time.Time `json:"@timestamp"`
			URL  string    `json:"request_url"`
		}
		if err := json.Unmarshal([]byte(d), &doc); err != nil || doc.ID == "" || doc.Time.IsZero() || doc.URL == "" {
			t.Fatalf("%v: %s", err, d)
		}
		out[doc.ID]++
	}
	return out
}

// logstash is Elastic's own server of Lumberjack.
func logstash(t *testing.T) (addr string, received func() []string) {
	t.Helper()
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := lumber.NewWithListener(l, lumber.JSONDecoder(func(b []byte, v any) error {
		*v.(*any) = string(b)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu      sync.Mutex
		docs    []string
		reading sync.WaitGroup
	)
	keep := func(b *lj.Batch) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range b.Events {
			docs = append(docs, e.(string))
		}
		b.ACK()
	}
	reading.Go(func() {
		for b := range srv.ReceiveChan() {
			keep(b)
		}
	})
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		reading.Wait()
	})
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(docs)
	}
}

func TestLogsFromABucketToLogstash(t *testing.T) {
	s := newLogShop(t, 9, 700)
	addr, received := logstash(t)
	sum, _ := s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "lumberjack://"+addr, "-q", "--redact-query")
	got := ids(t, received())
	if len(got) != s.lines || sum.Lines.Encountered != int64(s.lines) || sum.Lines.Acked != int64(s.lines) || sum.Objects.Read != 9 {
		t.Errorf("%d of %d lines arrived; %+v", len(got), s.lines, sum)
	}
	if sum.Connections.Created == 0 || sum.Connections.Created != sum.Connections.Destroyed {
		t.Errorf("%+v", sum.Connections)
	}
	if all := strings.Join(received(), "\n"); strings.Contains(all, "s3cret") || !strings.Contains(all, "odd key%41.gz") {
		t.Error("a query was not redacted, or a key is not as it is")
	}
	// The same again: the same IDs, so whoever groups by them has each line once.
	s.run(0, "logs", "ship", "s3://logs", "--to", "lumberjack://"+addr, "-q")
	if again := ids(t, received()); len(again) != s.lines {
		t.Errorf("%d IDs of %d lines", len(again), s.lines)
	}
	// By time and condition.
	sum, _ = s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "out.ndjson", "-q",
		"--since", "2026-11-20T12:00:01Z", "--until", "2026-11-20T12:00:02Z", "--where", "elb_status_code >= 500")
	if sum.Lines.Acked != 250 || sum.Lines.Parsed != sum.Lines.Acked+sum.Lines.Filtered {
		t.Errorf("%+v", sum.Lines)
	}
}

// The article's: with tens of lines the process ended before they were sent, and nobody knew.
func TestAFewLogLinesArriveBeforeTheEnd(t *testing.T) {
	s := newLogShop(t, 2, 7)
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	lines := sinkfault.NewLines(l, func(int) sinkfault.Peer { return sinkfault.Peer{Slow: 5 * time.Millisecond} })
	defer lines.Close()
	sum, _ := s.run(0, "logs", "ship", "s3://logs/", "--to", "tcp://"+lines.Addr(), "-q")
	if got := ids(t, lines.Received()); len(got) != s.lines || !sum.Unconfirmed {
		t.Errorf("%d of %d lines arrived; %+v", len(got), s.lines, sum)
	}
	// And that there are none at all is noticed.
	_, problems := s.run(3, "logs", "ship", "s3://logs/other/", "--to", "none.ndjson", "-q", "--expect", "10m")
	if !strings.Contains(problems, "no line at all") {
		t.Error(problems)
	}
}

// The article's: too many connections. What a process may not open is refused at its start,
// with the numbers; a soft limit is raised, and no more connections are made than were asked for.
func TestLogConnectionsStayWithinTheLimits(t *testing.T) {
	s := newLogShop(t, 20, 40)
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := sinkfault.NewLumberjack(l, func(int) sinkfault.Window { return sinkfault.Window{Late: 5 * time.Millisecond} })
	defer server.Close()
	ship := func(limit, connections string) (int, string) {
		t.Helper()
		c := s.command("logs", "ship", "s3://logs/AWSLogs/", "--to", "lumberjack://"+server.Addr()+"?connections="+connections, "-q", "--slots", "6")
		c.Args = append([]string{"sh", "-c", limit + `; exec "$0" "$@"`, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		out, err := c.CombinedOutput()
		return status(err), string(out)
	}
	if exit, out := ship("ulimit -n 400", "1000"); exit != 2 || !strings.Contains(out, "1054 files and connections") || !strings.Contains(out, "may have 400") {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	if n := server.Connections(); n > 0 {
		t.Errorf("%d connections were made nevertheless", n)
	}
	if exit, out := ship("ulimit -Sn 20", "3"); exit != 0 {
		t.Errorf("exit status %d\n%s", exit, out)
	}
	if got := ids(t, server.Received()); len(got) != s.lines || server.Connections() > 3 || server.Connections() == 0 {
		t.Errorf("%d of %d lines by %d connections", len(got), s.lines, server.Connections())
	}
}

func TestLogsToElasticsearchAreParkedOneByOne(t *testing.T) {
	long.Test(t)
	s := newLogShop(t, 3, 400)
	var refusing atomic.Bool
	refusing.Store(true)
	bulk := sinkfault.NewBulk(func(request int) sinkfault.Call {
		if request%4 == 1 {
			return sinkfault.Call{Status: 503, Error: "unavailable"}
		}
		if request%4 == 2 {
			return sinkfault.Call{Lose: true}
		}
		return sinkfault.Call{Item: func(_ int, doc string) string {
			if refusing.Load() && strings.Contains(doc, "/item/13?") {
				return "400 mapper_parsing_exception"
			}
			return ""
		}}
	})
	srv := httptest.NewServer(bulk)
	defer srv.Close()
	sum, problems := s.run(3, "logs", "ship", "s3://logs/", "--to", srv.URL+"/alb", "-q", "--parked-to", "parked.jsonl")
	if sum.Lines.Failed != 3 || sum.Lines.Acked != int64(s.lines-3) || sum.Failures["sending"].Total != 3 || !strings.Contains(problems, "runs retry") {
		t.Errorf("%+v\n%s", sum, problems)
	}
	aside, err := os.ReadFile(filepath.Join(s.dir, "parked.jsonl"))
	if err != nil || bytes.Count(aside, []byte("/item/13?")) != 3 || bytes.Count(aside, []byte("\n")) != 3 {
		t.Errorf("%v\n%s", err, aside)
	}
	// Each object has a line that was refused, and all others arrived.
	if out, err := s.command("runs", "--json").Output(); err != nil || !bytes.Contains(out, []byte(`"state":"partial"`)) {
		t.Errorf("%v\n%s", err, out)
	}
	refusing.Store(false)
	sum, _ = s.run(0, "runs", "retry", "latest", "-q")
	if sum.Lines.Failed != 0 || sum.Lines.Acked != int64(s.lines) {
		t.Errorf("after the retry: %+v", sum.Lines)
	}
	if aside, err := os.ReadFile(filepath.Join(s.dir, "parked.jsonl")); err != nil || len(aside) > 0 {
		t.Errorf("--parked-to is not as after the retry: %v\n%s", err, aside)
	}
	docs := bulk.Received()
	if got := ids(t, docs); len(got) != s.lines || len(docs) != s.lines {
		t.Errorf("%d documents with %d IDs are stored, of %d lines", len(docs), len(got), s.lines)
	}
}

// streamed are the documents in the stream access.
func streamed(t *testing.T, server *kinesalite.Server) (docs []string) {
	t.Helper()
	records, err := server.Records(t.Context(), "access")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		docs = append(docs, string(r.Data))
	}
	return docs
}

func TestLogsToKinesis(t *testing.T) {
	s := newLogShop(t, 2, 600)
	server := kinesalite.Start(t)
	if err := server.Create(t.Context(), "access", 2); err != nil {
		t.Fatal(err)
	}
	sum, _ := s.run(0, "logs", "ship", "s3://logs/", "--to", "kinesis://access?region=us-east-1&endpoint="+server.Endpoint, "-q")
	docs := streamed(t, server)
	if got := ids(t, docs); len(got) != s.lines || sum.Lines.Acked != int64(s.lines) {
		t.Errorf("%d of %d lines arrived; %+v", len(got), s.lines, sum.Lines)
	}
}

// TestAKilledShipmentLosesNothing kills the program at random, while its destination dies
// in mid-window, acknowledges late, twice and in part.
func TestAKilledShipmentLosesNothing(t *testing.T) {
	long.Test(t)
	t.Parallel()
	s := newLogShop(t, 12, 14_000)
	random := rand.New(rand.NewPCG(5, 6))
	var mu sync.Mutex
	dice := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := sinkfault.NewLumberjack(l, func(int) sinkfault.Window {
		switch dice(40) {
		case 0:
			return sinkfault.Window{Die: true, Keep: dice(1024)}
		case 1:
			return sinkfault.Window{Late: 30 * time.Millisecond}
		case 2:
			return sinkfault.Window{Acks: []uint32{uint32(dice(1024)), 1024}}
		case 3:
			return sinkfault.Window{Die: true, Keep: 1 << 20, Acks: []uint32{uint32(dice(1024))}}
		}
		return sinkfault.Window{Late: 6 * time.Millisecond}
	})
	defer server.Close()
	args := []string{"logs", "ship", "s3://logs/", "--to", "lumberjack://" + server.Addr(), "-q"}
	kills := 0
	for range 6 {
		c := s.command(args...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("ended with %v before it was killed\n%s", err, out.String())
		case <-time.After(time.Duration(150+dice(400)) * time.Millisecond):
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		kills++
		state, err := engine.OpenState(filepath.Join(s.dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := state.Find("latest"); err == nil { // or it was killed before there was a run
			args = []string{"runs", "resume", "latest", "-q"}
		}
	}
	sum, problems := s.run(0, args...)
	docs := server.Received()
	got := ids(t, docs)
	t.Logf("%d kills: %d lines, %d documents arrived with %d IDs", kills, s.lines, len(docs), len(got))
	if len(got) != s.lines || sum.Lines.Encountered != int64(s.lines) || sum.Lines.Acked != int64(s.lines) || sum.Objects.Read != 12 {
		t.Errorf("%+v\n%s", sum, problems)
	}
}

func TestLogsAreParsedAtTheTerminal(t *testing.T) {
	s := newLogShop(t, 2, 50)
	c := s.command("logs", "parse", "s3://logs/", "--where", "elb_status_code >= 500", "--fields", "elb_status_code,time")
	out, err := c.Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 24 || bytes.Count(out, []byte(`"elb_status_code":500}`)) != 24 {
		t.Errorf("%v\n%s", err, out)
	}
	c = s.command("logs", "parse")
	c.Stdin = strings.NewReader(balancerLine(time.Now(), 200, 1) + "what?\n")
	var told bytes.Buffer
	c.Stderr = &told
	out, err = c.Output()
	if status(err) != 3 || bytes.Count(out, []byte("\n")) != 1 || !strings.Contains(told.String(), "standard input line 2 at byte") {
		t.Errorf("%v\n%s%s", err, out, told.String())
	}
}

func TestTheMostFrequentLogLinesFirst(t *testing.T) {
	s := newLogShop(t, 2, 50)
	out, err := s.command("logs", "top", "s3://logs/", "--by", "elb_status_code,path", "--where", "elb_status_code != 300", "-n", "3", "-q").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 4 || strings.Join(strings.Fields(lines[0]), " ") != "LINES SHARE ELB_STATUS_CODE PATH" || strings.Join(strings.Fields(lines[1]), " ") != "2 2.7 % 200 /item/0" {
		t.Errorf("%q", lines)
	}
	// The same by the names that are short.
	out, err = s.command("logs", "top", "s3://logs/", "--by", "target,status,path", "--where", "status != 300", "-n", "3", "-q").Output()
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), "LINES SHARE TARGET STATUS PATH 2 2.7 % 10.0.0.1 200 /item/0 ") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = s.command("logs", "fields", "alb").Output(); err != nil || !strings.Contains(string(out), "  host,path\n") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, by := range []string{"nope", "", "status,"} {
		if status(s.command("logs", "top", "s3://logs/", "--by", by).Run()) != 2 {
			t.Errorf("--by %q was taken", by)
		}
	}
}
