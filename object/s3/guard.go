package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
)

// guard is an HTTP client that gives up a connection which stands still, so that the
// request can be repeated: a server that accepts and never answers, or a network that
// swallows packets, would else hold a Put or Get for ever. It also counts.
type guard struct {
	next   sdk.HTTPClient
	stall  time.Duration
	counts *counts
	dots   dots
}

type patienceKey struct{}

// patiently returns a context for a request whose answer may take the server minutes:
// a copy of gigabytes.
func patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, 10*time.Minute)
}

// stallError is the error of a connection that stood still. The SDK repeats the
// request as after any timeout.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("the connection stood still for %v", e.after)
}
func (e *stallError) Timeout() bool { return true }

// exchange is one request and its response.
type exchange struct {
	limit    time.Duration
	timer    *time.Timer
	cancel   context.CancelCauseFunc
	ctx      context.Context
	answered atomic.Bool
	counts   *counts
}

// Do sends a request of the SDK. The time limit runs while a body is sent, while the answer
// is awaited, and within each Read of the answer's body; not between Reads.
func (g *guard) Do(req *http.Request) (*http.Response, error) {
	limit := g.stall
	if d, ok := req.Context().Value(patienceKey{}).(time.Duration); ok {
		limit = max(d, limit)
	}
	x := g.begin(req.Context(), limit)
	v := verbOf(req)
	req = req.WithContext(x.ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sentBody{req.Body, x}
	}
	return g.send(x, req, v, g.next.Do)
}

// begin starts the time of an exchange, whose request has to be made with its ctx.
func (g *guard) begin(ctx context.Context, limit time.Duration) *exchange {
	x := &exchange{limit: limit, counts: g.counts}
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	x.timer = time.AfterFunc(limit, x.stalled)
	return x
}

// send sends a request by do and watches over the answer.
func (g *guard) send(x *exchange, req *http.Request, v verb, do func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	if err := g.dots.check(req); err != nil {
		x.timer.Stop()
		x.cancel(nil)
		return nil, err
	}
	g.counts.count(req.Method, v)
	tell(x.ctx, req.Method, v)
	resp, err := do(req)
	x.answered.Store(true)
	x.timer.Stop()
	if err != nil {
		err = x.explain(err)
		x.cancel(nil)
		return nil, err
	}
	if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests {
		g.counts.throttled.Add(1)
	}
	resp.Body = &receivedBody{resp.Body, x}
	return resp, nil
}

func (x *exchange) stalled() { x.cancel(&stallError{x.limit}) }

// explain returns the stall where it is the cause of err.
func (x *exchange) explain(err error) error {
	var stall *stallError
	if errors.As(context.Cause(x.ctx), &stall) {
		x.counts.stalled.Add(1)
		return stall
	}
	return err
}

// sentBody is a request's body.
type sentBody struct {
	io.ReadCloser
	x *exchange
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.x.counts.sent.Add(int64(n))
	if !b.x.answered.Load() {
		b.x.timer.Reset(b.x.limit)
	}
	return n, err
}

// receivedBody is a response's body.
type receivedBody struct {
	io.ReadCloser
	x *exchange
}

func (b *receivedBody) Read(p []byte) (int, error) {
	b.x.timer.Reset(b.x.limit)
	n, err := b.ReadCloser.Read(p)
	b.x.timer.Stop()
	b.x.counts.received.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.x.explain(err)
	}
	return n, err
}

func (b *receivedBody) Close() error {
	b.x.timer.Stop()
	err := b.ReadCloser.Close()
	b.x.cancel(nil)
	return err
}
