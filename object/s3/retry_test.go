package s3_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon"
	"myrmidon/object/s3"
)

var errDenied = fs.ErrPermission

func TestTheClientIsChosen(t *testing.T) {
	server(t)
	for _, c := range []struct{ env, cfg, want string }{
		{"", "", "own"}, {"sdk", "", "sdk"}, {"own", "sdk", "sdk"}, {"sdk", "own", "own"}, {"curl", "", ""}, {"", "curl", ""},
	} {
		t.Setenv("MYRMIDON_S3_CLIENT", c.env)
		s, err := s3.New(t.Context(), s3.Config{Bucket: "bucket", Client: c.cfg})
		switch {
		case c.want == "" && (!myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), "MYRMIDON_S3_CLIENT")):
			t.Errorf("%+v: %v, want a permanent error with a hint", c, err)
		case c.want != "" && (err != nil || s.ClientName() != c.want):
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRealEndpointsAreTheSDKs(t *testing.T) {
	server(t)
	t.Setenv("AWS_ENDPOINT_URL", "")
	for _, c := range []struct{ bucket, region, dual, want string }{
		{"media", "eu-central-1", "", "https://media.s3.eu-central-1.amazonaws.com/k"},
		{"media.example.com", "us-east-1", "", "https://s3.us-east-1.amazonaws.com/media.example.com/k"}, // no certificate fits
		{"media", "cn-north-1", "true", "https://media.s3.dualstack.cn-north-1.amazonaws.com.cn/k"},
	} {
		t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", c.dual)
		for _, client := range []string{"own", "sdk"} {
			s, err := s3.New(t.Context(), s3.Config{Bucket: c.bucket, Region: c.region, Client: client})
			if err != nil || s.ClientName() != client {
				t.Fatal(err)
			}
			if got := s.Asked(t.Context(), "k"); got != c.want {
				t.Errorf("%s: %s asks %s, want %s", client, c.bucket, got, c.want)
			}
		}
	}
}

func TestAStormIsNotMultiplied(t *testing.T) { both(t, testAStormIsNotMultiplied) }

func testAStormIsNotMultiplied(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		return refuse(w, 503, "SlowDown", "Please reduce your request rate.")
	})
	s := w.store(t, s3.Config{})
	const heads = 300
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			for range heads / 10 {
				if _, _, err := s.Get(t.Context(), "k", 0, -1); myrmidon.AsFailure(err).After != 5*time.Second {
					t.Errorf("Get = %v, want one that waits", err)
				}
			}
		})
	}
	group.Wait()
	st := s.Stats()
	if st.Retried != 100 || len(w.seen) != heads+100 || st.Spent == 0 || st.Gets != int64(len(w.seen)) || st.Throttled != st.Gets {
		t.Errorf("%d requests for %d, %+v; want 100 retries", len(w.seen), heads, st)
	}
}

func TestABudgetForRetriesIsEarned(t *testing.T) { both(t, testABudgetForRetriesIsEarned) }

func testABudgetForRetriesIsEarned(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, n int) bool {
		if !strings.HasSuffix(r.URL.Path, "/bad") {
			w.Header().Set("Content-Length", "1")
			w.WriteHeader(http.StatusOK)
			return true
		}
		return refuse(w, 500, "InternalError", "again")
	})
	s := w.store(t, s3.Config{})
	for range 30 { // uses it up
		_, _ = s.Head(t.Context(), "bad")
	}
	before := s.Stats().Retried
	for range 50 {
		if _, err := s.Head(t.Context(), "good"); err != nil {
			t.Fatal(err)
		}
	}
	for range 30 {
		_, _ = s.Head(t.Context(), "bad")
	}
	if after := s.Stats().Retried; before != 100 || after != 110 {
		t.Errorf("%d retries, and %d after 50 requests that went well; want 100 and 110", before, after)
	}
}

// sessions gives credentials of sessions, each with the next number.
type sessions struct {
	asked  atomic.Int64
	always bool // the same
}

func (p *sessions) Retrieve(context.Context) (aws.Credentials, error) {
	n := p.asked.Add(1)
	if p.always {
		n = 1
	}
	return aws.Credentials{AccessKeyID: "A", SecretAccessKey: "S", SessionToken: fmt.Sprint("session-", n)}, nil
}

func TestASessionThatExpires(t *testing.T) { both(t, testASessionThatExpires) }

