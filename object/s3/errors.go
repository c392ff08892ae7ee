package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"myrmidon"
	"myrmidon/internal/awsconf"
	"myrmidon/object"
)

// slowDown is how long work waits that was told to slow down, where the server does
// not say. By then the attempts of the SDK are used up.
const slowDown = 5 * time.Second

// maxWait bounds what a server may ask for.
const maxWait = 10 * time.Minute

// fail wraps an error with what was tried on which key. action is what IAM would have
// to allow.
func (s *Store) fail(ctx context.Context, op, key, action string, err error) error {
	return s.failed(ctx, fmt.Sprintf("%s %q in %s", op, key, s), action, err)
}

// failed wraps an error with what was tried, marks it, and adds what the user can do.
func (s *Store) failed(ctx context.Context, what, action string, err error) error {
	var body *bodyError
	var creds *awsconf.KeysError
	var dots *dotsError
	wrap := func(err error) error { return fmt.Errorf("s3: %s: %w", what, err) }
	switch {
	case errors.As(err, &body):
		return wrap(err)
	case ctx.Err() != nil:
		return wrap(ended(ctx))
	case errors.Is(err, object.ErrRange), errors.Is(err, fs.ErrNotExist), myrmidon.IsPermanent(err):
		return wrap(err)
	case errors.As(err, &dots):
		return myrmidon.Permanent(myrmidon.WithHint(wrap(dots), "rename the object, or leave it out"))
	case errors.As(err, &creds):
		return noCredentials(creds, wrap)
	case status(err) != 0:
		return s.answered(err, action, wrap)
	}
	return s.unanswered(err, wrap)
}

// answer is an error that the server sent.
type answer struct {
	code, message, request string
	status                 int
	err                    error
}

func (a *answer) Unwrap() error { return a.err }

func (a *answer) Error() string {
	text := a.code
	if a.message != "" && a.message != a.code {
		text += ": " + a.message
	}
	text += fmt.Sprintf(" (status %d", a.status)
	if a.request != "" {
		text += ", request " + a.request
	}
	return text + ")"
}

// answerOf reads what the server said out of an error.
func answerOf(err error) *answer {
	a := &answer{status: status(err), err: err, code: code(err)}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.message = plain(api.ErrorMessage(), 300)
	}
	var resp *awshttp.ResponseError
	var own *refusal
	if errors.As(err, &own) {
		a.request = plain(own.request, 64)
	} else if errors.As(err, &resp) {
		a.request = plain(resp.RequestID, 64)
	}
	if a.code == "" || a.code == "UnknownError" {
		a.code = http.StatusText(a.status)
	}
	a.code = plain(a.code, 64)
	return a
}

