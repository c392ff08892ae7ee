package sigv4_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"myrmidon/internal/sigv4"
	"myrmidon/internal/testkit/long"
)

var s3 = sigv4.Config{Service: "s3", SendHash: true}

// TestTheExamplesOfAWS are the signatures that AWS publishes: Amazon S3 API Reference,
// "Examples: Signature Calculations", and AWS General Reference, Signature Version 4, for IAM.
func TestTheExamplesOfAWS(t *testing.T) {
	example := sigv4.Credentials{AccessKey: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	iam := sigv4.Credentials{AccessKey: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	for _, c := range []struct {
		name, method, url, payload string
		header                     [][2]string
		cfg                        sigv4.Config
		keys                       sigv4.Credentials
		at, signed, want           string
	}{
		{
			"S3: get an object", "GET", "https://examplebucket.s3.amazonaws.com/test.txt", sigv4.Empty,
			[][2]string{{"Range", "bytes=0-9"}},
			s3, example, "20130524T000000Z", "host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		},
		{
			"S3: put an object", "PUT", "https://examplebucket.s3.amazonaws.com/test%24file.text", sigv4.Hash([]byte("Welcome to Amazon S3.")),
			[][2]string{{"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"X-Amz-Storage-Class", "REDUCED_REDUNDANCY"}},
			s3, example,
			"20130524T000000Z", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		},
		{
			"S3: get a bucket's lifecycle", "GET", "https://examplebucket.s3.amazonaws.com/?lifecycle", sigv4.Empty,
			nil, s3, example, "20130524T000000Z", "host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		},
		{
			"S3: list objects", "GET", "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2", sigv4.Empty,
			nil, s3, example, "20130524T000000Z", "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		},
		{
			"IAM: list users", "GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", sigv4.Empty,
			[][2]string{{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}},
			sigv4.Config{Service: "iam", EncodePath: true},
			iam,
			"20150830T123600Z", "content-type;host;x-amz-date",
			"5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, c.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range c.header {
				req.Header.Set(h[0], h[1])
			}
			at, err := time.Parse("20060102T150405Z", c.at)
			if err != nil {
				t.Fatal(err)
			}
			sigv4.New(c.cfg).Sign(req, c.keys, "us-east-1", c.payload, at)
			want := fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s/us-east-1/%s/aws4_request, SignedHeaders=%s, Signature=%s",
				c.keys.AccessKey, c.at[:8], c.cfg.Service, c.signed, c.want)
			if got := req.Header.Get("Authorization"); got != want {
				t.Errorf("signed\n%s, want\n%s", got, want)
			}
			if got := req.Header.Get("X-Amz-Content-Sha256"); (got == c.payload) != c.cfg.SendHash {
				t.Errorf("X-Amz-Content-Sha256 is %q", got)
			}
		})
	}
}

// random makes requests out of what has gone wrong in signers: spaces, "+", "%", "//", dots.
type random struct{ *rand.Rand }

func (r random) text(parts ...string) string {
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

func (r random) key() string {
	return r.text("a", "B", " ", "+", "%", "%2F", "é", "日本", "//", "/./", "/../", "/", "~", "'", "(", "*", "!", "$", "&", "=", "?", "#", ";", ":", "@", "\n", "\x7f", "😀")
}

func (r random) request(t testing.TB) *http.Request {
	raw := sigv4.AppendEncoded([]byte("/bucket/"), r.key(), true)
	req, err := http.NewRequest([]string{"GET", "PUT", "HEAD", "POST"}[r.IntN(4)], "https://host.example", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host += []string{"", ":80", ":443", ":9000"}[r.IntN(4)]
	req.Host = req.URL.Host
	req.URL.RawPath = string(raw)
	if req.URL.Path, err = url.PathUnescape(string(raw)); err != nil {
		t.Fatal(err)
	}
	if r.IntN(2) == 0 {
		req.URL.Opaque = string(raw)
	}
	values := make(url.Values)
	for range r.IntN(4) {
		values.Add(r.text("prefix", "X-id", "a", "é", "+"), r.key())
	}
	req.URL.RawQuery = values.Encode()
	if r.IntN(2) == 0 {
		req.URL.RawQuery = strings.ReplaceAll(req.URL.RawQuery, "+", "%20")
	}
	for range r.IntN(6) {
		name := []string{"Content-Type", "X-Amz-Copy-Source", "X-Amz-Meta-A", "X-Amz-Meta-A1", "X-Amz-Meta-A-B", "X-Amz-Meta_c", "Range", "User-Agent", "Expect", "If-None-Match"}[r.IntN(10)]
		req.Header.Add(name, r.text(" ", "  ", "a", "text/plain", "\t", "é", ",", "bucket/%2B"))
	}
	req.ContentLength = int64(max(0, r.IntN(2000)-1000))
	return req
}

func (r random) sign(t testing.TB, signer *sigv4.Signer, theirs *v4.Signer, cfg sigv4.Config) {
	t.Helper()
	req := r.request(t)
	other := req.Clone(context.Background())
	c := sigv4.Credentials{AccessKey: fmt.Sprint("KEY", r.IntN(3))}
	c.Secret = "secret of " + c.AccessKey // theirs are kept by the access key alone
	if r.IntN(2) == 0 {
		c.Token = r.text("token", "+", "/", "=")
	}
	region := []string{"us-east-1", "eu-central-1"}[r.IntN(2)]
	at := time.Date(2026, 11, 21+r.IntN(3), r.IntN(24), 59, r.IntN(60), r.IntN(1e9), time.FixedZone("", 3600*r.IntN(9)))
	payload := []string{sigv4.Empty, sigv4.Unsigned, sigv4.Hash([]byte("x"))}[r.IntN(3)]
	signer.Sign(req, c, region, payload, at)
	if cfg.SendHash {
		other.Header.Set("X-Amz-Content-Sha256", payload)
	}
	err := theirs.SignHTTP(context.Background(), aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.Secret, SessionToken: c.Token}, other, payload, cfg.Service, region, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token"} {
		if got, want := req.Header.Get(name), other.Header.Get(name); got != want {
			t.Fatalf("%s %s host %q headers %q\n%s: %q, the SDK signs %q", req.Method, req.URL, req.Host, req.Header, name, got, want)
		}
	}
	if req.Host != other.Host {
		t.Fatalf("Host %q, the SDK sends %q", req.Host, other.Host)
	}
}

func both(service string) (*sigv4.Signer, *v4.Signer, sigv4.Config) {
	if service == "s3" {
		return sigv4.New(s3), v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }), s3
	}
	cfg := sigv4.Config{Service: service, EncodePath: true}
	return sigv4.New(cfg), v4.NewSigner(), cfg
}

func TestSignsAsTheSDKDoes(t *testing.T) {
	long.Test(t)
	for _, service := range []string{"s3", "kinesis"} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			signer, theirs, cfg := both(service)
			for seed := range uint64(20_000) {
				random{rand.New(rand.NewPCG(1, seed))}.sign(t, signer, theirs, cfg)
			}
		})
	}
}

