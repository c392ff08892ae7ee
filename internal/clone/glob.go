package clone

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"myrmidon"
)

// checkGlob says what is wrong with a pattern.
func checkGlob(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return myrmidon.WithHint(fmt.Errorf("clone: %q is no pattern", pattern),
			`a "[" needs its "]", and a "\" is followed by the character that it stands for`)
	}
	return nil
}

// glob reports whether a pattern that checkGlob has passed matches all of s. It is
// path.Match but for "/", which is a character like others, and "[!", which is "[^".
func glob(pattern, s string) bool {
	// Where "*" stood last: it is tried with one character more when the rest does not fit.
	starPattern, starText := "", ""
	starred := false
	for {
		if strings.HasPrefix(pattern, "*") {
			pattern = strings.TrimLeft(pattern, "*")
			if pattern == "" {
				return true
			}
			starred, starPattern, starText = true, pattern, s
			continue
		}
		if pattern == "" && s == "" {
			return true
		}
		if pattern != "" && s != "" {
			if restPattern, restText, ok := matchOne(pattern, s); ok {
				pattern, s = restPattern, restText
				continue
			}
		}
		if !starred || starText == "" {
			return false
		}
		_, n := utf8.DecodeRuneInString(starText)
		starText = starText[n:]
		pattern, s = starPattern, starText
	}
}

// matchOne matches one character of s with the front of a pattern, and returns what is
// left of both.
func matchOne(pattern, s string) (restPattern, restText string, ok bool) {
	one := 1
	switch pattern[0] {
	case '[':
		// The set ends at the first "]" that is neither escaped nor the first one in it.
		one = strings.IndexByte(pattern, ']') + 1
		for i := 1; i < len(pattern); i++ {
			if pattern[i] == '\\' {
				i++
			} else if pattern[i] == ']' {
				one = i + 1
				break
			}
		}
	case '\\':
		_, n := utf8.DecodeRuneInString(pattern[1:])
		one += n
	case '?':
	default:
		_, one = utf8.DecodeRuneInString(pattern)
	}
	_, n := utf8.DecodeRuneInString(s)
	char := s[:n]
	if char == "/" { // which path.Match's "?" and sets do not take
		char = "\x00"
		if pattern[:one] == "/" || pattern[:one] == `\/` {
			return pattern[one:], s[n:], true
		}
	}
	class := pattern[:one]
	if strings.HasPrefix(class, "[!") { // as shells write it
		class = "[^" + class[2:]
	}
	ok, _ = path.Match(class, char) // checkGlob has passed it
	return pattern[one:], s[n:], ok
}
