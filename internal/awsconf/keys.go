package awsconf

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// againAfter is how long credentials that could not be renewed are not asked for again: each
// of a thousand requests under way says that they have expired.
const againAfter = time.Minute

// Keys are the credentials of a client, where they come from, and the errors of finding them,
// which would look like those of any request. They are safe for concurrent use.
type Keys struct {
	load func(context.Context) (aws.CredentialsProvider, error)
	had  atomic.Bool

	mu    sync.RWMutex // held while they are renewed
	from  aws.CredentialsProvider
	dead  string    // the session that could not be renewed
	tried time.Time // when that was
}

// NewKeys returns the keys of a provider. load, which may be nil, reads the environment and the
// files again, which a tool may have written anew.
func NewKeys(from aws.CredentialsProvider, load func(context.Context) (aws.CredentialsProvider, error)) *Keys {
	return &Keys{from: from, load: load}
}

// Use takes the keys from a provider alone, from now on: what a test has in its hand.
func (k *Keys) Use(from aws.CredentialsProvider) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.from, k.load = from, nil
}

// Retrieve returns the credentials, or a *[KeysError].
func (k *Keys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	k.mu.RLock()
	from := k.from
	k.mu.RUnlock()
	found, err := from.Retrieve(ctx)
	if err != nil {
		return found, &KeysError{Err: err, Had: k.had.Load()}
	}
	if !k.had.Load() {
		k.had.Store(true)
	}
	return found, nil
}

// ErrStale is the error of credentials that are still those which have expired.
var ErrStale = errors.New("the credentials are still the same")

// Renew looks for credentials other than those of the session token, which has expired. It is
// nil if there are some, maybe found for another request.
func (k *Keys) Renew(ctx context.Context, token string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	differs := func(from aws.CredentialsProvider) bool {
		found, err := from.Retrieve(ctx)
		return err == nil && found.SessionToken != token
	}
	if differs(k.from) {
		return nil
	}
	if k.dead == token && time.Since(k.tried) < againAfter {
		return ErrStale
	}
	if cache, ok := k.from.(interface{ Invalidate() }); ok {
		cache.Invalidate()
		if differs(k.from) {
			return nil
		}
	}
	if k.load != nil {
		if from, err := k.load(ctx); err == nil && from != nil && differs(from) {
			k.from = from
			return nil
		}
	}
	if ctx.Err() == nil {
		k.dead, k.tried = token, time.Now()
	}
	return ErrStale
}

// KeysError is why no credentials are found.
type KeysError struct {
	Err error
	Had bool // there were some, so that this is a failure of the moment
}

func (e *KeysError) Error() string { return e.Err.Error() }
func (e *KeysError) Unwrap() error { return e.Err }
