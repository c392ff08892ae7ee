package object

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/internal/checksum"
)

// Origin is a folder of an HTTP server as a Store that can only be read. See [NewOrigin].
//
// # What is promised
//
// A reader sees one version: the answer's ETag, or where there is none Last-Modified, is
// what a body that breaks off is resumed by; it is resumed by range where the server knows
// ranges, else read again up to where it broke. A body of more than 1 MiB is compared with a
// HEAD at its end, since servers read files that somebody may write to. Bodies have a length
// or an end that can be told from a broken connection; others are refused.
//
// # Listing
//
// Index pages of nginx (HTML and JSON), Apache, lighttpd and Python's http.server are
// followed folder by folder, in byte order of keys. HTML has no exact sizes and times: each
// file is asked for with a HEAD, 16 at a time. A folder whose page is something else is an
// error, which says to name the keys instead.
//
// # Limits
//
// Size is -1 where the server does not say it. Redirects are followed, five at most, to http
// only from http, and to another host only if its address is a public one.
type Origin struct {
	base   *url.URL // its path ends in "/"
	client *http.Client
	pause  time.Duration // before the first of further attempts
	stall  time.Duration // how long a body may stand still

	mu    sync.Mutex
	hosts map[string]bool // that the user has named: the origin's and proxies
}

var (
	_ Store     = (*Origin)(nil)
	_ Pager     = (*Origin)(nil)
	_ Describer = (*Origin)(nil)
)

const (
	originTries     = 5
	originRedirects = 5
	// originAgain is the size of a body from which on the object is looked at again.
	originAgain = 1 << 20
	// originStall is how long a connection may stand still, and its answer be awaited.
	originStall = time.Minute
)

// NewOrigin returns the store below a URL, http:// or https://. It sends no request. The
// error is permanent and repeats no secret: a URL with a user, a query or a fragment is
// refused, as an address is shown and kept.
func NewOrigin(address string) (*Origin, error) {
	u, err := url.Parse(address)
	why := ""
	switch {
	case err != nil:
		why = "it is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		why = "it begins with neither http:// nor https://"
	case u.User != nil || strings.Contains(address, "@"):
		why = "it holds a user name or a password"
	case u.Hostname() == "":
		why = "it names no host"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		why = "it has a query"
	}
	if why != "" {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("object: this HTTP origin cannot be used: %s", why),
			"an origin is a folder: https://host/folder/"))
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	o := &Origin{base: u, pause: 100 * time.Millisecond, stall: originStall, hosts: map[string]bool{u.Hostname(): true}}
	transport := &http.Transport{
		Proxy:                 o.proxy,
		DialContext:           o.dial,
		DisableCompression:    true, // the bytes are wanted as they are stored
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       time.Minute,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: originStall,
		ReadBufferSize:        32 << 10,
	}
	o.client = &http.Client{Transport: transport, CheckRedirect: o.redirect}
	return o, nil
}

// String returns the origin's URL.
func (o *Origin) String() string { return o.base.String() }

func (o *Origin) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if u != nil {
		o.mu.Lock()
		o.hosts[u.Hostname()] = true
		o.mu.Unlock()
	}
	return u, err
}

// dial refuses to go where only a redirect leads, if that is no public address: what an origin
// answers must not open what this machine alone can reach.
func (o *Origin) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 20 * time.Second}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	known := o.hosts[host]
	o.mu.Unlock()
	if !known {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			ip := at.Addr().Unmap()
			if !ip.IsGlobalUnicast() || ip.IsPrivate() || shared.Contains(ip) {
				return fmt.Errorf("%w: it leads to %s, which is no public address", errRedirect, host)
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, address)
}

// shared are the addresses behind a provider's translation (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

var errRedirect = errors.New("the redirect is not followed")

func (o *Origin) redirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > originRedirects:
		return fmt.Errorf("%w: there were %d before", errRedirect, originRedirects)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: it leaves https", errRedirect)
	case req.URL.User != nil:
		return fmt.Errorf("%w: it holds a user name", errRedirect)
	}
	return nil
}

// url is that of a key.
func (o *Origin) url(key string) string {
	u := *o.base
	u.Path += key
	u.RawPath = o.base.EscapedPath() + escapePath(key)
	return u.String()
}

// escapePath encodes a key, byte by byte.
func escapePath(key string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(key, "/") {
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(part))
	}
	return b.String()
}

// answered is an answer that refuses.
type answered struct {
	status int
	wait   time.Duration
}

func (e *answered) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.status, http.StatusText(e.status))
}

// send sends a request until it is answered well or not worth another attempt.
func (o *Origin) send(ctx context.Context, method, key string, header http.Header) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := o.sendOnce(ctx, method, key, header)
		var a *answered
		refused := errors.As(err, &a) && a.status < 500 && a.status != http.StatusTooManyRequests && a.status != http.StatusRequestTimeout
		if err == nil || refused || errors.Is(err, errRedirect) || ctx.Err() != nil || try == originTries-1 {
			return resp, err
		}
		wait := o.pause << try
		if a != nil {
			if a.wait > 10*time.Second {
				return nil, err // whoever carries the work waits
			}
			wait = max(wait, a.wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (o *Origin) sendOnce(ctx context.Context, method, key string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.url(key), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "myrmidon")
	resp, err := o.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // our own words say the rest
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection is used again
	a := &answered{status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		a.wait = min(time.Duration(s)*time.Second, 10*time.Minute)
	}
	return nil, errors.Join(a, resp.Body.Close())
}

// infoOfResponse reads the headers that describe an object. Its size is -1 if it is not said.
func infoOfResponse(key string, resp *http.Response) Info {
	h := resp.Header
	info := Info{
		Key: key, Size: resp.ContentLength, ETag: bareETag(h.Get("Etag")),
		Attrs: Attrs{ContentType: h.Get("Content-Type"), CacheControl: h.Get("Cache-Control")}.complete(key),
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		info.Modified = t.UTC()
	}
	return info
}

// bareETag strips the quotes of a strong ETag. A weak one stays as it is: W/"…".
func bareETag(etag string) string {
	if strings.HasPrefix(etag, "W/") {
		return etag
	}
	return strings.Trim(etag, `"`)
}

func isStrong(etag string) bool { return etag != "" && !strings.HasPrefix(etag, "W/") }

// Head describes an object without its bytes. See [Store].
func (o *Origin) Head(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, err
	}
	resp, err := o.send(ctx, http.MethodHead, key, nil)
	if err != nil {
		return Info{}, o.fail(ctx, "head", key, err)
	}
	_ = resp.Body.Close() // it has none
	return infoOfResponse(key, resp), nil
}

