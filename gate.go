package myrmidon

import (
	"context"
	"sync"
)

// Gate is open or shut. A paused run shuts its gate; handlers that hold processes
// stop them (SIGSTOP) until it opens. The zero Gate is open. It is safe for
// concurrent use.
type Gate struct {
	mu      sync.Mutex
	shut    bool
	changed chan struct{} // closed and replaced at each change
}

// Set opens or shuts the gate.
func (g *Gate) Set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == shut {
		return
	}
	g.shut = shut
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// State returns whether the gate is shut, and a channel that is closed when that
// changes.
func (g *Gate) State() (shut bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.shut, g.changed
}

// Wait returns when the gate is open, or with ctx's error.
func (g *Gate) Wait(ctx context.Context) error {
	for {
		shut, changed := g.State()
		if !shut {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

type gateKey struct{}

// WithGate returns a context that carries g to handlers.
func WithGate(ctx context.Context, g *Gate) context.Context {
	return context.WithValue(ctx, gateKey{}, g)
}

// GateOf returns the gate in ctx; without one, a gate that is always open.
func GateOf(ctx context.Context) *Gate {
	if g, ok := ctx.Value(gateKey{}).(*Gate); ok {
		return g
	}
	return new(Gate)
}
