package engine_test

import (
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/engine/enginetest"
)

func TestMemory(t *testing.T) {
	enginetest.Run(t, enginetest.Options{
		Open: func(t *testing.T, lease time.Duration) engine.Backend {
			m := engine.NewMemory()
			m.Lease = lease
			return m
		},
	})
}
