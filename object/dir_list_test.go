package object

import (
	"slices"
	"testing"
	"testing/fstest"
)

// That a listing gives the right keys is for the conformance suite; this is about
// what it does not read.
func TestListSkipsFoldersWithoutWantedKeys(t *testing.T) {
	file := new(fstest.MapFile)
	tree := fstest.MapFS{"a/k": file, "a-b/k": file, "b/k": file, "bc/k": file, "c": file}
	entries, err := tree.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, prefix, after string
		want                []string
	}{
		{"all are read for all keys", "", "", []string{"a/", "a-b/", "b/", "bc/", "c"}},
		{"a prefix leaves its own", "b", "", []string{"b/", "bc/"}},
		{"folders that end before after are skipped", "", "b", []string{"b/", "bc/", "c"}},
		{"the folder that after is in is read", "", "a/k", []string{"a/", "b/", "bc/", "c"}},
		{"a folder whose keys all sort before after is skipped", "", "b0", []string{"bc/", "c"}},
		{"both count", "b", "b/z", []string{"b/", "bc/"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listing{prefix: test.prefix, after: test.after}
			var got []string
			for _, e := range entries {
				if w, ok := l.want("", e); ok {
					got = append(got, w.name)
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("read %q, want %q", got, test.want)
			}
		})
	}
}
