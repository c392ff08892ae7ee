package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// untilSignal ends ctx with the first signal, so that what was begun is ended in order.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// untilSignals returns contexts for what begins work, which the first signal ends, and for what is
// under way, which the second cuts off. It comes before the first line that tells of readiness:
// whoever reads that line may signal at once.
func untilSignals(ctx context.Context) (begin, working context.Context, stop func()) {
	in := make(chan os.Signal, 2) // the second may come before the first was looked at
	signal.Notify(in, os.Interrupt, syscall.SIGTERM)
	working, cut := context.WithCancel(ctx)
	begin, end := context.WithCancel(working)
	var heed sync.WaitGroup
	heed.Go(func() {
		for _, cancel := range []context.CancelFunc{end, cut} {
			select {
			case <-in:
				cancel()
			case <-working.Done():
				return
			}
		}
	})
	return begin, working, func() { signal.Stop(in); cut(); heed.Wait() }
}
