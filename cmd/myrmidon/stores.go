package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/internal/clone"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// openPager opens an address for listing. The rest of an address of S3 that does not end
// in "/" is a folder, as everywhere.
func openPager(address string) (object.Store, object.Pager, error) {
	s, err := wire.Bucket(address)
	if err != nil {
		return nil, nil, usage(err)
	}
	p, ok := s.(object.Pager)
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot be listed", address)
	}
	return s, p, nil
}

// listed is a line of ls.
type listed struct {
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
	ETag     string    `json:"etag,omitempty"`
	Folder   bool      `json:"folder,omitempty"`
}

func (a *app) lsCommand() *cobra.Command {
	var deep bool
	c := &cobra.Command{
		Use:     "ls ADDRESS",
		GroupID: "stores",
		Short:   "List what is in a bucket, prefix or folder",
		Long: `List objects, in the order of keys: when each was changed (UTC), its size in bytes, and its
key below ADDRESS. What lies in a folder is listed as that folder, unless -r is given.`,
		Example: "  myrmidon ls s3://media/films/\n  myrmidon ls -r --json ./out | jq .key",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, in []string) error {
			out := bufio.NewWriter(a.stdout)
			enc := json.NewEncoder(out)
			err := list(c.Context(), in[0], deep, func(l listed) error {
				switch {
				case a.json:
					return enc.Encode(l)
				case l.Folder:
					_, err := fmt.Fprintf(out, "%20s  %14s  %s\n", "", "", plain(l.Key))
					return err
				}
				_, err := fmt.Fprintf(out, "%20s  %14d  %s\n", l.Modified.UTC().Format(time.RFC3339), l.Size, plain(l.Key))
				return err
			})
			return errors.Join(err, out.Flush())
		},
	}
	c.Flags().BoolVarP(&deep, "recursive", "r", false, "list what lies in folders, too")
	return c
}

// list calls fn with all objects at an address, or with those that lie in no folder, and the
// folders. A folder is passed over with one request, however much it holds.
func list(ctx context.Context, address string, deep bool, fn func(listed) error) error {
	_, p, err := openPager(address)
	if err != nil {
		return err
	}
	for after, more := "", true; more; {
		var page []object.Info
		if page, more, err = p.Page(ctx, "", after, 0); err != nil {
			return err
		}
		if err := object.CheckPage("", after, page); err != nil {
			return err
		}
		passed := ""
		for _, o := range page {
			after = o.Key
			if folder, _, in := strings.Cut(o.Key, "/"); in && !deep {
				if folder+"/" != passed {
					passed = folder + "/"
					if err := fn(listed{Key: passed, Folder: true}); err != nil {
						return err
					}
				}
				continue
			}
			if err := fn(listed{o.Key, o.Size, o.Modified, o.ETag, false}); err != nil {
				return err
			}
		}
		if len(page) > 0 && passed != "" && strings.HasPrefix(after, passed) {
			after = passed + strings.Repeat("\U0010ffff", (object.MaxKey-len(passed))/4)
		}
	}
	return nil
}

// total is what du adds up.
type total struct {
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Key     string `json:"key"`
}

func (a *app) duCommand() *cobra.Command {
	var each bool
	c := &cobra.Command{
		Use:     "du ADDRESS",
		GroupID: "stores",
		Short:   "Add up the objects of a bucket, prefix or folder",
		Long:    "Count objects and add up their sizes. The listing is cut into ranges of keys that are read side by side.",
		Example: "  myrmidon du s3://media\n  myrmidon du --each s3://media/films/",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, in []string) error {
			_, p, err := openPager(in[0])
			if err != nil {
				return err
			}
			var mu sync.Mutex
			sums := make(map[string]total)
			err = object.Walk(c.Context(), p, object.Range{}, object.WalkOptions{}, func(_ object.Range, page []object.Info) error {
				mu.Lock()
				defer mu.Unlock()
				for _, o := range page {
					key := ""
					if folder, _, in := strings.Cut(o.Key, "/"); each && in {
						key = folder + "/"
					}
					t := sums[key]
					sums[key] = total{t.Objects + 1, t.Bytes + o.Size, key}
				}
				return nil
			})
			if err != nil {
				return err
			}
			return a.printTotals(sums)
		},
	}
	c.Flags().BoolVar(&each, "each", false, "a line for each folder, too")
	return c
}

