package s3_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/s3stub"
	"myrmidon/object/s3"
)

// A listing that never ends is an error, however it says that it goes on.
func TestListingsThatNeverEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		fault func(*s3stub.Page)
		says  string
	}{
		"the last page says that there is more, and the next one begins again": {s3stub.ClaimTruncated(true), "not in the order"},
		"pages without keys": {func(p *s3stub.Page) {
			p.Entries, p.Truncated, p.Next = nil, true, p.After+"x"
		}, "no keys"},
		"the same page": {s3stub.RepeatPage(), "not complete"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := s3stub.New(t, s3stub.Config{})
			srv.Setenv(t)
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			if err := srv.AddBucket("endless"); err != nil {
				t.Fatal(err)
			}
			for i := range 1500 {
				if err := srv.PutObject("endless", s3stub.Object{Key: fmt.Sprintf("k%04d", i)}, nil); err != nil {
					t.Fatal(err)
				}
			}
			s, err := s3.New(t.Context(), s3.Config{Bucket: "endless"})
			if err != nil {
				t.Fatal(err)
			}
			srv.Inject(s3stub.Every(1, s3stub.Fault{Page: tt.fault}, s3stub.List))
			ended := make(chan error, 1)
			go func() {
				after := ""
				for {
					page, more, err := s.Page(t.Context(), "", after, 0)
					if err != nil || !more {
						ended <- err
						return
					}
					after = page[len(page)-1].Key
				}
			}()
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("it ended with %v, want %q", err, tt.says)
				}
			case <-time.After(time.Minute):
				t.Errorf("it goes on after %d requests", srv.Counts()[s3stub.List].Requests)
			}
		})
	}
}
