package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon"
	"myrmidon/object"
)

// List lists in pages of 1,000, one request each. Infos have no Attrs. See
// [object.Store].
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if ctx.Err() != nil {
			yield(object.Info{}, s.fail(ctx, "list", prefix, "s3:ListBucket", ended(ctx)))
			return
		}
		if ask, ok := askFor(s.prefix + prefix); !ok || len(ask) > object.MaxKey || after > prefix && !strings.HasPrefix(after, prefix) {
			return // no key is like that: all of the prefix's come before after
		}
		if err := s.list(ctx, prefix, after, yield); err != nil {
			yield(object.Info{}, s.fail(ctx, "list", prefix, "s3:ListBucket", err))
		}
	}
}

// list yields the objects of all pages. Its error is not yet yielded.
func (s *Store) list(ctx context.Context, prefix, after string, yield func(object.Info, error) bool) error {
	wanted := s.prefix + prefix
	ask, _ := askFor(wanted)
	in := &sdk.ListObjectsV2Input{
		Bucket:       &s.name,
		Prefix:       &ask,
		EncodingType: types.EncodingTypeUrl, // keys may hold what XML cannot
	}
	if after > prefix {
		in.StartAfter = optional(startAfter(s.prefix + after))
	}
	last := s.prefix + after
	for begun := false; ; {
		out, err := s.client.ListObjectsV2(ctx, in)
		if err != nil {
			return err
		}
		for _, o := range out.Contents {
			full, err := keyOf(o, out.EncodingType)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(full, ask) {
				return fmt.Errorf("the listing of %q holds %.100q", ask, full)
			}
			if full <= last {
				if !begun {
					continue // startAfter began a little early
				}
				return unordered(last, full)
			}
			begun, last = true, full
			if !strings.HasPrefix(full, wanted) {
				if full > wanted {
					return nil
				}
				continue
			}
			if full == s.prefix {
				continue // the marker of this very folder
			}
			if !yield(infoOf(full[len(s.prefix):], o), nil) {
				return nil
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		next := aws.ToString(out.NextContinuationToken)
		if next == "" || next == aws.ToString(in.ContinuationToken) {
			return errors.New("the listing is not complete and does not say how it goes on")
		}
		in.ContinuationToken = &next
	}
}

// askFor returns the prefix to ask S3 for, which takes whole characters only: one that
// ends within a character is asked for without it. It reports false if no key of S3
// begins with prefix.
func askFor(prefix string) (string, bool) {
	whole := prefix
	for i := range prefix {
		if c, n := utf8.DecodeRuneInString(prefix[i:]); c == utf8.RuneError && n == 1 {
			whole = prefix[:i]
			break
		}
	}
	rest := prefix[len(whole):]
	return whole, strings.IndexByte(whole, 0) < 0 && (rest == "" || !utf8.FullRuneInString(rest))
}

// startAfter returns after, or where no key of S3 can be like that a beginning of it:
// the listing then starts early, never late.
func startAfter(after string) string {
	for i, c := range after {
		bad := c == 0
		if c == utf8.RuneError {
			_, n := utf8.DecodeRuneInString(after[i:])
			bad = n == 1
		}
		if bad || i+utf8.RuneLen(c) > object.MaxKey {
			return after[:i]
		}
	}
	return after
}

// keyOf returns an entry's key. Not every server heeds the encoding that was asked
// for; the answer says whether it did.
func keyOf(o types.Object, encoding types.EncodingType) (string, error) {
	key := aws.ToString(o.Key)
	if encoding != types.EncodingTypeUrl {
		return key, nil
	}
	decoded, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("the listing holds a key that cannot be decoded: %w", err)
	}
	return decoded, nil
}

func infoOf(key string, o types.Object) object.Info {
	return object.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified).UTC(), ETag: bareETag(o.ETag)}
}

// unordered is the error of a listing that could not be continued.
func unordered(last, key string) error {
	err := fmt.Errorf("the listing is not in the order of keys: %.100q follows %.100q", key, last)
	return myrmidon.Permanent(myrmidon.WithHint(err, "directory buckets (S3 Express) list without order: use a general purpose bucket"))
}
