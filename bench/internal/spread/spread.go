// Package spread says how the rounds of a benchmark differ.
package spread

import (
	"fmt"
	"io"
	"slices"
)

// Spread is the median, the least and the largest of some figures.
type Spread struct{ Median, Least, Most float64 }

// Of wants at least one value.
func Of(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// Format writes the median, and the others behind it where they differ, each by a verb of
// package fmt: "2.0 (1.8 to 2.3)".
func (s Spread) Format(verb string) string {
	if s.Least == s.Most {
		return fmt.Sprintf(verb, s.Median)
	}
	return fmt.Sprintf(verb+" ("+verb+" to "+verb+")", s.Median, s.Least, s.Most)
}

// Ratio is that of ours to the peer's within each round, and false where either is missing.
func Ratio(ours, peer []float64) (Spread, bool) {
	if len(ours) == 0 || len(ours) != len(peer) {
		return Spread{}, false
	}
	var v []float64
	for i := range ours {
		v = append(v, ours[i]/peer[i])
	}
	return Of(v), true
}

// Text is the spread of figures of any size, or none where there are no figures.
func Text(values []float64, none string) string {
	if len(values) == 0 {
		return none
	}
	s := Of(values)
	if s.Most < 100 {
		return s.Format("%.2f")
	}
	return s.Format("%.0f")
}

// Verdict writes how many of a benchmark's targets were missed, if it has any.
func Verdict(to io.Writer, targets, misses int) {
	switch {
	case targets == 0:
	case misses == 0:
		fmt.Fprintf(to, "\nall %d targets are met\n", targets)
	default:
		fmt.Fprintf(to, "\n%d of %d targets are missed\n", misses, targets)
	}
}
