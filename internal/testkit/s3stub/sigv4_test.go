package s3stub

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// documented is a server in the year of the examples in the S3 API reference, with their
// key pair.
func documented(t *testing.T) *Server {
	t.Helper()
	s, err := newServer(Config{
		AccessKey: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		Now: func() time.Time { return time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddBucket("examplebucket"); err != nil {
		t.Fatal(err)
	}
	return s
}

// example is a request of the reference: "Signature Calculations for the Authorization
// Header". Where its bucket is in the host's name, this server finds another one or
// none: only what it says of the signature counts then.
func example(s *Server, method, host, target, body, signedHeaders, signature string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="+
		signedHeaders+",Signature="+signature)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestSignaturesOfTheReference(t *testing.T) {
	const empty = emptyHash
	for _, c := range []struct {
		name, method, target, names, signature string
		headers                                []string
	}{
		{
			"GET object", "GET", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
			[]string{"Range", "bytes=0-9", "X-Amz-Content-Sha256", empty},
		},
		{
			"PUT object", "PUT", "/test%24file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
			[]string{
				"Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY",
				"X-Amz-Content-Sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			},
		},
		{
			"GET bucket lifecycle", "GET", "/?lifecycle", "host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
			[]string{"X-Amz-Content-Sha256", empty},
		},
		{
			"list objects", "GET", "/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
			[]string{"X-Amz-Content-Sha256", empty},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := documented(t)
			forged := c.signature[:63] + string("0123456789abcdef"[('0'^c.signature[63]^1)&15])
			if forged == c.signature {
				t.Fatal("the forged signature is the right one")
			}
			const host = "examplebucket.s3.amazonaws.com"
			right := example(s, c.method, host, c.target, "", c.names, c.signature, c.headers...)
			if got := right.Body.String(); strings.Contains(got, "SignatureDoesNotMatch") {
				t.Errorf("the signature of the reference is refused:\n%s", got)
			}
			wrong := example(s, c.method, host, c.target, "", c.names, forged, c.headers...)
			if got := wrong.Body.String(); wrong.Code != http.StatusForbidden || !strings.Contains(got, "SignatureDoesNotMatch") {
				t.Errorf("a forged signature is taken: %d\n%s", wrong.Code, got)
			}
		})
	}
}

// The reference uploads 66,560 times the letter a in chunks of 64 KiB and 1 KiB.
func TestChunkSignaturesOfTheReference(t *testing.T) {
	chunk := func(n int, signature string) string {
		return fmt.Sprintf("%x;chunk-signature=%s\r\n%s\r\n", n, signature, strings.Repeat("a", n))
	}
	plain := func(last string) string {
		return chunk(65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648") +
			chunk(1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497") +
			chunk(0, last)
	}
	trailing := func(signature string) string {
		return chunk(65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2") +
			chunk(1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7") +
			strings.TrimSuffix(chunk(0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"), "\r\n") +
			"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" + signature + "\r\n\r\n"
	}
	const last, trailer = "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
		"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
	put := func(s *Server, form, body, names, signature string, more ...string) *httptest.ResponseRecorder {
		return example(s, "PUT", "s3.amazonaws.com", "/examplebucket/chunkObject.txt", body, names, signature, append(more,
			"X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256", form, "Content-Encoding", "aws-chunked",
			"X-Amz-Decoded-Content-Length", "66560")...)
	}
	const names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
	const seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
	const trailerNames = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer"
	const trailerSeed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
	check := func(t *testing.T, put func(s *Server, body string) *httptest.ResponseRecorder, good, bad string) {
		s := documented(t)
		if w := put(s, good); w.Code != http.StatusOK {
			t.Fatalf("the example of the reference: %d\n%s", w.Code, w.Body)
		}
		o, _ := s.Object("examplebucket", "chunkObject.txt")
		data, _ := s.Data("examplebucket", "chunkObject.txt")
		if string(data) != strings.Repeat("a", 66560) || o.ContentEncoding != "" || o.StorageClass != "REDUCED_REDUNDANCY" {
			t.Errorf("stored %d bytes, content-encoding %q, class %q", len(data), o.ContentEncoding, o.StorageClass)
		}
		if w := put(s, bad); w.Code != http.StatusForbidden {
			t.Errorf("a forged signature at the end: %d\n%s", w.Code, w.Body)
		}
		if w := put(s, strings.Replace(good, "aaaa", "aaba", 1)); w.Code != http.StatusForbidden {
			t.Errorf("a changed chunk: %d\n%s", w.Code, w.Body)
		}
		if w := put(s, good[:len(good)/2]); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "IncompleteBody") {
			t.Errorf("half of it: %d\n%s", w.Code, w.Body)
		}
	}
	t.Run("chunks", func(t *testing.T) {
		check(t, func(s *Server, body string) *httptest.ResponseRecorder {
			if n := len(plain(last)); n != 66824 {
				t.Fatalf("the body has %d bytes, in the reference 66824", n)
			}
			if len(body) < 66824 { // the length is signed
				body += strings.Repeat("x", 66824-len(body))
			}
			return put(s, streamSigned, body, names, seed)
		}, plain(last), plain(strings.Replace(last, "b", "c", 1)))
	})
	t.Run("chunks and a trailer", func(t *testing.T) {
		check(t, func(s *Server, body string) *httptest.ResponseRecorder {
			return put(s, streamTrailer, body, trailerNames, trailerSeed, "X-Amz-Trailer", "x-amz-checksum-crc32c")
		}, trailing(trailer), trailing(strings.Replace(trailer, "d", "e", 1)))
	})
}

func TestWhoMayNot(t *testing.T) {
	s := withBucket(t, Config{})
	if err := s.AddBucketIn("far", "eu-west-1"); err != nil {
		t.Fatal(err)
	}
	good := s.client()
	with := func(change func(*client)) *client {
		k := *good
		change(&k)
		return &k
	}
	s.AddCredentials(Credentials{AccessKey: "session", Secret: "x", Token: "token"})
	s.AddCredentials(Credentials{AccessKey: "old", Secret: "x", Token: "token"})
	s.Expire("old")
	session := Credentials{AccessKey: "session", Secret: "x", Token: "token"}
	for _, c := range []struct {
		name   string
		k      *client
		path   string
		header []string // set after signing
		status int
		code   string
	}{
		{"a right signature", good, "/b?list-type=2", nil, 200, ""},
		{"a key that is hard to sign", good, "/b/%20a%2Bb/..//c~%25?x-id=GetObject", nil, 404, "NoSuchKey"},
		{"a wrong secret", with(func(k *client) { k.credentials.Secret = "other" }), "/b", nil, 403, "SignatureDoesNotMatch"},
		{"an unknown key", with(func(k *client) { k.credentials.AccessKey = "who" }), "/b", nil, 403, "InvalidAccessKeyId"},
		{"a session", with(func(k *client) { k.credentials = session }), "/b", nil, 200, ""},
		{"a session without its token", with(func(k *client) { k.credentials = session; k.credentials.Token = "" }), "/b", nil, 400, "InvalidToken"},
		{"an expired session", with(func(k *client) { k.credentials = session; k.credentials.AccessKey = "old" }), "/b", nil, 400, "ExpiredToken"},
		{"no signature", good, "/b", []string{"Authorization", ""}, 403, "AccessDenied"},
		{"an old algorithm", good, "/b", []string{"Authorization", "AWS k:s"}, 400, "InvalidRequest"},
		{"a header that is not signed", good, "/b", []string{"X-Amz-Acl", "private"}, 403, "AccessDenied"},
		{"a signed header that is changed", good, "/b", []string{"X-Amz-Content-Sha256", unsignedPayload}, 403, "SignatureDoesNotMatch"},
		{"an old request", good, "/b", []string{"X-Amz-Date", time.Now().UTC().Add(-16 * time.Minute).Format(signatureTime)}, 403, "RequestTimeTooSkewed"},
		{"a bucket elsewhere", good, "/far", nil, 301, "PermanentRedirect"},
		{"a bucket elsewhere, signed for it", with(func(k *client) { k.region = "eu-west-1" }), "/far", nil, 200, ""},
		{"a bucket elsewhere, signed for a third region", with(func(k *client) { k.region = "ap-south-1" }), "/far", nil, 400, "AuthorizationHeaderMalformed"},
		{"the location of a bucket elsewhere", good, "/far?location", nil, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := c.k.request(t, "GET", c.path, "")
			for i := 0; i < len(c.header); i += 2 {
				if c.header[i+1] == "" {
					req.Header.Del(c.header[i])
				} else {
					req.Header.Set(c.header[i], c.header[i+1])
				}
			}
			if strings.HasSuffix(c.name, "old request") && req.Header.Get("X-Amz-Date")[:8] != time.Now().UTC().Format("20060102") {
				t.Skip("just after midnight the scope's day is another one")
			}
			a := send(req)
			if a.err != nil || a.status != c.status || a.code() != c.code {
				t.Fatalf("got %d %q %v, want %d %q:\n%s", a.status, a.code(), a.err, c.status, c.code, a.body)
			}
			if c.status != 200 && strings.HasPrefix(c.path, "/far") && a.header.Get("X-Amz-Bucket-Region") != "eu-west-1" {
				t.Errorf("the answer does not say where the bucket is: %v", a.header)
			}
			if strings.Contains(a.body, s.Credentials().Secret) {
				t.Error("the answer holds the secret")
			}
		})
	}
}

func TestAnUnsignedServerTakesAnything(t *testing.T) {
	s := withBucket(t, Config{Unsigned: true})
	req, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL()+"/b/k", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if a := send(req); a.status != 200 || a.err != nil {
		t.Fatalf("%d %v", a.status, a.err)
	}
	if data, ok := s.Data("b", "k"); !ok || string(data) != "x" {
		t.Errorf("stored %q, %v", data, ok)
	}
}
