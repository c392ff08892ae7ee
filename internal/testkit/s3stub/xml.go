package s3stub

import (
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	xmlns     = ` xmlns="http://s3.amazonaws.com/doc/2006-03-01/"`
	upperHex  = "0123456789ABCDEF"
	lowerHex  = "0123456789abcdef"
)

// plain, unreserved and listed are the bytes that stand for themselves in XML text, in
// signatures and in listings with encoding-type=url.
var plain, unreserved, listed = func() (plain, unreserved, listed [256]bool) {
	for c := range 256 {
		plain[c] = c >= 0x20 && c != '&' && c != '<' && c != '>' && c != '"' && c != 0x7f
		unreserved[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
		listed[c] = unreserved[c] || c == '/' || c == '*'
	}
	return plain, unreserved, listed
}()

// appendText appends text as S3 writes it into XML: what XML 1.0 cannot hold becomes a
// character reference all the same, which many parsers refuse (hence encoding-type=url).
func appendText[T string | []byte](b []byte, text T) []byte {
	from := 0
	for i := range len(text) {
		c := text[i]
		if plain[c] {
			continue
		}
		b = append(b, text[from:i]...)
		from = i + 1
		switch c {
		case '&':
			b = append(b, "&amp;"...)
		case '<':
			b = append(b, "&lt;"...)
		case '>':
			b = append(b, "&gt;"...)
		case '"':
			b = append(b, "&quot;"...)
		case '\t', '\n':
			b = append(b, c)
		default:
			b = append(b, "&#x"...)
			b = strconv.AppendUint(b, uint64(c), 16)
			b = append(b, ';')
		}
	}
	return append(b, text[from:]...)
}

// appendURL appends text as listings with encoding-type=url hold it: a space as a plus.
func appendURL[T string | []byte](b []byte, text T) []byte {
	from := 0
	for i := range len(text) {
		c := text[i]
		if listed[c] {
			continue
		}
		b = append(b, text[from:i]...)
		from = i + 1
		if c == ' ' {
			b = append(b, '+')
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return append(b, text[from:]...)
}

// appendURI appends text as signatures have it: all but the unreserved characters of
// RFC 3986 is escaped, and slashes where they are told to be.
func appendURI(b []byte, text string, slashes bool) []byte {
	from := 0
	for i := range len(text) {
		c := text[i]
		if unreserved[c] || c == '~' || c == '/' && !slashes {
			continue
		}
		b = append(b, text[from:i]...)
		from = i + 1
		b = append(b, '%', upperHex[c>>4], upperHex[c&15])
	}
	return append(b, text[from:]...)
}

// appendElem appends an element that holds text.
func appendElem(b []byte, name, text string) []byte {
	b = append(b, '<')
	b = append(b, name...)
	b = append(b, '>')
	b = appendText(b, text)
	return appendEnd(b, name)
}

func appendInt(b []byte, name string, n int64) []byte {
	b = append(b, '<')
	b = append(b, name...)
	b = append(b, '>')
	b = strconv.AppendInt(b, n, 10)
	return appendEnd(b, name)
}

func appendEnd(b []byte, name string) []byte {
	b = append(b, "</"...)
	b = append(b, name...)
	return append(b, '>')
}

// appendETag appends the element of an ETag, which has its quotes escaped.
func appendETag(b []byte, etag string) []byte {
	b = append(b, "<ETag>&quot;"...)
	b = append(b, etag...)
	return append(b, "&quot;</ETag>"...)
}

// appendTime appends a time in Unix seconds as listings have it, with milliseconds
// that are always 0. It is written by hand because a page has a thousand of them.
func appendTime(b []byte, unix int64) []byte {
	year, month, day := time.Unix(unix, 0).UTC().Date()
	second := ((unix % 86400) + 86400) % 86400
	two := func(n int64) { b = append(b, byte('0'+n/10), byte('0'+n%10)) }
	two(int64(year / 100))
	two(int64(year % 100))
	b = append(b, '-')
	two(int64(month))
	b = append(b, '-')
	two(int64(day))
	b = append(b, 'T')
	two(second / 3600)
	b = append(b, ':')
	two(second / 60 % 60)
	b = append(b, ':')
	two(second % 60)
	return append(b, ".000Z"...)
}

func appendModified(b []byte, unix int64) []byte {
	b = append(b, "<LastModified>"...)
	b = appendTime(b, unix)
	return append(b, "</LastModified>"...)
}

// unescape undoes percent-encoding, and plus for space where that is meant.
func unescape(s string, plus bool) (string, bool) {
	i := 0
	for i < len(s) && s[i] != '%' && (!plus || s[i] != '+') {
		i++
	}
	if i == len(s) {
		return s, true
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		switch {
		case s[i] == '+' && plus:
			b = append(b, ' ')
		case s[i] != '%':
			b = append(b, s[i])
		default:
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", false
			}
			b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		}
	}
	return string(b), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// keyed reports whether a key is one that S3 takes: UTF-8 without the NUL character.
func keyed(key string) bool {
	for i := range len(key) {
		if key[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(key)
}
