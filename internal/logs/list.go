package logs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/internal/pattern"
	"myrmidon/object"
)

// Address is where logs come from.
type Address struct {
	Source string `json:"source"` // as package wire has addresses
	Base   string `json:"base"`   // without parameters: what names begin with
	Single bool   `json:"single,omitempty"`
}

// Open opens the store, with the functions of package wire. key is that of the object if
// there is one alone.
func (a Address) Open(bucket func(string) (object.Store, error), one func(string) (object.Store, string, error)) (store object.Store, key string, err error) {
	if a.Single {
		return one(a.Source)
	}
	store, err = bucket(a.Source)
	return store, "", err
}

// Name is what an object is called, in documents and IDs: the same by whichever folder
// above it the source was named.
func (a Address) Name(key string) string {
	if a.Single {
		return a.Base
	}
	return strings.TrimSuffix(a.Base, "/") + "/" + key
}

// What is known of the times of an object's lines.
const (
	// slack is how far the clocks of those who write logs and those who name them may be
	// apart.
	slack = 5 * time.Minute
	// longest is the longest interval of load balancers' logs: 60 minutes for Classic ones.
	// Source: User Guide for Classic Load Balancers, "Access logs for your Classic Load
	// Balancer".
	longest = time.Hour
	// lateLines is how much older than its name a line of CloudFront or S3 may be. Sources:
	// CloudFront Developer Guide, "Timing of standard log file delivery" (within 24 hours);
	// Amazon S3 User Guide, "Best-effort server log delivery" (within a few hours).
	lateLines = 25 * time.Hour
)

var (
	balancerStamp = pattern.Of(`_(\d{8}T\d{4})Z_`)
	s3Stamp       = pattern.Of(`^(\d{4}-\d{2}-\d{2}-\d{2}-\d{2}-\d{2})-[0-9A-F]{16}$`)
	frontStamp    = pattern.Of(`\.(\d{4}-\d{2}-\d{2}-\d{2})\.[0-9a-z]+(\.gz)?$`)
	testFile      = pattern.Of(`^ELB\w*LogTestFile$`)
)

// Span returns between which times the lines of an object may lie. Zero means unknown. The
// stamp in a load balancer's key is the interval's end, that in CloudFront's is its hour's
// beginning, and S3's is when the object was written, or, with the time at midnight, the day of
// its lines (Amazon S3 API Reference, PartitionedPrefix: EventTime, the default there).
func Span(o object.Info) (from, to time.Time) {
	name := path.Base(o.Key)
	if m := balancerStamp().FindStringSubmatch(name); m != nil {
		if end, err := time.Parse("20060102T1504", m[1]); err == nil {
			return end.Add(-longest - slack), end.Add(slack)
		}
	}
	if m := s3Stamp().FindStringSubmatch(name); m != nil {
		if end, err := time.Parse("2006-01-02-15-04-05", m[1]); err == nil {
			from = end.Add(-lateLines)
			if end.Equal(end.Truncate(24 * time.Hour)) {
				end = end.Add(24 * time.Hour)
			}
			return from, end.Add(slack)
		}
	}
	if m := frontStamp().FindStringSubmatch(name); m != nil {
		if hour, err := time.Parse("2006-01-02-15", m[1]); err == nil {
			return hour.Add(-lateLines), hour.Add(time.Hour + slack)
		}
	}
	if o.Modified.IsZero() {
		return from, to
	}
	return from, o.Modified.Add(slack) // no line is written before it happened
}

// IsLog reports whether an object may be a log by its name: folders are not, nor what AWS
// writes when logs are turned on.
func IsLog(key string) bool {
	return !testFile().MatchString(path.Base(key)) && !strings.HasSuffix(key, "/")
}

// wants reports whether an object may hold lines of the filter's time.
func (f *Filter) wants(o object.Info) bool {
	if !IsLog(o.Key) {
		return false
	}
	from, to := Span(o)
	if !f.Since.IsZero() && !to.IsZero() && to.Before(f.Since) {
		return false
	}
	return f.Until.IsZero() || from.IsZero() || from.Before(f.Until)
}

// dated is the folder of a day, as AWS puts logs of load balancers into: …/2026/11/21/.
var dated = pattern.Of(`(?:^|/)(\d{4}/\d{2}/\d{2})/`)

// jump returns behind which key a listing may go on that has come to key: objects in
// folders of days before the filter's time are passed over.
func (f *Filter) jump(key string) string {
	if f.Since.IsZero() {
		return key
	}
	m := dated().FindStringSubmatchIndex(key)
	first := f.Since.Add(-longest).UTC().Format("2006/01/02")
	if m == nil || key[m[2]:m[3]] >= first {
		return key
	}
	return key[:m[2]] + first
}

// pageSize is how many objects one page of a listing has: a slice of a plan may hold 900 jobs.
const pageSize = 800

// page lists one page behind a key, and returns of it what the filter wants. left is how
// many it left out; next is where to go on, "" at the end.
func (f *Filter) page(ctx context.Context, s object.Store, after string) (want []object.Info, left int, next string, err error) {
	p, ok := s.(object.Pager)
	if !ok {
		return nil, 0, "", myrmidon.Permanent(errors.New("logs: this source cannot be listed"))
	}
	all, more, err := p.Page(ctx, "", after, pageSize)
	if err != nil {
		return nil, 0, "", err
	}
	if err := object.CheckPage("", after, all); err != nil {
		return nil, 0, "", err
	}
	if more && len(all) == 0 {
		return nil, 0, "", fmt.Errorf("logs: a page of the listing behind %q is empty, and yet more follows", after)
	}
	for _, o := range all {
		if f.wants(o) {
			want = append(want, o)
		} else {
			left++
		}
	}
	if more {
		next = f.jump(all[len(all)-1].Key)
	}
	return want, left, next, nil
}

// List calls fn with each object of a store that may hold lines which the filter takes, in
// the order of keys.
func List(ctx context.Context, s object.Store, f Filter, fn func(object.Info) error) error {
	for after := ""; ; {
		want, _, next, err := f.page(ctx, s, after)
		if err != nil {
			return err
		}
		for _, o := range want {
			if err := fn(o); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}
