package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"myrmidon"
	"myrmidon/internal/clone/documents"
)

// waitEvery is how often a requester looks unless it is told.
const waitEvery = time.Second

// cloneSubmit writes a clone-request, and follows the clone if it is to be waited for.
func (a *app) cloneSubmit(c *cobra.Command, f cloneFlags, source, destination string) error {
	ctx := c.Context()
	var foreign error
	c.LocalNonPersistentFlags().VisitAll(func(fl *pflag.Flag) {
		if fl.Changed && !slices.Contains([]string{"submit", "wait", "every", "slots", "durability", "limit"}, fl.Name) {
			foreign = usage(myrmidon.WithHint(fmt.Errorf("--%s cannot be asked for by --submit", fl.Name), "whoever watches chooses how to clone"))
		}
	})
	if foreign != nil {
		return foreign
	}
	at, root, err := documentsAt("submit", f.documents.submit)
	if err != nil {
		return err
	}
	control, err := controlOf(at, root, "", source, destination)
	if err != nil {
		return usage(err)
	}
	request := documents.Request{ID: documents.ID(control.ID), Source: control.Source, Destination: control.Destination}
	for field, side := range map[string]documents.Side{"source": request.Source, "destination": request.Destination} {
		if _, err := addressOf(at.RequestKey(), field, side); err != nil {
			return usage(myrmidon.WithHint(err, "whoever watches cannot see this machine's folders: name a bucket"))
		}
	}
	there, err := at.Request(ctx)
	switch {
	case err == nil && there != request:
		return myrmidon.WithHint(fmt.Errorf("%s asks for another clone already", at.RequestKey()), "use another ID")
	case err == nil: // a repeated command follows it
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if _, err := at.Response(ctx); err == nil {
			return myrmidon.WithHint(fmt.Errorf("%s has a clone-response of an earlier clone", bare(f.documents.submit)), "use another ID")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := at.PutRequest(ctx, request); err != nil {
			return err
		}
	}
	if !f.documents.wait {
		if a.json {
			a.printJSON(request)
		} else {
			fmt.Fprintf(a.stdout, "asked for in s3://%s\n", plain(strings.TrimPrefix(bare(root), "s3://")+"/"+at.RequestKey()))
		}
		return nil
	}
	return a.cloneFollow(ctx, &followed{at: at}, cmp.Or(f.documents.every, waitEvery))
}

// followed is a clone that somebody else does, as its documents tell.
type followed struct {
	at documents.Folder

	manifest documents.Response
	listed   bool              // the manifest is there, and its segments are in pending
	pending  map[string]string // by the key of the response that is missing: the request's
	Segments int               `json:"segments"` // by the manifest, or those begun as long as there is none
	Answered int               `json:"answered"`
	Copied   int               `json:"copied"`
	Failed   int               `json:"failed"`
	failed   []documents.Failed
}

// maxTold is how many objects that failed are told of.
const maxTold = 20

// look reads what is new, and reports whether nothing more will come.
func (f *followed) look(ctx context.Context) (ended bool, err error) {
	m, err := f.at.Response(ctx)
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if known && (!f.listed || m.Run != f.manifest.Run) {
		keys, err := f.at.Segments(ctx, m)
		if err != nil {
			return false, err
		}
		*f = followed{at: f.at, listed: true, Segments: len(keys), pending: make(map[string]string, len(keys))}
		for _, k := range keys {
			f.pending[documents.ResponseKey(k)] = k
		}
	}
	f.manifest = m
	var there []string // responses that have not been read
	begun, answered := 0, 0
	for info, err := range f.at.Store.List(ctx, f.at.Path+"/", "") {
		if err != nil {
			return false, err
		}
		switch _, waited := f.pending[info.Key]; {
		case waited:
			there = append(there, info.Key)
		case f.listed:
		case documents.ResponseKey(info.Key) != "":
			begun++
		case strings.HasSuffix(info.Key, "-segment-response"):
			answered++
		}
	}
	if !known {
		f.Segments, f.Answered = begun, answered
		return false, nil
	}
	if err := f.read(ctx, there); err != nil {
		return false, err
	}
	return len(f.pending) == 0 || m.State != "", nil
}

// read reads responses side by side.
func (f *followed) read(ctx context.Context, keys []string) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, key := range keys {
		mu.Lock() // what was begun already deletes
		request := f.pending[key]
		mu.Unlock()
		group.Go(func() error {
			r, err := f.at.SegmentResponse(ctx, request)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Run != f.manifest.Run {
				return nil // an earlier run's
			}
			delete(f.pending, key)
			f.Answered++
			f.Copied += len(r.Files)
			f.Failed += len(r.Failed)
			f.failed = append(f.failed, r.Failed[:min(len(r.Failed), maxTold-min(len(f.failed), maxTold))]...)
			return nil
		})
	}
	return group.Wait()
}

