package sink_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elastic/go-lumber/lj"
	lumberlog "github.com/elastic/go-lumber/log"
	lumber "github.com/elastic/go-lumber/server/v2"
	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
	"myrmidon/sink/sinktest"
)

// quiet is a logger for go-lumber's server, which tells of each connection.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}
func (quiet) Print(...any)          {}

func TestMain(m *testing.M) {
	lumberlog.Logger = quiet{}
	os.Exit(m.Run())
}

// record returns a record with an ID.
func record(n int) sink.Record {
	return sink.Record{ID: fmt.Sprint("id-", n), Data: fmt.Appendf(nil, `{"n":%d}`, n), Key: fmt.Sprint("k", n%7)}
}

func records(n int) []sink.Record {
	out := make([]sink.Record, n)
	for i := range out {
		out[i] = record(i)
	}
	return out
}

func texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = string(record(i).Data)
	}
	return out
}

func lines(text []byte) []string {
	out := []string{}
	for line := range bytes.Lines(text) {
		out = append(out, strings.TrimSuffix(string(line), "\n"))
	}
	return out
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// authority returns what a server for 127.0.0.1 and its clients need for TLS.
func authority(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: roots}
}

func TestFileIsASink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		path := filepath.Join(t.TempDir(), "new", "out.ndjson")
		s, err := sink.NewFile(sink.FileConfig{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return sinktest.Opened{Sink: s, Received: func() []string {
			data, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			return lines(data)
		}}
	}, sinktest.Options{})
}

func TestWriterIsASink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		var out bytes.Buffer
		s, err := sink.NewWriter(&out, "")
		if err != nil {
			t.Fatal(err)
		}
		return sinktest.Opened{Sink: s, Received: func() []string { return lines(out.Bytes()) }}
	}, sinktest.Options{})
}

func TestTCPIsASink(t *testing.T) {
	server, client := authority(t)
	for name, over := range map[string]*tls.Config{"plain": nil, "TLS": client} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Opened {
				l := listen(t)
				if over != nil {
					l = tls.NewListener(l, server)
				}
				peer := sinkfault.NewLines(l, nil)
				t.Cleanup(peer.Close)
				s, err := sink.NewTCP(sink.TCPConfig{Conns: sink.Conns{Address: peer.Addr(), TLS: over}})
				if err != nil {
					t.Fatal(err)
				}
				return sinktest.Opened{Sink: s, Received: peer.Received}
			}, sinktest.Options{})
		})
	}
}

// TestLumberjackIsASink runs against Elastic's own server.
func TestLumberjackIsASink(t *testing.T) {
	server, client := authority(t)
	for _, c := range []struct {
		name   string
		over   *tls.Config
		level  int
		window int
	}{{"plain", nil, 0, 0}, {"packed", nil, 3, 0}, {"over TLS, in small windows", client, 0, 100}} {
		t.Run(c.name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Opened {
				addr, received := goLumber(t, c.over != nil, server)
				s, err := sink.NewLumberjack(sink.LumberjackConfig{
					Conns: sink.Conns{Address: addr, TLS: c.over}, Compress: c.level, Window: c.window,
				})
				if err != nil {
					t.Fatal(err)
				}
				return sinktest.Opened{Sink: s, Received: received}
			}, sinktest.Options{})
		})
	}
}

