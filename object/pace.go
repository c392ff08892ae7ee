package object

import (
	"context"
	"errors"
	"time"

	"myrmidon"
)

// ErrBusy is wrapped by the error of a store that has too much to do, and does not say
// when to come again.
var ErrBusy = errors.New("the store has too much to do")

// Busy reports whether an error is of a store that has too much to do, and after how long
// it wants to be asked again: 0 if it does not say.
func Busy(err error) (after time.Duration, is bool) {
	if err == nil || errors.Is(err, ErrBusy) {
		return 0, err != nil
	}
	after = myrmidon.AsFailure(err).After
	return after, after > 0
}

type pacedKey struct{}

// Paced returns a context for requests of a caller that waits by itself when the store is
// busy, and knows better when to come again: a copy by one request is then not sent again,
// but fails at once.
func Paced(ctx context.Context) context.Context { return context.WithValue(ctx, pacedKey{}, true) }

// IsPaced reports whether ctx is of [Paced].
func IsPaced(ctx context.Context) bool {
	is, _ := ctx.Value(pacedKey{}).(bool)
	return is
}
