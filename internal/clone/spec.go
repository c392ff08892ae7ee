package clone

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"myrmidon"
	"myrmidon/object"
)

// Compare says when an object of the destination is taken for a copy of the source's.
type Compare string

// The ways to compare. Objects of different size are never alike.
const (
	// CompareTime takes them for alike if the destination's is not older.
	CompareTime Compare = "time"
	// CompareExact takes them for alike if they are of the same time, which only a folder
	// can be given.
	CompareExact Compare = "exact"
	CompareSize  Compare = "size" // if their sizes are
	// CompareETag takes them for alike if their ETags are: MD5, or that of the same parts.
	CompareETag Compare = "etag"
	CompareNone Compare = "none" // never: all is copied
)

// Verify says how the destination is compared with the source afterwards.
type Verify string

// The ways to verify.
const (
	VerifyNone Verify = ""
	// VerifyETag lists both again: each object must be there with the same size and ETag.
	// Those whose ETags differ, or are of different kinds, are read.
	VerifyETag Verify = "etag"
	// VerifyChecksum is VerifyETag, but where ETags cannot tell, the stores are asked for
	// checksums. What has none of the same kind is read.
	VerifyChecksum Verify = "checksum"
	// VerifyRead reads both and compares the bytes.
	VerifyRead Verify = "read"
)

// Spec is what a run is made of.
type Spec struct {
	Source      string  `json:"source"` // addresses: see internal/wire
	Destination string  `json:"destination"`
	Compare     Compare `json:"compare"`
	Verify      Verify  `json:"verify,omitempty"`
	Filter      Filter  `json:"filter,omitzero"`
	// Delete removes what the source does not have, if the filters take its key.
	Delete bool `json:"delete,omitempty"`
	// MaxDelete is how many may be removed; nothing is if there are more. Below 0, any.
	MaxDelete int64                `json:"max_delete,omitempty"`
	Copy      object.ImportOptions `json:"copy,omitzero"` // with IfNone nothing is replaced
	IfChanged IfChanged            `json:"if_changed,omitempty"`
	Limits    Limits               `json:"limits,omitzero"`
	// List names the keys that are looked at; nil means all.
	List *List `json:"list,omitempty"`
	// Before are the requests that the command sent before the run began, for its bill.
	Before map[string]int64 `json:"before,omitempty"`
	// Control is where the run's documents lie; nil means that there are none.
	Control *Control `json:"control,omitempty"`
}

// IfChanged says what is done with an object of the source that is not as it was listed.
type IfChanged string

// What is done with changed objects. One that is gone has failed in any case.
const (
	ChangedFail IfChanged = ""     // it has failed
	ChangedCopy IfChanged = "copy" // it is copied as it is now, if it stays so: maxChanges times at most
	ChangedSkip IfChanged = "skip" // it is skipped, and told as such
)

// Filter chooses objects. The zero Filter takes all.
type Filter struct {
	// Include and Exclude are patterns of keys below the source's address, in which "*"
	// stands for any characters, "/" too, "?" for one and "[a-z]" for one of a set. An
	// object is taken if one of Include matches, or there is none, and none of Exclude.
	Include []string  `json:"include,omitempty"`
	Exclude []string  `json:"exclude,omitempty"`
	MinSize int64     `json:"min_size,omitempty"` // bytes
	MaxSize int64     `json:"max_size,omitempty"` // bytes; 0 means any
	After   time.Time `json:"after,omitzero"`     // modified at or after
	Before  time.Time `json:"before,omitzero"`    // modified before
}

// Validate says what is wrong with a spec, permanently.
func (s Spec) Validate() error {
	var err error
	switch {
	case s.Source == "" || s.Destination == "":
		err = errors.New("clone: a source and a destination are needed")
	case !slices.Contains([]Compare{CompareTime, CompareExact, CompareSize, CompareETag, CompareNone}, s.Compare):
		err = myrmidon.WithHint(fmt.Errorf("clone: compare %q is not known", s.Compare), "use time, exact, size, etag or none")
	case !slices.Contains([]Verify{VerifyNone, VerifyETag, VerifyChecksum, VerifyRead}, s.Verify):
		err = myrmidon.WithHint(fmt.Errorf("clone: verify %q is not known", s.Verify), "use etag, checksum or read")
	case !slices.Contains([]IfChanged{ChangedFail, ChangedCopy, ChangedSkip}, s.IfChanged):
		err = myrmidon.WithHint(fmt.Errorf("clone: if-changed %q is not known", s.IfChanged), "use copy or skip, or leave it empty")
	case s.List != nil && s.Delete:
		err = myrmidon.WithHint(errors.New("clone: a list of keys does not say what the source lacks"), "clone without the list to delete, or without deleting")
	case s.List != nil && s.Control != nil:
		err = errors.New("clone: documents tell of folders and ranges of keys, not of a list")
	case s.Copy.IfNone && s.Compare == CompareNone:
		err = errors.New("clone: nothing can be both replaced in any case and never")
	case s.Limits.Rate < 0 || s.Limits.Bandwidth < 0:
		err = errors.New("clone: a limit below 0")
	case s.Filter.MaxSize > 0 && s.Filter.MinSize > s.Filter.MaxSize:
		err = fmt.Errorf("clone: the least size, %d bytes, is above the largest, %d", s.Filter.MinSize, s.Filter.MaxSize)
	case !s.Filter.After.IsZero() && !s.Filter.Before.IsZero() && !s.Filter.After.Before(s.Filter.Before):
		err = errors.New("clone: no object is that new and that old")
	default:
		for _, p := range slices.Concat(s.Filter.Include, s.Filter.Exclude) {
			if err := checkGlob(p); err != nil {
				return myrmidon.Permanent(err)
			}
		}
		return nil
	}
	return myrmidon.Permanent(err)
}

// TakesKey reports whether the patterns take a key.
func (f *Filter) TakesKey(key string) bool {
	matches := func(p string) bool { return glob(p, key) }
	return (len(f.Include) == 0 || slices.ContainsFunc(f.Include, matches)) && !slices.ContainsFunc(f.Exclude, matches)
}

// takes reports whether an object of the source is taken.
func (f *Filter) takes(o object.Info) bool {
	return (o.Size < 0 || o.Size >= f.MinSize) && (f.MaxSize == 0 || o.Size <= f.MaxSize) &&
		(f.After.IsZero() || !o.Modified.Before(f.After)) && (f.Before.IsZero() || o.Modified.Before(f.Before)) &&
		f.TakesKey(o.Key)
}

// alike reports whether dst is taken for a copy of src.
func (c Compare) alike(src, dst object.Info) bool {
	// Files of a clone have the source's time, but some file systems keep whole seconds.
	same := dst.Modified.Equal(src.Modified) || dst.Modified.Equal(src.Modified.Truncate(time.Second))
	switch {
	case src.Size != dst.Size:
		return false
	case c == CompareTime:
		return same || dst.Modified.After(src.Modified)
	case c == CompareExact:
		return same
	case c == CompareSize:
		return true
	case c == CompareETag:
		return src.ETag != "" && src.ETag == dst.ETag
	}
	return false
}

// read decodes what the engine carries.
func read[T any](what string, data json.RawMessage) (v T, err error) {
	if err := json.Unmarshal(data, &v); err != nil {
		return v, myrmidon.Permanent(fmt.Errorf("clone: %s: %w", what, err))
	}
	return v, nil
}
