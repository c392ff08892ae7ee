package s3stub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The forms of x-amz-content-sha256 that are no hash: "Authenticating Requests (AWS
// Signature Version 4)" of the S3 API reference.
const (
	algorithm       = "AWS4-HMAC-SHA256"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	emptyHash       = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

	streaming        = "STREAMING-"
	streamSigned     = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamTrailer    = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamUnsigned   = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	maxSkew          = 15 * time.Minute
	signatureTime    = "20060102T150405Z"
	keptSigningKeys  = 1000
	signatureHexSize = 2 * sha256.Size
)

// Credentials are a key pair that requests may be signed with.
type Credentials struct {
	AccessKey string
	Secret    string
	Token     string // of a session; "" for a lasting key pair
}

// keyring is the known key pairs, and the signing keys derived from them.
type keyring struct {
	mu      sync.RWMutex
	pairs   map[string]*keyPair
	derived map[string]*signingKey // by credential scope
}

type keyPair struct {
	Credentials
	expired bool
}

// signingKey makes signatures of one access key, day and region.
type signingKey struct{ pool sync.Pool }

// AddCredentials makes the server accept another key pair, or the access key with
// another secret.
func (s *Server) AddCredentials(c Credentials) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if s.keys.pairs == nil {
		s.keys.pairs = make(map[string]*keyPair)
	}
	s.keys.pairs[c.AccessKey] = &keyPair{Credentials: c}
	s.keys.derived = make(map[string]*signingKey)
}

// Expire makes requests of an access key fail with 400 ExpiredToken from now on.
func (s *Server) Expire(accessKey string) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	if p := s.keys.pairs[accessKey]; p != nil {
		s.keys.pairs[accessKey] = &keyPair{Credentials: p.Credentials, expired: true}
	}
}

// signed is what a request's signature says.
type signed struct {
	key       *signingKey // nil if signatures are not checked
	scope     string      // DATE/REGION/s3/aws4_request
	region    string
	time      string
	signature string
	payload   string // x-amz-content-sha256
}

// authorize checks the signature of the request's headers.
func (c *call) authorize() *apiError {
	c.sig.payload = c.header("X-Amz-Content-Sha256")
	if c.s.cfg.Unsigned {
		return nil
	}
	names, e := c.readAuthorization()
	if e != nil {
		return e
	}
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Amz-") && !slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) }) {
			return accessDenied("There were headers present in the request which were not signed: " + strings.ToLower(name))
		}
	}
	if !slices.Contains(names, "host") {
		return failed(http.StatusForbidden, "SignatureDoesNotMatch", "The header host is not signed")
	}
	switch p := c.sig.payload; {
	case p == "":
		return invalidRequest("Missing required header for this request: x-amz-content-sha256")
	case p == unsignedPayload, p == streamSigned, p == streamTrailer, p == streamUnsigned:
	case len(p) != signatureHexSize:
		return invalidArgument("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "+
			"STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value: %.100q", p)
	}
	b := c.canonical(c.buf[:0], names)
	canonical := sha256.Sum256(b)
	n := len(b)
	b = c.stringToSign(b, algorithm)
	b = hex.AppendEncode(b, canonical[:])
	c.buf = b
	if !c.sig.key.verify(b[n:], c.sig.signature) {
		e := failed(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the "+
			"signature you provided. Check your key and signing method.")
		e.detail = [][2]string{
			{"AWSAccessKeyId", c.access},
			{"SignatureProvided", c.sig.signature},
			{"StringToSign", string(b[n:])},
			{"CanonicalRequest", string(b[:n])},
		}
		return e
	}
	return nil
}

// readAuthorization reads the Authorization header and returns the names of the
// headers that are signed.
func (c *call) readAuthorization() ([]string, *apiError) {
	auth := c.header("Authorization")
	if auth == "" {
		if c.has("X-Amz-Signature") {
			return nil, notImplemented()
		}
		return nil, accessDenied("Access Denied")
	}
	rest, ok := strings.CutPrefix(auth, algorithm+" ")
	if !ok {
		return nil, invalidRequest("The authorization mechanism you have provided is not supported. Please use " + algorithm + ".")
	}
	var credential, names, signature string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			names = value
		case "Signature":
			signature = value
		}
	}
	access, scope, _ := strings.Cut(credential, "/")
	f := strings.Split(scope, "/")
	if len(f) != 4 || f[2] != "s3" || f[3] != "aws4_request" || names == "" || signature == "" {
		return nil, failed(http.StatusBadRequest, "AuthorizationHeaderMalformed",
			"The authorization header is malformed; the Credential, SignedHeaders or Signature is not as it should be")
	}
	c.access = access
	c.sig.scope, c.sig.region, c.sig.signature = scope, f[1], signature
	if e := c.checkTime(f[0]); e != nil {
		return nil, e
	}
	e := c.findKey(credential, f)
	return strings.Split(names, ";"), e
}