// goLumber runs go-lumber's server, which keeps documents as they come.
func goLumber(t testing.TB, secure bool, cfg *tls.Config) (addr string, received func() []string) {
	t.Helper()
	l := listen(t)
	if secure {
		l = tls.NewListener(l, cfg)
	}
	srv, err := lumber.NewWithListener(l, lumber.JSONDecoder(func(b []byte, v any) error {
		*v.(*any) = string(b)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	docs := []string{}
	var reading sync.WaitGroup
	reading.Go(func() {
		for batch := range srv.ReceiveChan() {
			keep(&mu, &docs, batch)
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

func keep(mu *sync.Mutex, docs *[]string, batch *lj.Batch) {
	mu.Lock()
	defer mu.Unlock()
	for _, e := range batch.Events {
		*docs = append(*docs, e.(string))
	}
	batch.ACK()
}

func TestATimeIsAddedWhereItIsAskedFor(t *testing.T) {
	at := time.Date(2026, 11, 21, 20, 1, 2, 3_456_789, time.FixedZone("", 3600))
	for data, want := range map[string]string{
		`{"a":1}`:          `{"@timestamp":"2026-11-21T19:01:02.003Z","a":1}`,
		`{}`:               `{"@timestamp":"2026-11-21T19:01:02.003Z"}`,
		"{ \t }":           "{\"@timestamp\":\"2026-11-21T19:01:02.003Z\" \t }",
		`[1]`:              `[1]`,
		`{ "Timestamp":1}`: `{"@timestamp":"2026-11-21T19:01:02.003Z", "Timestamp":1}`,
	} {
		var out bytes.Buffer
		s, err := sink.NewWriter(&out, "@timestamp")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), []sink.Record{{Data: []byte(data), Time: at}}); err != nil || out.String() != want+"\n" {
			t.Errorf("%s became %s, %v; want %s", data, &out, err, want)
		}
	}
	if _, err := sink.NewWriter(nil, `"`); !myrmidon.IsPermanent(err) {
		t.Errorf("a quote as the name of the time: %v", err)
	}
}

func TestTheErrorsOfPartsAreMerged(t *testing.T) {
	bad := errors.New("bad")
	refuse := func(r sink.Record) error {
		if n := r.ID[len(r.ID)-1]; n == '1' || n == '3' {
			return bad
		}
		return nil
	}
	good, at, refused := sink.Sort(records(5), refuse)
	if len(good) != 3 || !slices.Equal(at, []int{0, 2, 4}) || len(refused) != 2 {
		t.Fatalf("Sort = %v, %v, %v", good, at, refused)
	}
	later := errors.New("later")
	indexes := func(err error) (out []int) {
		var p *sink.PartialError
		if errors.As(err, &p) {
			for _, f := range p.Failed {
				out = append(out, f.Index)
			}
		}
		return out
	}
	for _, c := range []struct {
		name string
		err  error
		want []int
	}{
		{"the good were taken", nil, []int{1, 3}},
		{"one of the good was not", &sink.PartialError{Total: 3, Failed: []sink.Failed{{Index: 1, Err: later}}}, []int{1, 2, 3}},
		{"none was", later, []int{0, 1, 2, 3, 4}},
		{"the last was not", sink.Rest(3, 2, later), []int{1, 3, 4}},
	} {
		if got := indexes(sink.Merge(5, at, refused, c.err)); !slices.Equal(got, c.want) {
			t.Errorf("%s: failed are %v, want %v", c.name, got, c.want)
		}
	}
	if err := sink.Merge(5, at, refused, myrmidon.Permanent(later)); !myrmidon.IsPermanent(err) || indexes(err) != nil {
		t.Errorf("a permanent error of all: %v", err)
	}
}

func TestAFilesEndIsMended(t *testing.T) {
	for _, c := range []struct{ name, before, want string }{
		{"a whole line stays", "{\"a\":1}\n", "{\"a\":1}\n{\"n\":0}\n"},
		{"a piece of a document is cut off", "{\"a\":1}\n{\"b\":", "{\"a\":1}\n{\"n\":0}\n"},
		{"a piece of the first document is cut off", "{\"b\":", "{\"n\":0}\n"},
		{"a long piece is cut off", "{}\n{\"long\":\"" + strings.Repeat("x", 200<<10), "{}\n{\"n\":0}\n"},
		{"a document without its end gets one", "{\"a\":1}", "{\"a\":1}\n{\"n\":0}\n"},
		{"what is no document stays", "hosts", "hosts\n{\"n\":0}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.ndjson")
			if err := os.WriteFile(path, []byte(c.before), 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := sink.NewFile(sink.FileConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Send(t.Context(), records(1)), s.Close()); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != c.want {
				t.Errorf("%.100q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestAFileIsPutAside(t *testing.T) {
	for name, cfg := range map[string]sink.FileConfig{
		"by size":        {RotateBytes: 2 * int64(len(texts(1)[0])+1)}, // two lines fit
		"by little size": {RotateBytes: 1},
		"by time":        {RotateAfter: time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg.Path = filepath.Join(dir, "out.ndjson")
			s, err := sink.NewFile(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 9 {
				if err := s.Send(t.Context(), []sink.Record{record(i)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "out*.ndjson"))
			if err != nil || len(files) < 3 {
				t.Fatalf("files %v, %v; want 3 at least", files, err)
			}
			slices.Sort(files) // "-" comes before ".": out.ndjson is the last
			var got []string
			for _, f := range files {
				data, err := os.ReadFile(f)
				want := 1
				if name == "by size" && f != cfg.Path {
					want = 2
				}
				if n := len(lines(data)); err != nil || n != want || !bytes.HasSuffix(data, []byte("\n")) {
					t.Errorf("%s holds %d bytes, %v; want %d lines", f, len(data), err, want)
				}
				got = append(got, lines(data)...)
			}
			if diff := cmp.Diff(texts(9), got); diff != "" {
				t.Errorf("in all files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAFullDiskLeavesWholeLines(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	s, err := sink.NewFile(sink.FileConfig{Path: "/dev/full"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), records(1)); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Errorf("Send to a full disk: %v, want a permanent error with a hint", err)
	}
}
