package s3_test

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
	"myrmidon/object/s3"
)

// tooLarge answers CopyObject as S3 does for what is above 5 GiB.
func tooLarge(w http.ResponseWriter) bool {
	return refuse(w, 400, "InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120")
}

func TestALargeObjectIsCopiedInParts(t *testing.T) { both(t, testALargeObjectIsCopiedInParts) }

func testALargeObjectIsCopiedInParts(t *testing.T) {
	long.Test(t)
	data := pattern(12<<20 + 5)
	for _, c := range []struct {
		name    string
		fault   func(w http.ResponseWriter, s *s3.Store, op string, n int) bool
		problem string
		parts   int
	}{
		{"and comes whole, with its attributes", nil, "", 3},
		{"though parts fail for a moment", func(w http.ResponseWriter, _ *s3.Store, op string, n int) bool {
			return op == "UploadPartCopy" && n == 2 && refuse(w, 500, "InternalError", "again")
		}, "", 4},
		{"and not if a part is refused", func(w http.ResponseWriter, _ *s3.Store, op string, _ int) bool {
			return op == "UploadPartCopy" && refuse(w, 403, "AccessDenied", "no")
		}, "AccessDenied", 1},
		{"and not if it is replaced meanwhile", func(_ http.ResponseWriter, s *s3.Store, op string, n int) bool {
			if op == "UploadPartCopy" && n == 1 {
				put(t, s, "from +%41é", pattern(12<<20 + 6)[1:])
			}
			return false
		}, "replaced meanwhile", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *s3.Store
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
				return op == "CopyObject" && tooLarge(w) || c.fault != nil && c.fault(w, s, op, n)
			})
			s = w.store(t, s3.Config{Parallel: 1})
			s.SetCopyPart(5 << 20)
			const from = "from +%41é"
			if err := s.Put(t.Context(), from, strings.NewReader(data), -1, attrs); err != nil {
				t.Fatal(err)
			}
			put(t, s, "to", "old")
			err := s.Copy(t.Context(), from, "to")
			got, gerr := get(t.Context(), s, "to")
			head, herr := s.Head(t.Context(), "to")
			if err := errors.Join(gerr, herr); err != nil {
				t.Fatal(err)
			}
			aborts := len(w.requests("AbortMultipartUpload"))
			if c.problem == "" {
				if err != nil || got != data || head.Attrs != attrs || aborts != 0 {
					t.Errorf("Copy = %v; %d bytes, %+v, %d aborts", err, len(got), head.Attrs, aborts)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.problem) || got != "old" || aborts != 1 {
				t.Errorf("Copy = %v; %.10q is there, %d aborts; want an error about %q, the old object and one abort", err, got, aborts, c.problem)
			}
			if n := len(w.requests("UploadPartCopy")); n != c.parts {
				t.Errorf("%d parts copied, want %d", n, c.parts)
			}
		})
	}
}

func TestACopyIsOneRequest(t *testing.T) { both(t, testACopyIsOneRequest) }

func testACopyIsOneRequest(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{})
	put(t, s, "a +%41é/b", "data")
	before := len(w.seen)
	if err := s.Copy(t.Context(), "a +%41é/b", "c +%41é"); err != nil {
		t.Fatal(err)
	}
	if n := len(w.seen) - before; n != 1 {
		t.Errorf("%d requests", n)
	}
	if got, err := get(t.Context(), s, "c +%41é"); got != "data" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	// S3 refuses a copy onto itself, though this server does not.
	if err := s.Copy(t.Context(), "c +%41é", "c +%41é"); err != nil || len(w.requests("CopyObject")) != 1 {
		t.Errorf("a copy onto itself: %v, %d copies asked for", err, len(w.requests("CopyObject"))-1)
	}
}

func TestACopyOfNothingToItselfIsNotFound(t *testing.T) {
	both(t, testACopyOfNothingToItselfIsNotFound)
}

func testACopyOfNothingToItselfIsNotFound(t *testing.T) {
	s := open(t, "")
	if err := s.Copy(t.Context(), "k", "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Copy = %v, want fs.ErrNotExist", err)
	}
}
