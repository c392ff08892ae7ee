package s3_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// pair is two stores of different buckets and folders, over one wire.
func pair(t *testing.T, f fault) (w *wire, from, to *s3.Store) {
	t.Helper()
	w = newWire(t, f)
	from = w.store(t, s3.Config{Prefix: "from here +%41"})
	to = w.store(t, s3.Config{Prefix: "to/there"})
	for _, s := range []*s3.Store{from, to} {
		s.SetCopyPart(5 << 20)
	}
	return w, from, to
}

// stat is Head, or ends the test.
func stat(t *testing.T, s *s3.Store, key string) object.Info {
	t.Helper()
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestAnImportIsOneRequest(t *testing.T) { both(t, testAnImportIsOneRequest) }

func testAnImportIsOneRequest(t *testing.T) {
	w, from, to := pair(t, nil)
	const key = "a +%2Fé/日本 &=?#'.txt"
	if err := from.Put(t.Context(), key, strings.NewReader("data"), 4, attrs); err != nil {
		t.Fatal(err)
	}
	src := stat(t, from, key)
	before := len(w.seen)
	if !to.CanImport(from) {
		t.Fatal("CanImport is false")
	}
	began := time.Now()
	made, err := to.Import(t.Context(), from, src, "x/"+key, object.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began) // what the two times of it may differ by, and a second of rounding each
	if n := len(w.seen) - before; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	head := stat(t, to, "x/"+key)
	if got, err := get(t.Context(), to, "x/"+key); got != "data" || err != nil || head.Attrs != attrs {
		t.Errorf("%q, %v, %+v", got, err, head.Attrs)
	}
	if made.ETag != src.ETag || made.ETag != head.ETag || made.Parts != 1 || made.Modified.IsZero() || made.Modified.Sub(head.Modified).Abs() > took+2*time.Second {
		t.Errorf("Imported = %+v, of %+v, and %+v is there", made, src, head)
	}
	if st := to.Stats(); st.Copies != 1 || st.Writes != 1 {
		t.Errorf("Stats = %+v, want one copy", st)
	}
	r := w.requests("CopyObject")[0]
	if got := r.Header.Get("X-Amz-Copy-Source-If-Match"); got != `"`+src.ETag+`"` {
		t.Errorf("copied if %q", got)
	}
}

func TestAnImportRefusesWhatHasChanged(t *testing.T) { both(t, testAnImportRefusesWhatHasChanged) }

func testAnImportRefusesWhatHasChanged(t *testing.T) {
	_, from, to := pair(t, nil)
	put(t, from, "k", "old")
	src := stat(t, from, "k")
	put(t, from, "k", "new")
	if _, err := to.Import(t.Context(), from, src, "k", object.ImportOptions{}); !errors.Is(err, object.ErrChanged) || myrmidon.IsPermanent(err) {
		t.Errorf("Import of what was replaced = %v, want object.ErrChanged", err)
	}
	if err := from.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Import(t.Context(), from, src, "k", object.ImportOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Import of what is gone = %v, want fs.ErrNotExist", err)
	}
	large := src
	large.Size = 6 << 30 // asked for in parts
	if _, err := to.Import(t.Context(), from, large, "k", object.ImportOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Import in parts of what is gone = %v, want fs.ErrNotExist", err)
	}
	put(t, from, "k", "new")
	if _, err := to.Import(t.Context(), from, large, "k", object.ImportOptions{}); !errors.Is(err, object.ErrChanged) {
		t.Errorf("Import in parts of what was replaced = %v, want object.ErrChanged", err)
	}
	if _, err := to.Head(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Head = %v: something was copied", err)
	}
}

// tagged gives an object tags, by the server's protocol.
func tagged(t *testing.T, s *s3.Store, key string, tags map[string]string) {
	t.Helper()
	if err := s.SetTags(t.Context(), key, tags); err != nil {
		t.Fatal(err)
	}
}

// TestAPacedCopyIsNotSentAgain: who paces copies is told at once that the store is busy, and
// whether it said for how long.
func TestAPacedCopyIsNotSentAgain(t *testing.T) {
	for _, c := range []struct {
		name, after string
		paced       bool
		requests    int
		busy        bool
		wait        time.Duration
	}{
		{name: "paced", paced: true, requests: 1, busy: true, wait: 5 * time.Second},
		{name: "paced, and told for how long", paced: true, after: "7", requests: 1, wait: 7 * time.Second},
		{name: "not paced", requests: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
				if op != "CopyObject" || n > 1 {
					return false
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				return refuse(w, 503, "SlowDown", "Please reduce your request rate.")
			})
			s := w.store(t, s3.Config{})
			put(t, s, "from", "data")
			src, err := s.Head(t.Context(), "from")
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if c.paced {
				ctx = object.Paced(ctx)
			}
			_, err = s.Import(ctx, s, src, "to", object.ImportOptions{})
			if (err == nil) != (c.wait == 0) || errors.Is(err, object.ErrBusy) != c.busy {
				t.Errorf("error %v", err)
			}
			if got := myrmidon.AsFailure(err); c.wait > 0 && got.After != c.wait {
				t.Errorf("to be tried again after %v, want %v", got.After, c.wait)
			}
			if got := len(w.requests("CopyObject")); got != c.requests {
				t.Errorf("%d requests, want %d", got, c.requests)
			}
		})
	}
}

