package s3

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"myrmidon/object"
)

// entry is an object of a listing, as the XML has it.
type entry struct{ key, modified, etag, size []byte }

// result is a ListBucketResult, as the XML has it (Amazon S3 API Reference,
// ListObjectsV2).
type result struct {
	entries                          []entry
	truncated, next, encoding, count []byte
	prefixes                         int
	buf                              []byte // a key while it is decoded
	unescaped                        []byte // texts that were not plain, which entries point to
}

var results = sync.Pool{New: func() any { return new(result) }}

// parseListing reads a page of a listing and appends its objects to page, with the keys of
// the bucket. It keeps nothing of data.
//
// Ten million keys come through here, so what S3 writes is read by a scanner of its own; what
// is written otherwise by encoding/xml.
func parseListing(data []byte, page []object.Info) (listing, error) {
	r := results.Get().(*result)
	defer func() {
		clear(r.entries) // they hold data
		results.Put(r)
	}()
	if !r.scan(data) {
		if err := r.decode(data); err != nil {
			return listing{}, fmt.Errorf("read the listing: %w", err)
		}
	}
	out := listing{next: string(r.next), count: -1}
	switch string(r.truncated) {
	case "true":
		out.more = true
	case "false", "":
	default:
		return listing{}, fmt.Errorf("the listing says that it is truncated by %.40q", r.truncated)
	}
	if len(r.count) > 0 {
		n, err := strconv.Atoi(string(r.count))
		if err != nil {
			return listing{}, fmt.Errorf("the listing has %.40q objects", r.count)
		}
		out.count = n - r.prefixes
	}
	// Not every server heeds the encoding that was asked for; the answer says whether it did.
	encoded := string(r.encoding) == "url"
	for i := range r.entries {
		info, err := r.info(&r.entries[i], encoded)
		if err != nil {
			return listing{}, err
		}
		page = append(page, info)
	}
	out.page = page
	return out, nil
}

// info makes an object of an entry. Its key and ETag share one string.
func (r *result) info(e *entry, encoded bool) (object.Info, error) {
	var info object.Info
	buf := r.buf[:0]
	if !encoded {
		buf = append(buf, e.key...)
	} else if buf = appendDecoded(buf, e.key); buf == nil {
		return info, badKey(string(e.key))
	}
	n := len(buf)
	buf = append(buf, bytes.Trim(e.etag, `"`)...)
	text := string(buf)
	r.buf = buf
	info.Key, info.ETag = text[:n], text[n:]
	if len(e.size) > 0 {
		size, ok := number(e.size)
		if !ok {
			return info, fmt.Errorf("the listing holds an object of %.40q bytes", e.size)
		}
		info.Size = size
	}
	if len(e.modified) > 0 {
		var at time.Time
		if err := at.UnmarshalText(e.modified); err != nil {
			return info, fmt.Errorf("the listing holds a time of %.40q", e.modified)
		}
		info.Modified = at.UTC()
	}
	return info, nil
}

// number reads a size.
func number(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// appendDecoded appends text without its encoding as a part of a URL's query, or returns nil
// if that is wrong.
func appendDecoded(buf, text []byte) []byte {
	if buf == nil {
		buf = make([]byte, 0, len(text))
	}
	if bytes.IndexByte(text, '%') < 0 && bytes.IndexByte(text, '+') < 0 {
		return append(buf, text...)
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '+':
			buf = append(buf, ' ')
		case '%':
			if i+2 >= len(text) {
				return nil
			}
			high, low := nibble(text[i+1]), nibble(text[i+2])
			if high < 0 || low < 0 {
				return nil
			}
			buf = append(buf, byte(high<<4|low))
			i += 2
		default:
			buf = append(buf, c)
		}
	}
	return buf
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

// reset empties r and keeps its memory.
func (r *result) reset() {
	*r = result{entries: r.entries[:0], buf: r.buf, unescaped: r.unescaped[:0]}
}

// decode reads a listing by encoding/xml.
func (r *result) decode(data []byte) error {
	r.reset()
	var doc struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           string
		NextContinuationToken string
		EncodingType          string
		KeyCount              string
		Contents              []struct{ Key, LastModified, ETag, Size string }
		CommonPrefixes        []struct{}
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		return err
	}
	r.truncated, r.next, r.encoding = []byte(doc.IsTruncated), []byte(doc.NextContinuationToken), []byte(doc.EncodingType)
	r.count, r.prefixes = []byte(doc.KeyCount), len(doc.CommonPrefixes)
	for _, c := range doc.Contents {
		r.entries = append(r.entries, entry{[]byte(c.Key), []byte(c.LastModified), []byte(c.ETag), []byte(c.Size)})
	}
	return nil
}

