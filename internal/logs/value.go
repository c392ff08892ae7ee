package logs

import (
	"bytes"
	"slices"

	"myrmidon/elb"
)

// short is a name that means the same in all formats that know such a thing.
type short struct {
	name string
	// fields are those that may hold it: the first that a line has counts.
	fields []string
	kind   elb.Kind
	// part takes it out of request_url; nil where that is not among fields.
	part func(url []byte) []byte
}

// shorts are the short names of fields. status is also the name of a field of health checks,
// which is text there: see whereParser.compared.
var shorts = []short{
	{name: "client", fields: []string{"client_ip", "c_ip", "remote_ip"}, kind: elb.Address},
	{name: "target", fields: []string{"target_ip", "backend_ip", "destination_ip", "target_addr"}, kind: elb.Address},
	{name: "status", fields: []string{"elb_status_code", "sc_status", "http_status", "status"}, kind: elb.Integer},
	{name: "method", fields: []string{"request_method", "cs_method"}},
	{name: "host", fields: []string{"x_host_header", "cs_host", "host_header", "request_url", "domain_name"}, part: hostOf},
	{name: "path", fields: []string{"cs_uri_stem", "request_url"}, part: pathOf},
}

// shortOf returns what a short name means, nil if it is none.
func shortOf(name string) *short {
	if i := slices.IndexFunc(shorts, func(s short) bool { return s.name == name }); i >= 0 {
		return &shorts[i]
	}
	return nil
}

// of returns the position of the first of its fields in a format, -1 without any.
func (s *short) of(f elb.Format) int {
	for _, name := range s.fields {
		if i, err := elb.Lookup(f, name); err == nil {
			return i
		}
	}
	return -1
}

// value returns its text, nil if the line has none.
func (s *short) value(r *elb.Record) []byte {
	for _, name := range s.fields {
		v := r.Get(name)
		switch {
		case v.Absent():
		case name != "request_url":
			return v.Bytes()
		default:
			if part := s.part(v.Bytes()); len(part) > 0 {
				return part
			}
		}
	}
	return nil
}

// ShortNames returns the short names that stand for a format's field: client, target, status,
// method, host and path.
func ShortNames(f elb.Format, position int) (names []string) {
	for i := range shorts {
		if shorts[i].of(f) == position {
			names = append(names, shorts[i].name)
		}
	}
	return names
}

// ValueOf returns the text of a record's field, nil if the line has none. The name may be a
// short one: host and path are parts of the request's URL, without port and query.
func ValueOf(r *elb.Record, field string) []byte {
	if s := shortOf(field); s != nil {
		return s.value(r)
	}
	if v := r.Get(field); !v.Absent() {
		return v.Bytes()
	}
	return nil
}

// splitURL returns the host with its port, nil if there is none, and what follows it.
func splitURL(url []byte) (host, rest []byte) {
	i := bytes.Index(url, []byte("://"))
	if i < 0 || bytes.ContainsAny(url[:i], "/?#") {
		return nil, url // of S3: a path alone
	}
	url = url[i+3:]
	if i = bytes.IndexAny(url, "/?#"); i < 0 {
		i = len(url)
	}
	return url[:i], url[i:]
}

// pathOf is a URL's path, without its query.
func pathOf(url []byte) []byte {
	host, path := splitURL(url)
	if i := bytes.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	if host != nil && len(path) == 0 {
		return []byte("/")
	}
	return path
}

// hostOf is a URL's host, without its port.
func hostOf(url []byte) []byte {
	host, _ := splitURL(url)
	end := bytes.LastIndexByte(host, ':')
	if end < 0 || bytes.LastIndexByte(host, ']') > end { // [2001:db8::1]
		return host
	}
	return host[:end]
}