func TestALargeImportIsMadeOfParts(t *testing.T) { both(t, testALargeImportIsMadeOfParts) }

func testALargeImportIsMadeOfParts(t *testing.T) {
	long.Test(t)
	for _, c := range []struct {
		name    string
		fault   fault
		tooMuch bool // the server says so, not we
		opts    object.ImportOptions
		problem string
		is      error
	}{
		{name: "with attributes, tags and ETag of the source"},
		{name: "where the server copies less at once than S3", tooMuch: true, fault: func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
			return op == "CopyObject" && tooLarge(w)
		}},
		{name: "with attributes of its own", opts: object.ImportOptions{Replace: true, Attrs: object.Attrs{CacheControl: "max-age=5"}, Metadata: map[string]string{"a": "b"}, Tags: map[string]string{"only": "this"}}},
		{name: "on a server that knows no parts of a HEAD", fault: func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
			if r.Method != http.MethodHead || !r.URL.Query().Has("partNumber") {
				return false
			}
			w.WriteHeader(http.StatusNotImplemented)
			return true
		}},
		{name: "and aborted if a part is refused", problem: "AccessDenied", is: fs.ErrPermission, fault: func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
			return op == "UploadPartCopy" && n == 2 && refuse(w, 403, "AccessDenied", "no")
		}},
		{name: "and aborted if the source is replaced meanwhile", problem: "replaced", is: object.ErrChanged, fault: func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
			return op == "UploadPartCopy" && n == 2 && refuse(w, 412, "PreconditionFailed", "no")
		}},
		{name: "and aborted if a part's answer is an error after all", problem: "InternalError", fault: func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
			if op != "UploadPartCopy" {
				return false
			}
			_, _ = io.WriteString(w, "\n<Error><Code>InternalError</Code><Message>again</Message></Error>")
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, from, to := pair(t, c.fault)
			data := pattern(12<<20 + 5)
			if err := from.Put(t.Context(), "k", strings.NewReader(data), -1, attrs); err != nil { // in parts of 5 MiB
				t.Fatal(err)
			}
			tagged(t, from, "k", map[string]string{"class": "12 b", "a+b": "é"})
			src := stat(t, from, "k")
			if !c.tooMuch {
				to.SetCopyMost(1 << 20)
			}
			to.SetCopyPart(7 << 20) // which it would be cut by, were there no parts to follow
			put(t, to, "to", "old")
			made, err := to.Import(t.Context(), from, src, "to", c.opts)
			got, gerr := get(t.Context(), to, "to")
			if gerr != nil {
				t.Fatal(gerr)
			}
			aborts := len(w.requests("AbortMultipartUpload"))
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) || c.is != nil && !errors.Is(err, c.is) || got != "old" || aborts != 1 {
					t.Errorf("Import = %v; %.10q is there, %d aborts; want an error about %q, the old object and one abort", err, got, aborts, c.problem)
				}
				return
			}
			if err != nil || got != data || aborts != 0 {
				t.Fatalf("Import = %v, %d bytes, %d aborts", err, len(got), aborts)
			}
			head := stat(t, to, "to")
			if made.ETag != src.ETag || head.ETag != src.ETag || made.Parts != 3 || !made.Modified.Equal(head.Modified) {
				t.Errorf("Imported = %+v, of %+v, and %+v is there", made, src, head)
			}
			wantAttrs, wantTags := attrs, map[string]string{"class": "12 b", "a+b": "é"}
			if c.opts.Replace {
				wantAttrs, wantTags = object.Attrs{ContentType: "application/octet-stream", CacheControl: "max-age=5"}, c.opts.Tags
			}
			tags, err := to.Tags(t.Context(), "to")
			if head.Attrs != wantAttrs || err != nil || cmp.Diff(wantTags, tags) != "" {
				t.Errorf("%+v, want %+v; tags %v, want %v; %v", head.Attrs, wantAttrs, tags, wantTags, err)
			}
		})
	}
}

func TestWhatAnImportAsksFor(t *testing.T) { both(t, testWhatAnImportAsksFor) }

