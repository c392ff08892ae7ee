package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// faultKind is what is done to a process.
type faultKind int

const (
	kill  faultKind = iota // SIGKILL, and started again afterwards
	pause                  // SIGSTOP, and SIGCONT afterwards
	cut                    // its network cable pulled, and plugged in again afterwards
)

var faultNames = []string{"kill", "pause", "cut"}

func (k faultKind) String() string { return faultNames[k] }

// strike is one fault of a run's schedule.
type strike struct {
	at     time.Duration // since the run was there
	lasts  time.Duration
	kind   faultKind
	victim string
	// forever: the victim is not started again. Only an owner's end may be.
	forever bool
}

func (s strike) String() string {
	if s.forever {
		return fmt.Sprintf("%6.2fs %s %s for good", s.at.Seconds(), s.kind, s.victim)
	}
	return fmt.Sprintf("%6.2fs %s %s for %.2fs", s.at.Seconds(), s.kind, s.victim, s.lasts.Seconds())
}

// How long a fault lasts: from what nobody notices to longer than the lease of a run
// (engine.LeaseTime) and of three deliveries.
const (
	shortest = 200 * time.Millisecond
	longest  = 15 * time.Second
)

// ownerName is the victim that owns the run at first.
const ownerName = "owner"

// schedule draws the faults of a run: one every 100 to 600 ms until until, all over at
// end. Nobody has two at a time. Of a cluster's servers one at a time has one, since with
// two there is no broker; one alone is struck as often as the rest.
func schedule(r *rand.Rand, victims []string, until, end time.Duration) []strike {
	busy := make(map[string]time.Duration) // until when, by victim, or "broker" for a cluster's servers
	var out []strike
	for at := time.Duration(0); ; {
		at += 100*time.Millisecond + time.Duration(r.Int64N(int64(500*time.Millisecond)))
		if at >= until {
			return out
		}
		s := strike{at: at, kind: faultKind(r.IntN(len(faultNames))), victim: victims[r.IntN(len(victims))]}
		// The median is 1 s; one of five outlasts a delivery's lease, one of 15 a run's.
		s.lasts = time.Duration(float64(shortest) * math.Pow(float64(longest)/float64(shortest), math.Pow(r.Float64(), 1.4)))
		s.lasts = min(s.lasts, end-at)
		s.forever = s.victim == ownerName && s.kind == kill && r.IntN(2) == 0
		key := s.victim
		if isBroker(key) {
			key = "broker"
		}
		if at < busy[key] {
			continue
		}
		busy[key] = at + s.lasts
		if s.forever {
			busy[key] = math.MaxInt64
		}
		out = append(out, s)
	}
}

// isBroker says whether a victim is a server of the broker: n1, n2 and so on.
func isBroker(victim string) bool { return strings.HasPrefix(victim, "n") }

// step is the beginning or the end of a strike.
type step struct {
	at    time.Duration
	begin bool
	strike
}

// steps returns the beginnings and ends of strikes in order of time.
func steps(all []strike) (out []step) {
	for _, s := range all {
		out = append(out, step{s.at, true, s})
		if !s.forever {
			out = append(out, step{s.at + s.lasts, false, s})
		}
	}
	slices.SortStableFunc(out, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return out
}