func testASessionThatExpires(t *testing.T) {
	var dead atomic.Value // the sessions that have expired
	dead.Store("")
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		if token := r.Header.Get("X-Amz-Security-Token"); token == dead.Load() || dead.Load() == "all" {
			return refuse(w, 400, "ExpiredToken", "The provided token has expired.")
		}
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Content-Length", "0")
		return true
	})
	s := w.store(t, s3.Config{})
	provider := &sessions{}
	s.Keys(aws.NewCredentialsCache(provider))
	put(t, s, "k", "data")
	dead.Store("session-1")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := s.Put(t.Context(), "k", strings.NewReader("data"), 4, attrs); err != nil {
				t.Errorf("Put after the session has expired: %v", err)
			}
			if _, err := s.Head(t.Context(), "k"); err != nil {
				t.Errorf("Head after the session has expired: %v", err)
			}
		})
	}
	group.Wait()
	if n := provider.asked.Load(); n != 2 {
		t.Errorf("credentials were asked for %d times, want 2", n)
	}

	// A provider that has nothing better is asked once.
	stuck := &sessions{always: true}
	s.Keys(aws.NewCredentialsCache(stuck))
	dead.Store("all")
	before := len(w.seen)
	for range 5 {
		err := s.Put(t.Context(), "k", strings.NewReader("data"), 4, attrs)
		if !errors.Is(err, fs.ErrPermission) || !myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), "log in again") {
			t.Errorf("Put = %v (hint %q), want one that says to log in again", err, myrmidon.Hint(err))
		}
	}
	if n, asked := len(w.seen)-before, stuck.asked.Load(); n != 5 || asked != 2 {
		t.Errorf("%d requests, %d times asked for credentials; want 5 and 2", n, asked)
	}
}

func TestASessionIsRenewedFromItsFile(t *testing.T) { both(t, testASessionIsRenewedFromItsFile) }

func testASessionIsRenewedFromItsFile(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
		if r.Header.Get("X-Amz-Security-Token") != "new" {
			return refuse(w, 400, "ExpiredToken", "The provided token has expired.")
		}
		return true
	})
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(token string) {
		t.Helper()
		data := "[media]\naws_access_key_id=A\naws_secret_access_key=S\naws_session_token=" + token + "\n"
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	bucket := newBucket(t)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	s := w.store(t, s3.Config{Profile: "media", Bucket: bucket})
	write("new")
	put(t, s, "k", "data")
}

func TestAClockThatIsWrong(t *testing.T) { both(t, testAClockThatIsWrong) }

func testAClockThatIsWrong(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
		now := time.Now().Add(40 * time.Minute)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil {
			t.Error(err)
		}
		if now.Sub(signed).Abs() > 15*time.Minute {
			return refuse(w, 403, "RequestTimeTooSkewed", "The difference is too large.")
		}
		w.Header().Set("ETag", `"e"`)
		return true
	})
	s := w.store(t, s3.Config{})
	put(t, s, "k", "data")
	put(t, s, "k", "data")
	if n := len(w.seen); n != 3 {
		t.Errorf("%d requests, want one more than two", n)
	}
}

func TestChecksumsOfAnswers(t *testing.T) { both(t, testChecksumsOfAnswers) }

func testChecksumsOfAnswers(t *testing.T) {
	const data = "123456789" // whose checksums are published, as those to check an algorithm by
	for name, digits := range map[string]string{
		"Crc32": "cbf43926", "Crc32c": "e3069283", "Crc64nvme": "ae8b14860a799888",
		"Sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441", "Sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
	} {
		sum, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		right := base64.StdEncoding.EncodeToString(sum)
		sum[0] ^= 1
		for _, c := range []struct {
			sum string
			ok  bool
		}{{right, true}, {base64.StdEncoding.EncodeToString(sum), false}, {right + "-2", true}} {
			w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
				if r.Header.Get("X-Amz-Checksum-Mode") != "ENABLED" {
					t.Error("the checksum was not asked for")
				}
				w.Header().Set("X-Amz-Checksum-"+name, c.sum)
				part(w, data, len(data))
				return true
			})
			got, err := get(t.Context(), w.store(t, s3.Config{}), "k")
			if (err == nil) != c.ok || c.ok && got != data || err != nil && !strings.Contains(err.Error(), "checksum") {
				t.Errorf("%s %s: %q, %v; want it fine: %v", name, c.sum, got, err, c.ok)
			}
		}
	}
}

func TestBodiesAreSentWithTheirChecksum(t *testing.T) {
	both(t, func(t *testing.T) {
		for _, c := range []struct{ env, want string }{{"", "Ox7nCg=="}, {"when_required", ""}} {
			t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", c.env)
			w := newWire(t, nil)
			s := w.store(t, s3.Config{})
			put(t, s, "k", "Welcome to Amazon S3.")
			h := w.requests("PutObject")[0].Header
			if h.Get("X-Amz-Checksum-Crc32") != c.want || h.Get("X-Amz-Content-Sha256") != "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" {
				t.Errorf("%q: sent with %v", c.env, h)
			}
		}
	})
}

func TestOverTLSBodiesAreNotHashed(t *testing.T) {
	server(t)
	seen := make(chan http.Header, 1)
	tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Header
	}))
	defer tls.Close()
	if s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: "bucket", Endpoint: tls.URL}); err != nil {
		t.Fatal(err)
	} else if err := s.Put(t.Context(), "k", strings.NewReader("x"), 1, attrs); !myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), "AWS_CA_BUNDLE") {
		t.Errorf("Put = %v (hint %q), want one about the certificate", err, myrmidon.Hint(err))
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", file)
	s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: "bucket", Endpoint: tls.URL})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "Welcome to Amazon S3.")
	if h := <-seen; h.Get("X-Amz-Content-Sha256") != "UNSIGNED-PAYLOAD" || h.Get("X-Amz-Checksum-Crc32") != "Ox7nCg==" {
		t.Errorf("sent with %v", h)
	}
}
