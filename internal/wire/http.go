package wire

import (
	"fmt"
	"strings"
	"sync"

	"myrmidon"
	"myrmidon/object"
)

func isHTTP(address string) bool {
	return strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://")
}

// origins holds the HTTP origins that this process has opened, for their connections.
var origins struct {
	sync.Mutex
	open map[string]*object.Origin
}

// origin returns the store of an HTTP origin.
func origin(address string) (*object.Origin, error) {
	origins.Lock()
	defer origins.Unlock()
	if o := origins.open[address]; o != nil {
		return o, nil
	}
	o, err := object.NewOrigin(address)
	if err != nil {
		return nil, err
	}
	if origins.open == nil {
		origins.open = make(map[string]*object.Origin)
	}
	origins.open[address] = o
	return o, nil
}

// CanWrite refuses an address that can only be read, without a request.
func CanWrite(address string) error {
	if !isHTTP(address) {
		return nil
	}
	if _, err := origin(address); err != nil {
		return err // which shows no secret
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s can only be read", address), "write to a bucket (s3://bucket/folder) or a folder"))
}
