package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// described is an object with all that a bucket keeps beside its bytes.
var described = object.Description{
	Attrs:           object.Attrs{ContentType: "text/x-a", CacheControl: "max-age=7"},
	ContentEncoding: "gzip", ContentDisposition: `attachment; filename="a b.txt"`, ContentLanguage: "da", Expires: "Sat, 21 Nov 2026 10:00:00 GMT",
	Metadata: map[string]string{"camera-1": "a  b", "x": "1,2"},
	Tags:     map[string]string{"team": "a b", "a+b": "é"},
}

// stubStore opens a new bucket of a stub.
func stubStore(t *testing.T, cfg s3.Config) (*s3stub.Server, *s3.Store) {
	t.Helper()
	srv := s3stub.New(t, s3stub.Config{})
	srv.Setenv(t)
	if err := srv.AddBucket("stub"); err != nil {
		t.Fatal(err)
	}
	cfg.Bucket, cfg.PartSize = "stub", 5<<20
	s, err := s3.OpenFast(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return srv, s
}

// onEach runs a test with each client on each server.
func onEach(t *testing.T, test func(t *testing.T, s *s3.Store)) {
	t.Helper()
	both(t, func(t *testing.T) {
		t.Run("versitygw", func(t *testing.T) { test(t, open(t, "some folder")) })
		t.Run("stub", func(t *testing.T) {
			_, s := stubStore(t, s3.Config{})
			test(t, s)
		})
	})
}

func TestWhatIsKeptComesBack(t *testing.T) { onEach(t, testWhatIsKeptComesBack) }

func testWhatIsKeptComesBack(t *testing.T, s *s3.Store) {
	long.Test(t)
	for name, data := range map[string]string{"one request": "data", "nothing": "", "parts": pattern(11 << 20)} {
		for _, size := range []int64{int64(len(data)), -1} {
			made, err := s.PutWith(t.Context(), "k", plainReader{strings.NewReader(data)}, size, object.PutOptions{Description: described})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := checksum.Of(checksum.CRC32C, []byte(data))
			if made.Checksum != want || made.ETag != stat(t, s, "k").ETag {
				t.Errorf("%s, size %d: made %+v, want the checksum %s and the object's ETag", name, size, made, want)
			}
			before := s.Stats()
			o, err := s.Open(t.Context(), object.Info{Key: "k", ETag: made.ETag}, true)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := io.ReadAll(o.Body)
			if err := errors.Join(err, o.Body.Close()); err != nil || string(got) != data {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			if o.Checksum != want || o.Info.Size != int64(len(data)) || o.Info.Key != "k" || o.Info.Modified.IsZero() {
				t.Errorf("%s: opened with the checksum %s, want %s; %+v", name, o.Checksum, want, o.Info)
			}
			if diff := cmp.Diff(described, o.Description); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			sum, info, err := s.Checksum(t.Context(), "k")
			if sum != want || info.ETag != made.ETag || info.Size != int64(len(data)) || err != nil {
				t.Errorf("%s: Checksum = %s, %+v, %v", name, sum, info, err)
			}
			if st := s.Stats(); st.Gets-before.Gets != 1 || st.Others-before.Others != 1 || st.Heads-before.Heads != 1 {
				t.Errorf("%s: requests %+v, before %+v; want a GET, one for tags and a HEAD", name, st, before)
			}
		}
	}
}

func TestAPlainObjectIsOneRequest(t *testing.T) { onEach(t, testAPlainObjectIsOneRequest) }

func testAPlainObjectIsOneRequest(t *testing.T, s *s3.Store) {
	put(t, s, "k", "data")
	src := stat(t, s, "k")
	before := s.Stats()
	o, err := s.Open(t.Context(), src, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutWith(t.Context(), "to", o.Body, src.Size, object.PutOptions{Description: o.Description, Checksum: o.Checksum}); err != nil {
		t.Fatal(err)
	}
	if err := o.Body.Close(); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	if st.Gets-before.Gets != 1 || st.Puts-before.Puts != 1 || st.Writes+st.Reads-before.Writes-before.Reads != 2 {
		t.Errorf("requests %+v, before %+v; want a GET and a PUT", st, before)
	}
	// Put is what sent a CRC32, and the copy has the source's kind.
	if sum, _, err := s.Checksum(t.Context(), "to"); err != nil || sum != checksum.Of(checksum.CRC32, []byte("data")) {
		t.Errorf("the copy has the checksum %s, %v", sum, err)
	}
}

func TestTheSourcesChecksumDecides(t *testing.T) { onEach(t, testTheSourcesChecksumDecides) }

func testTheSourcesChecksumDecides(t *testing.T, s *s3.Store) {
	long.Test(t)
	for _, data := range []string{"data", pattern(11 << 20)} {
		for _, name := range []string{checksum.CRC32, checksum.CRC32C, checksum.CRC64NVME, checksum.SHA256} {
			want := checksum.Of(name, []byte(data))
			opts := object.PutOptions{Checksum: want}
			made, err := s.PutWith(t.Context(), "k", strings.NewReader(data), int64(len(data)), opts)
			kept := want
			if name == checksum.SHA256 { // which no server can make of parts
				kept = checksum.Of(checksum.CRC32C, []byte(data))
			}
			if err != nil || made.Checksum != kept {
				t.Errorf("%s of %d bytes: %+v, %v; want %s", name, len(data), made, err, kept)
			}
			before := stat(t, s, "k")
			var wrong *checksum.Error
			_, err = s.PutWith(t.Context(), "k", strings.NewReader("D"+data[1:]), int64(len(data)), opts)
			if !errors.As(err, &wrong) || myrmidon.IsPermanent(err) || stat(t, s, "k") != before {
				t.Errorf("%s of %d other bytes: %v; %+v is there, want %+v", name, len(data), err, stat(t, s, "k"), before)
			}
		}
	}
}

func TestOpenRefusesWhatHasChanged(t *testing.T) { onEach(t, testOpenRefusesWhatHasChanged) }

func testOpenRefusesWhatHasChanged(t *testing.T, s *s3.Store) {
	put(t, s, "k", "old")
	src := stat(t, s, "k")
	put(t, s, "k", "new")
	if o, err := s.Open(t.Context(), src, true); !errors.Is(err, object.ErrChanged) {
		t.Errorf("Open of what was replaced = %v, %v; want object.ErrChanged", o, err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Open(t.Context(), src, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what is gone = %v, %v; want fs.ErrNotExist", o, err)
	}
	if sum, _, err := s.Checksum(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Checksum of what is gone = %q, %v; want fs.ErrNotExist", sum, err)
	}
}

func TestPutWithIfNone(t *testing.T) { onEach(t, testPutWithIfNone) }

func testPutWithIfNone(t *testing.T, s *s3.Store) {
	for _, data := range []string{"data", pattern(6 << 20)} {
		opts := object.PutOptions{IfNone: true}
		if _, err := s.PutWith(t.Context(), "k", strings.NewReader(data), -1, opts); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutWith(t.Context(), "k", strings.NewReader("other"+data), -1, opts); !errors.Is(err, fs.ErrExist) || !myrmidon.IsPermanent(err) {
			t.Errorf("a second object: %v, want fs.ErrExist", err)
		}
		if got, err := get(t.Context(), s, "k"); got != data || err != nil {
			t.Errorf("%.10q, %v is there", got, err)
		}
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhereAnObjectIsPut(t *testing.T) { both(t, testWhereAnObjectIsPut) }

func testWhereAnObjectIsPut(t *testing.T) {
	srv, s := stubStore(t, s3.Config{})
	opts := object.PutOptions{StorageClass: "STANDARD_IA", Encryption: "aws:kms", KMSKey: "key-1", ACL: "bucket-owner-full-control"}
	for _, data := range []string{"data", pattern(6 << 20)} {
		if _, err := s.PutWith(t.Context(), "k", strings.NewReader(data), int64(len(data)), opts); err != nil {
			t.Fatal(err)
		}
		o, _ := srv.Object("stub", "k")
		if o.StorageClass != "STANDARD_IA" || o.Encryption != "aws:kms" || o.KMSKey != "key-1" || o.ACL != "bucket-owner-full-control" {
			t.Errorf("of %d bytes: %+v", len(data), o.Attributes)
		}
	}
}

func TestMetadataThatIsNoHeader(t *testing.T) { both(t, testMetadataThatIsNoHeader) }

func testMetadataThatIsNoHeader(t *testing.T) {
	_, s := stubStore(t, s3.Config{})
	for _, m := range []map[string]string{{"": "x"}, {"a b": "x"}, {"a": "x\r\nX-Amz-Acl: public-read"}, {"a:": "x"}, {"ü": "x"}} {
		_, err := s.PutWith(t.Context(), "k", strings.NewReader("data"), 4, object.PutOptions{Description: object.Description{Metadata: m}})
		if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
			t.Errorf("%q: %v", m, err)
		}
	}
	if st := s.Stats(); st.Puts != 0 {
		t.Errorf("%d were sent", st.Puts)
	}
}

// A server that keeps no checksum of a whole object in parts still confirms each part.
func TestAServerThatSumsPartsOnly(t *testing.T) { both(t, testAServerThatSumsPartsOnly) }

func testAServerThatSumsPartsOnly(t *testing.T) {
	long.Test(t)
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
		return op == "CreateMultipartUpload" && r.Header.Get("X-Amz-Checksum-Type") != "" && refuse(w, 501, "NotImplemented", "no")
	})
	s := w.store(t, s3.Config{})
	data := pattern(11 << 20)
	sum := checksum.Of(checksum.CRC64NVME, []byte(data))
	for range 2 {
		made, err := s.PutWith(t.Context(), "k", strings.NewReader(data), int64(len(data)), object.PutOptions{Checksum: sum})
		if err != nil || made.Parts != 3 {
			t.Fatalf("%+v, %v", made, err)
		}
	}
	if got, err := get(t.Context(), s, "k"); got != data || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := len(w.requests("CreateMultipartUpload")); n != 3 {
		t.Errorf("%d uploads were begun, want 3: one in vain", n)
	}
	for _, r := range w.requests("UploadPart") {
		if r.Header.Get("X-Amz-Checksum-Crc32") == "" && r.Header.Get("X-Amz-Trailer") == "" && r.Trailer == nil {
			t.Errorf("a part has no checksum: %v", r.Header)
		}
	}
	var wrong *checksum.Error
	_, err := s.PutWith(t.Context(), "k", strings.NewReader("D"+data[1:]), int64(len(data)), object.PutOptions{Checksum: sum})
	if !errors.As(err, &wrong) || len(w.requests("AbortMultipartUpload")) != 1 {
		t.Errorf("other bytes: %v, %d aborts", err, len(w.requests("AbortMultipartUpload")))
	}
}

// What arrives otherwise than it was sent is refused by the server, or noticed here.
func TestBytesThatChangeOnTheWay(t *testing.T) { both(t, testBytesThatChangeOnTheWay) }

func testBytesThatChangeOnTheWay(t *testing.T) {
	long.Test(t)
	for name, f := range map[string]fault{
		"the server compares": func(_ http.ResponseWriter, r *http.Request, op string, _ int) bool {
			if data, err := io.ReadAll(r.Body); err == nil && (op == "PutObject" || op == "UploadPart") {
				data[0] ^= 1
				r.Body = io.NopCloser(bytes.NewReader(data))
			}
			return false
		},
		"the server answers another checksum": func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
			if op == "PutObject" || op == "UploadPart" {
				w.Header().Set("ETag", `"e"`)
				w.Header().Set("X-Amz-Checksum-Crc32c", "AAAAAA==")
				return true
			}
			return false
		},
	} {
		for _, data := range []string{"data", pattern(6 << 20)} {
			s := newWire(t, f).store(t, s3.Config{})
			if made, err := s.PutWith(t.Context(), "k", strings.NewReader(data), int64(len(data)), object.PutOptions{}); err == nil {
				t.Errorf("%s: %d bytes are stored as %+v", name, len(data), made)
			}
			if _, err := s.Head(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: there is an object: %v", name, err)
			}
		}
	}
}

// A body that breaks off and is resumed is compared as a whole.
func TestAResumedBodyIsCompared(t *testing.T) {
	t.Setenv("MYRMIDON_S3_CLIENT", "own")
	data := pattern(3 << 20)
	for name, tt := range map[string]struct {
		rest string
		good bool
	}{
		"what follows is right": {data, true},
		"what follows is wrong": {strings.ToUpper(strings.ReplaceAll(data, ",", ";")), false},
	} {
		w := newWire(t, func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
			switch {
			case op != "GetObject":
				return false
			case n == 1:
				w.Header().Set("X-Amz-Checksum-Crc32", strings.TrimPrefix(checksum.Of(checksum.CRC32, []byte(data)), "CRC32:"))
				part(w, data, 1<<20)
				return cutOff()
			}
			const from = 1 << 20
			w.Header().Set("ETag", etagOf(data))
			w.Header().Set("Content-Range", "bytes "+strings.TrimPrefix(r.Header.Get("Range"), "bytes=")+"/"+strconv.Itoa(len(data)))
			w.Header().Set("Content-Length", strconv.Itoa(len(tt.rest)-from))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, tt.rest[from:])
			return true
		})
		s := w.store(t, s3.Config{})
		got, err := get(context.Background(), s, "k")
		if tt.good && (err != nil || got != data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		var wrong *checksum.Error
		if !tt.good && !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
