package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon/object"
)

// maxDelete is how many objects one request deletes (Amazon S3 API Reference, DeleteObjects).
const maxDelete = 1000

// Delete removes an object. See [object.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	full, err := s.full(key)
	if err != nil {
		return err
	}
	return s.delete(ctx, key, full)
}

func (s *Store) delete(ctx context.Context, key, full string) error {
	_, err := s.client.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &s.name, Key: &full})
	if err != nil && !isNoObject(err) && !errors.Is(tooLong(err), fs.ErrNotExist) {
		return s.fail(ctx, "delete", key, "s3:DeleteObject", err)
	}
	return nil
}

// DeleteMany removes objects, 1,000 with a request, of any keys that a listing may yield
// (a//b, a/). A key that is not there is not an error. failed has those that were not
// removed and why, with the errors of [Store.Delete]. err is that of a request which failed
// as a whole: nothing is known of its keys and of those behind them in keys, and they are not
// in failed.
func (s *Store) DeleteMany(ctx context.Context, keys []string) (failed map[string]error, err error) {
	failed = make(map[string]error)
	for batch := range slices.Chunk(keys, maxDelete) {
		names := make(map[string]string, len(batch)) // of the store, by those of the bucket
		objects := make([]types.ObjectIdentifier, 0, len(batch))
		for _, key := range batch {
			full, err := s.anyFull(key)
			switch {
			case err != nil:
				failed[key] = err
			case !fitsXML(full), hasDots(full): // the latter are looked at by themselves: see dots
				if err := s.delete(ctx, key, full); err != nil {
					failed[key] = err
				}
			case names[full] == "":
				names[full] = key
				objects = append(objects, types.ObjectIdentifier{Key: aws.String(full)})
			}
		}
		if len(objects) == 0 {
			continue
		}
		out, err := s.client.DeleteObjects(ctx, &sdk.DeleteObjectsInput{
			Bucket: &s.name,
			Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)},
		})
		if err != nil {
			return failed, s.failed(ctx, fmt.Sprintf("delete %d objects in %s", len(objects), s), "s3:DeleteObject", err)
		}
		for _, e := range out.Errors {
			key, known := names[aws.ToString(e.Key)]
			switch why := aws.ToString(e.Code); {
			case !known:
				err := fmt.Errorf("s3: delete %d objects in %s: the answer is about %.100q", len(objects), s, aws.ToString(e.Key))
				return failed, err
			case why != "NoSuchKey" && why != "NoSuchVersion":
				failed[key] = s.fail(ctx, "delete", key, "s3:DeleteObject", &refusal{status: statusOf(why), word: why, text: aws.ToString(e.Message)})
			}
		}
	}
	return failed, nil
}

// statusOf is the status that goes with a code where the answer is about many objects.
func statusOf(code string) int {
	switch code {
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return 403
	case "SlowDown", "ServiceUnavailable":
		return 503
	case "InternalError":
		return 500
	}
	return 400
}

// fitsXML reports whether a key can stand in a document of XML 1.0. The SDK would write
// U+FFFD for a character that cannot, which names another object.
func fitsXML(key string) bool {
	for _, c := range key {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xfffe || c == 0xffff {
			return false
		}
	}
	return true
}

// anyFull is full for keys that only a bucket can have, as a listing yields them: also with
// empty, "." and ".." parts, and at the end of a folder's marker.
func (s *Store) anyFull(key string) (string, error) {
	full := s.prefix + key
	var why string
	switch {
	case key == "":
		why = "it is empty"
	case len(full) > object.MaxKey:
		return "", object.BadKey(fmt.Errorf("s3: key %.40q… is %d bytes long in %s; %d are allowed", key, len(full), s, object.MaxKey))
	case !utf8.ValidString(key):
		why = "it is not UTF-8"
	}
	for i := range len(key) {
		if key[i] == 0 {
			why = "it holds a NUL byte"
		}
	}
	if why == "" {
		return full, nil
	}
	return "", object.BadKey(fmt.Errorf("s3: %q cannot be a key: %s", key, why))
}
