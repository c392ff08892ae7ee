package elb

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
	"unicode/utf8"
)

var (
	space         = []byte(" ")
	tab           = []byte("\t")
	fieldsHeader  = []byte("#Fields:")
	versionHeader = []byte("#Version:")
)

func isDigit(c byte) bool { return c-'0' <= 9 }

// isAbsent tells whether a column's text says that there is no value.
func isAbsent(b []byte) bool { return len(b) == 1 && b[0] == '-' }

// maxNumber is the length from which digits are no number of ours: what is shorter fits
// into an int64.
const maxNumber = 19

// isInteger tells whether b is digits, after a minus sign if there is one.
func isInteger(b []byte) bool {
	if len(b) > 0 && len(b) <= 8 && cap(b) >= 8 {
		if x := digitsOf(b); areDigits(x) {
			return true
		}
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) == 0 || len(b) >= maxNumber {
		return false
	}
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// digitsOf returns up to eight bytes as one number, the last in its highest byte, with
// zeros ('0') before the first. b's capacity must be 8.
func digitsOf(b []byte) uint64 {
	missing := 8 * (8 - uint(len(b)))
	return binary.LittleEndian.Uint64(b[:8])<<missing | 0x30*ones&(1<<missing-1)
}

// areDigits tells whether each byte of x is a digit: its upper half is that of '0', also
// with 6 added, which what follows '9' does not survive.
func areDigits(x uint64) bool {
	const upper = 0xf0 * ones
	return x&upper == 0x30*ones && (x+6*ones)&upper == 0x30*ones
}

// isNumber tells whether b is an integer, or two with a point between them. No exponents:
// AWS writes none.
func isNumber(b []byte) bool {
	if len(b) > 1 && len(b) <= 8 && cap(b) >= 8 && isDigit(b[0]) && isDigit(b[len(b)-1]) {
		x := digitsOf(b)
		if point := firstZero(x ^ '.'*ones); point < 8 {
			x ^= uint64('.'^'0') << (8 * point)
		}
		if areDigits(x) {
			return true
		}
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) == 0 || len(b) >= maxNumber || !isDigit(b[0]) {
		return false
	}
	i := 1
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == len(b) {
		return true
	}
	if b[i] != '.' || i+1 == len(b) {
		return false
	}
	for i++; i < len(b); i++ {
		if !isDigit(b[i]) {
			return false
		}
	}
	return true
}

// appendNumber appends a number for which isNumber is true. JSON has no leading zeros,
// but CloudFront has the status 000.
func appendNumber(dst, b []byte) []byte {
	if b[0] == '-' {
		dst, b = append(dst, '-'), b[1:]
	}
	for len(b) > 1 && b[0] == '0' && b[1] != '.' {
		b = b[1:]
	}
	return append(dst, b...)
}

// isAddress tells whether b looks like an IP address, without brackets: four numbers up
// to 255, or hexadecimal groups between colons.
func isAddress(b []byte) bool {
	if len(b) <= 15 && cap(b) >= 20 && isAddress4(b[:20], len(b)) {
		return true
	}
	return isAddressByByte(b)
}

func isAddressByByte(b []byte) bool {
	dots, value, digits := 0, 0, 0
	for _, c := range b {
		switch {
		case isDigit(c):
			value = value*10 + int(c-'0')
			if digits++; digits > 3 || value > 255 {
				return isAddress6(b)
			}
		case c == '.' && digits > 0:
			dots++
			value, digits = 0, 0
		default:
			return isAddress6(b)
		}
	}
	return dots == 3 && digits > 0
}

// isAddress4 tells whether the first n bytes of b, which has 20, are four numbers up to 255.
// Their lengths vary too much to be asked for one by one: the processor would guess wrong.
func isAddress4(b []byte, n int) bool {
	low, high := binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:16])
	dots := uint32(zeros(low^'.'*ones) | zeros(high^'.'*ones)<<8)
	digits := uint32(digitsIn(low) | digitsIn(high)<<8)
	all := uint32(1)<<n - 1
	dots &= all
	if (dots|digits)&all != all || bits.OnesCount32(dots) != 3 {
		return false
	}
	first := bits.TrailingZeros32(dots)
	dots &= dots - 1
	second := bits.TrailingZeros32(dots)
	third := 31 - bits.LeadingZeros32(dots)
	return notByte(b, 0, first)|notByte(b, first+1, second)|notByte(b, second+1, third)|notByte(b, third+1, n) == 0
}

// notByte returns 0 if the digits of b from start to end are a number up to 255, of one to
// three digits.
func notByte(b []byte, start, end int) uint32 {
	n := uint32(end - start)
	x := binary.LittleEndian.Uint32(b[start:]) << ((32 - 8*n) & 31) // the last digit comes highest
	value := (x>>8&15)*100 + (x>>16&15)*10 + x>>24&15
	return (255-value)>>31 | (3-n)>>31 | (n-1)>>31
}

// digitsIn returns a bit for each byte of x that is a digit.
func digitsIn(x uint64) uint64 {
	const upper = 0xf0 * ones
	return zeros((x^0x30*ones)&upper | ((x&^upper)+6*ones)&upper)
}