// printTotals prints folders, the largest first, and the sum of all.
func (a *app) printTotals(sums map[string]total) error {
	var all total
	var rows []total
	for key, t := range sums {
		all.Objects += t.Objects
		all.Bytes += t.Bytes
		if key != "" {
			rows = append(rows, t)
		}
	}
	slices.SortFunc(rows, func(x, y total) int {
		if x.Bytes != y.Bytes {
			return int(min(max(y.Bytes-x.Bytes, -1), 1))
		}
		return strings.Compare(x.Key, y.Key)
	})
	for _, t := range append(rows, all) {
		if a.json {
			a.printJSON(t)
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "%12s  %12d  %s\n", size(t.Bytes), t.Objects, plain(t.Key)); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) rmCommand() *cobra.Command {
	var deep, dry bool
	var f clone.Filter
	c := &cobra.Command{
		Use:     "rm ADDRESS",
		GroupID: "stores",
		Short:   "Delete an object, or with -r all below a bucket, prefix or folder",
		Example: "  myrmidon rm s3://media/films/old.mp4\n  myrmidon rm -r s3://media/tmp/ --include '*.part' --dry-run",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, in []string) error {
			if err := (clone.Spec{Source: "-", Destination: "-", Compare: clone.CompareNone, Filter: f}).Validate(); err != nil {
				return usage(err)
			}
			if !deep {
				if len(f.Include)+len(f.Exclude) > 0 {
					return usage(errors.New("--include and --exclude need -r"))
				}
				return a.removeOne(c.Context(), in[0], dry)
			}
			return a.removeAll(c.Context(), in[0], f, dry)
		},
	}
	c.Flags().BoolVarP(&deep, "recursive", "r", false, "delete everything below ADDRESS")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would be deleted; delete nothing")
	c.Flags().StringArrayVar(&f.Include, "include", nil, `only keys like this; "*" stands for anything, "/" too`)
	c.Flags().StringArrayVar(&f.Exclude, "exclude", nil, "no keys like this")
	return c
}

func (a *app) removeOne(ctx context.Context, address string, dry bool) error {
	s, key, err := wire.Object(address)
	if err != nil {
		return usage(myrmidon.WithHint(err, "to delete everything below a prefix, use -r"))
	}
	if _, err := s.Head(ctx, key); err != nil {
		return err
	}
	if !dry {
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
	}
	return a.printRemoved(a.stdout, key)
}

func (a *app) printRemoved(w io.Writer, key string) error {
	if a.json {
		return json.NewEncoder(w).Encode(map[string]string{"action": "delete", "key": key})
	}
	_, err := fmt.Fprintf(w, "delete  %s\n", plain(key))
	return err
}

// removeAll deletes page by page. What cannot be deleted is said, and the others go on.
func (a *app) removeAll(ctx context.Context, address string, f clone.Filter, dry bool) error {
	s, p, err := openPager(address)
	if err != nil {
		return err
	}
	var mu sync.Mutex // of the output
	var failed atomic.Int64
	out := bufio.NewWriter(a.stdout)
	err = object.Walk(ctx, p, object.Range{}, object.WalkOptions{Parallel: 16}, func(_ object.Range, page []object.Info) error {
		var keys []string
		for _, o := range page {
			if f.TakesKey(o.Key) {
				keys = append(keys, o.Key)
			}
		}
		bad := make(map[string]error)
		if !dry {
			var err error
			if bad, err = clone.Remove(ctx, s, keys); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			if err := bad[k]; err != nil {
				failed.Add(1)
				a.complain(err)
				continue
			}
			if err := a.printRemoved(out, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if n := failed.Load(); n > 0 {
		return &exitError{exitPartial, fmt.Errorf("%s could not be deleted", plural(n, "object"))}
	}
	return nil
}
