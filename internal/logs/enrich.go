package logs

import (
	"encoding/json"
	"sync"

	"myrmidon/internal/enrich"
)

// enrichers are those that are open, by what they were opened with. They are shared by the jobs
// of a process and stay open until it ends: reading the rules of user agents takes a while.
type enrichers struct {
	mu   sync.Mutex
	open map[string]*enrich.Enricher
}

// enriched reports whether the filter adds fields.
func (f *Filter) enriched() bool { return len(f.GeoIP) > 0 || f.UserAgent != "" }

// Open reads a filter and opens its files, until the process ends. Errors are permanent.
func (f Filter) Open() (*Prepared, error) { return new(enrichers).prepare(f) }

// prepare reads a filter, whose files may be open already.
func (e *enrichers) prepare(f Filter) (*Prepared, error) {
	p, err := f.Prepare()
	if err != nil || !f.enriched() {
		return p, err
	}
	cfg := enrich.Config{GeoIP: f.GeoIP, UserAgent: f.UserAgent, ECS: f.ECS, Fields: p.fields}
	key, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.more = e.open[string(key)]; p.more != nil {
		return p, nil
	}
	if p.more, err = enrich.Open(cfg); err != nil {
		return nil, err
	}
	if e.open == nil {
		e.open = make(map[string]*enrich.Enricher)
	}
	e.open[string(key)] = p.more
	return p, nil
}
