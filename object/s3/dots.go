package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync"
)

// dots lets requests for keys with a part "." or ".." pass, which S3 takes as they are
// (Amazon S3 User Guide, "Naming Amazon S3 objects"), once it is certain that this server
// does, too. Many servers, and proxies before them, take such a part of a path for a folder
// and would do what is asked for to another object, or another bucket.
//
// What is asked once is harmless: the HEAD of an object "…/..", of a name that nobody has
// used. It is not there, or it is the bucket.
type dots struct {
	ask func(ctx context.Context, key string) error

	mu    sync.Mutex
	known bool
	err   error // a *dotsError, or nil
}

// dotsError is the error of a key that the server may take for another one.
type dotsError struct{ asked string }

func (e *dotsError) Error() string {
	const text = `this server takes the parts "." and ".." of a key for folders, so that another object would be meant`
	if e.asked == "" {
		return text
	}
	return `it is not certain that this server takes the parts "." and ".." of a key as they are: asked for an object with them, it says ` + e.asked
}

func isDots(err error) bool {
	var d *dotsError
	return errors.As(err, &d)
}

// asking marks the context of the one request that is sent before it is certain.
type asking struct{}

// check is nil if a request may be sent. Its errors are *dotsError, and what
// keeps the server from being asked.
func (d *dots) check(req *http.Request) error {
	if !hasDots(req.URL.Path) && !hasDots(req.Header.Get("X-Amz-Copy-Source")) {
		return nil
	}
	ctx := req.Context()
	if ctx.Value(asking{}) != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known {
		return d.err
	}
	err := d.ask(context.WithValue(ctx, asking{}, true), rand.Text()+"/..")
	switch st := status(err); {
	case err == nil:
		d.known, d.err = true, &dotsError{}
	case isNoObject(err):
		d.known = true
	case st >= 400 && st < 500 && st != http.StatusTooManyRequests:
		return &dotsError{asked: answerOf(err).Error()} // also since a session has expired, so it is asked again
	default:
		return err
	}
	return d.err
}

// hasDots reports whether a key has a part that a folder would take for itself or the one
// above it.
func hasDots(key string) bool {
	if !strings.HasPrefix(key, ".") && !strings.Contains(key, "/.") {
		return false // most keys
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}
