// Package documents reads and writes the four JSON documents by which a clone is asked for
// and followed in a bucket, without any other connection between the two sides:
//
//	{folder}/clone-request                who asks writes it: source and destination
//	{folder}/{segment}-segment-request    before a segment is copied
//	{folder}/{segment}-segment-response   when it has been: the keys, and what failed
//	{folder}/clone-response               the manifest: all segments, when all are known
//
// The folder is named {id} or {id}-{source}-{destination}. A segment is a prefix, or a range
// of keys where a prefix is too large for one, and is named by it: see [PrefixName].
//
// # Shapes
//
// The documents are those of an article on cloning buckets with Lambda functions, whose text
// and code differ. Both are read: "files" beside source and destination or within the latter,
// a list or {"count", "files"}; a manifest with nothing but its segments; an id that is a
// number. What is written is the text's shape, with fields of our own beside: run, count,
// first, last, failed, pages, state, error, hint. A key that is not UTF-8 is
// {"bytes": base64}. No document holds a secret, and a request that does is refused.
//
// # Following a clone
//
// Wait for clone-response, then for the response of each of segments.values, whose "run" is
// the manifest's. A manifest of more than [MaxInline] segments has no values but pages: each
// key in segments.pages is a document with values of its own. With "state" (failed, cancelled
// or partial) and "error" the run has ended, and no other segment will be answered until
// somebody retries it.
package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"myrmidon/object"
)

// MaxInline is how many segments a manifest lists itself; more are in its pages.
const MaxInline = 1000

// Key is an object's key, which may be any bytes, in JSON.
type Key string

// MarshalJSON implements [json.Marshaler].
func (k Key) MarshalJSON() ([]byte, error) { return object.JSONKey(k).MarshalJSON() }

// UnmarshalJSON implements [json.Unmarshaler].
func (k *Key) UnmarshalJSON(data []byte) error {
	if err := (*object.JSONKey)(k).UnmarshalJSON(data); err != nil {
		return &Error{Field: "a key", Why: `is neither text nor {"bytes": base64}`}
	}
	return nil
}

// ID is what the requester calls the clone: text, or a number.
type ID string

// UnmarshalJSON implements [json.Unmarshaler].
func (i *ID) UnmarshalJSON(data []byte) error {
	var n json.Number
	if len(data) > 0 && data[0] != '"' && json.Unmarshal(data, &n) == nil {
		*i = ID(n)
		return nil
	}
	if err := json.Unmarshal(data, (*string)(i)); err != nil {
		return &Error{Field: "id", Why: "is neither text nor a number"}
	}
	return nil
}

// Side is the source or the destination. Name is a bucket, or file:// and a path where one
// side of the run is a folder of its machine.
type Side struct {
	Name string `json:"name"`
	// Prefix is a folder in the bucket; of a segment, what all its keys begin with.
	Prefix Key `json:"prefix,omitempty"`
	// First and Last are the range of a segment that is not a whole prefix, both included.
	First Key `json:"first,omitempty"`
	Last  Key `json:"last,omitempty"`

	Region   string `json:"region,omitempty"`
	Role     string `json:"role,omitempty"`     // ARN of the role that reaches the bucket
	Endpoint string `json:"endpoint,omitempty"` // URL, where it is not AWS
	Profile  string `json:"profile,omitempty"`  // of the configuration of whoever copies
}

// Request is a clone-request.
type Request struct {
	ID          ID   `json:"id"`
	Source      Side `json:"source"`
	Destination Side `json:"destination"`
}

// SegmentRequest is a segment-request.
type SegmentRequest struct {
	ID          ID     `json:"id"`
	Source      Side   `json:"source"`
	Destination Side   `json:"destination"`
	Run         string `json:"run,omitempty"`
	Count       int    `json:"count,omitempty"` // objects to copy
}

// SegmentResponse is a segment-response. Files are keys of the source's bucket; what failed
// is not among them.
type SegmentResponse struct {
	ID          ID       `json:"id"`
	Source      Side     `json:"source"`
	Destination Side     `json:"destination"`
	Run         string   `json:"run,omitempty"`
	Files       []Key    `json:"files"`
	Failed      []Failed `json:"failed,omitempty"`
}

// Failed is an object that could not be copied.
type Failed struct {
	Key   Key    `json:"key"`
	Error string `json:"error"`
}

// files is a list of keys in either shape.
type files []Key

