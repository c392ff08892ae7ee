// Package spread says how the rounds of a benchmark differ.
package spread

import (
	"fmt"
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
