package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"myrmidon/internal/secreturl"
)

const (
	// alarmPatience is how long the webhook of --expect has to answer.
	alarmPatience = 10 * time.Second
	// lastAlarmPause is how long a webhook is left alone that was not told, at most; 1 s at first.
	lastAlarmPause = time.Minute
)

// checkWebhook says what is wrong with the address of --webhook, without it: chats' have their
// secret in the path.
func checkWebhook(address string) error {
	if address == "" {
		return nil
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return usage(errors.New("--webhook: this is no URL of a server, such as https://chat/alarm"))
	}
	return nil
}

// alarm tells the webhook which sources are quiet, until ctx ends. If it cannot be told it is
// called again, after 1 s, 2 s and so on, with what is so then: quiet and loud again in between is
// not told.
func (n *following) alarm(ctx context.Context) {
	if n.f.webhook == "" {
		return
	}
	client := alarmClient()
	defer client.CloseIdleConnections()
	told := make(map[*logFeed]bool)
	for pause := time.Second; ; {
		wait := time.Second
		if err := n.tellQuiet(ctx, client, told); err != nil && ctx.Err() == nil {
			n.log.Warn("--webhook could not be told, and is called again", "in", pause, "err", err)
			wait, pause = pause, min(2*pause, lastAlarmPause)
		} else {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func alarmClient() *http.Client {
	return &http.Client{Timeout: alarmPatience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a page to log in at has heard nothing
	}}
}

// tellQuiet tells the webhook what it was not told: told has the sources of which it knows that
// they are quiet.
func (n *following) tellQuiet(ctx context.Context, client *http.Client, told map[*logFeed]bool) error {
	for _, s := range n.sources {
		is := s.quiet.Load()
		if is == told[s] {
			continue
		}
		if err := callWebhook(ctx, client, n.f.webhook, s.name, s.feed.String(), s.heard(is), is); err != nil {
			return fmt.Errorf("%s: %s: %w", s.name, s.heard(is), err)
		}
		told[s] = is
	}
	return nil
}

// heard words how a source is.
func (s *logFeed) heard(quiet bool) string {
	if quiet {
		return fmt.Sprintf("no line has come for %v", s.expect)
	}
	return "lines come again"
}

// callWebhook tells a webhook how a source is. Errors do not have its path.
func callWebhook(ctx context.Context, client *http.Client, webhook, name, source, what string, quiet bool) error {
	body, err := json.Marshal(map[string]any{"name": name, "source": source, "quiet": quiet, "text": "myrmidon: " + name + ": " + what})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, webhook, bytes.NewReader(body))
	if err != nil {
		return errors.New("this URL cannot be asked") // the error would have it
	}
	req.Header.Set("Content-Type", "application/json")
	return secreturl.Do(client, req)
}