func FuzzSignsAsTheSDKDoes(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed, "s3")
		f.Add(seed, "lambda")
	}
	f.Fuzz(func(t *testing.T, seed uint64, service string) {
		signer, theirs, cfg := both(service)
		r := random{rand.New(rand.NewPCG(2, seed))}
		for range 20 {
			r.sign(t, signer, theirs, cfg)
		}
	})
}

func TestAKeyIsKeptForItsDayRegionAndSecretOnly(t *testing.T) {
	signer := sigv4.New(s3)
	at := time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC)
	sign := func(signer *sigv4.Signer, c sigv4.Credentials, region string, at time.Time) string {
		req, err := http.NewRequest("GET", "https://bucket.example/key", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		signer.Sign(req, c, region, sigv4.Empty, at)
		return req.Header.Get("Authorization")
	}
	seen := make(map[string]bool)
	for range 2 { // kept the second time, and pushed out by others in between
		for i := range 12 {
			c := sigv4.Credentials{AccessKey: "A", Secret: fmt.Sprint("S", i%6)}
			region := []string{"us-east-1", "eu-west-1"}[i/6]
			for _, when := range []time.Time{at, at.Add(time.Second)} {
				got := sign(signer, c, region, when)
				if want := sign(sigv4.New(s3), c, region, when); got != want {
					t.Fatalf("secret %d in %s at %v: %s, want %s", i%6, region, when, got, want)
				}
				seen[got] = true
			}
		}
	}
	if len(seen) != 24 {
		t.Errorf("%d signatures, want 24", len(seen))
	}
}

func TestManyGoroutinesSign(t *testing.T) {
	signer, theirs, cfg := both("s3")
	for g := range uint64(8) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(500) {
				random{rand.New(rand.NewPCG(g, seed))}.sign(t, signer, theirs, cfg)
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	signer, theirs, _ := both("s3")
	req, err := http.NewRequest("PUT", "https://bucket.s3.eu-central-1.amazonaws.com/video/1080p/segment-00017.m4s", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-Amz-Copy-Source", "source/video/1080p/segment-00017.m4s")
	req.Header.Set("X-Amz-Copy-Source-If-Match", `"0123456789abcdef0123456789abcdef"`)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		c := sigv4.Credentials{AccessKey: "AKIAIOSFODNN7EXAMPLE", Secret: "secret"}
		for b.Loop() {
			signer.Sign(req, c, "eu-central-1", sigv4.Empty, time.Now())
		}
	})
	b.Run("sdk", func(b *testing.B) {
		b.ReportAllocs()
		c := aws.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "secret"}
		req.Header.Set("X-Amz-Content-Sha256", sigv4.Empty)
		for b.Loop() {
			if err := theirs.SignHTTP(b.Context(), c, req, sigv4.Empty, "s3", "eu-central-1", time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
