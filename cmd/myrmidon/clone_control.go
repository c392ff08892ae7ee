package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/clone"
	"myrmidon/internal/clone/documents"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// documentFlags are those of clones that are asked for and followed by documents in a bucket:
// see the package documents.
type documentFlags struct {
	control, watch, submit string
	wait                   bool
	every                  time.Duration

	answer *clone.Control // once it is known
}

func (d *documentFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&d.control, "control", "", "s3://bucket/ID: take SOURCE and DESTINATION from the clone-request there, if they are not given, and write the answers beside it")
	fl.StringVar(&d.watch, "watch", "", "s3://bucket: make a run for each clone-request that appears there, until Ctrl-C")
	fl.StringVar(&d.submit, "submit", "", "s3://bucket/ID: write a clone-request there for somebody who watches; copy nothing")
	fl.BoolVar(&d.wait, "wait", false, "with --submit: follow the clone to its end")
	fl.DurationVar(&d.every, "every", 0, "with --watch and --wait: how often to look (default: 5s to watch, 1s to wait)")
}

// cloneAny tells the ways to clone apart.
func (a *app) cloneAny(c *cobra.Command, f cloneFlags, in []string) error {
	d := &f.documents
	chosen := 0
	for _, address := range []string{d.control, d.watch, d.submit} {
		if address != "" {
			chosen++
		}
	}
	both := len(in) == 2
	switch {
	case chosen > 1:
		return usage(errors.New("--control, --watch and --submit: use one of them"))
	case f.filesFrom != "" && d.control+d.watch != "":
		return usage(myrmidon.WithHint(errors.New("--files-from cannot be used with --control and --watch: documents tell of folders and ranges of keys, not of a list"),
			"clone the list without documents"))
	case d.wait && d.submit == "":
		return usage(errors.New("--wait needs --submit"))
	case d.every < 0 || d.every > 0 && d.watch == "" && !d.wait:
		return usage(errors.New("--every is a time above 0, for --watch and --wait"))
	case d.watch != "" && len(in) > 0:
		return usage(myrmidon.WithHint(errors.New("--watch takes no SOURCE and DESTINATION"), "each clone-request names its own"))
	case d.watch == "" && !both && (d.control == "" || len(in) > 0):
		return usage(myrmidon.WithHint(fmt.Errorf("SOURCE and DESTINATION are needed, and there are %d arguments", len(in)), "usage: "+c.UseLine()))
	case d.watch != "":
		return a.cloneWatch(c.Context(), f)
	case d.submit != "":
		return a.cloneSubmit(c, f, in[0], in[1])
	case d.control != "":
		return a.cloneControl(c.Context(), f, in)
	}
	return a.clone(c.Context(), f, in[0], in[1])
}

// documentsAt opens the folder of documents at an address. root is the address of its bucket.
func documentsAt(flag, address string) (f documents.Folder, root string, err error) {
	at, err := wire.Locate(address)
	if err != nil {
		return f, "", usage(err)
	}
	if at.Folder == "" {
		return f, "", usage(myrmidon.WithHint(fmt.Errorf("--%s %s names no clone", flag, address), "give the clone's ID behind the bucket: s3://bucket/ID"))
	}
	if err := object.CheckKey(at.Folder); err != nil {
		return f, "", usage(err)
	}
	f.Path, at.Folder = at.Folder, ""
	root = at.String()
	f.Store, err = wire.Bucket(root)
	return f, root, err
}

// sideOf is how documents call what lies at an address.
func sideOf(address string) (documents.Side, error) {
	if wire.IsLocal(address) {
		dir, err := wire.Folder(address)
		return documents.Side{Name: "file://" + dir}, err
	}
	at, err := wire.Locate(address)
	if err != nil {
		return documents.Side{}, err
	}
	s := documents.Side{Name: at.Bucket, Region: at.Region, Role: at.Role, Endpoint: at.Endpoint, Profile: at.Profile}
	if at.Folder != "" {
		s.Prefix = documents.Key(at.Folder + "/")
	}
	return s, nil
}

// addressOf is the address of what a request calls so. Requests name buckets only: whoever may
// write one could else have this machine's files copied.
func addressOf(key, field string, s documents.Side) (string, error) {
	if strings.Contains(s.Name, "/") {
		return "", &documents.Error{Key: key, Field: field + ".name", Why: fmt.Sprintf("is %.100q, which is not the name of a bucket", s.Name)}
	}
	at := wire.Location{
		Bucket: s.Name, Folder: strings.TrimSuffix(string(s.Prefix), "/"),
		Profile: s.Profile, Endpoint: s.Endpoint, Region: s.Region, Role: s.Role,
	}
	address, err := wire.Canonical(at.String())
	if err != nil {
		return "", myrmidon.WithHint(&documents.Error{Key: key, Field: field, Why: "cannot be used: " + err.Error()}, myrmidon.Hint(err))
	}
	return address, nil
}

