package object

import (
	"net/url"
	"time"
)

// Hurry makes an origin wait less.
func (o *Origin) Hurry(pause, stall time.Duration) { o.pause, o.stall = pause, stall }

// ParseIndexHTML returns the names on an index page, and reports false if it is none.
func ParseIndexHTML(page []byte, at string) (names []string, ok bool) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, false
	}
	found, err := parseIndexHTML(page, u)
	for _, e := range found {
		names = append(names, e.name)
	}
	return names, err == nil
}
