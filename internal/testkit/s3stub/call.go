package s3stub

import (
	"crypto/md5"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// call is one request and its answer. Calls and their buffers are used again.
type call struct {
	s *Server
	w http.ResponseWriter
	r *http.Request

	verb   Verb
	bucket string
	key    string
	query  []pair
	b      *bucket // nil where the verb needs none
	seq    int64   // 1 for the first request
	nth    int64   // 1 for the first request of its verb
	access string  // the access key that signed the request
	sig    signed
	body   []byte // decoded; nobody else's, so it may be kept
	sum    *raw   // of body, once somebody asked for its MD5
	sums   *checksum
	page   func(*Page) // the fault of a listing

	status int
	out    []byte // the answer's body: out, then more
	more   []byte
	groups []byte  // the common prefixes of a listing, which come after its objects
	file   content // or a range of this
	off, n int64
	buf    []byte
	last   []byte
}

// pair is a parameter of a query, decoded.
type pair struct{ name, value string }

var calls = sync.Pool{New: func() any { return new(call) }}

// keptBuffer is the most bytes of a buffer that is kept for the next request.
const keptBuffer = 1 << 20

func newCall(s *Server, w http.ResponseWriter, r *http.Request) *call {
	c := calls.Get().(*call)
	c.s, c.w, c.r = s, w, r
	return c
}

func (c *call) free() {
	if cap(c.more) > keptBuffer || cap(c.out) > keptBuffer {
		return
	}
	clear(c.query)
	*c = call{query: c.query[:0], out: c.out[:0], more: c.more[:0], groups: c.groups[:0], buf: c.buf[:0], last: c.last[:0]}
	calls.Put(c)
}

// operations are what the verbs do. They leave the answer in the call.
var operations = [verbs]func(*call) *apiError{
	Other: func(*call) *apiError { return notImplemented() }, Bucket: (*call).doBucket, List: (*call).list,
	Head: (*call).get, Get: (*call).get, Put: (*call).put, Copy: (*call).copy, Delete: (*call).delete, DeleteMany: (*call).deleteMany,
	CreateUpload: (*call).createUpload, UploadPart: (*call).uploadPart, CopyPart: (*call).copyPart, Complete: (*call).complete,
	Abort: (*call).abort, ListParts: (*call).listParts, ListUploads: (*call).listUploads,
	GetTags: (*call).getTags, PutTags: (*call).putTags, DeleteTags: (*call).deleteTags,
}

// serve reads the request, waits its latency, does what it asks for and answers.
func (c *call) serve() {
	e := c.parse()
	t := &c.s.tallies[c.verb]
	t.enter()
	defer t.leave()
	c.seq, c.nth = c.s.seq.Add(1), t.requests.Add(1)
	if e == nil {
		e = c.authorize()
	}
	if e == nil {
		e = c.readBody()
	}
	t.in.Add(int64(len(c.body)))
	f := c.fault(t)
	if !c.s.wait(c.s.latency[c.verb] + f.Delay) {
		panic(http.ErrAbortHandler)
	}
	if f.replaces() && !f.After {
		c.answer(f.error(), f)
		return
	}
	c.status, c.page = http.StatusOK, f.Page
	if e == nil {
		e = c.locate()
	}
	if e == nil {
		e = operations[c.verb](c)
	}
	if f.replaces() {
		e = f.error()
	}
	c.answer(e, f)
}

// parse finds out what the request asks for.
func (c *call) parse() *apiError {
	uri := c.r.RequestURI
	if !strings.HasPrefix(uri, "/") { // a handler called by a test, or a proxy's form
		uri = c.r.URL.RequestURI()
	}
	path, query, _ := strings.Cut(uri, "?")
	bad := failed(http.StatusBadRequest, "InvalidURI", "Couldn't parse the specified URI.")
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		name, ok := unescape(name, true)
		value, ok2 := unescape(value, true)
		if !ok || !ok2 {
			return bad
		}
		if name != "" {
			c.query = append(c.query, pair{name, value})
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	var ok, ok2 bool
	c.bucket, ok = unescape(bucket, false)
	c.key, ok2 = unescape(key, false)
	if !ok || !ok2 || !keyed(c.key) {
		return bad
	}
	c.verb = c.classify()
	if len(c.key) > maxKey {
		e := failed(http.StatusBadRequest, "KeyTooLongError", "Your key is too long")
		e.detail = [][2]string{{"Size", strconv.Itoa(len(c.key))}, {"MaxSizeAllowed", strconv.Itoa(maxKey)}}
		return e
	}
	return nil
}

// unknown are the subresources that this server does not have.
var unknown = map[string]bool{
	"accelerate": true, "acl": true, "analytics": true, "attributes": true, "cors": true, "encryption": true, "intelligent-tiering": true,
	"inventory": true, "legal-hold": true, "lifecycle": true, "logging": true, "metrics": true, "notification": true, "object-lock": true,
	"ownershipControls": true, "policy": true, "policyStatus": true, "publicAccessBlock": true, "replication": true, "requestPayment": true,
	"restore": true, "retention": true, "select": true, "session": true, "torrent": true, "versions": true, "website": true, "renameObject": true,
}

func (c *call) classify() Verb {
	for _, p := range c.query {
		if unknown[p.name] || p.name == "versionId" && p.value != "null" {
			return Other
		}
	}
	if c.key == "" {
		return c.classifyBucket()
	}
	tags, upload := c.has("tagging"), c.has("uploadId")
	source := c.r.Header["X-Amz-Copy-Source"] != nil
	pick := func(is bool, v Verb, not Verb) Verb {
		if is {
			return v
		}
		return not
	}
	switch c.r.Method {
	case http.MethodHead:
		return Head
	case http.MethodGet:
		return pick(tags, GetTags, pick(upload, ListParts, Get))
	case http.MethodPut:
		return pick(tags, PutTags, pick(upload, pick(source, CopyPart, UploadPart), pick(source, Copy, Put)))
	case http.MethodDelete:
		return pick(tags, DeleteTags, pick(upload, Abort, Delete))
	case http.MethodPost:
		return pick(upload, Complete, pick(c.has("uploads"), CreateUpload, Other))
	}
	return Other
}

func (c *call) classifyBucket() Verb {
	switch {
	case c.has("tagging"):
		return Other
	case c.r.Method == http.MethodPost && c.has("delete"):
		return DeleteMany
	case c.r.Method == http.MethodGet && c.bucket != "" && c.has("uploads"):
		return ListUploads
	case c.r.Method == http.MethodGet && c.bucket != "" && !c.has("location") && !c.has("versioning"):
		return List
	case c.r.Method == http.MethodPost || c.r.Method == http.MethodPut && len(c.query) > 0 && !c.has("x-id"):
		return Other
	}
	return Bucket
}

// has reports whether the query has a parameter.
func (c *call) has(name string) bool {
	for _, p := range c.query {
		if p.name == name {
			return true
		}
	}
	return false
}

// param returns a parameter of the query, "" if it has none.
func (c *call) param(name string) string {
	for _, p := range c.query {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// header returns a header by its canonical name, "" if there is none. It saves the
// work of making the name canonical.
func (c *call) header(name string) string {
	if v := c.r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// number returns a parameter of the query that is a whole number from 0 to most, def if
// there is none.
func (c *call) number(name string, def, most int) (int, *apiError) {
	v := c.param(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 1<<31-1 {
		e := invalidArgument("Argument %s must be an integer between 0 and 2147483647", name)
		e.detail = [][2]string{{"ArgumentName", name}, {"ArgumentValue", v}}
		return 0, e
	}
	return min(n, most), nil
}

// locate finds the bucket, and that the request is signed for its region.
func (c *call) locate() *apiError {
	if c.bucket == "" || c.verb == Bucket && c.r.Method == http.MethodPut || c.verb == Other {
		return nil
	}
	if c.b = c.s.bucket(c.bucket); c.b == nil {
		return noSuchBucket(c.bucket)
	}
	if c.s.cfg.Unsigned || c.sig.region == c.b.region || c.verb == Bucket && c.has("location") {
		return nil
	}
	region := [2]string{"x-amz-bucket-region", c.b.region}
	if c.sig.region == c.s.cfg.Region {
		e := failed(http.StatusMovedPermanently, "PermanentRedirect", "The bucket you are attempting to access must be addressed "+
			"using the specified endpoint. Please send all future requests to this endpoint.")
		e.detail = [][2]string{{"Endpoint", c.bucket + ".s3." + c.b.region + ".amazonaws.com"}, {"Bucket", c.bucket}}
		e.header = [][2]string{region}
		return e
	}
	e := failed(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed; the region '"+
		c.sig.region+"' is wrong; expecting '"+c.b.region+"'")
	e.detail = [][2]string{{"Region", c.b.region}}
	e.header = [][2]string{region}
	return e
}

// md5 is the MD5 sum of the body, which becomes an object's content with it.
func (c *call) md5() [md5.Size]byte { return c.content().md5() }

func (c *call) content() *raw {
	if c.sum == nil {
		c.sum = newRaw(c.body)
	}
	return c.sum
}

// set sets a header of the answer, if it has a value. name is canonical.
func (c *call) set(name, value string) {
	if value != "" {
		c.w.Header()[name] = []string{value}
	}
}

// xml begins an answer in XML whose outermost element is name.
func (c *call) xml(name string) {
	c.out = append(c.out[:0], xmlHeader...)
	c.out = append(c.out, '<')
	c.out = append(c.out, name...)
	c.out = append(c.out, xmlns...)
	c.out = append(c.out, '>')
}

func (c *call) elem(name, text string)    { c.out = appendElem(c.out, name, text) }
func (c *call) int(name string, n int64)  { c.out = appendInt(c.out, name, n) }
func (c *call) end(name string)           { c.out = appendEnd(c.out, name) }
func (c *call) open(name string)          { c.out = append(append(append(c.out, '<'), name...), '>') }
func (c *call) bool(name string, is bool) { c.elem(name, strconv.FormatBool(is)) }

// fail makes the answer an error.
func (c *call) fail(e *apiError) {
	c.status, c.file = e.status, nil
	c.out, c.more = c.out[:0], c.more[:0]
	for _, h := range e.header {
		c.set(http.CanonicalHeaderKey(h[0]), h[1])
	}
	if e.status == http.StatusNotModified {
		return
	}
	for _, name := range []string{"Etag", "Last-Modified", "Content-Range"} {
		delete(c.w.Header(), name)
	}
	c.out = append(append(c.out, xmlHeader...), "<Error>"...)
	c.elem("Code", e.code)
	c.elem("Message", e.message)
	for _, d := range e.detail {
		c.elem(d[0], d[1])
	}
	c.elem("Resource", "/"+c.bucket+"/"+c.key)
	c.elem("RequestId", c.requestID())
	c.elem("HostId", "s3stub")
	c.end("Error")
}

func (c *call) requestID() string {
	b := make([]byte, 16)
	for i := range b {
		b[i] = upperHex[c.seq>>(4*(15-i))&15]
	}
	return string(b)
}

// size is the number of bytes of the answer's body.
func (c *call) size() int64 {
	if c.file != nil {
		return c.n
	}
	return int64(len(c.out) + len(c.more))
}
