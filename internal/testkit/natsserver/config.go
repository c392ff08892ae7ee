package natsserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const (
	defaultMaxStore  = 64 << 30
	defaultMaxMemory = 256 << 20
)

// configure writes the server's configuration. NATS reads JSON. cluster is empty for
// a server alone; its name is secret enough that no other test's server, given the
// port of a dead node, gets a route.
func (s *Server) configure(a access, cluster string, nodes []*Server) error {
	s.access = a
	o := s.options
	store := map[string]any{
		"store_dir":        s.StoreDir(),
		"max_file_store":   orElse(o.MaxStore, defaultMaxStore),
		"max_memory_store": orElse(o.MaxMemory, defaultMaxMemory),
	}
	switch {
	case o.SyncAlways:
		store["sync_interval"] = "always"
	case o.SyncInterval > 0:
		store["sync_interval"] = o.SyncInterval.String()
	}
	conf := map[string]any{
		"server_name": s.name,
		"listen":      s.place.address(clients),
		"http":        s.place.address(monitor),
		"jetstream":   store,
	}
	for key, value := range a.config {
		conf[key] = value
	}
	if o.MaxPayload > 0 {
		conf["max_payload"] = o.MaxPayload
		// The default, 64 MiB, may not be less than one message.
		conf["max_pending"] = max(64<<20, o.MaxPayload)
	}
	if cluster != "" {
		var others []string
		for _, n := range nodes {
			if n != s {
				others = append(others, "nats-route://"+n.place.address(routes))
			}
		}
		conf["cluster"] = map[string]any{
			"name":         cluster,
			"listen":       s.place.address(routes),
			"routes":       others,
			"no_advertise": o.NoAdvertise,
		}
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // NATS knows no \u escapes
	if err := e.Encode(conf); err != nil {
		return fmt.Errorf("natsserver: encode the configuration of %s: %w", s.name, err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "server.conf"), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("natsserver: write the configuration of %s: %w", s.name, err)
	}
	return nil
}

func orElse(n, otherwise int64) int64 {
	if n == 0 {
		return otherwise
	}
	return n
}
