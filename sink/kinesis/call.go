package kinesis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon"
	"myrmidon/internal/sigv4"
)

const (
	// maxAnswer bounds what is read of an answer: 500 records have 100 KB.
	maxAnswer = 8 << 20
	// renewAgain is how long to wait for somebody to renew a session that has expired.
	renewAgain = time.Minute
	// skewed is from when on a clock counts as wrong: signatures are good for 5 minutes.
	skewed = 4 * time.Minute
)

// refusal is an answer that is not 200.
type refusal struct {
	status  int
	code    string // "ResourceNotFoundException", or ""
	message string
	date    string
}

func (e *refusal) Error() string {
	if e.code == "" {
		return fmt.Sprintf("status %d", e.status)
	}
	return fmt.Sprintf("%s: %.300s", e.code, e.message)
}

// call sends a request, and once more if it was the session or the clock that was refused.
func (s *Sink) call(ctx context.Context, body []byte) ([]byte, error) {
	keys, err := s.retrieve(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := s.once(ctx, body, keys)
	var no *refusal
	if !errors.As(err, &no) {
		return answer, s.explain(ctx, err)
	}
	switch {
	case isExpired(no.code):
		renewed, renewErr := s.renew(ctx, keys)
		if renewErr != nil {
			err := fmt.Errorf("kinesis: put to %s: %w", s.stream, errors.Join(no, renewErr))
			return nil, myrmidon.RetryAfter(myrmidon.WithHint(err, "renew the session, for instance with `aws sso login`"), renewAgain)
		}
		answer, err = s.once(ctx, body, renewed)
	case s.adjust(no):
		answer, err = s.once(ctx, body, keys)
	}
	return answer, s.explain(ctx, err)
}

// retrieve returns the keys of now.
func (s *Sink) retrieve(ctx context.Context) (aws.Credentials, error) {
	const hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
	if s.keys == nil {
		return aws.Credentials{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("kinesis: stream %s: there are no credentials", s.stream), hint))
	}
	keys, err := s.keys.Retrieve(ctx)
	switch {
	case err == nil:
		return keys, nil
	case ctx.Err() != nil:
		return keys, fmt.Errorf("kinesis: find the credentials for %s: %w", s.stream, ctx.Err())
	}
	return keys, myrmidon.WithHint(fmt.Errorf("kinesis: find the credentials for %s: %w", s.stream, err), hint)
}

// renew looks for keys other than the old ones, whose session has expired.
func (s *Sink) renew(ctx context.Context, old aws.Credentials) (aws.Credentials, error) {
	if err := s.keys.Renew(ctx, old.SessionToken); err != nil {
		return old, err
	}
	return s.keys.Retrieve(ctx)
}

// adjust learns the server's time from a signature that it found to be of another one.
func (s *Sink) adjust(no *refusal) bool {
	if no.code != "InvalidSignatureException" && no.code != "RequestExpired" && no.code != "RequestTimeTooSkewed" {
		return false
	}
	at, err := http.ParseTime(no.date)
	if err != nil {
		return false
	}
	if ahead := time.Until(at); (ahead - time.Duration(s.skew.Load())).Abs() > skewed {
		s.skew.Store(int64(ahead))
		return true
	}
	return false
}

// once sends a request.
func (s *Sink) once(ctx context.Context, body []byte, keys aws.Credentials) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, myrmidon.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
	s.signer.Sign(req, sigv4.Credentials{AccessKey: keys.AccessKeyID, Secret: keys.SecretAccessKey, Token: keys.SessionToken},
		s.region, sigv4.Hash(body), time.Now().Add(time.Duration(s.skew.Load())))
	s.requests.Add(1)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return answer, nil
	}
	var said struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
		Upper   string `json:"Message"`
	}
	no := &refusal{status: resp.StatusCode, date: resp.Header.Get("Date")}
	if json.Unmarshal(answer, &said) == nil {
		code := said.Type
		if h := resp.Header.Get("X-Amzn-Errortype"); code == "" {
			code, _, _ = strings.Cut(h, ":")
		}
		no.code = code[strings.LastIndexByte(code, '#')+1:]
		no.message = said.Message + said.Upper
	}
	return nil, no
}

func isExpired(code string) bool {
	return code == "ExpiredTokenException" || code == "ExpiredToken"
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
	wrapped := fmt.Errorf("kinesis: put to %s in %s: %w", s.stream, s.region, err)
	var no *refusal
	if !errors.As(err, &no) {
		return wrapped
	}
	hint := ""
	switch {
	case isThrottle(no.code), no.status == http.StatusTooManyRequests, no.status == http.StatusServiceUnavailable:
		return myrmidon.RetryAfter(wrapped, pushedBack)
	case no.status >= 500, no.status == http.StatusRequestTimeout, isExpired(no.code), no.code == "InternalFailure":
		return wrapped
	case no.code == "ResourceNotFoundException":
		hint = "make the stream, or look at its name and region: kinesis://stream?region=REGION"
	case no.code == "AccessDeniedException":
		hint = "allow kinesis:PutRecords on the stream, and kms:GenerateDataKey if it is encrypted"
	case no.code == "UnrecognizedClientException", no.code == "InvalidSignatureException", no.code == "IncompleteSignatureException", no.code == "MissingAuthenticationTokenException":
		hint = "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"
	}
	return myrmidon.Permanent(myrmidon.WithHint(wrapped, hint))
}