func isAddress6(b []byte) bool {
	colons, digits := 0, 0
	for i, c := range b {
		switch {
		case isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f':
			if digits++; digits > 4 {
				return false
			}
		case c == ':':
			colons++
			digits = 0
		case c == '.' && colons >= 2: // ::ffff:192.0.2.1
			for i > 0 && b[i-1] != ':' {
				i--
			}
			return isAddress(b[i:])
		default:
			return false
		}
	}
	return colons >= 2 && colons <= 8
}

// splitAddress cuts host:port at the last colon. An address without a port gives no
// port, and so does one in IPv6 without brackets whose last colon cannot precede a port.
func splitAddress(b []byte) (host, port []byte) {
	i := len(b) - 1
	if len(b) >= 8 { // a port has five digits at most
		if colons := zeros(binary.LittleEndian.Uint64(b[len(b)-8:]) ^ ':'*ones); colons != 0 {
			i = len(b) - 9 + bits.Len64(colons)
		}
	}
	for i >= 0 && b[i] != ':' {
		i--
	}
	switch {
	case i < 0:
		host = b
	case b[len(b)-1] == ']':
		host = b
	case i > 0 && b[i-1] == ':' && (i < 2 || b[i-2] != ':'): // 2001:db8::1
		return b, nil
	default:
		host, port = b[:i], b[i+1:]
	}
	if len(host) >= 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return host, port
}

// splitTarget splits what a health check was sent to into an address and a port; what is
// none, such as the name of a Lambda function, is kept whole and comes first.
func splitTarget(b []byte) [3][]byte {
	host, port := splitAddress(b)
	if !isAddress(host) || port != nil && !isInteger(port) {
		return [3][]byte{b, nil, nil}
	}
	return [3][]byte{nil, host, port}
}

// splitRequest splits "GET http://a:80/b c HTTP/1.1", whose URL may hold spaces. A part
// that is not there, or is "-", is nil; so is a protocol that is none.
func splitRequest(b []byte) (method, url, protocol []byte) {
	i := 0
	for i < len(b) && b[i] != ' ' {
		i++
	}
	if i == len(b) {
		return nil, nil, nil
	}
	if method = b[:i]; isAbsent(method) || i == 0 {
		method = nil
	}
	url = b[i+1:]
	j := len(url) - 1
	for j >= 0 && url[j] != ' ' {
		j--
	}
	if j >= 0 {
		switch last := url[j+1:]; {
		case len(last) > 5 && string(last[:5]) == "HTTP/":
			url, protocol = url[:j], last
		case len(last) == 0 || isAbsent(last):
			url = url[:j]
		}
	}
	if isNothing(url) {
		url = nil
	}
	return method, url, protocol
}

// isNothing tells whether b is only "-" and spaces, as the request line of a TCP listener.
func isNothing(b []byte) bool {
	for _, c := range b {
		if c != '-' && c != ' ' {
			return false
		}
	}
	return true
}

// zone is what follows a time in ISO 8601.
type zone uint8

const (
	notTime zone = iota
	zulu         // Z
	noZone       // nothing: the times of Network Load Balancers, which are UTC
	offset       // +01:00
)

const isoShort = "2006-01-02T15:04:05"

// layout is how eight bytes of a time look: digits and what stands between them.
type layout struct {
	mask, want, six uint64
}

// newLayout makes the layout of eight bytes in which d is a digit.
func newLayout(s string) layout {
	var l layout
	for i := range 8 {
		if shift := 8 * i; s[i] == 'd' {
			l.mask |= 0xf0 << shift
			l.want |= '0' << shift
			l.six |= 6 << shift
		} else {
			l.mask |= 0xff << shift
			l.want |= uint64(s[i]) << shift
		}
	}
	return l
}

// fits looks at all eight at once, as areDigits does.
func (l *layout) fits(b []byte) bool {
	x := binary.LittleEndian.Uint64(b)
	return x&l.mask == l.want && (x+l.six)&l.mask == l.want
}

var isoLayouts = [...]layout{newLayout("dddd-dd-"), newLayout("ddTdd:dd"), newLayout("dd:dd:dd"), newLayout(".ddddddZ")}

// isoZone tells whether b is a time in ISO 8601 that exists, such as
// 2018-07-02T22:23:00.186641Z, and how it ends.
func isoZone(b []byte) zone {
	if len(b) < len(isoShort) || !isoLayouts[0].fits(b) || !isoLayouts[1].fits(b[8:]) || !isoLayouts[2].fits(b[11:]) ||
		two(b[11:]) >= 24 || two(b[14:]) >= 60 || two(b[17:]) >= 60 ||
		!dayExists(two(b)*100+two(b[2:]), two(b[5:]), two(b[8:])) {
		return notTime
	}
	rest := b[19:]
	if len(rest) == 8 && isoLayouts[3].fits(rest) {
		return zulu
	}
	if len(rest) > 1 && rest[0] == '.' && isDigit(rest[1]) {
		i := 2
		for i < len(rest) && isDigit(rest[i]) {
			i++
		}
		if i > 10 {
			return notTime
		}
		rest = rest[i:]
	}
	switch {
	case len(rest) == 0:
		return noZone
	case len(rest) == 1 && rest[0] == 'Z':
		return zulu
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && matches(rest[1:], "dd:dd") &&
		two(rest[1:]) < 24 && two(rest[4:]) < 60:
		return offset
	}
	return notTime
}

