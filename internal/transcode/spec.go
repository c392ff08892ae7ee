package transcode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"myrmidon"
	"myrmidon/object"
)

// How much of the output is decoded before it is published.
const (
	VerifyQuick  = "quick"  // sample tables of all, and one keyframe a segment
	VerifyDecode = "decode" // every frame and every sample of sound
)

// Spec is a run's order: one file, one product, one place.
type Spec struct {
	Source  string  `json:"source"` // absolute path of a local file, or an object's address
	Dest    string  `json:"dest"`   // store address
	Name    string  `json:"name"`   // key prefix below Dest; see [SafeName]
	Product Product `json:"product"`
	Verify  string  `json:"verify,omitempty"` // [VerifyQuick] if empty
	// Force encodes anew what an earlier run has finished.
	Force bool `json:"force,omitempty"`
}

// Validate reports what is wrong with s, as a permanent error.
func (s Spec) Validate() error {
	var err error
	switch {
	case checkAddress(s.Source) != nil:
		err = fmt.Errorf("source: %w", checkAddress(s.Source))
	case s.Dest == "":
		err = errors.New("dest: missing")
	case s.Verify != "" && s.Verify != VerifyQuick && s.Verify != VerifyDecode:
		err = fmt.Errorf("verify: %q is neither %q nor %q", s.Verify, VerifyQuick, VerifyDecode)
	case len(s.Name) > 512:
		err = fmt.Errorf("name: %d bytes are more than 512", len(s.Name))
	default:
		if err = object.CheckKey(s.Name); err != nil {
			err = fmt.Errorf("name: %w", err)
		} else if err = s.Product.Validate(); err != nil {
			err = fmt.Errorf("product: %w", err)
		}
	}
	if err != nil {
		return myrmidon.Permanent(fmt.Errorf("transcode: %w", err))
	}
	return nil
}

func parseSpec(raw json.RawMessage) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, myrmidon.Permanent(fmt.Errorf("transcode: read the run's spec: %w", err))
	}
	return s, s.Validate()
}

// origin is what the planner learnt and later steps need: where the plan is, and how
// the source looked, so that a file that changes meanwhile is noticed.
type origin struct {
	Plan     string `json:"plan"` // key of the plan
	Audio    bool   `json:"audio,omitempty"`
	Chunks   int    `json:"chunks"`
	Frames   int64  `json:"frames"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified,omitempty"` // nanoseconds since 1970; 0 if ETag is known
	ETag     string `json:"etag,omitempty"`
}

// task is the spec of every job.
type task struct {
	Source string `json:"source"`
	Dest   string `json:"dest"`
	Name   string `json:"name"`
	Verify string `json:"verify,omitempty"`
	Force  bool   `json:"force,omitempty"`
	Origin origin `json:"origin"`
	// Chunk is the chunk's number; audioItem is the sound.
	Chunk int `json:"chunk"`
}

// audioItem stands for the sound where a chunk's number is expected.
const audioItem = -1

// originLife is how long the origin of a run that failed or was cancelled is kept at
// least, so that the run can be taken up again. It goes when another run publishes the
// stream after that.
const originLife = 30 * 24 * time.Hour

// originKey is where a run's origin is kept until it has published: a name that
// later phases can derive from the run alone.
func originKey(name, run string) string { return originPrefix(name) + run + ".json" }

func originPrefix(name string) string { return path.Join(streamFolder(name), "run-") }

func (p *Plan) planKey(name string) string {
	return path.Join(p.versionFolder(name), workFolder, "plan.json")
}

// resultKey is where an item's result is kept.
func (p *Plan) resultKey(name string, chunk int) string {
	file := "audio.json"
	if chunk != audioItem {
		file = fmt.Sprintf("chunk-%05d.json", chunk)
	}
	return path.Join(p.versionFolder(name), workFolder, file)
}

// mediaKey is where a file of a rendition is kept.
func (p *Plan) mediaKey(name, rendition, file string) string {
	return path.Join(p.versionFolder(name), rendition, file)
}

// loadPlan reads a plan that the planner stored, and refuses one of another version
// of this program.
func loadPlan(ctx context.Context, s *meteredStore, key string) (*Plan, error) {
	p := new(Plan)
	if err := s.getJSON(ctx, key, p); err != nil {
		return nil, fmt.Errorf("transcode: read the plan: %w", err)
	}
	if p.Version != planVersion || len(p.Renditions) == 0 || len(p.Chunks) == 0 || p.Rate.Num <= 0 || p.Rate.Den <= 0 {
		return nil, myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("transcode: %s was written by another version of this program", key), "start a new run"))
	}
	return p, nil
}
