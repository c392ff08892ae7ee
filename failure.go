package myrmidon

import (
	"context"
	"errors"
	"time"
)

// Failure is an error that has crossed a process boundary: the text, and the marks
// that decide whether it is worth another attempt. It travels as JSON over NATS and
// Lambda.
type Failure struct {
	Message   string        `json:"message"`
	Hint      string        `json:"hint,omitempty"` // what the user can do
	Permanent bool          `json:"permanent,omitempty"`
	After     time.Duration `json:"after_ns,omitempty"` // wait at least so long
	Continue  bool          `json:"continue,omitempty"` // see [Continue]
}

// Error returns the message, without the hint.
func (f *Failure) Error() string { return f.Message }

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// Permanent marks err as never worth a retry. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// RetryAfter marks err as worth a retry, d from now at the earliest.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, d}
}

type continueError struct{ err error }

func (e *continueError) Error() string { return e.err.Error() }
func (e *continueError) Unwrap() error { return e.err }

// Continue marks err as no failure: the item's time was over (see [Kind.Limit]), what is done
// of it is stored, and the rest is handed out again at once, to whichever worker is free. It
// counts as no attempt, unless another item of its job failed for the moment: the items of a job
// that are left go together. Continue(nil) is nil.
func Continue(err error) error {
	if err == nil {
		return nil
	}
	return &continueError{err}
}

// WithHint adds what the user can do about err; [Hint] finds it again.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hintError{err, hint}
}

// IsPermanent reports whether err, or an error that it wraps, is permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	if errors.As(err, &p) {
		return true
	}
	var f *Failure
	return errors.As(err, &f) && f.Permanent
}

// Hint returns the outermost hint in err's chain, or "".
func Hint(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	var f *Failure
	if errors.As(err, &f) {
		return f.Hint
	}
	return ""
}

// AsFailure turns err into the form that travels. AsFailure(nil) is nil.
func AsFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Message: err.Error(), Hint: Hint(err), Permanent: IsPermanent(err)}
	var c *continueError
	var told *Failure
	f.Continue = !f.Permanent && (errors.As(err, &c) || errors.As(err, &told) && told.Continue)
	var r *retryAfterError
	var inner *Failure
	switch {
	case errors.As(err, &r):
		f.After = r.after
	case errors.As(err, &inner):
		f.After = inner.After
	}
	return f
}

// Amount is how far a job is, in units of the workload's choice (frames, bytes).
type Amount struct {
	Done, Total int64
	RSS         int64 // bytes that the job's processes hold now; 0 if unknown
}

type progressKey struct{}

// WithProgress returns a context whose job reports its progress to report, which
// must be fast and safe for concurrent use.
func WithProgress(ctx context.Context, report func(Amount)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// Progress reports how far the job is. It also keeps the job's lease: a job that
// makes no progress for a long time is given to another worker. Without a sink in
// ctx it does nothing.
func Progress(ctx context.Context, a Amount) {
	if report, ok := ctx.Value(progressKey{}).(func(Amount)); ok {
		report(a)
	}
}
