package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"myrmidon/internal/sigv4"
)

const (
	// maxAnswer bounds the XML of an answer: 1,000 keys of 1,024 bytes, each of them
	// encoded as %XX, and what is said of each.
	maxAnswer = 16 << 20
	maxError  = 64 << 10
	// maxSkew is how wrong the clock of this machine may be without being corrected, a
	// third of what S3 allows ("RequestTimeTooSkewed": 15 minutes).
	maxSkew = 5 * time.Minute
	// continueFrom is the size of a body from which on the server is asked first whether
	// it takes it, as the SDK does.
	continueFrom = 2 << 20
)

// own speaks the protocol of S3 over net/http. What it shares with the SDK's client is where
// the bucket is, credentials, and what is sent again.
type own struct {
	b         *bucket
	transport http.RoundTripper
	retry     aws.RetryerV2
	signer    *sigv4.Signer
	region    string // of signatures

	scheme, host, base string // base is the path before a key: "" or "/bucket"

	checksums bool // are sent with bodies
	validates bool // those of answers

	skew atomic.Int64 // what to add to this machine's clock, nanoseconds
}

// call is one request, which may be sent several times.
type call struct {
	verb    verb
	method  string
	key     string // "" is the bucket itself
	query   string // encoded
	header  http.Header
	body    []byte
	payload string        // the body's hash, as signed
	limit   time.Duration // how long the connection may stand still
	paced   bool          // the caller waits by itself when the server is busy
}

// do sends c until it is answered well or not worth another attempt. take reads the answer;
// where that fails because of the connection, c is sent again as well. It closes the body,
// or keeps it.
func (o *own) do(ctx context.Context, c *call, take func(*http.Response) error) error {
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if attempt > 1 { // the transport may still be reading that of the attempt before
			c.header = maps.Clone(c.header)
		}
		release, err := o.retry.GetAttemptToken(ctx)
		if err != nil {
			return err
		}
		err = o.attempt(ctx, c, take)
		_ = release(err) // it has no errors of its own
		if err == nil {
			return nil
		}
		most := o.retry.MaxAttempts()
		again := o.retry.IsErrorRetryable(err) || o.setClock(err)
		if ctx.Err() != nil || !again || most > 0 && attempt >= most || c.paced && isBusy(err) {
			return err
		}
		if _, terr := o.retry.GetRetryToken(ctx, err); terr != nil {
			return fmt.Errorf("%w (%w)", err, terr)
		}
		pause, perr := o.retry.RetryDelay(attempt, err)
		if perr != nil {
			return err
		}
		if !wait(ctx, pause) {
			return ended(ctx)
		}
	}
}

// wait waits, and reports false if ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// attempt sends c once.
func (o *own) attempt(ctx context.Context, c *call, take func(*http.Response) error) error {
	keys, err := o.b.keys.Retrieve(ctx)
	if err != nil {
		return err
	}
	g := o.b.guard
	x := g.begin(ctx, max(c.limit, g.stall))
	body := &sending{x: x, data: c.body}
	defer body.end()
	req := o.request(c, body)
	o.signer.Sign(req, sigv4.Credentials{AccessKey: keys.AccessKeyID, Secret: keys.SecretAccessKey, Token: keys.SessionToken},
		o.region, c.payload, time.Now().Add(time.Duration(o.skew.Load())))
	resp, err := g.send(x, req, c.verb, o.transport.RoundTrip)
	if err != nil {
		return &smithyhttp.RequestSendError{Err: &url.Error{Op: c.method, URL: o.scheme + "://" + o.host, Err: err}}
	}
	if resp.StatusCode >= 300 {
		return refused(resp, keys.SessionToken)
	}
	return take(resp)
}

