package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/clone"
)

// cloneList is the list of --files-from, sorted in a temporary folder.
type cloneList struct {
	*clone.Gathered
	ref    clone.List
	dir    string
	remove func() error
}

// gather reads the list of --files-from to its end; nil if there is none.
func (f *cloneFlags) gather() (_ *cloneList, err error) {
	if f.filesFrom == "" {
		return nil, nil
	}
	in := os.Stdin
	if f.filesFrom != "-" {
		if in, err = os.Open(f.filesFrom); err != nil {
			return nil, usage(myrmidon.WithHint(fmt.Errorf("--files-from: %w", err), "name a file with a key a line, or - for standard input"))
		}
		defer in.Close() // it is only read
	}
	l := new(cloneList)
	if l.dir, l.remove, err = workFolder(); err != nil {
		return nil, err
	}
	if l.Gathered, err = clone.Gather(in, f.from0, l.dir); err != nil {
		err = myrmidon.WithHint(fmt.Errorf("--files-from %s: %w", f.filesFrom, err), myrmidon.Hint(err))
		if myrmidon.IsPermanent(err) {
			err = usage(err)
		}
		return nil, errors.Join(err, l.remove())
	}
	return l, nil
}

// close removes the temporary folder. It may be called again, and without a list.
func (l *cloneList) close(a *app) {
	if l == nil || l.remove == nil {
		return
	}
	remove := l.remove
	l.remove = nil
	if err := remove(); err != nil {
		a.log.Warn("could not remove the folder in which a list was sorted", "err", err)
	}
}

// blobsOfLists is where the lists of a fleet's runs are: list/TIME-NAME/, with the time in
// seconds.
const blobsOfLists = "list/"

func blobsOf(id string) string { return blobsOfLists + id + "/" }

// send puts a list where a fleet's workers read it.
func (l *cloneList) send(ctx context.Context, fleet engine.Blobs) error {
	l.ref.ID = fmt.Sprintf("%d-%s", time.Now().Unix(), rand.Text())
	_, err := l.Keep(func(part string, data []byte) error {
		return fleet.Set(ctx, blobsOf(l.ref.ID)+part, data)
	})
	if err != nil {
		return fmt.Errorf("--files-from: %w", err)
	}
	return nil
}

// keep puts a list into the folder of its run.
func (l *cloneList) keep(home engine.Home) error {
	d, ok := home.(*engine.RunDir)
	if !ok {
		return nil
	}
	_, err := l.Keep(clone.KeepIn(d.Path(engine.GivenDir)))
	if err != nil {
		return myrmidon.WithHint(fmt.Errorf("--files-from: keep the list with the run: %w", err), "free some disk space, or choose another folder with --state")
	}
	return nil
}

// readList reads a part of a run's list: see clone.Config.
func (a *app) readList(ctx context.Context, run string, l clone.List, part string) ([]byte, error) {
	if l.ID != "" {
		fleet, err := a.connect(ctx)
		if err != nil {
			return nil, err
		}
		return fleet.Value(ctx, blobsOf(l.ID)+part)
	}
	s, err := a.state()
	if err != nil {
		return nil, err
	}
	home, err := s.Find(run)
	if err != nil {
		return nil, err
	}
	d, ok := home.(*engine.RunDir)
	if !ok {
		return nil, fmt.Errorf("the list of run %s: %w", run, fs.ErrNotExist)
	}
	return clone.ReadIn(d.Path(engine.GivenDir), part)
}

// strayAge is how old a list is whose command has made a run of it, if it lives.
const strayAge = 24 * time.Hour

// forgetLists removes the lists of a fleet that belong to no run: those of commands that
// were killed before they made one.
func forgetLists(ctx context.Context, fleet engine.Blobs, runs []engine.Info, now time.Time) error {
	of := make(map[string]bool)
	for _, i := range runs {
		of[i.Blobs] = true
	}
	keys, err := fleet.Keys(ctx, blobsOfLists)
	if err != nil {
		return err
	}
	var stray []string
	for _, k := range keys {
		id, _, _ := strings.Cut(strings.TrimPrefix(k, blobsOfLists), "/")
		seconds, _, _ := strings.Cut(id, "-")
		made, err := strconv.ParseInt(seconds, 10, 64)
		if err == nil && !of[blobsOf(id)] && now.Sub(time.Unix(made, 0)) > strayAge {
			stray = append(stray, k)
		}
	}
	return fleet.Unset(ctx, stray...)
}
