package logs

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/object"
)

// Spec is what a run is made of.
type Spec struct {
	Address
	Sink   string `json:"sink"` // an address: see package wire
	Filter Filter `json:"filter,omitzero"`
	// Memory bounds the bytes of records under way of one object; 0 means 2 MiB.
	Memory int `json:"memory,omitempty"`
	// Place is where the run's checkpoints are kept, if not in its folder.
	Place string `json:"place,omitempty"`
	// ParkedTo is the file to which lines that are not delivered are written whenever the run
	// ends, an absolute path; "" for none.
	ParkedTo string `json:"parked_to,omitempty"`
}

// Validate says what is wrong with a spec, permanently.
func (s Spec) Validate() error {
	if s.Source == "" || s.Sink == "" {
		return myrmidon.Permanent(errors.New("logs: a source and a sink are needed"))
	}
	if s.Memory < 0 {
		return myrmidon.Permanent(fmt.Errorf("logs: a memory of %d bytes", s.Memory))
	}
	_, err := s.Filter.Prepare()
	return err
}

// task is the spec of a job: objects to ship, one an item.
type task struct {
	Spec
	Objects []entry `json:"objects"`
}

// entry is an object as the listing had it.
type entry struct {
	Key  string `json:"key,omitempty"`
	Raw  []byte `json:"raw,omitempty"` // instead of Key, if that is not UTF-8
	Size int64  `json:"size,omitempty"`
}

func entryOf(o object.Info) entry {
	if !utf8.ValidString(o.Key) {
		return entry{Raw: []byte(o.Key), Size: o.Size}
	}
	return entry{Key: o.Key, Size: o.Size}
}

func (e entry) key() string {
	if len(e.Raw) > 0 {
		return string(e.Raw)
	}
	return e.Key
}

const (
	// jobObjects and jobBytes bound the objects of a job, which share a sink, and which one
	// worker reads one after the other.
	jobObjects = 16
	jobBytes   = 32 << 20
	// unit is how many bytes of an object weigh as much as opening it, in progress.
	unit = 1 << 20
)

func unitsOf(size int64) int64 { return 1 + max(size, 0)/unit }

// maxKeys bounds the keys of a job, in bytes of JSON. A job's spec has 48 KiB
// ([myrmidon.MaxJobSpec]), which 16 keys of 1,024 bytes would exceed where JSON escapes them:
// this leaves 18 KiB for the run's own spec.
const maxKeys = 30 << 10

// jobs packs objects into jobs, in their order: as many into each as jobObjects, jobBytes and
// maxKeys allow, but one at least.
func (s *Spec) jobs(objects []object.Info) ([]myrmidon.Planned, error) {
	var out []myrmidon.Planned
	for len(objects) > 0 {
		t := task{Spec: *s}
		t.ParkedTo = "" // no job writes it
		var units, size int64
		keys := 0
		for len(t.Objects) < min(jobObjects, len(objects)) {
			o := objects[len(t.Objects)]
			e := entryOf(o)
			text, err := json.Marshal(e)
			if err != nil {
				return nil, err
			}
			if len(t.Objects) > 0 && (size+o.Size > jobBytes || keys+len(text) > maxKeys) {
				break
			}
			keys += len(text)
			size += max(o.Size, 0)
			units += unitsOf(o.Size)
			t.Objects = append(t.Objects, e)
		}
		spec, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		n := len(t.Objects)
		out = append(out, myrmidon.Planned{Kind: KindShip, Name: objects[0].Key, Count: uint32(n), Units: units, Spec: spec})
		objects = objects[n:]
	}
	return out, nil
}

// ID returns what the IDs of an object's lines begin with. It is the same for the same
// bytes under the same name: bucket, key and ETag.
func ID(object, etag string) string {
	sum := sha256.Sum256([]byte(object + "\x00" + etag))
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:15])
}

// lineID is a line's ID: that of its object, and where it begins.
func lineID(object string, offset int64) string {
	b := append(make([]byte, 0, 64), object...) // which is shorter, and stays on the stack
	return string(strconv.AppendInt(append(b, '-'), offset, 10))
}
