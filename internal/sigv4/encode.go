package sigv4

import (
	"bytes"
	"slices"
	"strings"
)

// pair is a parameter of a query, encoded.
type pair struct{ name, value string }

// unreserved reports whether a byte is signed as it is (RFC 3986, section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}

const digits = "0123456789ABCDEF"

// encode writes text with all but unreserved characters (and "/", if slash is set) as %XX.
func encode(w *bytes.Buffer, text string, slash bool) {
	w.Write(AppendEncoded(w.AvailableBuffer(), text, slash))
}

// AppendEncoded appends text encoded as a signature has it: every byte but A-Z, a-z, 0-9,
// "-", "_", ".", "~", and "/" if slash is set, becomes %XX. A key of S3 that is sent like
// this is signed as it is sent.
func AppendEncoded(b []byte, text string, slash bool) []byte {
	for i := range len(text) {
		if c := text[i]; unreserved(c) || c == '/' && slash {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// writeQuery writes a query with its parameters in order and encoded in the one way that a
// signature knows.
func (t *scratch) writeQuery(query string) {
	if query == "" {
		return
	}
	t.query = t.query[:0]
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		t.query = append(t.query, pair{recode(name), recode(value)})
	}
	slices.SortFunc(t.query, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	for i, p := range t.query {
		if i > 0 {
			t.text.WriteByte('&')
		}
		t.text.WriteString(p.name)
		t.text.WriteByte('=')
		t.text.WriteString(p.value)
	}
	clear(t.query)
}

// recode returns a part of a query encoded as a signature has it. "+" is a space; a "%" that
// begins no escape stands for itself.
func recode(text string) string {
	if clean(text) {
		return text
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(text) && nibble(text[i+1]) >= 0 && nibble(text[i+2]) >= 0:
			c = byte(nibble(text[i+1])<<4 | nibble(text[i+2]))
			i += 2
		}
		plain = append(plain, c)
	}
	return string(AppendEncoded(nil, string(plain), false))
}

// clean reports whether text is encoded as a signature has it.
func clean(text string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if unreserved(c) {
			continue
		}
		if c != '%' || i+2 >= len(text) {
			return false
		}
		high, low := strings.IndexByte(digits, text[i+1]), strings.IndexByte(digits, text[i+2])
		if high < 0 || low < 0 || unreserved(byte(high<<4|low)) {
			return false
		}
		i += 2
	}
	return true
}

// nibble returns the value of a hexadecimal digit, or -1.
func nibble(c byte) int {
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
