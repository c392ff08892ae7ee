package s3stub

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// readBody reads and verifies the request's body, whatever its verb.
func (c *call) readBody() *apiError {
	limit := int64(maxXML)
	if c.verb == Put || c.verb == UploadPart {
		limit = c.s.cfg.MaxPut
	}
	if strings.HasPrefix(c.sig.payload, streaming) {
		return c.readStream(limit)
	}
	size := c.r.ContentLength
	if size < 0 {
		return failed(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	if size > limit {
		return entityTooLarge(size, limit)
	}
	if size > 0 {
		c.body = make([]byte, size)
		if _, err := io.ReadFull(c.r.Body, c.body); err != nil {
			c.body = nil
			return incompleteBody()
		}
	}
	if p := c.sig.payload; !c.s.cfg.Unsigned && p != unsignedPayload && (p != emptyHash || size > 0) {
		sum := sha256.Sum256(c.body)
		if got := hex.EncodeToString(sum[:]); got != p {
			e := failed(http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
			e.detail = [][2]string{{"ClientComputedContentSHA256", p}, {"S3ComputedContentSHA256", got}}
			return e
		}
	}
	return c.checkBody(nil)
}

func incompleteBody() *apiError {
	return failed(http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
}

// readStream reads a body in the encoding aws-chunked: "Signature Calculations for the
// Authorization Header: Transferring Payload in Multiple Chunks" of the S3 API
// reference, and the page after it, which adds trailers.
func (c *call) readStream(limit int64) *apiError {
	size, err := strconv.ParseInt(c.header("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return failed(http.StatusLengthRequired, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
	}
	if size > limit {
		return entityTooLarge(size, limit)
	}
	d := chunks{c: c, r: bufio.NewReader(c.r.Body), signed: c.sig.payload != streamUnsigned, before: c.sig.signature, size: size}
	e := d.read()
	if e != nil {
		return e
	}
	c.body = d.body
	if int64(len(c.body)) != size {
		return incompleteBody()
	}
	// What lies behind the last chunk belongs to nothing; an error is the client's.
	_, _ = io.CopyN(io.Discard, d.r, drained)
	return c.checkBody(d.trailer)
}

// chunks decodes aws-chunked.
type chunks struct {
	c       *call
	r       *bufio.Reader
	signed  bool
	before  string // the signature of the chunk before
	size    int64
	body    []byte
	trailer http.Header
}

var errChunk = errors.New("a chunk is not as aws-chunked has it")

func (d *chunks) read() *apiError {
	for {
		data, signature, err := d.chunk()
		if err != nil {
			return incompleteBody()
		}
		if d.signed && d.c.sig.key != nil {
			if e := d.check("AWS4-HMAC-SHA256-PAYLOAD", emptyHash+"\n", data, signature); e != nil {
				return e
			}
		}
		d.before = signature
		if len(data) == 0 {
			return d.readTrailer()
		}
	}
}

// chunk reads the next chunk into the body; the last one is empty.
func (d *chunks) chunk() (data []byte, signature string, err error) {
	line, err := d.line()
	if err != nil {
		return nil, "", err
	}
	digits, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(digits, 16, 64)
	if err != nil || n < 0 || n > d.size-int64(len(d.body)) {
		return nil, "", errChunk
	}
	signature = strings.TrimPrefix(extension, "chunk-signature=")
	if n == 0 {
		return nil, signature, nil
	}
	if d.body == nil {
		d.body = make([]byte, 0, d.size)
	}
	at := len(d.body)
	d.body = d.body[:at+int(n)]
	if _, err := io.ReadFull(d.r, d.body[at:]); err != nil {
		return nil, "", err
	}
	if line, err = d.line(); err != nil || line != "" {
		return nil, "", errors.Join(errChunk, err)
	}
	return d.body[at:], signature, nil
}

// line reads a line without its end.
func (d *chunks) line() (string, error) {
	line, err := d.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// readTrailer reads what follows the last chunk: headers, and their signature.
func (d *chunks) readTrailer() *apiError {
	if d.c.sig.payload == streamSigned {
		return nil
	}
	d.trailer = make(http.Header)
	var text []byte
	signature := ""
	for {
		line, err := d.line()
		if line == "" { // the end of the trailers, or of the body
			if err != nil && err != io.EOF {
				return incompleteBody()
			}
			break
		}
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			signature = value
			continue
		}
		text = fmt.Appendf(text, "%s:%s\n", name, value)
		d.trailer.Set(name, value)
	}
	if want := d.c.header("X-Amz-Trailer"); want != "" && d.trailer.Get(want) == "" {
		return failed(http.StatusBadRequest, "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
	}
	if d.signed && d.c.sig.key != nil {
		return d.check("AWS4-HMAC-SHA256-TRAILER", "", text, signature)
	}
	return nil
}

// check verifies the signature of a chunk, or of the trailers.
func (d *chunks) check(algorithm, headers string, data []byte, signature string) *apiError {
	c := d.c
	b := c.stringToSign(c.buf[:0], algorithm)
	b = append(b, d.before...)
	b = append(b, '\n')
	b = append(b, headers...)
	sum := sha256.Sum256(data)
	c.buf = hex.AppendEncode(b, sum[:])
	if !c.sig.key.verify(c.buf, signature) {
		return failed(http.StatusForbidden, "SignatureDoesNotMatch", "The chunk or trailer signature we calculated does not match the one you provided.")
	}
	return nil
}
