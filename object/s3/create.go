package s3

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"myrmidon"
	"myrmidon/object"
)

var _ object.Creator = (*Store)(nil)

type onlyNewKey struct{}

// onlyNew reports whether a Put may replace nothing.
func onlyNew(ctx context.Context) bool { return ctx.Value(onlyNewKey{}) != nil }

// PutNew is Put under the condition that there is no object (If-None-Match: *). A server
// that does not know the condition ignores it. An answer that was lost makes the second
// attempt find the object of the first, which is then an error as well. See
// [object.Creator].
func (s *Store) PutNew(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	err := s.Put(context.WithValue(ctx, onlyNewKey{}, true), key, body, size, attrs)
	if err != nil && ctx.Err() == nil && isUnmet(err) {
		return myrmidon.Permanent(fmt.Errorf("s3: put %q in %s: %w: %s", key, s, fs.ErrExist, brief(err)))
	}
	return err
}
