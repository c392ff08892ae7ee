package s3

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"myrmidon/object"
)

// What retries may cost. Each costs retryCost, and each request that is answered earns one:
// once the first 100 retries are used up, a storm of 503 is multiplied by 1.2 at most.
const (
	fullBudget = 500
	retryCost  = 5
)

// budget bounds the retries of a bucket's stores as a share of their requests.
type budget struct{ used atomic.Int64 }

// spend takes what a retry costs, and reports false if there is not as much.
func (b *budget) spend() bool {
	for {
		used := b.used.Load()
		if used+retryCost > fullBudget {
			return false
		}
		if b.used.CompareAndSwap(used, used+retryCost) {
			return true
		}
	}
}

// earn adds what a request earns.
func (b *budget) earn() {
	for {
		used := b.used.Load()
		if used == 0 || b.used.CompareAndSwap(used, used-1) {
			return
		}
	}
}

// errSpent is the error of a request that is not sent again.
var errSpent = errors.New("it is not sent again, since too many of the requests to this bucket fail")

// retryer decides for the SDK and for our own requests what is sent again. To the SDK's
// rules, which follow AWS_RETRY_MODE and AWS_MAX_ATTEMPTS, it adds a budget for all requests
// of a bucket, and credentials that are fetched anew when they have expired.
type retryer struct {
	aws.RetryerV2
	b *bucket
}

// retryer makes an SDK's retryer ours.
func (b *bucket) retryer(of aws.Retryer) aws.Retryer {
	v2, ok := of.(aws.RetryerV2)
	if !ok {
		v2 = oldRetryer{of}
	}
	return &retryer{v2, b}
}

// oldRetryer is a retryer that knows no token for each attempt.
type oldRetryer struct{ aws.Retryer }

func (r oldRetryer) GetAttemptToken(context.Context) (func(error) error, error) {
	return r.GetInitialToken(), nil
}

// IsErrorRetryable reports whether a request that failed so is worth another attempt.
func (r *retryer) IsErrorRetryable(err error) bool {
	return !isDots(err) && (isExpired(err) && r.b.keys != nil || r.RetryerV2.IsErrorRetryable(err))
}

// GetAttemptToken is asked for before each attempt.
func (r *retryer) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	if a := object.AccountOf(ctx); a != nil {
		if err := a.Wait(ctx); err != nil {
			return nil, err
		}
	}
	release, err := r.RetryerV2.GetAttemptToken(ctx) // which waits, in AWS_RETRY_MODE=adaptive
	if err != nil {
		return nil, err
	}
	return func(err error) error {
		if err == nil || !r.RetryerV2.IsErrorRetryable(err) {
			r.b.budget.earn()
		}
		return release(err)
	}, nil
}

// GetRetryToken is asked for before each attempt but the first.
func (r *retryer) GetRetryToken(ctx context.Context, failed error) (func(error) error, error) {
	if isExpired(failed) && r.b.keys != nil {
		if err := r.b.keys.Renew(ctx, tokenOf(failed)); err != nil {
			return nil, err
		}
	}
	if !r.b.budget.spend() {
		r.b.counts.spent.Add(1)
		return nil, errSpent
	}
	r.b.counts.retried.Add(1)
	return func(error) error { return nil }, nil
}

// isExpired reports whether the server says that a session has expired.
func isExpired(err error) bool {
	if err == nil {
		return false
	}
	switch code(err) {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return true
	}
	return false
}

// tokenOf returns the session token that a refused request was signed with.
func tokenOf(err error) string {
	const name = "X-Amz-Security-Token"
	var own *refusal
	if errors.As(err, &own) {
		return own.token
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil && resp.Response.Request != nil {
		return resp.Response.Request.Header.Get(name)
	}
	return ""
}
