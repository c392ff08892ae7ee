package s3_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/object/s3"
)

func TestWhatTheServerSaysIsExplained(t *testing.T) { both(t, testWhatTheServerSaysIsExplained) }

func testWhatTheServerSaysIsExplained(t *testing.T) {
	for _, c := range []struct {
		name         string
		status       int
		code         string
		header       [2]string
		is           error
		permanent    bool
		after        time.Duration
		about, hints string
	}{
		{name: "a denied object", status: 403, code: "AccessDenied", is: fs.ErrPermission, permanent: true, about: "AccessDenied: message (status 403, request REQUEST7)", hints: "allow s3:GetObject"},
		{name: "a wrong secret", status: 403, code: "SignatureDoesNotMatch", is: fs.ErrPermission, permanent: true, hints: "AWS_SECRET_ACCESS_KEY"},
		{name: "an unknown key", status: 403, code: "InvalidAccessKeyId", is: fs.ErrPermission, permanent: true, hints: "AWS_ACCESS_KEY_ID"},
		{name: "an expired session", status: 400, code: "ExpiredToken", is: fs.ErrPermission, permanent: true, hints: "log in again"},
		{name: "no such bucket", status: 404, code: "NoSuchBucket", permanent: true, hints: "create the bucket"},
		{name: "no such object", status: 404, code: "NoSuchKey", is: fs.ErrNotExist},
		{name: "a wrong clock", status: 403, code: "RequestTimeTooSkewed", permanent: true, hints: "set the clock"},
		{name: "another region", status: 301, code: "PermanentRedirect", header: [2]string{"X-Amz-Bucket-Region", "eu-central-1"}, permanent: true, hints: "?region=eu-central-1"},
		{name: "another region, in the signature", status: 400, code: "AuthorizationHeaderMalformed", header: [2]string{"X-Amz-Bucket-Region", "eu-west-2"}, permanent: true, hints: "?region=eu-west-2"},
		{name: "another region, unnamed", status: 301, code: "PermanentRedirect", permanent: true, hints: "?region=REGION"},
		{name: "an archived object", status: 403, code: "InvalidObjectState", permanent: true, hints: "restore"},
		{name: "a full server", status: 507, code: "XMinioStorageFull", permanent: true, hints: "full"},
		{name: "a busy server", status: 503, code: "SlowDown", after: 5 * time.Second},
		{name: "a busy server that says how long", status: 503, code: "ServiceUnavailable", header: [2]string{"Retry-After", "7"}, after: 7 * time.Second},
		{name: "a busy server that asks for too much", status: 429, code: "TooManyRequests", header: [2]string{"Retry-After", "999999999"}, after: 10 * time.Minute},
		{name: "a broken server", status: 500, code: "InternalError", about: "InternalError"},
		{name: "words that would break a line", status: 400, code: "Evil\n\x1b[31m", about: "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
				if c.header[0] != "" {
					w.Header().Set(c.header[0], c.header[1])
				}
				return refuse(w, c.status, strings.ReplaceAll(c.code, "\x1b", "&#x9B;"), "message")
			})
			s := w.store(t, s3.Config{})
			_, _, getErr := s.Get(t.Context(), "k", 0, -1)
			errs := map[string]error{"Get": getErr}
			if c.is != fs.ErrNotExist {
				errs["Put"] = s.Put(t.Context(), "k", strings.NewReader("x"), 1, attrs)
			}
			if c.status == 400 || c.status == 403 {
				_, errs["Head"] = s.Head(t.Context(), "k") // whose answer has no body
			}
			for _, err := range s.List(t.Context(), "", "") {
				if c.is != fs.ErrNotExist {
					errs["List"] = err
				}
			}
			for op, err := range errs {
				if err == nil || c.is != nil && !errors.Is(err, c.is) || myrmidon.IsPermanent(err) != c.permanent {
					t.Errorf("%s = %v (permanent %v), want one that is %v, permanent %v", op, err, myrmidon.IsPermanent(err), c.is, c.permanent)
					continue
				}
				if op == "Get" && !strings.Contains(err.Error(), c.about) || strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("%s = %q, want a line about %q", op, err, c.about)
				}
				if h := myrmidon.Hint(err); op == "Get" && !strings.Contains(h, c.hints) || (h == "") != (c.hints == "") {
					t.Errorf("%s: hint %q, want %q in it", op, h, c.hints)
				}
				if after := myrmidon.AsFailure(err).After; after != c.after {
					t.Errorf("%s: wait %v, want %v", op, after, c.after)
				}
				if !strings.HasPrefix(err.Error(), "s3: ") || !strings.Contains(err.Error(), s.String()) {
					t.Errorf("%s = %q, which does not name the store", op, err)
				}
			}
		})
	}
}