// cloneFollow waits for the end of a clone and tells how it went.
func (a *app) cloneFollow(ctx context.Context, f *followed, every time.Duration) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	for {
		began := time.Now()
		ended, err := f.look(ctx)
		if err == nil && ended {
			break
		}
		var broken *documents.Error
		if err != nil && ctx.Err() == nil && (myrmidon.IsPermanent(err) || errors.As(err, &broken)) {
			return err
		} else if err != nil && ctx.Err() == nil {
			a.log.Warn("could not look at the clone", "err", err)
		}
		a.drawFollowed(f)
		// A folder of many documents takes its time to list, and is not to be listed all the time.
		select {
		case <-ctx.Done():
			return &exitError{exitInterrupted, myrmidon.WithHint(errors.New("the clone goes on without this command"), "repeat the command to follow it again")}
		case <-time.After(max(every, 4*time.Since(began))):
		}
	}
	a.screen.clear()
	return a.tellFollowed(f)
}

func (a *app) drawFollowed(f *followed) {
	switch {
	case a.quiet:
	case !f.listed && f.Segments == 0:
		a.screen.foot("waiting for somebody who watches")
	case !f.listed:
		a.screen.foot(fmt.Sprintf("planning  %d of %s or more", f.Answered, plural(f.Segments, "segment")))
	default:
		share := float64(f.Answered) / float64(max(f.Segments, 1))
		a.screen.foot(fmt.Sprintf("copying  %s  %d of %s  copied %d  failed %d", bar(share), f.Answered, plural(f.Segments, "segment"), f.Copied, f.Failed))
	}
}

// tellFollowed prints the end of a clone. Its error is the exit status: as of a clone here.
func (a *app) tellFollowed(f *followed) error {
	m := f.manifest
	if a.json {
		a.printJSON(struct {
			*followed
			Run   string `json:"run,omitempty"`
			State string `json:"state,omitempty"`
			Error string `json:"error,omitempty"`
		}{f, m.Run, m.State, m.Error})
	} else if f.Segments > 0 || m.State == "" {
		fmt.Fprintf(a.stdout, "%d of %s   copied %d   failed %d\n", f.Answered, plural(f.Segments, "segment"), f.Copied, f.Failed)
	}
	for _, x := range f.failed {
		fmt.Fprintf(a.stderr, "myrmidon: %s: %s\n", plain(string(x.Key)), plainLines(x.Error))
	}
	if left := f.Failed - len(f.failed); left > 0 {
		fmt.Fprintf(a.stderr, "myrmidon: and %d more: the segment-responses name them\n", left)
	}
	switch {
	case f.Failed > 0 && len(f.pending) == 0:
		return &exitError{status: exitPartial}
	case m.State == string(myrmidon.Failed) || m.State == string(myrmidon.Cancelled):
		return myrmidon.WithHint(errors.New(cmp.Or(m.Error, "the clone was "+m.State)), m.Hint)
	case m.State != "" && len(f.pending) > 0:
		return &exitError{exitPartial, fmt.Errorf("%s without an answer: %s", plural(len(f.pending), "segment"), cmp.Or(m.Error, m.State))}
	}
	return nil
}
