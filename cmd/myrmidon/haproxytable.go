package main

import (
	"strconv"
	"strings"

	"myrmidon/haproxy"
)

// paintState is the colour of a state.
func paintState(state string) string {
	switch word, _, _ := strings.Cut(state, " "); {
	case word == "DOWN", word == "STOP":
		return "31"
	case word == "UP" && state != "UP", strings.HasPrefix(word, "MAINT"), word == "DRAIN", word == "NOLB", word == "PAUSED", word == "FULL":
		return "33"
	case word == "UP", word == "OPEN":
		return "32"
	}
	return ""
}

// shortState is the worst state, and of how many processes if they differ: "DOWN 1/4".
func shortState(t *haproxy.Table, i int) string {
	worst := t.State(i)
	status := t.Column("status")
	if !t.Mixed(i, status) {
		return worst
	}
	n, all := 0, 0
	t.States(i, func(state []byte, k int) {
		all += k
		if string(state) == worst {
			n += k
		}
	})
	return worst + " " + strconv.Itoa(n) + "/" + strconv.Itoa(all)
}

// sumOf adds fields of a row, and is false if it has none of them.
func sumOf(t *haproxy.Table, i int, fields ...string) (n int64, ok bool) {
	for _, f := range fields {
		k, has := t.Int(i, t.Column(f))
		n, ok = n+k, ok || has
	}
	return n, ok
}

// short writes a number in at most five characters: 1234, 56.7k, 890M.
func short(n int64) string {
	f := float64(n)
	if n > -10000 && n < 10000 {
		return strconv.FormatInt(n, 10)
	}
	for _, unit := range []string{"k", "M", "G", "T", "P", "E"} {
		f /= 1000
		if f < 99.95 && f > -99.95 {
			return strconv.FormatFloat(f, 'f', 1, 64) + unit
		}
		if f < 999.5 && f > -999.5 {
			return strconv.FormatFloat(f, 'f', 0, 64) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}
