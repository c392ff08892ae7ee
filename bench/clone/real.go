package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"myrmidon/internal/testkit/s3server"
)

// real is a server that keeps real bytes (versitygw), with a bucket, a folder that is like
// it, and what is in them.
type real struct {
	server *s3server.Server
	folder string
	bodies map[string][sha256.Size]byte // by key
}

// startReal fills a bucket and a folder with set, and starts a server. The caller calls end.
func startReal(ctx context.Context, dir string, set objects) (_ *real, err error) {
	r := &real{folder: filepath.Join(dir, "folder"), bodies: make(map[string][sha256.Size]byte, set.N)}
	buckets := filepath.Join(dir, "buckets")
	random := rand.NewChaCha8([32]byte{1})
	body := make([]byte, set.Size)
	synthetic := set.synthetic()
	for i := range set.N {
		key := string(synthetic.Key(nil, i))
		_, _ = random.Read(body) // it has no errors
		r.bodies[key] = sha256.Sum256(body)
		for _, at := range []string{filepath.Join(buckets, fromBucket), r.folder} {
			path := filepath.Join(at, filepath.FromSlash(key))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return nil, err
			}
			if err := os.WriteFile(path, body, 0o644); err != nil {
				return nil, err
			}
		}
	}
	r.server, err = s3server.Open(ctx, buckets)
	return r, err
}

// end stops the server.
func (r *real) end() error {
	if r == nil || r.server == nil {
		return nil
	}
	return r.server.Stop()
}

// into makes the destination's bucket anew.
func (r *real) into() error {
	at := filepath.Join(r.server.Dir(), intoBucket)
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	return r.server.CreateBucket(intoBucket)
}

// check compares what has arrived with what there was.
func (r *real) check() error {
	at := filepath.Join(r.server.Dir(), intoBucket)
	n := 0
	err := filepath.WalkDir(at, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(at, path)
		if err != nil {
			return err
		}
		want, ok := r.bodies[filepath.ToSlash(key)]
		if !ok {
			return nil // the server's own
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if sha256.Sum256(body) != want {
			return fmt.Errorf("%s arrived with other bytes", key)
		}
		n++
		return nil
	})
	if err == nil && n != len(r.bodies) {
		err = fmt.Errorf("%d of %d objects arrived", n, len(r.bodies))
	}
	return err
}

// measureReal lets a client copy the bucket, or upload the folder.
func measureReal(ctx context.Context, dir string, c *client, r *real, upload bool) (f figure, err error) {
	home, err := os.MkdirTemp(dir, "home-*")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	if err := r.into(); err != nil {
		return f, err
	}
	args := c.cloneCommand(r.server.Endpoint)
	if upload {
		args = c.uploadCommand(r.server.Endpoint, r.folder)
	}
	var stderr bytes.Buffer
	cmd := c.command(ctx, home, environment(r.server.Endpoint, r.server.Env(), home), args)
	cmd.Stderr = &stderr
	if f, err = timed(cmd); err == nil {
		err = r.check()
	}
	if err != nil {
		return f, fmt.Errorf("%s %q: %w\n%s", c.name, args, err, lastLines(stderr.String(), 10))
	}
	return f, nil
}
