// Package sigv4 signs HTTP requests as AWS wants them (Signature Version 4, in the header
// Authorization), for paths that send thousands of requests a second: a signature costs two
// SHA-256 of a kilobyte and a few small allocations, since the key that is derived from the
// secret is kept for each day, region and access key.
//
// What differs between services is [Config]: S3 takes the path as it is sent and wants the
// hash of the body as a header, all others encode the path once more and do not ask.
//
// Source: AWS General Reference, "Create a signed AWS API request", and for S3 the Amazon S3
// API Reference, "Signature Calculations for the Authorization Header".
package sigv4

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Unsigned is the hash of a body that is not signed. S3 takes it, over TLS.
	Unsigned = "UNSIGNED-PAYLOAD"
	// Empty is the hash of no body.
	Empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

	// keptKeys is how many derived keys a signer keeps: a few regions, or the credentials
	// before and after a renewal.
	keptKeys = 8
)

// Config says how a service wants its requests signed.
type Config struct {
	Service string // as in the credential's scope: "s3", "kinesis", "lambda"
	// EncodePath signs the path encoded once more, which every service but S3 wants.
	EncodePath bool
	// SendHash sends the hash of the body as X-Amz-Content-Sha256, which S3 wants.
	SendHash bool
}

// Credentials are what a request is signed with.
type Credentials struct {
	AccessKey string
	Secret    string
	Token     string // of a session; "" is none
}

// Signer signs the requests of one service. Its methods may be called from many goroutines.
type Signer struct {
	cfg  Config
	mu   sync.Mutex             // held to change keys
	keys atomic.Pointer[[]*key] // newest last
	date atomic.Pointer[stamp]
}

// New returns a signer.
func New(cfg Config) *Signer { return &Signer{cfg: cfg} }

// Hash returns the hash of a body: 64 hexadecimal digits.
func Hash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// key is a signing key, derived from a secret.
type key struct {
	day                    int // 20130524
	region, access, secret string
	scope                  string    // 20130524/us-east-1/s3/aws4_request
	macs                   sync.Pool // of hash.Hash: HMAC-SHA256 with the key
}

// stamp is a time as it is sent, kept since a busy second has thousands of requests.
type stamp struct {
	second int64
	text   string // 20130524T000000Z
	day    int
}

// scratch is the memory of one signature.
type scratch struct {
	text    bytes.Buffer
	headers []header
	query   []pair
	sum     [sha256.Size]byte
}

type header struct {
	name   string
	values []string
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Sign adds the headers X-Amz-Date, Authorization and, where they apply,
// X-Amz-Security-Token and X-Amz-Content-Sha256, and replaces those that are there.
// payload is the hash of the body: see [Hash], [Empty] and [Unsigned].
//
// It signs the host, the length of the body if that is above 0, and all of req.Header but
// Authorization, User-Agent, Expect, Transfer-Encoding and X-Amzn-Trace-Id, which proxies
// change. Names in req.Header have to be canonical. A port that is the scheme's own is taken
// from req.Host. The path is the one that net/http sends:
// URL.Opaque if it is set and begins with one "/", else URL.EscapedPath.
func (s *Signer) Sign(req *http.Request, c Credentials, region, payload string, at time.Time) {
	date := s.stampOf(at)
	k := s.keyOf(date.day, c, region)
	values := make([]string, 4)
	set := func(i int, name, value string) {
		values[i] = value
		req.Header[name] = values[i : i+1 : i+1]
	}
	set(0, "X-Amz-Date", date.text)
	if c.Token != "" {
		set(1, "X-Amz-Security-Token", c.Token)
	}
	if s.cfg.SendHash {
		set(2, "X-Amz-Content-Sha256", payload)
	}
	t := scratches.Get().(*scratch)
	defer scratches.Put(t)
	names := s.canonical(t, req, payload)
	t.sum = sha256.Sum256(t.text.Bytes())

	b := t.text.Bytes()
	signed := string(b[names[0]:names[1]])
	t.text.Reset()
	b = t.text.AvailableBuffer()
	b = append(b, "AWS4-HMAC-SHA256\n"...)
	b = append(b, date.text...)
	b = append(b, '\n')
	b = append(b, k.scope...)
	b = append(b, '\n')
	b = hex.AppendEncode(b, t.sum[:])
	mac := k.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(b) // which never fails
	signature := mac.Sum(t.sum[:0])
	b = append(b[:0], "AWS4-HMAC-SHA256 Credential="...)
	b = append(b, c.AccessKey...)
	b = append(b, '/')
	b = append(b, k.scope...)
	b = append(b, ", SignedHeaders="...)
	b = append(b, signed...)
	b = append(b, ", Signature="...)
	b = hex.AppendEncode(b, signature)
	k.macs.Put(mac)
	set(3, "Authorization", string(b))
}

// canonical writes the canonical request and returns where in it the names of the signed
// headers begin and end.
func (s *Signer) canonical(t *scratch, req *http.Request, payload string) (names [2]int) {
	w := &t.text
	w.Reset()
	w.WriteString(req.Method)
	w.WriteByte('\n')
	path := req.URL.Opaque
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		path = req.URL.EscapedPath()
	}
	switch {
	case path == "":
		w.WriteByte('/')
	case s.cfg.EncodePath:
		encode(w, path, true)
	default:
		w.WriteString(path)
	}
	w.WriteByte('\n')
	t.writeQuery(req.URL.RawQuery)
	w.WriteByte('\n')

	t.headers = append(t.headers[:0], header{name: "Host"})
	if req.ContentLength > 0 {
		t.place(header{name: "Content-Length"})
	}
	for name, values := range req.Header {
		switch name {
		case "Authorization", "User-Agent", "Expect", "Transfer-Encoding", "X-Amzn-Trace-Id", "Content-Length", "Host":
			continue
		}
		t.place(header{name, values})
	}
	for _, h := range t.headers {
		lower(w, h.name)
		w.WriteByte(':')
		switch h.name {
		case "Host":
			w.WriteString(hostOf(req))
		case "Content-Length":
			b := strconv.AppendInt(w.AvailableBuffer(), req.ContentLength, 10)
			w.Write(b)
		default:
			for i, v := range h.values {
				if i > 0 {
					w.WriteByte(',')
				}
				squeeze(w, v)
			}
		}
		w.WriteByte('\n')
	}
	w.WriteByte('\n')
	names[0] = w.Len()
	for i, h := range t.headers {
		if i > 0 {
			w.WriteByte(';')
		}
		lower(w, h.name)
	}
	names[1] = w.Len()
	w.WriteByte('\n')
	w.WriteString(payload)
	clear(t.headers) // they hold the request
	return names
}