func TestRealRefusals(t *testing.T) { both(t, testRealRefusals) }

func testRealRefusals(t *testing.T) {
	srv := server(t)
	bucket := newBucket(t)
	for _, c := range []struct {
		name, bucket string
		env          [2]string
		is           error
		hints        string
	}{
		{"a bucket that is not there", "no-such-bucket", [2]string{}, nil, "create the bucket"},
		{"a wrong secret", bucket, [2]string{"AWS_SECRET_ACCESS_KEY", "not" + srv.Secret}, fs.ErrPermission, "AWS_SECRET_ACCESS_KEY"},
		{"an unknown key", bucket, [2]string{"AWS_ACCESS_KEY_ID", "nobody"}, fs.ErrPermission, "AWS_ACCESS_KEY_ID"},
	} {
		if c.env[0] != "" {
			t.Setenv(c.env[0], c.env[1])
		}
		s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: c.bucket})
		if err != nil {
			t.Fatal(err)
		}
		errs := map[string]error{
			"Put":      s.Put(t.Context(), "k", strings.NewReader("x"), 1, attrs),
			"Writable": s.Writable(t.Context()),
		}
		_, _, errs["Get"] = s.Get(t.Context(), "k", 0, -1)
		if c.name == "a wrong secret" { // of an unknown key versitygw says 404 to a HEAD
			_, errs["Head"] = s.Head(t.Context(), "k")
		}
		for op, err := range errs {
			if !myrmidon.IsPermanent(err) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(myrmidon.Hint(err), c.hints) {
				t.Errorf("%s: %s = %v (hint %q), want permanent, %v, and a hint with %q", c.name, op, err, myrmidon.Hint(err), c.is, c.hints)
			}
		}
		t.Setenv("AWS_ACCESS_KEY_ID", srv.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", srv.Secret)
	}
}

func TestAServerThatIsNotThereIsNamed(t *testing.T) { both(t, testAServerThatIsNotThereIsNamed) }

func testAServerThatIsNotThereIsNamed(t *testing.T) {
	server(t)
	gone := sinkThatIsGone(t)
	s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: "bucket", Endpoint: gone})
	if err != nil {
		t.Fatal(err)
	}
	for op, err := range map[string]error{
		"Put": s.Put(t.Context(), "k", strings.NewReader("x"), 1, attrs), "Writable": s.Writable(t.Context()), "Delete": s.Delete(t.Context(), "k"),
	} {
		if err == nil || myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), "cannot reach "+gone+": dial ") || myrmidon.Hint(err) == "" {
			t.Errorf("%s = %v (hint %q), want one that names %s and is not permanent", op, err, myrmidon.Hint(err), gone)
		}
	}
}

func TestNoCredentials(t *testing.T) { both(t, testNoCredentials) }