func (f *files) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var counted struct {
			Count *int  `json:"count"`
			Files []Key `json:"files"`
		}
		if err := json.Unmarshal(data, &counted); err != nil {
			return err
		}
		if counted.Count != nil && *counted.Count != len(counted.Files) {
			return &Error{Field: "files.count", Why: fmt.Sprintf("is %d, and %d keys are listed", *counted.Count, len(counted.Files))}
		}
		*f = counted.Files
		return nil
	}
	var own *Error
	err := json.Unmarshal(data, (*[]Key)(f))
	if err != nil && !errors.As(err, &own) {
		return &Error{Field: "files", Why: `is neither a list of keys nor {"count", "files"}`}
	}
	return err
}

// UnmarshalJSON implements [json.Unmarshaler]: both shapes of files.
func (r *SegmentResponse) UnmarshalJSON(data []byte) error {
	type plain SegmentResponse // without this method
	both := struct {
		*plain
		Files       files `json:"files"`
		Destination struct {
			Side
			Files files `json:"files"`
		} `json:"destination"`
	}{plain: (*plain)(r)}
	var bad *json.UnmarshalTypeError
	if err := json.Unmarshal(data, &both); errors.As(err, &bad) {
		bad.Field = strings.TrimPrefix(bad.Field, "plain.")
		return err
	} else if err != nil {
		return err
	}
	r.Destination, r.Files = both.Destination.Side, both.Files
	if r.Files == nil {
		r.Files = both.Destination.Files
	}
	return nil
}

// Response is a clone-response: the manifest.
type Response struct {
	ID          ID       `json:"id,omitempty"`
	Source      Side     `json:"source,omitzero"`
	Destination Side     `json:"destination,omitzero"`
	Run         string   `json:"run,omitempty"`
	Segments    Segments `json:"segments"`

	State string `json:"state,omitempty"` // failed, cancelled or partial: the run has ended so
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"` // what can be done about it
}

// Segments are the keys of segment-requests, or of the pages that list them.
type Segments struct {
	Count  int      `json:"count"`
	Values []string `json:"values,omitzero"` // of the manifest itself
	Pages  []string `json:"pages,omitempty"`
}

// page is a part of a manifest.
type page struct {
	Values []string `json:"values"`
}

// Error is what is wrong with a document.
type Error struct {
	Key   string // of the document
	Field string // as "source.name"; "" is the whole
	Why   string
}

// Error names the document and the field.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Key + " " + e.Why
	}
	return e.Key + ": " + e.Field + " " + e.Why
}

// decode reads a document. The error is an *Error.
func decode(key string, data []byte, v any) error {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // as PowerShell writes it
	err := json.Unmarshal(data, v)
	var bad *json.UnmarshalTypeError
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		own.Key = key
		return own
	case errors.As(err, &bad):
		return &Error{key, bad.Field, "is not what it should be: a JSON " + bad.Value}
	}
	return &Error{key, "", "is not the JSON document that it should be: " + err.Error()}
}

// words tell that a field was meant to hold a secret.
var words = [...]string{"secret", "password", "passwd", "token", "access_key", "accesskey", "access-key", "credential"}

// secrets returns the first field of a document that seems to hold a secret, "" if none does.
func secrets(at string, v any) string {
	fields, _ := v.(map[string]any)
	for name, value := range fields {
		for _, w := range words {
			if strings.Contains(strings.ToLower(name), w) {
				return at + name
			}
		}
		if found := secrets(at+name+".", value); found != "" {
			return found
		}
	}
	return ""
}

// readRequest decodes a clone-request that lies at key. The error is an *Error.
func readRequest(key string, data []byte) (r Request, err error) {
	if err := decode(key, data, &r); err != nil {
		return r, err
	}
	var all any
	if err := decode(key, data, &all); err != nil {
		return r, err
	}
	if field := secrets("", all); field != "" {
		return r, &Error{key, field, "looks like a secret, which no document may hold: give a role, or set the keys where the clone runs"}
	}
	return r, r.check(key)
}

// check looks at what a request must say.
func (r Request) check(key string) error {
	folder := path.Base(path.Dir(key))
	long := strings.Join([]string{string(r.ID), r.Source.Name, r.Destination.Name}, "-")
	switch {
	case r.ID == "":
		return &Error{key, "id", "is missing"}
	case r.Source.Name == "":
		return &Error{key, "source.name", "is missing: the bucket to copy"}
	case r.Destination.Name == "":
		return &Error{key, "destination.name", "is missing: the bucket to copy to"}
	case r.Source.First != "" || r.Source.Last != "" || r.Destination.First != "" || r.Destination.Last != "":
		return &Error{key, "first and last", "are for segments, not for a clone: use source.prefix"}
	case folder != string(r.ID) && folder != long:
		return &Error{key, "id", fmt.Sprintf("is %.80q, which does not go with the folder: it is to be %.80q or %.200q", r.ID, r.ID, long)}
	}
	return nil
}
