package logs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Summary is what a run came to: one line instead of a message a line.
type Summary struct {
	Time        time.Time          `json:"time,omitzero"`   // of a follower's status: when this was so
	State       string             `json:"state,omitempty"` // likewise: following, or ended
	Run         string             `json:"run,omitempty"`
	Source      string             `json:"source,omitempty"`
	Bucket      string             `json:"bucket,omitempty"` // of a source in S3
	Key         string             `json:"key,omitempty"`    // likewise: of its object, or its prefix as given
	Destination string             `json:"destination,omitempty"`
	Lines       Counts             `json:"lines"`
	Objects     Objects            `json:"objects"`
	Connections Connections        `json:"connections"`
	Failures    map[string]Failure `json:"failures"` // parsing, sending, sockets, objects
	Newest      time.Time          `json:"newest,omitzero"`
	Seconds     float64            `json:"durationSeconds"`
	CPU         float64            `json:"cpuSeconds"`
	PeakMemory  int64              `json:"peakMemoryBytes"`
	// Unconfirmed says that the destination acknowledges nothing: acked lines were only
	// handed to the network.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Sources are those that are followed, each with its share of the counts.
	Sources []SourceSummary `json:"sources,omitempty"`
}

// From says which source the summary is of.
func (s *Summary) From(a Address) {
	s.Source, s.Bucket, s.Key = a.Base, "", ""
	if rest, ok := strings.CutPrefix(a.Base, "s3://"); ok {
		s.Bucket, s.Key, _ = strings.Cut(rest, "/")
	}
}

// Objects counts objects.
type Objects struct {
	Read    int64 `json:"read"`    // to their end, or as far as they go
	Failed  int64 `json:"failed"`  // that were not read or delivered whole
	LeftOut int64 `json:"leftOut"` // of another time, or no logs by their names
	Bytes   int64 `json:"bytes"`   // as they are stored
}

// Failure counts failures of a kind, with the last few.
type Failure struct {
	Total   int64    `json:"total"`
	LastFew []string `json:"lastFew"`
}

func (f *Failure) add(n int64, last ...string) {
	f.Total += n
	f.LastFew = append(f.LastFew, last...)
	f.LastFew = f.LastFew[max(0, len(f.LastFew)-LastFew):]
}

// Item is a line of a run's evidence, as far as a summary needs it.
type Item struct {
	Phase     string          `json:"phase"`
	Shard     uint32          `json:"shard"`
	Index     uint32          `json:"index"`
	Name      string          `json:"name"`
	Plan      bool            `json:"plan"`
	State     string          `json:"state"`
	Bytes     int64           `json:"bytes"`
	LastError string          `json:"last_error"`
	Note      json.RawMessage `json:"note"`
}

// Summarize adds up the evidence of a run, a line of JSON an object; of an object that was
// tried again later, the last line counts. The error says so if the counts do not add up.
func Summarize(items io.Reader) (s Summary, err error) {
	type address struct{ shard, index uint32 }
	type told struct {
		Item
		turn int // of its line: evidence is in the order in which objects ended
	}
	counted := make(map[address]told)
	turn := 0
	var unparsed, refused, sockets, objects Failure
	for dec := json.NewDecoder(items); ; {
		var it Item
		if err := dec.Decode(&it); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return s, fmt.Errorf("logs: evidence: %w", err)
		}
		if it.Plan {
			continue
		}
		var n Note
		if len(it.Note) > 0 {
			if err := json.Unmarshal(it.Note, &n); err != nil {
				return s, fmt.Errorf("logs: evidence of %s: %w", it.Name, err)
			}
		}
		// Connections were made by each attempt.
		s.Connections.Created += n.Connections.Created
		s.Connections.Destroyed += n.Connections.Destroyed
		sockets.add(int64(n.SocketsFailed), n.Sockets...)
		at := address{it.Shard, it.Index}
		if was, ok := counted[at]; ok {
			s.take(was.Item, -1)
			delete(counted, at)
		}
		s.take(it, 1)
		if n.Newest.After(s.Newest) {
			s.Newest = n.Newest
		}
		if it.State == "parked" { // what was done at once is not tried again
			turn++
			counted[at] = told{it, turn}
		}
	}
	// The last few are those of the objects that failed last.
	failed := slices.SortedFunc(maps.Values(counted), func(a, b told) int { return cmp.Compare(a.turn, b.turn) })
	for _, it := range failed {
		var n Note
		if len(it.Note) > 0 && json.Unmarshal(it.Note, &n) != nil {
			continue
		}
		objects.add(1, it.Name+": "+it.LastError)
		for _, r := range n.Rejects {
			where := fmt.Sprintf("%s at byte %d: %s", it.Name, r.Offset, r.Reason)
			if r.Kind == sending {
				refused.add(0, where)
			} else {
				unparsed.add(0, where)
			}
		}
	}
	unparsed.Total, refused.Total = s.Lines.Unparsed, s.Lines.Failed
	s.Failures = map[string]Failure{parsing: unparsed, sending: refused, "sockets": sockets, "objects": objects}
	for k, f := range s.Failures {
		if f.LastFew == nil {
			f.LastFew = []string{}
			s.Failures[k] = f
		}
	}
	return s, s.Lines.Check()
}

// take adds an item's counts, or takes them back.
func (s *Summary) take(it Item, sign int64) {
	s.Objects.Read += sign
	s.Objects.Bytes += sign * it.Bytes
	if it.State == "parked" {
		s.Objects.Failed += sign
	}
	var n Note
	if len(it.Note) > 0 && json.Unmarshal(it.Note, &n) == nil {
		c := n.Counts
		s.Lines.add(Counts{
			sign * c.Encountered, sign * c.Parsed, sign * c.Unparsed, sign * c.Filtered,
			sign * c.Sent, sign * c.Acked, sign * c.Failed, sign * c.Bytes,
		})
	}
}
