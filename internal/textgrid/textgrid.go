// Package textgrid lays out tables for terminals: columns that fit a width, of which the
// less important ones are left out and the wide ones are cut where there is no room.
package textgrid

import (
	"io"
	"strings"

	"golang.org/x/text/width"
)

// A Cell is what stands in a table, and in which colour.
type Cell struct {
	Text  string
	Paint string // an SGR parameter; "" for none
}

// A Column is a column of a table for people.
type Column struct {
	Title string
	Right bool
	Rank  int // those with the highest are left out first where there is no room; 0 never
	Least int // how narrow it may become; 0 as it is
}

// A Table writes rows in columns that fit a width.
type Table struct {
	Columns []Column
	Rows    [][]Cell
}

// runeWidth is how many columns of a terminal a character takes.
func runeWidth(r rune) int {
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Width is how many columns of a terminal s takes.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// Fit cuts s to n columns, with "~" for what is missing.
func Fit(s string, n int) string {
	if Width(s) <= n {
		return s
	}
	var b strings.Builder
	used := 0
	for _, r := range s {
		w := runeWidth(r)
		if used+w > n-1 {
			break
		}
		b.WriteRune(r)
		used += w
	}
	return b.String() + "~"
}

// Layout returns the width of each column within limit columns in all, -1 for those that
// are left out. No limit (0) leaves all as they are.
func (t *Table) Layout(limit int) []int {
	widths := make([]int, len(t.Columns))
	for c, col := range t.Columns {
		widths[c] = Width(col.Title)
		for _, row := range t.Rows {
			widths[c] = max(widths[c], Width(row[c].Text))
		}
	}
	if limit <= 0 {
		return widths
	}
	total := func() int {
		n := -2
		for _, w := range widths {
			if w >= 0 {
				n += w + 2
			}
		}
		return n
	}
	// narrow takes from the columns that may become narrower, the widest first, down to
	// their least widths.
	narrow := func(floor func(c int) int) {
		for total() > limit {
			at := -1
			for c, col := range t.Columns {
				if col.Least > 0 && widths[c] > floor(c) && (at < 0 || widths[c] > widths[at]) {
					at = c
				}
			}
			if at < 0 {
				return
			}
			widths[at]--
		}
	}
	for {
		narrow(func(c int) int { return max(t.Columns[c].Least, Width(t.Columns[c].Title)) })
		if total() <= limit {
			return widths
		}
		worst := -1
		for c, col := range t.Columns {
			if widths[c] >= 0 && col.Rank > 0 && (worst < 0 || col.Rank > t.Columns[worst].Rank) {
				worst = c
			}
		}
		if worst < 0 {
			return widths // as narrow as it gets
		}
		widths[worst] = -1
		// What was narrowed for it may grow again.
		for c := range t.Columns {
			if widths[c] >= 0 && t.Columns[c].Least > 0 {
				widths[c] = Width(t.Columns[c].Title)
				for _, row := range t.Rows {
					widths[c] = max(widths[c], Width(row[c].Text))
				}
			}
		}
	}
}

// Write writes the table. Nothing ends a line but what is in it.
func (t *Table) Write(w io.Writer, limit int, colours bool) error {
	widths := t.Layout(limit)
	var b strings.Builder
	line := func(cells func(c int) Cell) {
		pad := 0
		first := true
		for c, n := range widths {
			if n < 0 {
				continue
			}
			if !first {
				pad += 2
			}
			first = false
			x := cells(c)
			text := Fit(x.Text, n)
			gap := n - Width(text)
			if t.Columns[c].Right {
				pad += gap
				gap = 0
			}
			if text != "" {
				b.WriteString(strings.Repeat(" ", pad))
				pad = 0
				if colours && x.Paint != "" {
					text = "\x1b[" + x.Paint + "m" + text + "\x1b[0m"
				}
				b.WriteString(text)
			}
			pad += gap
		}
		b.WriteByte('\n')
	}
	line(func(c int) Cell { return Cell{t.Columns[c].Title, "1"} })
	for _, row := range t.Rows {
		line(func(c int) Cell { return row[c] })
	}
	_, err := io.WriteString(w, b.String())
	return err
}