func testWhatAnImportAsksFor(t *testing.T) {
	opts := object.ImportOptions{
		Replace: true, Attrs: object.Attrs{CacheControl: "no-store"}, Metadata: map[string]string{"origin": "Class 12"},
		Tags: map[string]string{"a": "b c"}, StorageClass: "STANDARD_IA", Encryption: "aws:kms", KMSKey: "key/1", ACL: "bucket-owner-full-control", IfNone: true,
	}
	want := map[string]string{
		"Cache-Control": "no-store", "Content-Type": "video/mp4", "X-Amz-Meta-Origin": "Class 12", "X-Amz-Storage-Class": "STANDARD_IA",
		"X-Amz-Tagging": "a=b+c", "X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "key/1", "X-Amz-Acl": "bucket-owner-full-control",
	}
	for _, size := range []int64{4, 6 << 30} {
		w, from, to := pair(t, func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
			switch op {
			case "HeadObject":
				w.Header().Set("ETag", `"e"`)
				w.Header().Set("Content-Length", fmt.Sprint(size))
			case "CreateMultipartUpload":
				_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
			case "UploadPartCopy":
				_, _ = io.WriteString(w, `<CopyPartResult><ETag>"p"</ETag></CopyPartResult>`)
			case "CopyObject":
				_, _ = io.WriteString(w, `<CopyObjectResult><ETag>"e2"</ETag><ChecksumCRC64NVME>AA==</ChecksumCRC64NVME></CopyObjectResult>`)
			case "CompleteMultipartUpload":
				_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e2"</ETag><ChecksumCRC64NVME>AA==</ChecksumCRC64NVME></CompleteMultipartUploadResult>`)
			}
			return true
		})
		to.SetCopyPart(1 << 30)
		made, err := to.Import(t.Context(), from, object.Info{Key: "k", ETag: "e", Size: size}, "to.mp4", opts)
		if err != nil || made.ETag != "e2" || made.Checksum != "CRC64NVME:AA==" {
			t.Errorf("%d bytes: %+v, %v", size, made, err)
		}
		op, conditional := "CopyObject", "CopyObject"
		if size > 4 {
			op, conditional = "CreateMultipartUpload", "CompleteMultipartUpload"
		}
		h := w.requests(op)[0].Header
		for name, value := range want {
			if got := h.Get(name); got != value {
				t.Errorf("%s: %s = %q, want %q", op, name, got, value)
			}
		}
		if got := w.requests(conditional)[0].Header.Get("If-None-Match"); got != "*" {
			t.Errorf("%s: If-None-Match = %q", conditional, got)
		}
		if op == "CopyObject" && (h.Get("X-Amz-Metadata-Directive") != "REPLACE" || h.Get("X-Amz-Tagging-Directive") != "REPLACE") {
			t.Errorf("directives: %v", h)
		}
		if n := len(w.requests("UploadPartCopy")); size > 4 && n != 6 {
			t.Errorf("%d parts, want 6", n)
		}
	}
}

func TestAnImportBesideWhatIsThere(t *testing.T) { both(t, testAnImportBesideWhatIsThere) }

func testAnImportBesideWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		name, condition string
		there           bool
		is, isNot       error
	}{
		{"the server names the condition", "<Condition>If-None-Match</Condition>", true, fs.ErrExist, object.ErrChanged},
		{"the server does not", "", true, fs.ErrExist, object.ErrChanged},
		{"it is the other condition", "<Condition>x-amz-copy-source-If-Match</Condition>", false, object.ErrChanged, fs.ErrExist},
		{"it must be the other condition", "", false, object.ErrChanged, fs.ErrExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, from, to := pair(t, func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
				return op == "CopyObject" && refuse(w, 412, "PreconditionFailed", "no</Message>"+c.condition+"<Message>")
			})
			put(t, from, "k", "data")
			if c.there {
				put(t, to, "k", "old")
			}
			_, err := to.Import(t.Context(), from, stat(t, from, "k"), "k", object.ImportOptions{IfNone: true})
			if !errors.Is(err, c.is) || errors.Is(err, c.isNot) {
				t.Errorf("Import = %v, want %v", err, c.is)
			}
		})
	}
}

func TestACopyThatFailsBehindAStatusOf200(t *testing.T) {
	both(t, testACopyThatFailsBehindAStatusOf200)
}

