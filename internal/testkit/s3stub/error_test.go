package s3stub

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRequestsThatAreRefused(t *testing.T) {
	s := withBucket(t, Config{MaxCopy: 10, MaxPut: 20, MinPart: 3})
	for key, data := range map[string]string{"k": "data", "large": "12345678901"} {
		if err := s.PutObject("b", Object{Key: key}, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	etag := `"` + hexMD5([]byte("data")) + `"`
	source := func(v string, more ...string) []string { return append([]string{"X-Amz-Copy-Source", v}, more...) }
	long := strings.Repeat("k", 1025)
	for _, c := range []struct {
		status             int
		code               string
		method, path, body string
		header             []string
	}{
		{400, "KeyTooLongError", "PUT", "/b/" + long, "x", nil},
		{400, "InvalidURI", "GET", "/b/%ff", "", nil},
		{400, "InvalidURI", "GET", "/b/a%00", "", nil},
		{400, "EntityTooLarge", "PUT", "/b/n", "123456789012345678901", nil},
		{400, "InvalidStorageClass", "PUT", "/b/n", "x", []string{"X-Amz-Storage-Class", "COLD"}},
		{400, "InvalidArgument", "PUT", "/b/n", "x", []string{"X-Amz-Server-Side-Encryption", "rot13"}},
		{400, "MetadataTooLarge", "PUT", "/b/n", "x", []string{"X-Amz-Meta-A", strings.Repeat("m", 2048)}},
		{400, "InvalidArgument", "PUT", "/b/n", "x", []string{"X-Amz-Tagging", "a=1&a=2"}},
		{400, "InvalidTag", "PUT", "/b/n", "x", []string{"X-Amz-Tagging", "a=" + strings.Repeat("v", 257)}},
		{400, "BadRequest", "PUT", "/b/n", "x", []string{"X-Amz-Tagging", "a=&b=&c=&d=&e=&f=&g=&h=&i=&j=&k="}},
		{400, "BadDigest", "PUT", "/b/n", "x", []string{"X-Amz-Checksum-Crc32c", "AAAAAA=="}},
		{400, "InvalidRequest", "PUT", "/b/n", "x", []string{"X-Amz-Checksum-Sha256", "AAAAAA=="}},
		{501, "NotImplemented", "PUT", "/b/n", "x", []string{"If-None-Match", etag}},
		{404, "NoSuchKey", "PUT", "/b/n", "x", []string{"If-Match", etag}},
		{412, "PreconditionFailed", "PUT", "/b/k", "x", []string{"If-Match", `"other"`}},
		{400, "InvalidRequest", "PUT", "/b/n", "", source("b/large")},
		{400, "InvalidRequest", "PUT", "/b/k", "", source("b/k")},
		{400, "InvalidArgument", "PUT", "/b/n", "", source("b")},
		{400, "InvalidArgument", "PUT", "/b/n", "", source("b/%zz")},
		{400, "InvalidArgument", "PUT", "/b/n", "", source("b/k", "X-Amz-Metadata-Directive", "KEEP")},
		{501, "NotImplemented", "PUT", "/b/n", "", source("b/k?versionId=1")},
		{412, "PreconditionFailed", "PUT", "/b/n", "", source("b/k", "X-Amz-Copy-Source-If-Match", `"x"`)},
		{412, "PreconditionFailed", "PUT", "/b/n", "", source("b/k", "X-Amz-Copy-Source-If-None-Match", etag)},
		{412, "PreconditionFailed", "PUT", "/b/large", "", source("b/k", "If-None-Match", "*")},
		{404, "NoSuchUpload", "PUT", "/b/n?partNumber=1&uploadId=none", "x", nil},
		{400, "InvalidArgument", "PUT", "/b/n?partNumber=0&uploadId=none", "x", nil},
		{400, "InvalidArgument", "PUT", "/b/n?partNumber=10001&uploadId=none", "x", nil},
		{404, "NoSuchUpload", "DELETE", "/b/n?uploadId=none", "", nil},
		{404, "NoSuchUpload", "GET", "/b/n?uploadId=none", "", nil},
		{400, "MalformedXML", "POST", "/b/n?uploadId=none", "<x/>", nil},
		{400, "InvalidRequest", "POST", "/b/n?uploads", "", []string{"X-Amz-Checksum-Algorithm", "CRC16"}},
		{400, "InvalidRequest", "POST", "/b?delete", "<Delete/>", nil},
		{400, "MalformedXML", "POST", "/b?delete", "<Delete/>", []string{"Content-Md5", "ePbrFwvNFIRnzBrIv+T8Ag=="}},
		{501, "NotImplemented", "GET", "/b/k?acl", "", nil},
		{501, "NotImplemented", "PUT", "/b?policy", "{}", nil},
		{416, "InvalidRange", "GET", "/b/k", "", []string{"Range", "bytes=4-9"}},
		{416, "InvalidPartNumber", "GET", "/b/k?partNumber=2", "", nil},
	} {
		req := s.client().request(t, c.method, c.path, c.body, c.header...)
		a := send(req)
		if c.code == "MalformedXML" && strings.Contains(a.body, "BadDigest") {
			t.Fatal("the test's own MD5 is wrong")
		}
		if a.err != nil || a.status != c.status || a.code() != c.code {
			t.Errorf("%s %.40s %.60q: %d %q %v, want %d %q", c.method, c.path, c.header, a.status, a.code(), a.err, c.status, c.code)
		}
		if !strings.Contains(a.body, "<RequestId>"+a.header.Get("X-Amz-Request-Id")+"</RequestId>") {
			t.Errorf("%s %.40s: the error does not name its request: %s", c.method, c.path, a.body)
		}
	}
	if d := cmp.Diff([]string{"k", "large"}, s.Keys("b")); d != "" {
		t.Errorf("what was refused is stored (-want +got):\n%s", d)
	}
}

func TestABodyThatIsNotWhatWasSigned(t *testing.T) {
	s := withBucket(t, Config{})
	k := s.client()
	k.payload = strings.Repeat("0", 64)
	a := k.ask(t, "PUT", "/b/k", "data")
	if a.status != 400 || a.code() != "XAmzContentSHA256Mismatch" || s.Len("b") != 0 {
		t.Errorf("%d %q, %d objects", a.status, a.code(), s.Len("b"))
	}
	k.payload = unsignedPayload
	if a := k.ask(t, "PUT", "/b/k", "data"); a.status != 200 || s.Len("b") != 1 {
		t.Errorf("UNSIGNED-PAYLOAD: %d %q", a.status, a.code())
	}
}

func TestPartsMustBeInOrderAndLargeEnough(t *testing.T) {
	s := withBucket(t, Config{MinPart: 3})
	id := uploadPattern.FindStringSubmatch(ask(t, s, 200, "POST", "/b/k?uploads", "").body)[1]
	path := "/b/k?uploadId=" + id
	etag := func(data string) string { return hexMD5([]byte(data)) }
	for n, data := range map[string]string{"1": "aa", "2": "bbb", "3": "c"} {
		ask(t, s, 200, "PUT", path+"&partNumber="+n, data)
	}
	body := func(parts ...string) string {
		out := "<CompleteMultipartUpload>"
		for i := 0; i < len(parts); i += 2 {
			out += "<Part><PartNumber>" + parts[i] + "</PartNumber><ETag>\"" + etag(parts[i+1]) + "\"</ETag></Part>"
		}
		return out + "</CompleteMultipartUpload>"
	}
	wantCode(t, s, 400, "EntityTooSmall", "POST", path, body("1", "aa", "2", "bbb"))
	wantCode(t, s, 400, "InvalidPartOrder", "POST", path, body("2", "bbb", "1", "aa"))
	wantCode(t, s, 400, "InvalidPart", "POST", path, body("2", "other", "3", "c"))
	wantCode(t, s, 400, "InvalidPart", "POST", path, body("2", "bbb", "4", "c"))
	if err := s.PutObject("b", Object{Key: "k"}, nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s, 412, "PreconditionFailed", "POST", path, body("2", "bbb", "3", "c"), "If-None-Match", "*")
	ask(t, s, 200, "POST", path, body("2", "bbb", "3", "c"))
	wantCode(t, s, 404, "NoSuchUpload", "POST", path, body("2", "bbb", "3", "c"))
	if data, _ := s.Data("b", "k"); string(data) != "bbbc" {
		t.Errorf("made %q", data)
	}
	o, _ := s.Object("b", "k")
	// Copied by one request it is an object of one part, whose ETag is its MD5.
	ask(t, s, 200, "PUT", "/b/copy", "", "X-Amz-Copy-Source", "b/k")
	if to, _ := s.Object("b", "copy"); !strings.HasSuffix(o.ETag, "-2") || to.ETag != etag("bbbc") || to.Parts != nil {
		t.Errorf("%+v was copied to %+v", o, to)
	}
}

func TestTimesAsConditions(t *testing.T) {
	s := withBucket(t, Config{})
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := s.PutObject("b", Object{Key: "k", Modified: at}, []byte("data")); err != nil {
		t.Fatal(err)
	}
	date := func(d time.Duration) string { return at.Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"If-Modified-Since", date(0), 304},
		{"If-Modified-Since", date(-time.Second), 200},
		{"If-Modified-Since", date(2 * time.Hour), 200}, // of no time yet
		{"If-Unmodified-Since", date(0), 200},
		{"If-Unmodified-Since", date(-time.Second), 412},
	} {
		a := ask(t, s, c.status, "GET", "/b/k", "", c.name, c.value)
		if c.status == 304 && (a.body != "" || a.header.Get("Etag") == "") {
			t.Errorf("304 with the body %q and the header %v", a.body, a.header)
		}
	}
	ask(t, s, 412, "PUT", "/b/n", "", "X-Amz-Copy-Source", "b/k", "X-Amz-Copy-Source-If-Modified-Since", date(0))
	ask(t, s, 200, "PUT", "/b/n", "", "X-Amz-Copy-Source", "b/k", "X-Amz-Copy-Source-If-Unmodified-Since", date(0))
	if got, _ := s.Object("b", "k"); !got.Modified.Equal(at) {
		t.Errorf("modified %v, want %v", got.Modified, at)
	}
}

func TestConfigsThatMakeNoSense(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a negative limit":         {MaxCopy: -1},
		"a latency of no verb":     {Latency: map[Verb]time.Duration{verbs: 1}},
		"an address of nobody's":   {Addr: "256.0.0.1:0"},
		"a port that is no number": {Addr: "127.0.0.1:port"},
	} {
		if s, err := Start(cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s: the server starts", name)
		}
	}
	s := withBucket(t, Config{})
	if s.AddBucket("b") == nil || s.AddBucket("") == nil || s.PutObject("none", Object{Key: "k"}, nil) == nil {
		t.Error("a bucket twice, one without a name, or an object in none is taken")
	}
	if s.PutObject("b", Object{Key: "k", Parts: []int64{1, 1}}, []byte("abc")) == nil {
		t.Error("parts that are not the object's are taken")
	}
}
