package hls

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

var errEmpty = errors.New("is empty")

// attributes writes an attribute list (bis, section 4.2). It keeps the first error,
// so that a tag can be written line by line and looked at once.
type attributes struct {
	b     []byte
	comma bool
	err   error
}

func (a *attributes) name(name string) {
	if a.comma {
		a.b = append(a.b, ',')
	}
	a.comma = true
	a.b = append(a.b, name...)
	a.b = append(a.b, '=')
}

// fail keeps the first error.
func (a *attributes) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// plain writes a value that was checked or made here: a number, an enumerated
// string.
func (a *attributes) plain(name, value string) {
	a.name(name)
	a.b = append(a.b, value...)
}

func (a *attributes) integer(name string, n int64) { a.plain(name, strconv.FormatInt(n, 10)) }

// quoted writes a quoted string, which has no way to hold a quote or a line break.
func (a *attributes) quoted(name, value string) {
	if err := checkText(name, value); err != nil {
		a.fail(err)
	}
	if strings.Contains(value, `"`) {
		a.fail(fmt.Errorf("%s: %q holds a quote", name, value))
	}
	a.plain(name, `"`+value+`"`)
}

// optional is quoted, unless value is empty.
func (a *attributes) optional(name, value string) {
	if value != "" {
		a.quoted(name, value)
	}
}

func (a *attributes) uri(name, value string) {
	if err := checkURI(name, value); err != nil {
		a.fail(err)
	}
	a.quoted(name, value)
}

// checkText says whether a playlist may hold text: UTF-8 without control characters
// or a byte order mark (bis, section 4.1).
func checkText(field, text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s: %q is not UTF-8", field, text)
	}
	for _, r := range text {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r == '\uFEFF' {
			return fmt.Errorf("%s: %q holds the character %U", field, text, r)
		}
	}
	return nil
}

// checkURI says whether text can be a URI of a playlist. It does not parse it, since
// readers differ in what they take; it keeps out what ends a line or an attribute.
func checkURI(field, text string) error {
	if text == "" {
		return fmt.Errorf("%s: %w", field, errEmpty)
	}
	if err := checkText(field, text); err != nil {
		return err
	}
	if strings.ContainsAny(text, " \"") {
		return fmt.Errorf("%s: %q holds a space or a quote; escape it as %%20 or %%22", field, text)
	}
	return nil
}
