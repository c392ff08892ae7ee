package s3

import (
	"context"
	"fmt"
	"strings"

	"myrmidon/object"
)

// Copy copies inside of S3: with one request, or in parts where the object is larger
// than S3 copies at once (5 GiB). It is of one version of from, with its attributes, metadata
// and tags. See [object.Copier].
func (s *Store) Copy(ctx context.Context, from, to string) error {
	source, err := s.full(from)
	if err != nil {
		return err
	}
	target, err := s.full(to)
	if err != nil {
		return err
	}
	if source == target { // which S3 refuses
		_, err = s.head(ctx, source)
	} else {
		err = s.copy(ctx, source, target, to)
	}
	if err != nil {
		return s.fail(ctx, fmt.Sprintf("copy %q to", from), to, "s3:GetObject and s3:PutObject", err)
	}
	return nil
}

func (s *Store) copy(ctx context.Context, source, target, to string) error {
	_, err := s.hot.copy(ctx, target, copying{source: sourceOf(s.name, source)})
	if tooLargeToCopy(err) {
		_, err = s.copyParts(ctx, s, source, "", target, to, object.ImportOptions{})
	}
	return err
}

// tooLargeToCopy reports whether S3 asks for a copy in parts. It is tried first and
// asked then: hardly any object is above 5 GiB, and a HEAD for each is billed.
func tooLargeToCopy(err error) bool {
	switch code(err) {
	case "EntityTooLarge":
		return true
	case "InvalidRequest", "InvalidArgument":
		return strings.Contains(err.Error(), "larger than the maximum")
	}
	return false
}

var _ object.Copier = (*Store)(nil)
