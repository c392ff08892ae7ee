package elb

import (
	"bytes"
	"iter"
	"strconv"
	"time"
)

// Value is a field of a record. It refers to the record's bytes.
type Value struct {
	kind  Kind
	shape shape
	text  []byte
	day   []byte // of a CloudFront time
}

// Absent tells whether the line has no such value: "-", or it ends before.
func (v Value) Absent() bool { return v.text == nil }

// Kind returns the field's kind; the text need not fit.
func (v Value) Kind() Kind { return v.kind }

// Bytes returns the text as AWS wrote it; of a CloudFront time, the time of day. The
// bytes are the line's own. Who overwrites them, say to redact a part of a URL, changes
// the record; their number stays.
func (v Value) Bytes() []byte { return v.text }

// Int returns an Integer, if the text is one.
func (v Value) Int() (int64, bool) {
	if v.kind != Integer || !isInteger(v.text) {
		return 0, false
	}
	return parseInt(v.text), true
}

// parseInt returns the number for which isInteger is true.
func parseInt(b []byte) int64 {
	var n int64
	digits := b
	if b[0] == '-' {
		digits = b[1:]
	}
	for _, c := range digits {
		n = n*10 + int64(c-'0')
	}
	if b[0] == '-' {
		return -n
	}
	return n
}

// Float returns a Decimal or an Integer, if the text is one.
func (v Value) Float() (float64, bool) {
	if v.kind != Decimal && v.kind != Integer || !isNumber(v.text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v.text), 64)
	return f, err == nil
}

// Time returns a Time in UTC, if the text is one.
func (v Value) Time() (time.Time, bool) {
	switch {
	case v.kind != Time:
	case v.shape == asBracketed:
		return bracketTime(v.text)
	case v.shape == asClock:
		if isDate(v.day) && isClock(v.text) {
			var b [len(isoShort)]byte
			return isoTime(append(append(append(b[:0], v.day...), 'T'), v.text...)), true
		}
	case isoZone(v.text) != notTime:
		return isoTime(v.text), true
	}
	return time.Time{}, false
}

// Items returns the parts of Strings and Numbers, "-" included.
func (v Value) Items() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := v.text
		for rest != nil {
			var item []byte
			item, rest = v.next(rest)
			if len(item) > 0 && !yield(item) {
				return
			}
		}
	}
}

// next cuts the first item off a list; rest is nil behind the last.
func (v Value) next(list []byte) (item, rest []byte) {
	if v.shape == asALPN {
		if i := bytes.Index(list, alpnSeparator); i >= 0 {
			return list[:i], list[i+len(alpnSeparator):]
		}
	} else if i := bytes.IndexByte(list, ' '); i >= 0 {
		return list[:i], list[i+1:]
	}
	return list, nil
}

// alpnSeparator stands between the items of "h2","http/1.1", whose outer quotes are the
// column's.
var alpnSeparator = []byte(`","`)
