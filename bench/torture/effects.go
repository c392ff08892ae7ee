package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

// effect is what is seen from outside of one name.
type effect struct {
	Puts    int
	Content string // of the last put
	Other   string // of one that differed from it; "" if none did
}

// effects is the server that jobs write to. It stands for a store outside of the fleet
// and sees all that jobs do.
type effects struct {
	http   *http.Server
	listen net.Listener
	done   chan error

	mu    sync.Mutex
	names map[string]effect
	work  int // names of the phase work
	// closedAt is how many names of the phase work there were when the first of the
	// phase close came; -1 before.
	closedAt int
}

// maxContent bounds what one effect may hold, bytes.
const maxContent = 4 << 10

func serveEffects(l net.Listener) *effects {
	e := &effects{listen: l, done: make(chan error, 1), names: make(map[string]effect), closedAt: -1}
	e.http = &http.Server{Handler: e, ReadHeaderTimeout: 30 * time.Second}
	go func() { e.done <- e.http.Serve(l) }()
	return e
}

// ServeHTTP takes PUT /<name>.
func (e *effects) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := strings.TrimPrefix(req.URL.Path, "/")
	if req.Method != http.MethodPut || name == "" {
		http.Error(w, "PUT /name", http.StatusBadRequest)
		return
	}
	// What was cut off on its way is not stored, as in any store.
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxContent))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e.store(name, string(body))
	w.WriteHeader(http.StatusNoContent)
}

func (e *effects) store(name, content string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, known := e.names[name]
	now := effect{was.Puts + 1, content, was.Other}
	if known && was.Content != content {
		now.Other = was.Content
	}
	e.names[name] = now
	switch parts := strings.Split(name, "/"); {
	case known || len(parts) < 2:
	case parts[1] == phaseNames[phaseWork]:
		e.work++
	case parts[1] == phaseNames[phaseClose] && e.closedAt < 0:
		e.closedAt = e.work
	}
}

// seen returns what there is now; see effects.closedAt for the second value.
func (e *effects) seen() (map[string]effect, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.names), e.closedAt
}

func (e *effects) close() error {
	err := e.http.Close()
	if serr := <-e.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// outside writes effects from a process of the fleet.
type outside struct {
	url    string // ends with a slash
	client *http.Client
}

// putTimeout bounds one try: a cut network answers nothing.
const putTimeout = 2 * time.Second

func newOutside(addr string) *outside {
	return &outside{"http://" + addr + "/", &http.Client{Timeout: putTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

// put stores content under name. It tries until it succeeds or ctx ends.
func (o *outside) put(ctx context.Context, name, content string) error {
	for {
		err := o.try(ctx, name, content)
		if err == nil || ctx.Err() != nil || myrmidon.IsPermanent(err) {
			return err
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (o *outside) try(ctx context.Context, name, content string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, o.url+name, strings.NewReader(content))
	if err != nil {
		return myrmidon.Permanent(fmt.Errorf("torture: put %s: %w", name, err))
	}
	res, err := o.client.Do(req)
	if err != nil {
		// A connection that has died silently is not to be met again.
		o.client.CloseIdleConnections()
		return fmt.Errorf("torture: put %s: %w", name, err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	err = errors.Join(err, res.Body.Close())
	if err == nil && res.StatusCode != http.StatusNoContent {
		err = fmt.Errorf("torture: put %s: the server answers %s", name, res.Status)
	}
	return err
}
