// Package wire turns addresses into adapters, so that workloads see interfaces only:
//
//	./out, /srv/media, file:///srv/media    a folder (object.Dir)
//
// It knows no queue: the Lambda side uses it too.
package wire

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"myrmidon"
	"myrmidon/object"
)

// Store opens the store at an address. Errors are permanent and say which addresses are
// known.
func Store(address string) (object.Store, error) {
	dir, err := Folder(address)
	if err != nil {
		return nil, err
	}
	return object.NewDir(dir)
}

// Folder returns the absolute path of an address that is a folder.
func Folder(address string) (string, error) {
	path := address
	scheme, _, ok := strings.Cut(address, "://")
	switch {
	case address == "":
		return "", known("the address is empty")
	case !ok: // a path
	case scheme != "file":
		return "", known(fmt.Sprintf("%s: stores of kind %s:// are not known to this version", address, scheme))
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
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s", what), "give a folder: ./out, /srv/media or file:///srv/media"))
}
