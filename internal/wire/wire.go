// Package wire turns addresses into adapters, so that workloads see interfaces only:
//
//	./out, /srv/media, file:///srv/media    a folder (object.Dir)
//	s3://bucket, s3://bucket/folder         a bucket, or a folder in it (object/s3)
//	https://host/folder/, http://…          an HTTP origin, read-only (object.Origin)
//
// # Addresses of S3
//
// Keys are written as they are: "%41" is three characters. A query may follow, with
// profile=NAME, endpoint=URL, region=NAME and role=ARN (of a role to assume), whose values
// are percent-decoded:
//
//	s3://masters/2026/talk.mp4?profile=media&endpoint=http://127.0.0.1:9000
//
// A "?" begins a query only if it is the last one and nothing but these names, or
// nothing at all, follows: s3://bucket/talk?v=2 is an object named "talk?v=2", and an
// object named "talk?region=x" is s3://bucket/talk?region=x?. Secrets have no place in
// an address, which is shown, logged and kept: they come from the environment, from
// profiles and roles, on each machine that opens it.
//
// It knows no queue: the Lambda side uses it too.
package wire

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// Store opens the store at an address. Stores of one bucket share connections,
// credentials and memory for as long as the process lives, so it may be called for each
// job, from many goroutines. Errors are permanent and say which addresses are known.
func Store(address string) (object.Store, error) {
	if isHTTP(address) {
		return origin(address)
	}
	if !isS3(address) {
		dir, err := Folder(address)
		if err != nil {
			return nil, err
		}
		return object.NewDir(dir)
	}
	a, err := parse(address)
	if err != nil {
		return nil, err
	}
	return a.store(a.key)
}

// Bucket opens the store at an address as Store does, with all the keys that it can hold:
// in a bucket also those with empty, "." and ".." parts, which no folder has.
func Bucket(address string) (object.Store, error) {
	s, err := Store(address)
	if b, ok := s.(*s3.Store); ok && err == nil {
		return b.AnyKey(), nil
	}
	return s, err
}

// Apart refuses two addresses of which one is, or lies in, the other, however they are
// spelled: by a symbolic link, or an endpoint that is also that of the environment. Profiles
// that lead two names of an endpoint to one server are not looked into.
func Apart(one, two string) error {
	a, b, err := samePlace(one, two)
	if err != nil || !within(a, b) && !within(b, a) {
		return err
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s and %s overlap", one, two),
		"what is copied would be listed, and copied again: name two folders of which none holds the other"))
}

// Holds tells whether what is written to the address inner lies in outer, as Apart sees it.
func Holds(outer, inner string) (bool, error) {
	a, b, err := samePlace(outer, inner)
	return err == nil && within(a, b), err
}

// within tells whether b is a, or lies in it. Nothing is in "".
func within(a, b string) bool {
	return a != "" && strings.HasPrefix(b+"/", strings.TrimSuffix(a, "/")+"/")
}

// samePlace returns the paths of two addresses on one server, or on this machine; empty ones
// if they are on two.
func samePlace(one, two string) (a, b string, err error) {
	if isS3(one) && isS3(two) {
		x, err := parse(one)
		if err != nil {
			return "", "", err
		}
		y, err := parse(two)
		if err != nil {
			return "", "", err
		}
		if x.name != y.name || serverOf(x.endpoint) != serverOf(y.endpoint) {
			return "", "", nil
		}
		return "/" + x.key, "/" + y.key, nil
	}
	if isS3(one) || isS3(two) || isHTTP(one) != isHTTP(two) {
		return "", "", nil
	}
	return resolved(one), resolved(two), nil
}

// serverOf is an endpoint, or the environment's, in one spelling.
func serverOf(endpoint string) string {
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		if endpoint == "" {
			endpoint = os.Getenv(name)
		}
	}
	return strings.ToLower(strings.TrimRight(endpoint, "/"))
}

// resolved is a path without the symbolic links in that part of it which exists.
func resolved(path string) string {
	for at, rest := path, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
	}
}

// Object opens the store that holds the one object at an address, and returns its key
// there. For a file that is the folder that it is in, for S3 the bucket. Whether the
// object exists is not looked at.
func Object(address string) (store object.Store, key string, err error) {
	if !isS3(address) {
		file, err := Folder(address)
		if err != nil {
			return nil, "", err
		}
		if key = filepath.Base(file); key == string(filepath.Separator) {
			return nil, "", known(fmt.Sprintf("%s is not a file", address))
		}
		store, err = object.NewDir(filepath.Dir(file))
		return store, key, err
	}
	a, err := parse(address)
	if err != nil {
		return nil, "", err
	}
	if a.key == "" || strings.HasSuffix(a.key, "/") {
		return nil, "", known(fmt.Sprintf("%s names no object but a folder", address))
	}
	if err := object.CheckKey(a.key); err != nil {
		return nil, "", err
	}
	store, err = a.store("")
	return store, a.key, err
}

// Canonical returns the address by which any process of this machine finds the same: a
// folder's or file's absolute path; an address of S3 as it is, if it is correct; the URL of an
// HTTP origin, with a "/" at its end.
func Canonical(address string) (string, error) {
	if isHTTP(address) {
		o, err := origin(address)
		if err != nil {
			return "", err
		}
		return o.String(), nil
	}
	if !isS3(address) {
		return Folder(address)
	}
	if _, err := parse(address); err != nil {
		return "", err
	}
	return address, nil
}

// IsLocal reports whether an address is a path of this machine, or would be if it were
// correct.
func IsLocal(address string) bool {
	scheme, _, ok := strings.Cut(address, "://")
	return !ok || scheme == "file"
}

// Folder returns the absolute path of an address that is a folder, or a file.
func Folder(address string) (string, error) {
	path := address
	scheme, _, ok := strings.Cut(address, "://")
	switch {
	case address == "":
		return "", known("the address is empty")
	case !ok: // a path
	case scheme == "s3":
		err := fmt.Errorf("%s is not on this machine", redact(address))
		return "", myrmidon.Permanent(myrmidon.WithHint(err, "give a folder: ./out, /srv/media or file:///srv/media"))
	case scheme != "file":
		return "", known(fmt.Sprintf("%s: stores of kind %s:// are not known to this version", redact(address), scheme))
	default:
		u, err := url.Parse(address)
		if err != nil {
			return "", known(err.Error())
		}
		if u.Host != "" && u.Host != "localhost" {
			return "", known(fmt.Sprintf("%s names the machine %s; a local folder has three slashes: file:///folder", address, u.Host))
		}
		path = u.Path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", myrmidon.Permanent(fmt.Errorf("address %s: %w", address, err))
	}
	return abs, nil
}

func known(what string) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s", what),
		"give a folder: ./out, /srv/media or file:///srv/media; or a bucket: s3://bucket/folder; or, to clone from it, an HTTP origin: https://host/folder/"))
}

// redact leaves out what may be a user's name and password.
func redact(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		rest = "…" + rest[i:]
	}
	return scheme + "://" + rest
}
