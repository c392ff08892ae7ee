package clone

import (
	"path"
	"strings"
	"testing"
)

func TestGlobCrossesSlashes(t *testing.T) {
	for _, tt := range []struct {
		pattern, key string
		want         bool
	}{
		{"*", "", true},
		{"*", "a/b/c", true},
		{"*.mp4", "a/b.mp4", true},
		{"*.mp4", "a/b.mp4.txt", false},
		{"a/*/c", "a/b/b/c", true},
		{"a?c", "a/c", true},
		{"a[!b]c", "a/c", true},
		{"a[^b]c", "abc", false},
		{"[a-c]*", "b/x", true},
		{`\*`, "*", true},
		{`\*`, "x", false},
		{`a\/b`, "a/b", true},
		{"*a*b*", "xxaxxbxx", true},
		{"*a*b*", "xxbxxaxx", false},
		{"", "", true},
		{"", "a", false},
		{"é?", "éö", true},
		{"**/x", "a/x", true},
		{"tmp/*", "tmp/", true},
		{"tmp/*", "tmp", false},
		{`[\]]`, "]", true},
		{"*[0-9]", "a/b7", true},
	} {
		if err := checkGlob(tt.pattern); err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
		}
		if got := glob(tt.pattern, tt.key); got != tt.want {
			t.Errorf("%q matches %q: %t", tt.pattern, tt.key, got)
		}
	}
	for _, bad := range []string{"[", "[a", `\`, "a[]", "[a-]"} {
		if checkGlob(bad) == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
}

// Where no slash is about, path.Match is the judge.
func FuzzGlobIsPathMatchWithoutSlashes(f *testing.F) {
	for _, s := range []string{"*a?b|xaab", "[a-c]*|b", `\**|*x`, "*[^a]*|aab", "a*b*c|abbc"} {
		p, k, _ := strings.Cut(s, "|")
		f.Add(p, k)
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if strings.Contains(pattern+key, "/") || strings.Contains(pattern, "[!") || strings.Contains(key, "\x00") || checkGlob(pattern) != nil {
			return
		}
		want, err := path.Match(pattern, key)
		if err != nil {
			return
		}
		if got := glob(pattern, key); got != want {
			t.Errorf("glob(%q, %q) is %t", pattern, key, got)
		}
	})
}
