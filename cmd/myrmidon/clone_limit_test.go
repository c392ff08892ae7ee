package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

func TestConcurrencyBoundsCopiesUnderWay(t *testing.T) {
	long.Test(t)
	const n, most = 2_000, 20
	for name, args := range map[string][]string{"of a listing": nil, "of a list": {"--files-from", "list"}} {
		t.Run(name, func(t *testing.T) {
			s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 5 * time.Millisecond}})
			var list strings.Builder
			for i := range n {
				fmt.Fprintf(&list, "%s\n", numbered(n).Key(nil, i))
			}
			for _, err := range []error{
				s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), ""),
				os.WriteFile(filepath.Join(s.dir, "list"), []byte(list.String()), 0o600),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"clone", "s3://from", "s3://into", "-q", "--concurrency", "20"}, args...)
			if _, problems, exit := s.run(args...); exit != 0 {
				t.Fatalf("exit %d\n%s", exit, problems)
			}
			copies := s.s3.Counts()[s3stub.Copy]
			if copies.Requests != n || copies.Peak > most || copies.Peak < most/2 {
				t.Errorf("%d copies, %d at once at most, want %d and %d", copies.Requests, copies.Peak, n, most)
			}
		})
	}
}
