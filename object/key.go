package object

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"myrmidon"
)

// MaxKey is the longest key, in bytes: what S3 allows (Amazon S3 User Guide,
// "Naming Amazon S3 objects").
const MaxKey = 1024

// ErrRange is wrapped by the error of a Get whose offset lies outside the object.
var ErrRange = errors.New("the range begins outside the object")

// ErrChanged is wrapped by the error of what was to be done with one version of an object,
// and found another.
var ErrChanged = errors.New("the object has changed")

// ErrKey is what the error of a key that a store cannot hold is, as errors.Is has it.
var ErrKey = errors.New("the store cannot hold this key")

// BadKey marks the error of a key that a store cannot hold: permanent, and ErrKey.
func BadKey(err error) error { return myrmidon.Permanent(keyError{err}) }

type keyError struct{ error }

func (e keyError) Unwrap() error      { return e.error }
func (keyError) Is(target error) bool { return target == ErrKey }

// CheckKey says whether key may name an object in every store, folders included.
// Any byte but NUL may occur in a part, also a backslash, a line break or bytes that
// are not UTF-8; "." and ".." may not be a part, so that no key leaves its folder.
// The error is permanent, and ErrKey.
func CheckKey(key string) error {
	var why string
	switch {
	case key == "":
		why = "it is empty"
	case len(key) > MaxKey:
		// The message does not repeat a kilobyte of key.
		err := fmt.Errorf("object: key %.40q… is %d bytes long; %d are allowed", key, len(key), MaxKey)
		return BadKey(err)
	case key[0] == '/':
		why = `it begins with "/"`
	case strings.IndexByte(key, 0) >= 0:
		why = "it holds a NUL byte"
	default:
		for part := range strings.SplitSeq(key, "/") {
			switch part {
			case "":
				why = "it has an empty part"
			case ".", "..":
				why = fmt.Sprintf("it has a part %q", part)
			}
		}
	}
	if why == "" {
		return nil
	}
	return BadKey(fmt.Errorf("object: %q cannot be a key: %s", key, why))
}

// TypeOf returns the content type that goes with key's ending, in any case of
// letters. The table is our own: the machine's would make the same input give
// different objects on different machines.
func TypeOf(key string) string {
	switch strings.ToLower(path.Ext(key)) {
	case ".m3u8":
		return "application/vnd.apple.mpegurl" // RFC 8216, section 4
	case ".m4s":
		return "video/iso.segment" // RFC 8216bis, section 3.1.2, and ISO/IEC 23009-1
	case ".mp4":
		return "video/mp4"
	case ".ts":
		return "video/mp2t" // RFC 3555, section 4.2.9
	case ".mpd":
		return "application/dash+xml"
	case ".vtt":
		return "text/vtt"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".png":
		return "image/png"
	case ".webp":
		return "image/webp"
	case ".json":
		return "application/json"
	case ".jsonl":
		return "application/jsonl"
	default: // .key, an AES-128 key of HLS, among them
		return "application/octet-stream"
	}
}

// complete fills in what attrs leave to the key.
func (a Attrs) complete(key string) Attrs {
	if a.ContentType == "" {
		a.ContentType = TypeOf(key)
	}
	return a
}

// JSONKey is a key, which may be any bytes, in JSON: a string where it is UTF-8, else
// {"bytes": base64}.
type JSONKey string

type jsonBytes struct {
	Bytes []byte `json:"bytes"`
}

// MarshalJSON implements [json.Marshaler].
func (k JSONKey) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(k)) {
		return json.Marshal(string(k))
	}
	return json.Marshal(jsonBytes{[]byte(k)})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (k *JSONKey) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var raw jsonBytes
		err := json.Unmarshal(data, &raw)
		*k = JSONKey(raw.Bytes)
		return err
	}
	if err := json.Unmarshal(data, (*string)(k)); err != nil {
		return errors.New(`a key is text or {"bytes": base64}`)
	}
	return nil
}