// addressesOf are the two addresses of a request.
func addressesOf(f documents.Folder, r documents.Request) (source, destination string, err error) {
	if source, err = addressOf(f.RequestKey(), "source", r.Source); err != nil {
		return "", "", err
	}
	destination, err = addressOf(f.RequestKey(), "destination", r.Destination)
	return source, destination, err
}

// controlOf says where the documents of a clone lie. Without an ID that is the folder's name,
// or its beginning where it is {id}-{source}-{destination}.
func controlOf(f documents.Folder, root, id, source, destination string) (*clone.Control, error) {
	c := &clone.Control{Address: root, Folder: f.Path, ID: id}
	var err error
	if c.Source, err = sideOf(source); err != nil {
		return nil, err
	}
	if c.Destination, err = sideOf(destination); err != nil {
		return nil, err
	}
	if c.ID == "" {
		c.ID = strings.TrimSuffix(path.Base(f.Path), "-"+c.Source.Name+"-"+c.Destination.Name)
	}
	return c, nil
}

// agrees refuses an argument that names something else than the request. What the request
// leaves open, such as the profile, the argument may add.
func agrees(key, field string, asked documents.Side, address string) error {
	given, err := sideOf(address)
	if err != nil {
		return usage(err)
	}
	asked.Prefix = documents.Key(strings.TrimSuffix(string(asked.Prefix), "/"))
	given.Prefix = documents.Key(strings.TrimSuffix(string(given.Prefix), "/"))
	for _, x := range []struct{ name, asked, given string }{
		{"name", asked.Name, given.Name},
		{"prefix", string(asked.Prefix), string(given.Prefix)},
		{"region", asked.Region, given.Region},
		{"role", asked.Role, given.Role},
		{"endpoint", asked.Endpoint, given.Endpoint},
		{"profile", asked.Profile, given.Profile},
	} {
		if x.asked != x.given && (x.asked != "" || x.name == "prefix") {
			return usage(myrmidon.WithHint(fmt.Errorf("%s: %s.%s is %.100q, and %s says %.100q", key, field, x.name, x.asked, bare(address), x.given),
				"leave SOURCE and DESTINATION away to clone what was asked for"))
		}
	}
	return nil
}

// cloneControl makes the run that a clone-request asks for, or one with documents.
func (a *app) cloneControl(ctx context.Context, f cloneFlags, in []string) error {
	at, root, err := documentsAt("control", f.documents.control)
	if err != nil {
		return err
	}
	if _, err := at.Response(ctx); err == nil {
		return myrmidon.WithHint(fmt.Errorf("%s has its clone-response already", bare(f.documents.control)),
			"use another ID; or, if its run was interrupted or has failed, myrmidon runs, and runs resume or runs retry")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	request, err := at.Request(ctx)
	asked := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var source, destination string
	switch {
	case len(in) == 2:
		source, destination = in[0], in[1]
		if asked {
			err = errors.Join(agrees(at.RequestKey(), "source", request.Source, source), agrees(at.RequestKey(), "destination", request.Destination, destination))
		} else {
			err = nil
		}
	case asked:
		source, destination, err = addressesOf(at, request)
	default:
		err = myrmidon.WithHint(fmt.Errorf("%s has no clone-request", bare(f.documents.control)), "write one, or name SOURCE and DESTINATION")
	}
	if err != nil {
		return err
	}
	if f.documents.answer, err = controlOf(at, root, string(request.ID), source, destination); err != nil {
		return usage(err)
	}
	return a.clone(ctx, f, source, destination)
}

// conclude makes the documents of a run that has ended say how, if it has some.
func (c *carrier) conclude(ctx context.Context, rep *engine.Report) {
	if rep.Workload != "clone" {
		return
	}
	if err := concludeRun(ctx, rep.ID, rep.Spec, rep.State, rep.Error); err != nil {
		c.complain(fmt.Errorf("run %s: its clone-response does not tell how it ended: %w", rep.ID, err))
	}
}

func concludeRun(ctx context.Context, run string, raw json.RawMessage, state myrmidon.State, why *myrmidon.Failure) error {
	var spec clone.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	return clone.Config{Open: wire.Bucket}.Conclude(ctx, spec, run, state, why)
}
