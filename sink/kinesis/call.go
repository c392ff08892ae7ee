package kinesis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"myrmidon"
	"myrmidon/internal/awsconf"
)

const (
	// maxAnswer bounds what is read of an answer: 500 records have 100 KB.
	maxAnswer = 8 << 20
	// renewAgain is how long to wait for somebody to renew a session that has expired.
	renewAgain = time.Minute
)

// call sends a request.
func (s *Sink) call(ctx context.Context, body []byte) ([]byte, error) {
	const hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
	if s.api.Keys == nil {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("kinesis: stream %s: there are no credentials", s.stream), hint))
	}
	answer, err := s.api.Call(ctx, "PutRecords", body)
	var keys *awsconf.KeysError
	var stale *awsconf.RenewError
	switch {
	case errors.As(err, &stale):
		err := fmt.Errorf("kinesis: put to %s: %w", s.stream, err)
		return nil, myrmidon.RetryAfter(myrmidon.WithHint(err, "renew the session, for instance with `aws sso login`"), renewAgain)
	case !errors.As(err, &keys):
		return answer, s.explain(ctx, err)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("kinesis: find the credentials for %s: %w", s.stream, ctx.Err())
	}
	return nil, myrmidon.WithHint(fmt.Errorf("kinesis: find the credentials for %s: %w", s.stream, err), hint)
}

func isThrottle(code string) bool {
	switch code {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "LimitExceededException", "KMSThrottlingException", "SlowDown":
		return true
	}
	return false
}

// explain says what an error of a request means.
func (s *Sink) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	wrapped := fmt.Errorf("kinesis: put to %s in %s: %w", s.stream, s.api.Region, err)
	var no *awsconf.Refusal
	if !errors.As(err, &no) {
		return wrapped
	}
	hint := ""
	switch {
	case isThrottle(no.Code), no.Status == http.StatusTooManyRequests, no.Status == http.StatusServiceUnavailable:
		return myrmidon.RetryAfter(wrapped, pushedBack)
	case no.Status >= 500, no.Status == http.StatusRequestTimeout, no.IsExpired(), no.Code == "InternalFailure":
		return wrapped
	case no.Code == "ResourceNotFoundException":
		hint = "make the stream, or look at its name and region: kinesis://stream?region=REGION"
	case no.Code == "AccessDeniedException":
		hint = "allow kinesis:PutRecords on the stream, and kms:GenerateDataKey if it is encrypted"
	case no.Code == "UnrecognizedClientException", no.Code == "InvalidSignatureException", no.Code == "IncompleteSignatureException", no.Code == "MissingAuthenticationTokenException":
		hint = "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"
	}
	return myrmidon.Permanent(myrmidon.WithHint(wrapped, hint))
}