// Get opens an object, or a range of it. See [Store]. Info.Size is -1 if the server does not
// say it; then length below 0 is needed.
func (o *Origin) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error) {
	if err := CheckKey(key); err != nil {
		return nil, Info{}, err
	}
	r, err := o.open(ctx, key, offset, length)
	if err != nil {
		return nil, Info{}, o.fail(ctx, "get", key, err)
	}
	return r, r.info, nil
}

// Open opens the object of a listing, if it still is that one as far as the server tells. See
// [Describer]. An origin has no user metadata and no tags.
func (o *Origin) Open(ctx context.Context, src Info, _ bool) (*Opened, error) {
	if err := CheckKey(src.Key); err != nil {
		return nil, err
	}
	r, err := o.open(ctx, src.Key, 0, -1)
	if err != nil {
		return nil, o.fail(ctx, "get", src.Key, err)
	}
	if now := r.info; !sameVersion(src, now) {
		err := fmt.Errorf("%w: it has %d bytes, is of %v and has ETag %q; it had %d, was of %v and had %q",
			ErrChanged, now.Size, now.Modified, now.ETag, src.Size, src.Modified, src.ETag)
		return nil, errors.Join(o.fail(ctx, "get", src.Key, err), r.Close())
	}
	h := r.header
	return &Opened{Body: r, Info: r.info, Checksum: repeatedDigest(h), Description: Description{
		Attrs: r.info.Attrs, ContentEncoding: h.Get("Content-Encoding"), ContentDisposition: h.Get("Content-Disposition"),
		ContentLanguage: h.Get("Content-Language"), Expires: h.Get("Expires"),
	}}, nil
}

// repeatedDigest reads the SHA-256 that a server may send of what it sends (RFC 9530,
// Repr-Digest: sha-256=:…:).
func repeatedDigest(h http.Header) string {
	for field := range strings.SplitSeq(h.Get("Repr-Digest"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		inner, ok := strings.CutPrefix(value, ":")
		if inner, end := strings.CutSuffix(inner, ":"); ok && end && strings.EqualFold(name, "sha-256") {
			return checksum.Join(checksum.SHA256, inner)
		}
	}
	return ""
}

// sameVersion reports whether nothing that is known of both differs.
func sameVersion(a, b Info) bool {
	return (a.ETag == "" || b.ETag == "" || a.ETag == b.ETag) && (a.Size < 0 || b.Size < 0 || a.Size == b.Size) &&
		(a.Modified.IsZero() || b.Modified.IsZero() || a.Modified.Equal(b.Modified))
}

// Put fails: an origin can only be read. See [Store].
func (o *Origin) Put(context.Context, string, io.Reader, int64, Attrs) error { return o.readOnly() }

// Delete fails: an origin can only be read. See [Store].
func (o *Origin) Delete(context.Context, string) error { return o.readOnly() }

// Writable fails, as Put would.
func (o *Origin) Writable(context.Context) error { return o.readOnly() }

func (o *Origin) readOnly() error {
	err := fmt.Errorf("object: %s can only be read: %w", o, fs.ErrPermission)
	return myrmidon.Permanent(myrmidon.WithHint(err, "write to a bucket or a folder"))
}

// fail wraps an error with what was tried on which key, and marks it.
func (o *Origin) fail(ctx context.Context, op, key string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	wrap := func(err error) error { return fmt.Errorf("object: %s %q of %s: %w", op, key, o, err) }
	var a *answered
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrChanged), myrmidon.IsPermanent(err):
		return wrap(err)
	case errors.Is(err, errRedirect):
		return myrmidon.Permanent(myrmidon.WithHint(wrap(err), "give the address that it leads to, if you trust it"))
	case !errors.As(err, &a):
		var cert *tls.CertificateVerificationError
		var op *net.OpError
		var dns *net.DNSError
		if errors.As(err, &cert) {
			return myrmidon.Permanent(myrmidon.WithHint(wrap(err), "the server's certificate is not trusted: set SSL_CERT_FILE to the file of its authority"))
		}
		if errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial" {
			return myrmidon.WithHint(wrap(err), "is the server there, and the address right?")
		}
		return wrap(err)
	}
	switch a.status {
	case http.StatusNotFound, http.StatusGone:
		return wrap(fmt.Errorf("%w: %w", fs.ErrNotExist, a))
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return myrmidon.Permanent(myrmidon.WithHint(wrap(fmt.Errorf("%w: %w", fs.ErrPermission, a)), "an origin is read without credentials"))
	case http.StatusPreconditionFailed:
		return wrap(fmt.Errorf("%w: %w", ErrChanged, a))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return myrmidon.RetryAfter(wrap(a), max(a.wait, 5*time.Second))
	}
	if a.status < 500 {
		return myrmidon.Permanent(wrap(a))
	}
	return wrap(a)
}