// scan reads a listing as S3 writes it, and reports false if it is written otherwise.
func (r *result) scan(data []byte) bool {
	r.reset()
	s := scanner{data: data, out: r.unescaped}
	defer func() { r.unescaped = s.out }()
	if !s.prolog() || string(s.open()) != "ListBucketResult" || s.empty {
		return false
	}
	for {
		name := s.open()
		switch string(name) {
		case "": // not an element's beginning
			return s.close("ListBucketResult")
		case "Contents":
			if s.empty {
				return false
			}
			r.entries = append(r.entries, entry{})
			if !s.contents(&r.entries[len(r.entries)-1]) {
				return false
			}
			continue
		case "IsTruncated":
			r.truncated = s.text(name)
		case "NextContinuationToken":
			r.next = s.text(name)
		case "EncodingType":
			r.encoding = s.text(name)
		case "KeyCount":
			r.count = s.text(name)
		case "CommonPrefixes":
			r.prefixes++
			s.skip(name, 0)
		default:
			s.skip(name, 0)
		}
		if s.bad {
			return false
		}
	}
}

// contents reads what is said of an object.
func (s *scanner) contents(e *entry) bool {
	for {
		name := s.open()
		switch string(name) {
		case "":
			return s.close("Contents")
		case "Key":
			e.key = s.text(name)
		case "LastModified":
			e.modified = s.text(name)
		case "ETag":
			e.etag = s.text(name)
		case "Size":
			e.size = s.text(name)
		default:
			s.skip(name, 0)
		}
		if s.bad {
			return false
		}
	}
}

// scanner reads XML of elements with text or elements in them, of no attributes but the
// namespace of the first, no comments, no CDATA: what S3 writes. Where XML is otherwise it
// turns bad, and says so rather than reading it wrongly.
type scanner struct {
	data  []byte
	i     int
	empty bool // the element that was opened last is <Name/>
	bad   bool
	out   []byte // texts that were unescaped
}

// prolog reads the declaration.
func (s *scanner) prolog() bool {
	s.space()
	const declaration = `<?xml version="1.0" encoding="UTF-8"?>`
	if bytes.HasPrefix(s.data[s.i:], []byte("<?")) {
		if s.i > 0 || len(s.data) < len(declaration) || !bytes.EqualFold(s.data[:len(declaration)], []byte(declaration)) {
			return false
		}
		s.i = len(declaration)
	}
	return true
}

func (s *scanner) space() {
	for s.i < len(s.data) && (s.data[s.i] == ' ' || s.data[s.i] == '\n' || s.data[s.i] == '\t') {
		s.i++
	}
}

// open reads the beginning of an element and returns its name, or nil if there is none.
func (s *scanner) open() []byte {
	s.space()
	d, begin := s.data, s.i+1
	if s.bad || begin >= len(d) || d[s.i] != '<' {
		return nil
	}
	i := begin
	for i < len(d) && isLetter(d[i]) {
		i++
	}
	name := d[begin:i]
	if len(name) == 0 || !('A' <= name[0] && name[0] <= 'Z') {
		return nil // "</", "<!", "<?" and what begins otherwise than S3's names
	}
	if rest, ok := bytes.CutPrefix(d[i:], []byte(` xmlns="http`)); ok {
		n := bytes.IndexByte(rest, '"')
		if n < 0 || bytes.ContainsAny(rest[:n], "<&>\r\n\t") || !plainText(rest[:n]) {
			s.bad = true
			return nil
		}
		i = len(d) - len(rest) + n + 1
	}
	s.empty = false
	if i < len(d) && d[i] == '/' {
		s.empty = true
		i++
	}
	if i >= len(d) || d[i] != '>' {
		s.bad = true
		return nil
	}
	s.i = i + 1
	return name
}

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// close reads the end of an element.
func (s *scanner) close(name string) bool {
	n := len(name) + 3
	if s.bad || len(s.data)-s.i < n || s.data[s.i] != '<' || s.data[s.i+1] != '/' ||
		string(s.data[s.i+2:s.i+n-1]) != name || s.data[s.i+n-1] != '>' {
		s.bad = true
		return false
	}
	s.i += n
	return true
}

// text reads the text of the element that was opened, and its end.
func (s *scanner) text(name []byte) []byte {
	if s.empty {
		return nil
	}
	n := bytes.IndexByte(s.data[s.i:], '<')
	if n < 0 {
		s.bad = true
		return nil
	}
	raw := s.data[s.i : s.i+n]
	s.i += n
	if !s.close(string(name)) {
		return nil
	}
	if plainText(raw) {
		return raw
	}
	return s.unescape(raw)
}

// plainText reports whether text is ASCII that stands for itself.
func plainText(text []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for len(text) >= 8 {
		// Eight bytes at once: the top bit of a byte is set where it is above 0x7e, below
		// a space, "&" or "]" (Bit Twiddling Hacks, "Determine if a word has a byte less
		// than n"). A borrow may set a bit too many, behind one that is rightly set.
		w := binary.LittleEndian.Uint64(text)
		special := w | (w + ones) | (w - ones*' ') | ((w ^ ones*'&') - ones) | ((w ^ ones*']') - ones)
		if special&tops != 0 {
			break
		}
		text = text[8:]
	}
	return plainLength(text) == len(text)
}

