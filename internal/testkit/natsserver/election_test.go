package natsserver

import "testing"

func TestElected(t *testing.T) {
	names := []string{"n1", "n2", "n3"}
	for _, tt := range []struct {
		name  string
		votes []string
		want  int
	}{
		{"all agree", []string{"n2", "n2", "n2"}, 1},
		{"one does not know yet", []string{"", "n3", "n3"}, 2},
		{"the old leader, cut off, still votes for itself", []string{"n1", "n2", "n2"}, 1},
		{"the leader alone votes for itself", []string{"n1", "", ""}, -1},
		{"the others vote for a dead one", []string{"", "n1", "n1"}, -1},
		{"nobody knows", []string{"", "", ""}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := elected(names, tt.votes); got != tt.want {
				t.Errorf("votes %q elect node %d, want %d", tt.votes, got, tt.want)
			}
		})
	}
}
