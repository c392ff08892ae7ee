package haproxy

import (
	"slices"
	"strconv"
	"strings"
)

// checkStates are the results of checks that HAProxy's exporter counts, in its order
// (management guide, 9.1, check_status).
var checkStates = strings.Fields("HANA SOCKERR L4OK L4TOUT L4CON L6OK L6TOUT L6RSP L7TOUT L7RSP L7OK L7OKC L7STS PROCERR PROCTOUT PROCOK")

// aggregates are metrics of backends that count their servers: by the column of the
// servers that is counted. In CSV the fields of these names are always 0.
// agg_server_check_status is HAProxy's former name of agg_server_status.
var aggregates = []struct{ name, column string }{
	{"agg_server_status", "status"},
	{"agg_server_check_status", "status"},
	{"agg_check_status", "check_status"},
}

func isAggregate(field string) bool {
	for _, a := range aggregates {
		if a.name == field {
			return true
		}
	}
	return false
}

// aggregates writes how many servers of each backend are in which state. Processes behind
// one name watch the same servers, so a server counts once in a state, however many of
// them see it there; where they differ, it counts in each state that one of them sees.
func (p *promWriter) aggregates(parts []Part) {
	for _, a := range aggregates {
		first := true
		for _, part := range parts {
			t := part.View.Table
			col := t.Column(a.column)
			if col < 0 || !part.View.wants(a.name) {
				continue
			}
			states := statesOf(Server)
			if a.column != "status" {
				states = checkStates
			}
			servers := t.countServers(col, states)
			for _, i := range part.View.Rows {
				if t.types[i] != Backend {
					continue
				}
				if first {
					p.header(Backend, a.name, "gauge")
					first = false
				}
				counts := servers[string(t.Proxy(i))]
				for k, state := range states {
					n := 0
					if counts != nil {
						n = counts[k]
					}
					p.labels(Backend, a.name, part, i)
					p.label(",", "state", []byte(state))
					p.out = append(p.out, "} "...)
					p.out = append(strconv.AppendInt(p.out, int64(n), 10), '\n')
				}
				p.flush(writeSize)
			}
		}
	}
}

// countServers counts the servers of each proxy by what they have in a column.
func (t *Table) countServers(col int, states []string) map[string][]int {
	out := make(map[string][]int)
	seen := make([]bool, len(states))
	for i, typ := range t.types {
		if typ != Server {
			continue
		}
		counts := out[string(t.Proxy(i))]
		if counts == nil {
			counts = make([]int, len(states))
			out[string(t.Proxy(i))] = counts
		}
		clear(seen)
		t.values(i, col, func(value []byte, _ int) {
			// Several values may be of one state, as "UP" and "UP 1/3" are.
			word := exportedState(Server, trimProgress(value))
			if k := slices.Index(states, word); k >= 0 && !seen[k] {
				seen[k] = true
				counts[k]++
			}
		})
	}
	return out
}

// trimProgress cuts off the mark of a check that is under way.
func trimProgress(value []byte) []byte {
	if len(value) > 2 && value[0] == '*' && value[1] == ' ' {
		return value[2:]
	}
	return value
}
