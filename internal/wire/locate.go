package wire

import (
	"fmt"
	"net/url"
	"strings"

	"myrmidon"
)

// Location is an address of S3, taken apart.
type Location struct {
	Bucket string
	Folder string // in it, without a "/" at its end; "" is the whole bucket

	Profile, Endpoint, Region, Role string
}

// Locate takes an address of a bucket, or of a folder in one, apart. The error is permanent.
func Locate(address string) (Location, error) {
	if !isS3(address) {
		return Location{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s is not in a bucket", redact(address)), "give an address of S3: s3://bucket/folder"))
	}
	a, err := parse(address)
	if err != nil {
		return Location{}, err
	}
	return Location{a.name, strings.TrimSuffix(a.key, "/"), a.profile, a.endpoint, a.region, a.role}, nil
}

// String returns the address. It is not checked.
func (l Location) String() string {
	var fields []string
	for _, p := range []struct{ name, value string }{{"profile", l.Profile}, {"endpoint", l.Endpoint}, {"region", l.Region}, {"role", l.Role}} {
		if p.value != "" {
			fields = append(fields, p.name+"="+url.QueryEscape(p.value))
		}
	}
	a := address{bucket: bucket{name: l.Bucket}}
	if len(fields) > 0 {
		a.query = "?" + strings.Join(fields, "&")
	}
	if l.Folder == "" {
		return scheme + l.Bucket + a.query
	}
	return a.of(l.Folder)
}
