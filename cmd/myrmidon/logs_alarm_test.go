package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/notify"
)

// quietFeed is a source of which no line has come.
func quietFeed(t *testing.T, name string) *logFeed {
	t.Helper()
	cfg := notify.Config{Log: slog.New(slog.DiscardHandler)}
	feed, err := cfg.Webhook(notify.WebhookConfig{Address: "webhook://127.0.0.1:0/", Dir: filepath.Join(t.TempDir(), "events")})
	if err != nil {
		t.Fatal(err)
	}
	s := &logFeed{name: name, feed: feed, expect: time.Minute}
	s.quiet.Store(true)
	return s
}

// That a source is quiet is told until the webhook says that it has heard it, and once then.
func TestAnAlarmIsNotLost(t *testing.T) {
	answers := []int{http.StatusFound, http.StatusNotFound, http.StatusInternalServerError, http.StatusNoContent, http.StatusServiceUnavailable}
	var heard []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		if len(answers) > 0 {
			status, answers = answers[0], answers[1:]
		}
		var said struct{ Text string }
		if r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&said) != nil {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if status/100 == 2 {
			heard = append(heard, said.Text)
		}
		w.Header().Set("Location", "/login")
		w.WriteHeader(status)
	}))
	defer hook.Close()
	n := &following{f: &shipFlags{followFlags: followFlags{webhook: hook.URL + "/x"}}, sources: []*logFeed{quietFeed(t, "one"), quietFeed(t, "two")}}
	told := make(map[*logFeed]bool)
	for i, want := range []string{"status 302", "status 404", "status 500", "status 503", "", ""} {
		if i == 5 {
			n.sources[0].quiet.Store(false)
		}
		err := n.tellQuiet(t.Context(), alarmClient(), told)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("call %d: %v, want %q", i, err, want)
		}
	}
	if want := []string{"myrmidon: one: no line has come for 1m0s", "myrmidon: two: no line has come for 1m0s", "myrmidon: one: lines come again"}; !slices.Equal(heard, want) {
		t.Errorf("%q", heard)
	}
}

// Chats' webhooks have their secret in the path: no error has it.
func TestErrorsOfAWebhookHaveNoSecret(t *testing.T) {
	bad := httptest.NewServer(http.NotFoundHandler())
	defer bad.Close()
	for _, at := range []string{bad.URL + "/s3cret?token=s3cret", "http://127.0.0.1:1/s3cret", "http://u:s3cret@127.0.0.1:1/", "ftp://x/s3cret", "http://h/%zs3cret"} {
		if err := callWebhook(t.Context(), alarmClient(), at, "s", "./logs", "quiet", true); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
		if err := checkWebhook(at); err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
}
