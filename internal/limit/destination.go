package limit

import "strings"

// Destination is the name under which requests to the store at an address share a
// limiter: "s3://bucket" of "s3://bucket/key?region=x", and "file://" of every path of
// this machine.
func Destination(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || scheme == "file" {
		return "file://"
	}
	host, _, _ := strings.Cut(rest, "?")
	host, _, _ = strings.Cut(host, "/")
	return scheme + "://" + host
}