func two(b []byte) int { return int(b[0]-'0')*10 + int(b[1]-'0') }

// isDate tells whether b is a day that exists, as 2006-01-02.
func isDate(b []byte) bool {
	if len(b) != 10 || b[4] != '-' || b[7] != '-' ||
		!isDigit(b[0]) || !isDigit(b[1]) || !isDigit(b[2]) || !isDigit(b[3]) ||
		!isDigit(b[5]) || !isDigit(b[6]) || !isDigit(b[8]) || !isDigit(b[9]) {
		return false
	}
	month, day := two(b[5:]), two(b[8:])
	return dayExists(two(b)*100+two(b[2:]), month, day)
}

func dayExists(year, month, day int) bool {
	switch {
	case month < 1 || month > 12 || day < 1:
		return false
	case day <= 28:
		return true
	case month == 2:
		return day == 29 && year%4 == 0 && (year%100 != 0 || year%400 == 0)
	case month == 4 || month == 6 || month == 9 || month == 11:
		return day <= 30
	}
	return day <= 31
}

// isClock tells whether b is a time of day, as 15:04:05.
func isClock(b []byte) bool {
	return len(b) == 8 && b[2] == ':' && b[5] == ':' &&
		isDigit(b[0]) && isDigit(b[1]) && isDigit(b[3]) && isDigit(b[4]) && isDigit(b[6]) && isDigit(b[7]) &&
		two(b) < 24 && two(b[3:]) < 60 && two(b[6:]) < 60
}

// isoTime returns the time for which isoZone is not notTime.
func isoTime(b []byte) time.Time {
	date, clock, rest := b[:10], b[11:19], b[19:]
	nanos := 0
	if len(rest) > 0 && rest[0] == '.' {
		rest = rest[1:]
		for unit := 100_000_000; len(rest) > 0 && isDigit(rest[0]); unit /= 10 {
			nanos += int(rest[0]-'0') * unit
			rest = rest[1:]
		}
	}
	t := time.Date(two(date)*100+two(date[2:]), time.Month(two(date[5:])), two(date[8:]),
		two(clock), two(clock[3:]), two(clock[6:]), nanos, time.UTC)
	if len(rest) == 6 {
		t = t.Add(-offsetOf(rest[0], two(rest[1:]), two(rest[4:])))
	}
	return t
}

func offsetOf(sign byte, hours, minutes int) time.Duration {
	d := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if sign == '-' {
		return -d
	}
	return d
}

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// bracketTime returns the time that S3 writes as 06/Feb/2019:00:00:38 +0000.
func bracketTime(b []byte) (time.Time, bool) {
	if len(b) != 26 || b[2] != '/' || b[6] != '/' || b[11] != ':' || b[20] != ' ' || b[21] != '+' && b[21] != '-' ||
		!isClock(b[12:20]) || !matches(b, "dd") || !matches(b[7:], "dddd") || !matches(b[22:], "dddd") {
		return time.Time{}, false
	}
	month := 0
	for m := range 12 {
		if string(b[3:6]) == months[m*3:m*3+3] {
			month = m + 1
		}
	}
	year, day := two(b[7:])*100+two(b[9:]), two(b)
	if !dayExists(year, month, day) || two(b[22:]) >= 24 || two(b[24:]) >= 60 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, two(b[12:]), two(b[15:]), two(b[18:]), 0, time.UTC)
	return t.Add(-offsetOf(b[21], two(b[22:]), two(b[24:]))), true
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// find returns where the next c stands, at i or behind, or -1. Most columns are short, so
// it looks at three times eight bytes before it calls what is faster in long text.
func find(b []byte, i int, c byte) int {
	if i+24 <= len(b) {
		pattern := uint64(c) * ones
		if at := firstZero(binary.LittleEndian.Uint64(b[i:]) ^ pattern); at < 8 {
			return i + at
		}
		if at := firstZero(binary.LittleEndian.Uint64(b[i+8:]) ^ pattern); at < 8 {
			return i + 8 + at
		}
		if at := firstZero(binary.LittleEndian.Uint64(b[i+16:]) ^ pattern); at < 8 {
			return i + 16 + at
		}
		i += 24
	}
	if k := bytes.IndexByte(b[i:], c); k >= 0 {
		return i + k
	}
	return -1
}

// firstZero returns which byte of x is the first that is 0, or 8: of (x - ones) &^ x, the
// lowest high bit set is its.
func firstZero(x uint64) int {
	return bits.TrailingZeros64((x-ones)&^x&highs) >> 3
}

const hex = "0123456789abcdef"

// appendText appends b as the inside of a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func appendText(dst, b []byte) []byte {
	start := 0
	for i := 0; i < len(b); {
		c := b[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, b[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, b[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(dst, b[start:]...)
}