// plain makes a server's words fit for one line.
func plain(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// status returns the HTTP status of an error that the server sent, or 0.
func status(err error) int {
	var own *refusal
	if errors.As(err, &own) {
		return own.status
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil {
		return resp.HTTPStatusCode()
	}
	return 0
}

// header returns a header of the error that the server sent.
func header(err error, name string) string {
	var own *refusal
	if errors.As(err, &own) {
		return own.header.Get(name)
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil {
		return resp.Response.Header.Get(name)
	}
	return ""
}

// code returns S3's word for an error, or "".
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// bucketOf returns the bucket that an answer is about: of a copy it may be the source's.
func bucketOf(err error, name string) string {
	var own *refusal
	if errors.As(err, &own) && own.bucket != "" {
		return plain(own.bucket, 255)
	}
	return name
}

// isNoObject reports whether the server says that the object is not there. A HEAD's
// answer has no body, and so no code of S3's.
func isNoObject(err error) bool {
	switch code(err) {
	case "NoSuchKey", "NoSuchVersion":
		return true
	case "NotFound", "UnknownError", "":
		return status(err) == http.StatusNotFound
	}
	return false // a bucket, an upload or a user that is not there
}

// isFolder reports whether a server that keeps objects as files says that the key, or
// a part of it, is a folder or a file in the way.
func isFolder(err error) bool {
	switch code(err) {
	case "ExistingObjectIsDirectory", "ObjectParentIsFile", "XMinioObjectExistsAsDirectory", "XMinioParentIsObject":
		return true
	}
	return false
}

// isOutside reports whether a range lies outside the object, or the object is empty.
func isOutside(err error) bool {
	return status(err) == http.StatusRequestedRangeNotSatisfiable || code(err) == "InvalidRange"
}

// brief is the short text of an error for the log.
func brief(err error) string {
	if status(err) != 0 {
		return answerOf(err).Error()
	}
	return plain(err.Error(), 300)
}

// answered explains an error that the server sent.
func (s *Store) answered(err error, action string, wrap func(error) error) error {
	a := answerOf(err)
	hint := func(text string, v ...any) error {
		return myrmidon.Permanent(myrmidon.WithHint(wrap(a), fmt.Sprintf(text, v...)))
	}
	denied := func(text string, v ...any) error {
		return myrmidon.Permanent(myrmidon.WithHint(wrap(fmt.Errorf("%w: %w", fs.ErrPermission, a)), fmt.Sprintf(text, v...)))
	}
	switch code(err) {
	case "NoSuchBucket":
		return hint("create the bucket %s, or correct the address, its region or endpoint", bucketOf(err, s.name))
	case "InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity":
		return denied("the server does not accept these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, and the endpoint")
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return denied("the session has expired: log in again (aws sso login), or renew AWS_SESSION_TOKEN")
	case "RequestTimeTooSkewed", "RequestExpired":
		return hint("set the clock of this machine: it is now %s", time.Now().UTC().Format(time.RFC3339))
	case "InvalidObjectState":
		return hint("the object is archived: restore it first")
	}
	if isFolder(err) {
		return hint(`this server keeps objects as files and cannot hold both "a" and "a/b": rename one of them`)
	}
	switch code(err) {
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage":
		return hint("the bucket's storage is full: free some space, or choose another bucket")
	case "EntityTooLarge", "KeyTooLongError", "InvalidBucketName", "NotImplemented", "MethodNotAllowed", "InvalidStorageClass":
		return hint("the server cannot do this: choose another key or bucket, or another server")
	}
	if region := header(err, "X-Amz-Bucket-Region"); region != "" && region != s.client.Options().Region && a.status < 404 {
		return hint("the bucket is in the region %s: write s3://%s?region=%s, or set AWS_REGION", plain(region, 30), s.name, plain(region, 30))
	}
	switch {
	case isNoObject(err):
		return wrap(fs.ErrNotExist)
	case a.status == http.StatusForbidden, a.status == http.StatusUnauthorized:
		return denied("allow %s on %s to these credentials (without s3:ListBucket, S3 answers so for a missing object, too)", action, s)
	case a.status == http.StatusPreconditionFailed, a.code == "PreconditionFailed":
		return wrap(fmt.Errorf("%w: %w", errReplaced, a))
	case isBusy(err):
		after := waitOf(err)
		if after == 0 {
			return myrmidon.RetryAfter(wrap(fmt.Errorf("%w: %w", object.ErrBusy, a)), slowDown)
		}
		return myrmidon.RetryAfter(wrap(a), after)
	case a.status == http.StatusMovedPermanently, a.status == http.StatusTemporaryRedirect:
		return hint("the bucket is not in the region %s: write s3://%s?region=REGION, or set AWS_REGION", s.client.Options().Region, s.name)
	}
	return wrap(a)
}

// isBusy reports whether the server has too much to do.
func isBusy(err error) bool {
	st := status(err)
	return st == http.StatusServiceUnavailable || st == http.StatusTooManyRequests || code(err) == "SlowDown"
}

// waitOf returns how long the server asks to wait, 0 if it does not say.
func waitOf(err error) time.Duration {
	seconds, perr := strconv.Atoi(header(err, "Retry-After"))
	if perr != nil || seconds <= 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxWait)
}

// noCredentials explains that there are none, or that they could not be had now.
func noCredentials(c *awsconf.KeysError, wrap func(error) error) error {
	err := wrap(fmt.Errorf("find credentials: %w", c))
	var resp *smithyhttp.ResponseError
	busy := errors.As(c.Err, &resp) && (resp.HTTPStatusCode() >= 500 || resp.HTTPStatusCode() == http.StatusTooManyRequests)
	if c.Had || busy {
		return err
	}
	return myrmidon.Permanent(myrmidon.WithHint(err,
		"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (or ?profile=NAME in the address), or log in (aws sso login)"))
}

// unanswered explains that no answer came.
func (s *Store) unanswered(err error, wrap func(error) error) error {
	var sent *url.Error
	var stall *stallError
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	server := s.endpoint
	if errors.As(err, &sent) {
		if u, perr := url.Parse(sent.URL); server == "" && perr == nil {
			server = u.Scheme + "://" + u.Host
		}
		err = sent.Err // the rest is a URL that our own words say better
	}
	if server == "" {
		server = "S3"
	}
	switch {
	case errors.As(err, &cert):
		return myrmidon.Permanent(myrmidon.WithHint(wrap(fmt.Errorf("%s: %w", server, err)),
			"the server's certificate is not trusted: set AWS_CA_BUNDLE to the file of its authority"))
	case errors.As(err, &stall):
		err = stall
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return myrmidon.WithHint(wrap(fmt.Errorf("cannot reach %s: %w", server, err)),
			"is the server there, and the address right? Look at the endpoint, the region and the network")
	}
	return wrap(fmt.Errorf("%s: %w", server, err))
}
