package logs

import (
	"bytes"

	"myrmidon/elb"
)

// ValueOf returns the text of a record's field, nil if the line has none. "path" is the path
// of the request's URL, without its query.
func ValueOf(r *elb.Record, field string) []byte {
	if field != "path" {
		if v := r.Get(field); !v.Absent() {
			return v.Bytes()
		}
		return nil
	}
	if v := r.Get("cs_uri_stem"); !v.Absent() {
		return v.Bytes()
	}
	url := r.Get("request_url").Bytes()
	if i := bytes.Index(url, []byte("://")); i >= 0 {
		url = url[i+3:]
		if i = bytes.IndexByte(url, '/'); i < 0 {
			return []byte("/")
		}
		url = url[i:]
	}
	if i := bytes.IndexAny(url, "?#"); i >= 0 {
		url = url[:i]
	}
	return url
}
