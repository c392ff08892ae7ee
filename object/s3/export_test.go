package s3

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
)

// OpenFast is New without the pauses between attempts.
func OpenFast(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg, func(o *sdk.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.MaxBackoff = 5 * time.Millisecond
		})
	})
	if err == nil {
		s.pause = time.Millisecond
	}
	return s, err
}

// SetCopyPart makes copies in parts use parts of n bytes.
func (s *Store) SetCopyPart(n int64) { s.copyPart = n }

// SizeOfPart is what Put cuts objects by.
func (s *Store) SizeOfPart(size int64, n int) (int64, error) { return s.sizeOfPart(size, n) }

// AllGivenBack reports whether no Put holds memory.
func (s *Store) AllGivenBack() bool {
	ok := s.bodies.budget.TryAcquire(s.bodies.total)
	if ok {
		s.bodies.budget.Release(s.bodies.total)
	}
	return ok
}