// request makes the request of an attempt.
func (o *own) request(c *call, body *sending) *http.Request {
	path := o.base + "/"
	u := &url.URL{Scheme: o.scheme, Host: o.host, Path: path + c.key, RawQuery: c.query}
	if raw := sigv4.AppendEncoded(append(make([]byte, 0, len(path)+len(c.key)+16), path...), c.key, true); len(raw) != len(u.Path) {
		u.RawPath = string(raw)
	}
	req := (&http.Request{
		Method: c.method, URL: u, Host: o.host, Header: c.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(body.x.ctx)
	if n := len(c.body); n > 0 {
		req.ContentLength = int64(n)
		req.GetBody = body.open // also for a connection that turns out to be closed
		req.Body, _ = body.open()
		if n >= continueFrom {
			c.header["Expect"] = []string{"100-continue"}
		}
	}
	return req
}

// sending is the body of an attempt. The transport may go on reading it after the attempt
// has ended, while its memory is used for another one: then it reads no more.
type sending struct {
	x    *exchange
	mu   sync.Mutex
	data []byte
	over bool
}

func (s *sending) open() (io.ReadCloser, error) { return &sendingReader{from: s}, nil }

func (s *sending) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

type sendingReader struct {
	from *sending
	next int
}

func (r *sendingReader) Read(p []byte) (int, error) {
	s := r.from
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, net.ErrClosed
	}
	n := copy(p, s.data[r.next:])
	r.next += n
	s.x.counts.sent.Add(int64(n))
	if !s.x.answered.Load() {
		s.x.timer.Reset(s.x.limit)
	}
	if r.next == len(s.data) {
		return n, io.EOF
	}
	return n, nil
}

func (r *sendingReader) Close() error { return nil }

// setClock reports whether a request failed since the clock of this machine is wrong, and
// signatures are from now on made with the server's.
func (o *own) setClock(err error) bool {
	switch code(err) {
	case "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure", "AccessDeniedException":
	default:
		return false
	}
	server, perr := http.ParseTime(header(err, "Date"))
	if perr != nil {
		return false
	}
	skew := time.Until(server)
	if (skew - time.Duration(o.skew.Load())).Abs() < maxSkew {
		return false
	}
	o.skew.Store(int64(skew))
	return true
}

// refusal is an answer that refuses. For the SDK's retryer it is an error of the SDK's kind.
type refusal struct {
	status  int
	header  http.Header
	word    string // S3's code for it; "" if the answer has no body
	text    string
	bucket  string // that it is about, if it says so
	request string
	// condition is the one that is not met, if the server says so: "If-None-Match".
	condition string
	token     string // of the session that signed the request
}

func (r *refusal) Error() string                 { return answerOf(r).Error() }
func (r *refusal) ErrorCode() string             { return r.word }
func (r *refusal) ErrorMessage() string          { return r.text }
func (r *refusal) HTTPStatusCode() int           { return r.status }
func (r *refusal) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }

// refused reads what the server says, and closes the body.
func refused(resp *http.Response, token string) error {
	r := &refusal{status: resp.StatusCode, header: resp.Header, request: resp.Header.Get("X-Amz-Request-Id"), token: token}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	_ = resp.Body.Close() // all that it says was read
	if err == nil || len(data) > 0 {
		r.read(data)
	}
	return r
}

// read reads the error document of an answer; what is none says nothing.
func (r *refusal) read(data []byte) {
	var doc struct {
		XMLName    xml.Name
		Code       string
		Message    string
		RequestID  string `xml:"RequestId"`
		Region     string
		BucketName string
		Condition  string
	}
	if xml.Unmarshal(data, &doc) != nil || doc.XMLName.Local != "Error" {
		return
	}
	r.word, r.text, r.bucket, r.condition = doc.Code, doc.Message, doc.BucketName, doc.Condition
	if r.request == "" {
		r.request = doc.RequestID
	}
	if doc.Region != "" && r.header.Get("X-Amz-Bucket-Region") == "" {
		r.header.Set("X-Amz-Bucket-Region", doc.Region)
	}
}

// document reads the XML of an answer and hands it to read, which may not keep it. An error
// document behind a status of 200 is an error: S3 begins such an answer before it knows how
// a long copy ends.
func document(resp *http.Response, read func(data []byte) error) error {
	buf := documents.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= maxKept {
			documents.Put(buf)
		}
	}()
	buf.Reset()
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return &smithyhttp.RequestSendError{Err: fmt.Errorf("read the answer: %w", err)}
	}
	if buf.Len() > maxAnswer {
		return fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	if data := buf.Bytes(); !isError(data) {
		return read(data)
	}
	// S3's advice is to take it for one of 5xx, which is worth another attempt (AWS re:Post,
	// "How do I troubleshoot a 200 OK response with InternalError from Amazon S3?").
	r := &refusal{status: http.StatusInternalServerError, header: resp.Header, request: resp.Header.Get("X-Amz-Request-Id")}
	if resp.Request != nil {
		r.token = resp.Request.Header.Get("X-Amz-Security-Token")
	}
	r.read(buf.Bytes())
	return r
}

// maxKept is the largest buffer that is kept for another answer.
const maxKept = 2 << 20

var documents = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// isError reports whether the first element of a document is Error. It looks only at its
// beginning: white space, a declaration, the element.
func isError(data []byte) bool {
	rest := bytes.TrimLeft(data, " \t\r\n")
	if bytes.HasPrefix(rest, []byte("<?")) {
		_, after, ok := bytes.Cut(rest, []byte("?>"))
		if !ok {
			return false
		}
		rest = bytes.TrimLeft(after, " \t\r\n")
	}
	name, ok := bytes.CutPrefix(rest, []byte("<Error"))
	return ok && len(name) > 0 && strings.IndexByte("> /\t\r\n", name[0]) >= 0
}

// discard ends an answer whose body says nothing.
func discard(resp *http.Response) error {
	if resp.ContentLength != 0 && resp.Request.Method != http.MethodHead {
		_, _ = io.CopyN(io.Discard, resp.Body, maxError) // so that the connection is used again
	}
	_ = resp.Body.Close()
	return nil
}
