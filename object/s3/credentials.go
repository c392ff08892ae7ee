package s3

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// againAfter is how long credentials that could not be renewed are not asked for again: each
// of a thousand requests under way says that they have expired.
const againAfter = time.Minute

// credentials are those of a bucket, where they come from, and the errors of finding them,
// which would look like those of any request.
type credentials struct {
	// load reads the environment and the files again, which a tool may have written anew.
	load func(context.Context) (aws.CredentialsProvider, error)
	had  atomic.Bool // there are some, so that a later failure is one of the moment

	mu    sync.RWMutex // held while they are renewed
	from  aws.CredentialsProvider
	dead  string    // the session that could not be renewed
	tried time.Time // when that was
}

// Retrieve returns the credentials, or a *credentialsError.
func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c.mu.RLock()
	from := c.from
	c.mu.RUnlock()
	found, err := from.Retrieve(ctx)
	if err != nil {
		return found, &credentialsError{err: err, had: c.had.Load()}
	}
	if !c.had.Load() {
		c.had.Store(true)
	}
	return found, nil
}

// errStale is the error of credentials that are still those which have expired.
var errStale = errors.New("the credentials are still the same")

// renew looks for credentials other than those of the session token, which has expired. It is
// nil if there are some, maybe found for another request.
func (c *credentials) renew(ctx context.Context, token string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	differs := func(from aws.CredentialsProvider) bool {
		found, err := from.Retrieve(ctx)
		return err == nil && found.SessionToken != token
	}
	if differs(c.from) {
		return nil
	}
	if c.dead == token && time.Since(c.tried) < againAfter {
		return errStale
	}
	if cache, ok := c.from.(interface{ Invalidate() }); ok {
		cache.Invalidate()
		if differs(c.from) {
			return nil
		}
	}
	if c.load != nil {
		if from, err := c.load(ctx); err == nil && from != nil && differs(from) {
			c.from = from
			return nil
		}
	}
	if ctx.Err() == nil {
		c.dead, c.tried = token, time.Now()
	}
	return errStale
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

type credentialsError struct {
	err error
	had bool
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
