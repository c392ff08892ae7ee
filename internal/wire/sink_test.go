package wire

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
)

func TestSinksByAddress(t *testing.T) {
	t.Setenv("AWS_REGION", "us-east-1")
	dir := t.TempDir()
	for _, c := range []struct{ address, want string }{
		{"-", "*sink.Writer "},
		{dir + "/a.ndjson", "*sink.File " + dir + "/a.ndjson"},
		{"file://" + dir + "/b%20c.ndjson?rotate-bytes=1000&rotate-after=1h", "*sink.File " + dir + "/b c.ndjson"},
		{"lumberjack://logstash:5044", "*sink.Lumberjack lumberjack://logstash:5044"},
		{"lumberjack://[::1]:5044/?window=10&compress=3&connections=4&time=@timestamp", "*sink.Lumberjack lumberjack://[::1]:5044"},
		{"lumberjacks://logstash:5044", "*sink.Lumberjack lumberjacks://logstash:5044"},
		{"tcp://h:1?time=%40timestamp", "*sink.TCP tcp://h:1"},
		{"tls+tcp://h:1", "*sink.TCP tls+tcp://h:1"},
		{"https://elastic:9200/alb", "*elastic.Sink https://elastic:9200/alb"},
		{"http://proxy/es/alb/?gzip=false", "*elastic.Sink http://proxy/es/alb"},
		{"kinesis://events?region=eu-west-1&endpoint=http://h:4567", "*kinesis.Sink kinesis://events"},
		{"s3://bucket/logs", "*objects.Sink s3://bucket/logs/"},
	} {
		s, err := Sink(c.address)
		if err != nil {
			t.Errorf("%s: %v", c.address, err)
			continue
		}
		name := ""
		if text, ok := s.(fmt.Stringer); ok {
			name = text.String()
		}
		if got := fmt.Sprintf("%T %s", s, name); got != c.want {
			t.Errorf("%s is %s, want %s", c.address, got, c.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAddressesOfSinksThatAreRefused(t *testing.T) {
	t.Setenv("AWS_REGION", "us-east-1")
	dir := t.TempDir()
	for _, c := range []struct{ address, problem string }{
		{"", "no scheme"},
		{"logstash:5044", "no scheme"},
		{"gopher://h:1", `"gopher"`},
		{"lumberjack://logstash", "host:port"},
		{"lumberjack://h:1/index", "nothing follows"},
		{"lumberjack://us:sesame@h:1", "password"},
		{"https://us:sesame@h/index", "password"},
		{"https://us%3Asesame@h/index", "password"},
		{"https://h/index?api_token=sesame", "holds no secrets"},
		{"https://h/index?Password=sesame", "holds no secrets"},
		{"https://h/index?pipeline=x", `"pipeline" is not known`},
		{"https://h/", "index"},
		{"https://h/index?gzip=maybe", "true or false"},
		{"lumberjack://h:1?window=0", "window=0"},
		{"lumberjack://h:1?window=many", "no number"},
		{"lumberjack://h:1?compress=10", "compress=10"},
		{"lumberjack://h:1?connections=", "has no value"},
		{"lumberjack://h:1?window=1&window=2", "comes twice"},
		{"lumberjack://h:1?ca=x", `"ca" is not known`},
		{"lumberjacks://h:1?ca=/does/not/exist", "cannot be read"},
		{"lumberjacks://h:1?ca=" + os.Args[0], "no certificate"},
		{"lumberjacks://h:1?cert=x", "come together"},
		{"tcp://h:1?time=%22", "name of the time"},
		{"file://host/x", "three slashes"},
		{"file://" + dir, "is a folder"},
		{"file:///x?rotate-after=soon", "rotate-after"},
		{"kinesis://", "name of a stream"},
		{"kinesis://AKID:sesame@events", "password"},
		{"kinesis://events/x", "no /"},
		{"kinesis://events?endpoint=http://us:sesame@h", "endpoint"},
		{"s3://us:sesame@b/x", "name of a bucket"},
	} {
		_, err := Sink(c.address)
		if err == nil || !strings.Contains(err.Error(), c.problem) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" && !strings.HasPrefix(c.address, "tcp") {
			t.Errorf("%s: %v (hint %q), want a permanent error about %q with a hint", c.address, err, myrmidon.Hint(err), c.problem)
		}
		if err != nil && strings.Contains(err.Error()+myrmidon.Hint(err), "sesame") {
			t.Errorf("%s: the secret is in the error: %v", c.address, err)
		}
	}
}

// TestSinksDeliver sends through addresses, as a command does.
func TestSinksDeliver(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "ELASTICSEARCH_API_KEY", "ELASTICSEARCH_USERNAME", "ELASTICSEARCH_PASSWORD"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKID")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	listen := func() net.Listener {
		l, err := sinkfault.Listen()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	jack, lines := sinkfault.NewLumberjack(listen(), nil), sinkfault.NewLines(listen(), nil)
	defer jack.Close()
	defer lines.Close()
	bulk, streams := sinkfault.NewBulk(nil), sinkfault.NewKinesis("events", nil)
	elasticServer, kinesisServer := httptest.NewServer(bulk), httptest.NewServer(streams)
	defer elasticServer.Close()
	defer kinesisServer.Close()
	file := filepath.Join(t.TempDir(), "out.ndjson")
	for address, received := range map[string]func() []string{
		"lumberjack://" + jack.Addr() + "?compress=1":                     jack.Received,
		"tcp://" + lines.Addr():                                           lines.Received,
		elasticServer.URL + "/alb":                                        bulk.Received,
		"kinesis://events?region=us-east-1&endpoint=" + kinesisServer.URL: streams.Received,
		"file://" + file: func() []string {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
			}
			return strings.Fields(string(data))
		},
	} {
		s, err := Sink(address)
		if err != nil {
			t.Fatal(err)
		}
		b := sink.NewBatcher(s, sink.BatcherConfig{})
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprintf(`{"n":%d}`, i))
			if _, err := b.Add(t.Context(), sink.Record{ID: fmt.Sprint(i), Data: []byte(want[i])}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(b.Close(t.Context()), s.Close()); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(received())); !slices.Equal(got, want) {
			t.Errorf("%s: %d of 100 have arrived", address, len(got))
		}
	}
}

// TestParametersOfSinksAreHeeded looks at what comes out, not at what was read.
func TestParametersOfSinksAreHeeded(t *testing.T) {
	send := func(address string) {
		t.Helper()
		s, err := Sink(address)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 20, 13, 0, 0, 0, time.FixedZone("", 3600))
		for i := range 2 {
			if err := s.Send(t.Context(), []sink.Record{{ID: "id", Time: at, Data: fmt.Appendf(nil, `{"n":%d}`, i)}}); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	var packed []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		packed = append(packed, r.Header.Get("Content-Encoding"))
		fmt.Fprint(w, `{"items":[{"create":{"status":201}}]}`)
	}))
	defer srv.Close()
	send(srv.URL + "/alb")
	send(srv.URL + "/alb?gzip=false")
	send(srv.URL + "/alb?gzip=true")
	if want := []string{"gzip", "gzip", "", "", "gzip", "gzip"}; !slices.Equal(packed, want) {
		t.Errorf("requests are packed with %q, want %q", packed, want)
	}
	for query, want := range map[string][]string{
		"":                  {`{"n":0}` + "\n" + `{"n":1}` + "\n"},
		"?rotate-after=1h":  {`{"n":0}` + "\n" + `{"n":1}` + "\n"},
		"?rotate-after=1ns": {`{"n":0}` + "\n", `{"n":1}` + "\n"},
		"?rotate-bytes=8":   {`{"n":0}` + "\n", `{"n":1}` + "\n"},
		"?time=at":          {`{"at":"2026-11-20T12:00:00.000Z","n":0}` + "\n" + `{"at":"2026-11-20T12:00:00.000Z","n":1}` + "\n"},
	} {
		dir := t.TempDir()
		send("file://" + dir + "/out.ndjson" + query)
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(data))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q makes files of %q, want %q", query, got, want)
		}
	}
}