func testNoCredentials(t *testing.T) {
	srv := server(t)
	bucket := newBucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Writable(t.Context())
	if !myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), "AWS_ACCESS_KEY_ID") || !strings.Contains(myrmidon.Hint(err), "?profile=") {
		t.Errorf("Writable = %v (hint %q), want a permanent error whose hint names the variables", err, myrmidon.Hint(err))
	}

	// A profile has them.
	file := filepath.Join(t.TempDir(), "credentials")
	data := "[media]\naws_access_key_id=" + srv.AccessKey + "\naws_secret_access_key=" + srv.Secret + "\n"
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	s, err = s3.OpenFast(t.Context(), s3.Config{Bucket: bucket, Profile: "media"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(t.Context()); err != nil {
		t.Errorf("with a profile: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   s3.Config
		env   [2]string
		about string
		hint  string
	}{
		{"no bucket", s3.Config{}, [2]string{}, "not the name of a bucket", "s3://bucket"},
		{"a bucket that is a path", s3.Config{Bucket: "a/b/c"}, [2]string{}, "not the name of a bucket", "s3://bucket"},
		{"a bucket that holds a secret", s3.Config{Bucket: "KEY:sesame@bucket"}, [2]string{}, "not the name of a bucket", "s3://bucket"},
		{"a profile that is not there", s3.Config{Bucket: "bucket", Profile: "nobody"}, [2]string{}, `no profile "nobody"`, "AWS_PROFILE"},
		{"an endpoint with a password", s3.Config{Bucket: "bucket", Endpoint: "http://me:sesame@host"}, [2]string{}, "password", "AWS_SECRET_ACCESS_KEY"},
		{"an endpoint of the environment with a password", s3.Config{Bucket: "bucket"}, [2]string{"AWS_ENDPOINT_URL_S3", "http://me:sesame@host"}, "password", "AWS_SECRET_ACCESS_KEY"},
		{"an endpoint without a scheme", s3.Config{Bucket: "bucket", Endpoint: "host:9000"}, [2]string{}, "http://", "http://"},
		{"an endpoint with a query", s3.Config{Bucket: "bucket", Endpoint: "http://host?secret=sesame"}, [2]string{}, "query", "http://"},
		{"an endpoint that is no URL", s3.Config{Bucket: "bucket", Endpoint: "http://sesame\x7f"}, [2]string{}, "not a URL", "http://"},
		{"no region and no endpoint", s3.Config{Bucket: "bucket"}, [2]string{"AWS_ENDPOINT_URL", ""}, "no region", "AWS_REGION"},
		{"parts too small", s3.Config{Bucket: "bucket", PartSize: 1}, [2]string{}, "part size", ""},
		{"a prefix that is no folder", s3.Config{Bucket: "bucket", Prefix: "a//b"}, [2]string{}, "empty part", ""},
		{"a prefix that is not UTF-8", s3.Config{Bucket: "bucket", Prefix: "a\xff"}, [2]string{}, "UTF-8", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server(t)
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
				t.Setenv("AWS_REGION", "")
			}
			_, err := s3.New(t.Context(), c.cfg)
			if !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), c.about) || !strings.Contains(myrmidon.Hint(err), c.hint) {
				t.Fatalf("New = %v (hint %q), want a permanent error about %q and a hint with %q", err, myrmidon.Hint(err), c.about, c.hint)
			}
			if strings.Contains(err.Error()+myrmidon.Hint(err), "sesame") {
				t.Errorf("the secret is in the error: %v", err)
			}
		})
	}
}

func TestSecretsAreNeitherLoggedNorSaid(t *testing.T) { both(t, testSecretsAreNeitherLoggedNorSaid) }

func testSecretsAreNeitherLoggedNorSaid(t *testing.T) {
	srv := server(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	data := pattern(300_000)
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
		switch {
		case op == "GetObject" && n == 1:
			part(w, data, 1000)
			return cutOff()
		case op == "AbortMultipartUpload" || op == "UploadPart":
			return refuse(w, 403, "AccessDenied", "no")
		}
		return false
	})
	s := w.store(t, s3.Config{Log: logger})
	put(t, s, "k", data)
	_, getErr := get(t.Context(), s, "k")
	if getErr != nil {
		t.Error(getErr)
	}
	putErr := s.Put(t.Context(), "l", strings.NewReader(pattern(6<<20)), 6<<20, attrs)
	said := log.String() + putErr.Error()
	for _, want := range []string{"resume a body", "could not be aborted", "upload="} {
		if !strings.Contains(said, want) {
			t.Errorf("the log does not say %q:\n%s", want, said)
		}
	}
	for _, secret := range []string{srv.Secret, srv.AccessKey, "Signature=", "Credential="} {
		if strings.Contains(said, secret) {
			t.Errorf("the log or an error holds %q:\n%s", secret, said)
		}
	}
}

func TestWritableLeavesNothing(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{Prefix: "a/b"})
	if err := s.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(filepath.Join(shared.Dir(), bucketOf(s)), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if err != nil || len(left) > 0 || len(w.seen) != 2 {
		t.Errorf("%d requests; left in the bucket: %q, %v", len(w.seen), left, err)
	}
}

// sinkThatIsGone returns the URL of a server that has ended.
func sinkThatIsGone(t testing.TB) string {
	t.Helper()
	url, stop := startSink(t)
	stop()
	return url
}
