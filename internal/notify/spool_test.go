package notify

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
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

// Events of a webhook that nobody follows any more are found.
func TestEventsThatAreLeftAreFound(t *testing.T) {
	dir := t.TempDir()
	if left := LeftIn(filepath.Join(dir, "none")); left != nil {
		t.Errorf("%v in a folder that is not there", left)
	}
	h := newHook(t, WebhookConfig{Dir: filepath.Join(dir, "one")}, func(context.Context, Object) error { return errors.New("not now") })
	newHook(t, WebhookConfig{Dir: filepath.Join(dir, "empty")}, func(context.Context, Object) error { return nil }).end()
	h.post(put("a"), 200)
	h.post(put("b"), 200)
	if left := LeftIn(dir); left != nil {
		t.Errorf("%v is left of what is followed", left)
	}
	h.end()
	if left := LeftIn(dir); !slices.Equal(left, []Left{{"webhook://127.0.0.1:0/s3", 2}}) {
		t.Errorf("%v", left)
	}
}
