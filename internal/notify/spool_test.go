package notify

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon"
)

// Two webhooks that share a folder would each do what is in it.
func TestEventsAreOfOneWebhookAtATime(t *testing.T) {
	cfg := WebhookConfig{Dir: filepath.Join(t.TempDir(), "events")}
	h := newHook(t, cfg, func(context.Context, Object) error { return nil })
	cfg.Address = "webhook://127.0.0.1:0/s3"
	if _, err := config(1).Webhook(cfg); err == nil || !strings.Contains(err.Error(), "another process") || myrmidon.Hint(err) == "" {
		t.Errorf("a second webhook in the folder of the first: %v", err)
	}
	h.end()
	newHook(t, cfg, func(context.Context, Object) error { return nil })
}