func testACopyThatFailsBehindAStatusOf200(t *testing.T) {
	for _, c := range []struct {
		name, code string
		times      int
		is         error
		about      string
		after      time.Duration
	}{
		{"for a moment", "InternalError", 2, nil, "", 0},
		{"and fails", "InternalError", 99, nil, "InternalError", 0},
		{"since it is too fast", "SlowDown", 99, nil, "SlowDown", 5 * time.Second},
		{"since it is gone", "NoSuchKey", 99, fs.ErrNotExist, "", 0},
		{"since it has changed", "PreconditionFailed", 99, object.ErrChanged, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, from, to := pair(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
				if op != "CopyObject" || n > c.times {
					return false
				}
				_, _ = fmt.Fprintf(w, "%s\n   <Error><Code>%s</Code><Message>message</Message></Error>", declaration, c.code)
				return true
			})
			put(t, from, "k", "data")
			_, err := to.Import(t.Context(), from, stat(t, from, "k"), "k", object.ImportOptions{})
			if c.times < 5 {
				if err != nil {
					t.Errorf("Import = %v", err)
				}
				return
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.about) || myrmidon.AsFailure(err).After != c.after {
				t.Errorf("Import = %v (wait %v), want %v, about %q, %v", err, myrmidon.AsFailure(err).After, c.is, c.about, c.after)
			}
			if _, err := to.Head(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Head = %v", err)
			}
		})
	}
}

func TestWhatCannotBeImported(t *testing.T) {
	w := newWire(t, nil)
	to := w.store(t, s3.Config{})
	elsewhere, err := s3.OpenFast(t.Context(), s3.Config{Bucket: bucketOf(to)}) // not over the wire
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]object.Store{"memory": object.NewMem(), "another endpoint": elsewhere} {
		if to.CanImport(from) {
			t.Errorf("CanImport(%s) is true", name)
		}
		if _, err := to.Import(t.Context(), from, object.Info{Key: "k"}, "k", object.ImportOptions{}); !myrmidon.IsPermanent(err) {
			t.Errorf("Import from %s = %v, want a permanent error", name, err)
		}
	}
	for _, key := range []string{"", "a\xff", "a\x00", strings.Repeat("k", 1025)} {
		for _, src := range []string{key, "k"} {
			target := key
			if src == key {
				target = "k"
			}
			if _, err := to.Import(t.Context(), to, object.Info{Key: src}, target, object.ImportOptions{}); !myrmidon.IsPermanent(err) {
				t.Errorf("Import of %.20q to %.20q = %v, want a permanent error", src, target, err)
			}
		}
	}
	if len(w.seen) != 0 {
		t.Errorf("%d requests were sent", len(w.seen))
	}
}

func TestKeysThatOnlyABucketHasAreImported(t *testing.T) {
	both(t, func(t *testing.T) {
		var sources []string
		w, from, to := pair(t, func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
			sources = append(sources, r.Header.Get("X-Amz-Copy-Source")+" > "+r.URL.EscapedPath())
			_, _ = io.WriteString(w, `<CopyObjectResult><ETag>"e"</ETag></CopyObjectResult>`)
			return true
		})
		for _, key := range []string{"a//b", "folder/", "/a"} {
			if _, err := to.Import(t.Context(), from, object.Info{Key: key}, key, object.ImportOptions{}); err != nil {
				t.Errorf("Import of %q: %v", key, err)
			}
		}
		a, b := bucketOf(from)+"/from%20here%20%2B%2541/", "/"+bucketOf(to)+"/to/there/"
		want := []string{a + "a//b > " + b + "a//b", a + "folder/ > " + b + "folder/", a + "/a > " + b + "/a"}
		if diff := cmp.Diff(want, sources); diff != "" || len(w.seen) != 3 {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestPartsOfACopyFollowTheSource(t *testing.T) {
	s := open(t, "")
	s.SetCopyPart(512 << 20)
	const mib = 1 << 20
	for _, c := range []struct {
		name        string
		size        int64
		parts       int
		first, want int64
	}{
		{"not stored in parts", 6 << 30, 0, 0, 512 * mib},
		{"the first part is known", 6 << 30, 2, 5 << 30, 5 << 30},
		{"the first part does not fit", 6 << 30, 768, 7 * mib, 8 * mib},
		{"parts of 8 MiB, as the AWS CLI makes them", 6<<30 + 1, 769, 0, 8 * mib},
		{"parts of 16 MiB", 6 << 30, 384, 0, 16 * mib},
		{"an unusual size, in MiB", 7 * 1000 * mib, 1000, 0, 7 * mib},
		{"a size that is no MiB", 1000*6_000_000 - 1, 1000, 0, 6_000_000},
		{"one part", 4 << 30, 1, 0, 4 << 30},
		{"a number that cannot be", 6 << 30, 9999, 0, 512 * mib},
		{"the largest object", 5 << 40, 0, 0, 549_755_814},
	} {
		got := s.SizeOfCopied(c.size, c.parts, c.first)
		if got != c.want || c.parts == 0 && (c.size+got-1)/got > 10_000 {
			t.Errorf("%s: parts of %d, want %d", c.name, got, c.want)
		}
	}
}