// place puts a header where it belongs in the order of lower-case names: there are few, and
// in nobody's order.
func (t *scratch) place(h header) {
	t.headers = append(t.headers, h)
	for i := len(t.headers) - 1; i > 0 && before(h.name, t.headers[i-1].name); i-- {
		t.headers[i], t.headers[i-1] = t.headers[i-1], h
	}
}

// before compares names as if they were of lower case.
func before(a, b string) bool {
	for i := range min(len(a), len(b)) {
		if x, y := lowerByte(a[i]), lowerByte(b[i]); x != y {
			return x < y
		}
	}
	return len(a) < len(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

func lower(w *bytes.Buffer, name string) {
	b := w.AvailableBuffer()
	for i := range len(name) {
		b = append(b, lowerByte(name[i]))
	}
	w.Write(b)
}

// squeeze writes a header's value without spaces at its ends and with single ones within.
func squeeze(w *bytes.Buffer, v string) {
	v = strings.TrimSpace(v)
	for {
		i := strings.Index(v, "  ")
		if i < 0 {
			w.WriteString(v)
			return
		}
		w.WriteString(v[:i+1])
		v = strings.TrimLeft(v[i:], " ")
	}
}

// hostOf returns the host as net/http sends it, without the scheme's own port: some servers
// sign what they would have sent themselves.
func hostOf(req *http.Request) string {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	port := ":80"
	if req.URL.Scheme == "https" {
		port = ":443"
	}
	if bare, ok := strings.CutSuffix(host, port); ok && (!strings.Contains(bare, ":") || strings.HasSuffix(bare, "]")) {
		req.Host = bare
		return bare
	}
	return host
}

// stampOf returns the time as it is sent.
func (s *Signer) stampOf(at time.Time) *stamp {
	second := at.Unix()
	if d := s.date.Load(); d != nil && d.second == second {
		return d
	}
	at = at.UTC()
	y, m, day := at.Date()
	d := &stamp{second: second, text: at.Format("20060102T150405Z"), day: y*10000 + int(m)*100 + day}
	s.date.Store(d)
	return d
}

// keyOf returns the signing key, derived or kept.
func (s *Signer) keyOf(day int, c Credentials, region string) *key {
	if k := find(s.keys.Load(), day, c, region); k != nil {
		return k
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.keys.Load()
	if k := find(old, day, c, region); k != nil {
		return k
	}
	k := derive(day, c, region, s.cfg.Service)
	var keys []*key
	if old != nil {
		keys = append(keys, (*old)[max(0, len(*old)-keptKeys+1):]...)
	}
	keys = append(keys, k)
	s.keys.Store(&keys)
	return k
}

func find(keys *[]*key, day int, c Credentials, region string) *key {
	if keys == nil {
		return nil
	}
	for i := len(*keys) - 1; i >= 0; i-- {
		k := (*keys)[i]
		if k.day == day && k.region == region && k.access == c.AccessKey && k.secret == c.Secret {
			return k
		}
	}
	return nil
}

func derive(day int, c Credentials, region, service string) *key {
	date := strconv.Itoa(day)
	sum := []byte("AWS4" + c.Secret)
	for _, text := range [...]string{date, region, service, "aws4_request"} {
		mac := hmac.New(sha256.New, sum)
		mac.Write([]byte(text)) // which never fails
		sum = mac.Sum(nil)
	}
	k := &key{
		day: day, region: region, access: c.AccessKey, secret: c.Secret,
		scope: date + "/" + region + "/" + service + "/aws4_request",
	}
	k.macs.New = func() any { return hmac.New(sha256.New, sum) }
	return k
}
