package notify

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
	// maxAnswer bounds an answer: ten messages of 256 KiB (1 MiB since 2025), escaped.
	maxAnswer = 32 << 20
	// skewed is from when on a clock counts as wrong: signatures are good for 5 minutes at
	// least.
	skewed = 4 * time.Minute
)

// refused is an answer that is not 200.
type refused struct {
	status        int
	code, message string
	date          string
}

func (e *refused) Error() string {
	return fmt.Sprintf("status %d %s %.200s", e.status, e.code, e.message)
}

// once sends a request, and once more if it was the session or the clock that was refused.
func (q *Queue) once(ctx context.Context, action string, in map[string]any, out any) error {
	in["QueueUrl"] = q.url
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	keys, err := q.keys.Retrieve(ctx)
	if err != nil {
		return myrmidon.WithHint(fmt.Errorf("sqs: find the credentials for %s: %w", q.url, err),
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role")
	}
	answer, err := q.send(ctx, action, body, keys)
	var no *refused
	if errors.As(err, &no) {
		switch {
		case isExpired(no.code):
			if renewErr := q.keys.Renew(ctx, keys.SessionToken); renewErr != nil {
				return myrmidon.WithHint(fmt.Errorf("sqs: %s of %s: %w", action, q.url, errors.Join(no, renewErr)),
					"renew the session, for instance with `aws sso login`; it is looked for again")
			}
			if keys, err = q.keys.Retrieve(ctx); err == nil {
				answer, err = q.send(ctx, action, body, keys)
			}
		case q.adjust(no):
			answer, err = q.send(ctx, action, body, keys)
		}
	}
	if err != nil {
		return q.explain(action, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("sqs: %s: the answer: %w", action, err)
	}
	return nil
}

// send sends a request by SQS's JSON protocol. Source: Amazon SQS API reference, "Making
// requests using the AWS JSON protocol".
func (q *Queue) send(ctx context.Context, action string, body []byte, keys aws.Credentials) ([]byte, error) {
	u, err := url.Parse(q.url)
	if err != nil {
		return nil, err
	}
	u.Path, u.RawPath = "/", ""
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	q.signer.Sign(req, sigv4.Credentials{AccessKey: keys.AccessKeyID, Secret: keys.SecretAccessKey, Token: keys.SessionToken},
		q.region, sigv4.Hash(body), time.Now().Add(time.Duration(q.skew.Load())))
	resp, err := q.client.Do(req)
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
	}
	_ = json.Unmarshal(answer, &said) // an answer that is no JSON has its status
	return nil, &refused{resp.StatusCode, said.Type[strings.LastIndex(said.Type, "#")+1:], said.Message, resp.Header.Get("Date")}
}

func isExpired(code string) bool { return code == "ExpiredToken" || code == "ExpiredTokenException" }

// adjust learns the server's time from a signature that it found to be of another one.
func (q *Queue) adjust(no *refused) bool {
	switch no.code {
	case "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed":
	default:
		return false
	}
	at, err := http.ParseTime(no.date)
	if err != nil {
		return false
	}
	ahead := time.Until(at)
	if (ahead - time.Duration(q.skew.Load())).Abs() <= skewed {
		return false
	}
	q.skew.Store(int64(ahead))
	return true
}

// explain words an error. What no retry mends is permanent.
func (q *Queue) explain(action string, err error) error {
	var no *refused
	if !errors.As(err, &no) {
		return fmt.Errorf("sqs: %s: %w", action, err)
	}
	err = fmt.Errorf("sqs: %s of %s: %w", action, q.url, err)
	switch code := no.code; {
	case strings.Contains(code, "NonExistent") || strings.Contains(code, "QueueDoesNotExist"):
		return myrmidon.Permanent(myrmidon.WithHint(err, "check the queue's URL and region"))
	case code == "InvalidClientTokenId" || code == "UnrecognizedClientException" || code == "SignatureDoesNotMatch" || code == "InvalidSignatureException":
		return myrmidon.Permanent(myrmidon.WithHint(err, "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"))
	case strings.HasPrefix(code, "AccessDenied"):
		return myrmidon.Permanent(myrmidon.WithHint(err, "it needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility"))
	}
	return err
}