// plainLength returns the length of the plain text that text begins with.
func plainLength(text []byte) int {
	for i, c := range text {
		if c < ' ' || c >= 0x7f || c == '&' || c == ']' {
			return i
		}
	}
	return len(text)
}

// unescape returns text that is not plain.
func (s *scanner) unescape(raw []byte) []byte {
	if bytes.Contains(raw, []byte("]]>")) || !utf8.Valid(raw) {
		s.bad = true
		return nil
	}
	begin := len(s.out)
	for i := 0; i < len(raw) && !s.bad; {
		if n := plainLength(raw[i:]); n > 0 {
			s.out = append(s.out, raw[i:i+n]...)
			i += n
			continue
		}
		c, n := utf8.DecodeRune(raw[i:])
		switch {
		case c == '&':
			end := bytes.IndexByte(raw[i:], ';')
			if end < 0 {
				s.bad = true
				return nil
			}
			c, n = entity(raw[i+1:i+end]), end+1
			s.bad = c < 0
		case c < ' ' && c != '\t' && c != '\n', c == 0xfffe, c == 0xffff:
			s.bad = true // a line break as \r\n among them, which encoding/xml knows about
		}
		if s.bad {
			return nil
		}
		s.out = utf8.AppendRune(s.out, c)
		i += n
	}
	return s.out[begin:len(s.out):len(s.out)]
}

// entity returns the character of an entity, or -1.
func entity(name []byte) rune {
	switch string(name) {
	case "amp":
		return '&'
	case "lt":
		return '<'
	case "gt":
		return '>'
	case "quot":
		return '"'
	case "apos":
		return '\''
	}
	digits, base := name, 10
	if len(digits) == 0 || digits[0] != '#' {
		return -1
	}
	if digits = digits[1:]; len(digits) > 0 && digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	if len(digits) == 0 || nibble(digits[0]) < 0 {
		return -1
	}
	n, err := strconv.ParseUint(string(digits), base, 32)
	if err != nil || n > 0xfffd && n < 0x10000 || n > utf8.MaxRune || n >= 0xd800 && n < 0xe000 || n < ' ' && n != '\t' && n != '\n' && n != '\r' {
		return -1
	}
	return rune(n)
}

// skip reads over the element that was opened.
func (s *scanner) skip(name []byte, depth int) {
	if s.empty || s.bad {
		return
	}
	if depth > 8 {
		s.bad = true
		return
	}
	before := s.i
	for {
		child := s.open()
		if s.bad {
			return
		}
		if child == nil {
			break
		}
		before = -1
		s.skip(child, depth+1)
		if s.bad {
			return
		}
	}
	if before >= 0 { // it has text
		s.i = before
		s.text(name)
		return
	}
	s.close(string(name))
}

// parseCopied reads the answer to a copy: a CopyObjectResult or CopyPartResult.
func parseCopied(data []byte) (piece, error) {
	var doc struct {
		XMLName           xml.Name
		LastModified      string
		ETag              string
		ChecksumCRC32     string
		ChecksumCRC32C    string
		ChecksumCRC64NVME string
		ChecksumSHA1      string
		ChecksumSHA256    string
	}
	s := scanner{data: data}
	ok := s.prolog()
	name := s.open()
	for ok = ok && !s.empty && (string(name) == "CopyObjectResult" || string(name) == "CopyPartResult"); ok; {
		child := s.open()
		if child == nil {
			ok = s.close(string(name))
			break
		}
		switch text := s.text(child); string(child) {
		case "LastModified":
			doc.LastModified = string(text)
		case "ETag":
			doc.ETag = string(text)
		case "ChecksumCRC32":
			doc.ChecksumCRC32 = string(text)
		case "ChecksumCRC32C":
			doc.ChecksumCRC32C = string(text)
		case "ChecksumCRC64NVME":
			doc.ChecksumCRC64NVME = string(text)
		case "ChecksumSHA1":
			doc.ChecksumSHA1 = string(text)
		case "ChecksumSHA256":
			doc.ChecksumSHA256 = string(text)
		}
		ok = !s.bad
	}
	if !ok {
		if err := xml.Unmarshal(data, &doc); err != nil {
			return piece{}, fmt.Errorf("read the answer to a copy: %w", err)
		}
	}
	if doc.ETag == "" {
		return piece{}, errNoETag
	}
	out := piece{etag: doc.ETag}
	out.checksum = checksumOf(doc.ChecksumCRC64NVME, doc.ChecksumCRC32, doc.ChecksumCRC32C, doc.ChecksumSHA256, doc.ChecksumSHA1)
	if at, err := time.Parse(time.RFC3339, doc.LastModified); err == nil {
		out.modified = at.UTC()
	}
	return out, nil
}

// checksumOf writes the first checksum that there is.
func checksumOf(crc64nvme, crc32, crc32c, sha256, sha1 string) string {
	for _, c := range [...][2]string{{"CRC64NVME:", crc64nvme}, {"CRC32:", crc32}, {"CRC32C:", crc32c}, {"SHA256:", sha256}, {"SHA1:", sha1}} {
		if c[1] != "" {
			return c[0] + c[1]
		}
	}
	return ""
}