// checkTime reads the request's time, which must be on the day of the scope and near
// the server's.
func (c *call) checkTime(day string) *apiError {
	c.sig.time = c.header("X-Amz-Date")
	if c.sig.time == "" {
		if t, err := http.ParseTime(c.header("Date")); err == nil {
			c.sig.time = t.UTC().Format(signatureTime)
		}
	}
	at, err := time.Parse(signatureTime, c.sig.time)
	if err != nil {
		return accessDenied("AWS authentication requires a valid Date or x-amz-date header")
	}
	if !strings.HasPrefix(c.sig.time, day) {
		return failed(http.StatusForbidden, "SignatureDoesNotMatch", "The date of the credential scope is not that of x-amz-date")
	}
	if now := c.s.cfg.Now(); at.Sub(now).Abs() > maxSkew {
		e := failed(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
		e.detail = [][2]string{
			{"RequestTime", c.sig.time},
			{"ServerTime", now.UTC().Format(time.RFC3339)},
			{"MaxAllowedSkewMilliseconds", fmt.Sprint(maxSkew.Milliseconds())},
		}
		return e
	}
	return nil
}

// findKey finds the signing key of a credential, whose scope has the given fields.
func (c *call) findKey(credential string, scope []string) *apiError {
	ring := &c.s.keys
	ring.mu.RLock()
	pair, key := ring.pairs[c.access], ring.derived[credential]
	ring.mu.RUnlock()
	if pair == nil {
		e := failed(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
		e.detail = [][2]string{{"AWSAccessKeyId", c.access}}
		return e
	}
	if pair.expired {
		return failed(http.StatusBadRequest, "ExpiredToken", messages["ExpiredToken"])
	}
	if c.header("X-Amz-Security-Token") != pair.Token {
		return failed(http.StatusBadRequest, "InvalidToken", "The provided token is malformed or otherwise invalid.")
	}
	if key == nil {
		key = newSigningKey(pair.Secret, scope)
		ring.mu.Lock()
		if len(ring.derived) >= keptSigningKeys {
			clear(ring.derived)
		}
		ring.derived[credential] = key
		ring.mu.Unlock()
	}
	c.sig.key = key
	return nil
}

func newSigningKey(secret string, scope []string) *signingKey {
	key := []byte("AWS4" + secret)
	for _, part := range scope {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	k := &signingKey{}
	k.pool.New = func() any { return hmac.New(sha256.New, key) }
	return k
}

// verify reports whether signature is that of text.
func (k *signingKey) verify(text []byte, signature string) bool {
	h := k.pool.Get().(hash.Hash)
	defer k.pool.Put(h)
	h.Reset()
	h.Write(text)
	var sum [sha256.Size]byte
	var got [signatureHexSize]byte
	hex.Encode(got[:], h.Sum(sum[:0]))
	return hmac.Equal(got[:], []byte(signature))
}

// stringToSign appends the beginning of a string to sign.
func (c *call) stringToSign(b []byte, algorithm string) []byte {
	b = append(b, algorithm...)
	b = append(b, '\n')
	b = append(b, c.sig.time...)
	b = append(b, '\n')
	b = append(b, c.sig.scope...)
	return append(b, '\n')
}

// canonical appends the canonical request. S3 encodes the path once and leaves its
// dots and slashes as they are.
func (c *call) canonical(b []byte, names []string) []byte {
	b = append(b, c.r.Method...)
	b = append(b, "\n/"...)
	b = appendURI(b, c.bucket, false)
	if c.bucketSlash() {
		b = append(b, '/')
	}
	b = appendURI(b, c.key, false)
	b = append(b, '\n')
	b = c.canonicalQuery(b)
	for _, name := range names {
		b = append(b, '\n')
		b = append(b, name...)
		b = append(b, ':')
		b = c.canonicalValue(b, name)
	}
	b = append(b, "\n\n"...)
	for i, name := range names {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, c.sig.payload...)
}

// bucketSlash reports whether the path goes on behind the bucket.
func (c *call) bucketSlash() bool {
	if c.key != "" {
		return true
	}
	path, _, _ := strings.Cut(c.r.RequestURI, "?")
	return len(path) > 1 && strings.HasSuffix(path, "/")
}

func (c *call) canonicalQuery(b []byte) []byte {
	switch len(c.query) {
	case 0:
		return b
	case 1:
		return appendPair(b, c.query[0])
	}
	encoded := make([]string, len(c.query))
	for i, p := range c.query {
		encoded[i] = string(appendPair(nil, p))
	}
	// Sorted by name, then by value: '=' comes before what a name may hold but for
	// '%', '-' and '.'.
	slices.SortFunc(encoded, func(x, y string) int {
		xn, xv, _ := strings.Cut(x, "=")
		yn, yv, _ := strings.Cut(y, "=")
		if d := strings.Compare(xn, yn); d != 0 {
			return d
		}
		return strings.Compare(xv, yv)
	})
	for i, p := range encoded {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p...)
	}
	return b
}

func appendPair(b []byte, p pair) []byte {
	b = append(appendURI(b, p.name, true), '=')
	return appendURI(b, p.value, true)
}

// canonicalNames are the canonical forms of headers that most requests sign.
var canonicalNames = func() map[string]string {
	out := make(map[string]string)
	for _, name := range []string{
		"Accept-Encoding", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Cache-Control", "Content-Md5", "Content-Type", "If-Match",
		"If-None-Match", "Range", "X-Amz-Acl", "X-Amz-Content-Sha256", "X-Amz-Copy-Source", "X-Amz-Copy-Source-If-Match",
		"X-Amz-Date", "X-Amz-Metadata-Directive", "X-Amz-Security-Token", "X-Amz-Storage-Class", "X-Amz-Tagging",
	} {
		out[strings.ToLower(name)] = name
	}
	return out
}()

// canonicalValue appends the value of a signed header: of several the list, without
// spaces around and with single ones within.
func (c *call) canonicalValue(b []byte, name string) []byte {
	switch name {
	case "host":
		return append(b, c.r.Host...)
	case "content-length":
		return fmt.Append(b, c.r.ContentLength)
	}
	full, ok := canonicalNames[name]
	if !ok {
		full = http.CanonicalHeaderKey(name)
	}
	for i, v := range c.r.Header[full] {
		if i > 0 {
			b = append(b, ',')
		}
		space := false
		for _, ch := range []byte(strings.TrimSpace(v)) {
			if ch == ' ' && space {
				continue
			}
			space = ch == ' '
			b = append(b, ch)
		}
	}
	return b
}
