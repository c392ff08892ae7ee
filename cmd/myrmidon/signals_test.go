package main

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// Two signals count as two however soon the second comes.
func TestTheSecondSignalCutsOffAlsoAtOnce(t *testing.T) {
	for range 20 {
		begin, working, stop := untilSignals(t.Context())
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			if err := syscall.Kill(syscall.Getpid(), s); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []context.Context{begin, working} {
			select {
			case <-c.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("a signal was not heard")
			}
		}
		stop()
	}
}

func TestTheFirstSignalCutsNothingOff(t *testing.T) {
	begin, working, stop := untilSignals(t.Context())
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-begin.Done()
	if working.Err() != nil {
		t.Error("it did")
	}
	stop()
	if working.Err() == nil {
		t.Error("what was under way outlives the command")
	}
}
