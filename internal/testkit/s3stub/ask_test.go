package s3stub

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // the connection's
}

var codePattern = regexp.MustCompile(`<Code>([^<]*)</Code>`)

// code is the error code of an answer, "" if it is none.
func (a answer) code() string {
	if m := codePattern.FindStringSubmatch(a.body); m != nil {
		return m[1]
	}
	return ""
}

// client asks an endpoint with signed requests that no SDK would make.
type client struct {
	endpoint, region string
	credentials      Credentials
	payload          string // x-amz-content-sha256 instead of the body's
}

func (s *Server) client() *client {
	return &client{endpoint: s.URL(), region: s.cfg.Region, credentials: s.Credentials()}
}

// request makes a signed request. headers are names and values, in turns.
func (k *client) request(t testing.TB, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, k.endpoint+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	sum := sha256.Sum256([]byte(body))
	payload := hex.EncodeToString(sum[:])
	if k.payload != "" {
		payload = k.payload
	}
	req.Header.Set("X-Amz-Content-Sha256", payload)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	pair := aws.Credentials{AccessKeyID: k.credentials.AccessKey, SecretAccessKey: k.credentials.Secret, SessionToken: k.credentials.Token}
	if err := signer.SignHTTP(t.Context(), pair, req, payload, "s3", k.region, time.Now()); err != nil {
		t.Fatal(err)
	}
	return req
}

func (k *client) ask(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return send(k.request(t, method, path, body, headers...))
}

// plainClient follows no redirect, and repeats no request over another connection.
var plainClient = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{DisableKeepAlives: true},
}

func send(req *http.Request) answer {
	resp, err := plainClient.Do(req)
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // all of it is read, or err says why not
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// ask asks a server, and wants a status.
func ask(t testing.TB, s *Server, want int, method, path, body string, headers ...string) answer {
	t.Helper()
	a := s.client().ask(t, method, path, body, headers...)
	if a.err != nil || a.status != want {
		t.Fatalf("%s %s: %d %v, want %d:\n%s", method, path, a.status, a.err, want, a.body)
	}
	return a
}

// wantCode asks a server, and wants an error.
func wantCode(t testing.TB, s *Server, status int, code, method, path, body string, headers ...string) answer {
	t.Helper()
	a := ask(t, s, status, method, path, body, headers...)
	if a.code() != code {
		t.Errorf("%s %s: code %q, want %q:\n%s", method, path, a.code(), code, a.body)
	}
	return a
}

// withBucket is a server with an empty bucket b.
func withBucket(t testing.TB, cfg Config) *Server {
	t.Helper()
	s := New(t, cfg)
	if err := s.AddBucket("b"); err != nil {
		t.Fatal(err)
	}
	return s
}
