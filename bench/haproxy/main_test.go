package main

import (
	"strings"
	"testing"
)

func TestTargetsAreJudgedByTheMedian(t *testing.T) {
	r := results{
		shots: []shotResult{
			{Ours: shot{ToFloor: 1.3, RSS: 19}}, {Ours: shot{ToFloor: 1.36, RSS: 21}}, {Ours: shot{ToFloor: 1.34, RSS: 21}},
		},
		daemons: []daemonResult{{Parse: 0.3, Merge: 0.1, Poll: 5, ReadOnly: 2}},
		many:    []manyResult{{Few: 16, Many: 64, RSS: 60}},
	}
	var out strings.Builder
	if misses := r.print(&out, true); misses != 1 || strings.Count(out.String(), "MISSED") != 1 || !strings.Contains(out.String(), "1 of 10 targets are missed") {
		t.Errorf("%d misses:\n%s", misses, out.String())
	}
	out.Reset()
	if misses := r.print(&out, false); misses != 0 || strings.Contains(out.String(), "target") {
		t.Errorf("not judging, %d misses:\n%s", misses, out.String())
	}
}

func TestTheSeedsRules(t *testing.T) {
	for _, tt := range []struct {
		field, want string
		values      []string
	}{
		{"stot", "6", []string{"1", "2", "3"}},
		{"smax", "3", []string{"1", "3", "2"}},
		{"rtime", "2", []string{"1", "3", ""}},
		{"status", "UP", []string{"UP", "DOWN"}},
		{"stot", "", []string{"", ""}},
	} {
		if got := seedMerge(tt.field, tt.values); got != tt.want {
			t.Errorf("%s of %v: %q, want %q", tt.field, tt.values, got, tt.want)
		}
	}
}
