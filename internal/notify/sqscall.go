package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"myrmidon"
	"myrmidon/internal/awsconf"
)

// maxAnswer bounds an answer: ten messages of 256 KiB (1 MiB since 2025), escaped.
const maxAnswer = 32 << 20

// once sends a request.
func (q *Queue) once(ctx context.Context, action string, in map[string]any, out any) error {
	in["QueueUrl"] = q.url
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, err := q.api.Call(ctx, action, body)
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

// explain words an error. What no retry mends is permanent.
func (q *Queue) explain(action string, err error) error {
	var keys *awsconf.KeysError
	var stale *awsconf.RenewError
	var no *awsconf.Refusal
	switch {
	case errors.As(err, &stale):
		return myrmidon.WithHint(fmt.Errorf("sqs: %s of %s: %w", action, q.url, err),
			"renew the session, for instance with `aws sso login`; it is looked for again")
	case errors.As(err, &keys):
		return myrmidon.WithHint(fmt.Errorf("sqs: find the credentials for %s: %w", q.url, err),
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role")
	case !errors.As(err, &no):
		return fmt.Errorf("sqs: %s: %w", action, err)
	}
	err = fmt.Errorf("sqs: %s of %s: %w", action, q.url, err)
	switch code := no.Code; {
	case strings.Contains(code, "NonExistent") || strings.Contains(code, "QueueDoesNotExist"):
		return myrmidon.Permanent(myrmidon.WithHint(err, "check the queue's URL and region"))
	case code == "InvalidClientTokenId" || code == "UnrecognizedClientException" || code == "SignatureDoesNotMatch" || code == "InvalidSignatureException":
		return myrmidon.Permanent(myrmidon.WithHint(err, "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"))
	case strings.HasPrefix(code, "AccessDenied"):
		return myrmidon.Permanent(myrmidon.WithHint(err, "it needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility"))
	}
	return err
}
