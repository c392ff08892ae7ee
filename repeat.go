package myrmidon

import "context"

type repeatKey struct{}

// WithRepeat returns a context that tells the handler that its job may have been begun
// before: see [IsRepeat].
func WithRepeat(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatKey{}, true)
}

// IsRepeat reports whether the job may have been begun before, by a process that was killed
// or lost its connection: some of its effects may be there. It is a hint for handlers that
// find out more cheaply what is done than they do it again.
func IsRepeat(ctx context.Context) bool { return ctx.Value(repeatKey{}) != nil }
