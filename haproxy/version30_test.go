package haproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// headers26and30 are the names of the columns of HAProxy 2.6, and of 3.0: those of 2.6,
// with nine more before the "-" behind which the columns of its modules are, and QUIC's
// before those of HTTP/2 (management guide of 3.0, 9.1 "CSV format", and what 3.0 prints
// on the pages of its users).
func headers26and30() (old, young []string) {
	old = fieldsOf(builtInTags)
	at := slices.Index(old, "ssl_sess")
	old = slices.Insert(old, at, "-")
	young = slices.Insert(slices.Clone(old), at, "srid", "sess_other", "h1sess", "h2sess", "h3sess", "req_other", "h1req", "h2req", "h3req", "proto")
	at = slices.Index(young, "h2_headers_rcvd")
	return old, slices.Insert(young, at, "quic_rxbuf_full", "quic_dropped_pkt", "quic_sent_pkt", "quic_half_open_conn")
}

// answer30 answers as a process of a version whose rows have these columns.
func answer30(version string, pid int, columns []string, typed string, rows ...map[string]string) func(net.Conn, string) {
	var csv strings.Builder
	csv.WriteString("# " + strings.Join(columns, ",") + ",\n")
	for _, row := range rows {
		for _, name := range columns {
			csv.WriteString(row[name] + ",")
		}
		csv.WriteByte('\n')
	}
	return func(conn net.Conn, command string) {
		if strings.Contains(command, "typed") {
			io.WriteString(conn, typed+"\n")
			return
		}
		fmt.Fprintf(conn, "Name: HAProxy\nVersion: %s\nPid: %d\nUptime_sec: 60\nStart_time_sec: 5\nStopping: 0\n\n%s\n", version, pid, csv.String())
	}
}

func TestAFleetOfHAProxy26And30IsOne(t *testing.T) {
	old, young := headers26and30()
	frontend := func(more ...string) map[string]string {
		row := map[string]string{"pxname": "www", "svname": "FRONTEND", "type": "0", "iid": "2", "status": "OPEN", "mode": "http", "-": "-"}
		for i := 0; i < len(more); i += 2 {
			row[more[i]] = more[i+1]
		}
		return row
	}
	server := func(qtime, requests string) map[string]string {
		return map[string]string{
			"pxname": "app", "svname": "web", "type": "2", "iid": "3", "sid": "1", "status": "UP", "weight": "1", "srid": "0",
			"qtime": qtime, "req_tot": requests, "stot": requests, "-": "-", "proto": "h1",
		}
	}
	typed := "F.2.0.0.pxname.1:KNS:str:www\nF.2.0.1.svname.1:KNS:str:FRONTEND\n" +
		"F.2.0.102.sess_other.1:MCP:u64:1\nF.2.0.103.h1sess.1:MCP:u64:2\nF.2.0.104.h2sess.1:MCP:u64:3\nF.2.0.120.quic_half_open_conn.1:MGP:u64:1\n"
	for version, typed := range map[string]string{
		"3.0.11": typed,
		// 3.3 added a letter: whether a value may outlive a reload.
		"3.4.0": strings.NewReplacer(":KNS:", ":KNSV:", ":MCP:", ":MCPP:", ":MGP:", ":MGPV:").Replace(typed),
	} {
		targets := []Target{
			{Address: newStub(t, answer30("2.6.12", 1, old, "", frontend("stot", "10", "h2_open_connections", "4"), server("8", "9"))).path},
			{Address: newStub(t, answer30(version, 2, young, typed, frontend("stot", "5", "h1sess", "2", "h2sess", "3", "quic_half_open_conn", "1", "h2_open_connections", "1"), server("20", "3"))).path},
			{Address: newStub(t, answer30(version, 3, young, typed, frontend("stot", "7", "h1sess", "4", "h2sess", "3", "quic_half_open_conn", "2", "h2_open_connections", "2"), server("20", "0"))).path},
		}
		for name, order := range map[string][]Target{"the old one first": targets, "the old one last": {targets[1], targets[2], targets[0]}} {
			t.Run(version+", "+name, func(t *testing.T) {
				tab := readAll(t, Config{Targets: order}).Table
				for _, want := range []struct{ proxy, server, field, text string }{
					{"www", "FRONTEND", "stot", "22"},
					{"www", "FRONTEND", "h1sess", "6"},
					{"www", "FRONTEND", "h2sess", "6"},
					{"www", "FRONTEND", "quic_half_open_conn", "3"},
					{"www", "FRONTEND", "h2_open_connections", "7"}, // behind columns that the other lacks
					{"app", "web", "qtime", "11"},                   // (8*9+20*3)/12
					{"app", "web", "proto", "h1 2/3"},
					{"app", "web", "weight", "1"},
				} {
					if got := cell(t, tab, want.proxy, want.server, want.field); got != want.text {
						t.Errorf("%s of %s/%s is %q, want %q", want.field, want.proxy, want.server, got, want.text)
					}
				}
			})
		}
	}
}

// What a process said of its tags is not asked again, so a poll that is cancelled keeps it.
func TestTagsOfACancelledPollAreKept(t *testing.T) {
	_, young := headers26and30()
	row := map[string]string{"pxname": "www", "svname": "FRONTEND", "type": "0", "iid": "2", "quic_half_open_conn": "2", "-": "-"}
	typed := "F.2.0.0.pxname.1:KNS:str:www\nF.2.0.1.svname.1:KNS:str:FRONTEND\nF.2.0.120.quic_half_open_conn.1:MGP:u64:2\n"
	answer := answer30("3.0.11", 1, young, typed, row)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(chan struct{})
	first := newStub(t, func(conn net.Conn, command string) {
		answer(conn, command)
		if strings.Contains(command, "typed") {
			close(said)
		}
	})
	var c *Collector
	second := newStub(t, func(conn net.Conn, command string) {
		<-said
		cancelsBehind(c, 0, cancel)
		io.Copy(io.Discard, conn)
	})
	c, err := New(Config{Targets: []Target{{Address: first.path}, {Address: second.path}}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Poll(ctx); err == nil {
		t.Fatal("it was not cancelled")
	}
	second.set(answer30("3.0.11", 2, young, typed, row))
	if got := cell(t, poll(t, c).Table, "www", "FRONTEND", "quic_half_open_conn"); got != "4" {
		t.Errorf("quic_half_open_conn is %s, want 4", got)
	}
}

// later are HAProxy's own dumps, of a process that fills every field (see startEveryField),
// of versions beyond the one that is installed: built from its releases' source.
var later = []string{"3.0.0", "3.4.0"}

func TestLaterVersionsSayTheSameInCSVAndTypedAndHaveNoUnknownField(t *testing.T) {
	for _, version := range later {
		t.Run(version, func(t *testing.T) {
			raw, rawTyped := keptDumps(t, version)
			csv := parse(t, string(raw))
			typed, tags, err := ParseTyped(rawTyped)
			if err != nil {
				t.Fatal(err)
			}
			// Checks go on between the two dumps, and ages grow.
			moving := map[string]bool{"lastchg": true, "downtime": true, "check_duration": true, "agent_duration": true, "throttle": true, "lastsess": true, "weight": true}
			learned := DefaultRules().Learn(tags, version)
			for _, col := range csv.Columns() {
				if col == "-" {
					continue
				}
				for i := range csv.Len() {
					got, want := typed.Text(i, typed.Column(col)), csv.Text(i, csv.Column(col))
					if got != want && !moving[col] && !strings.HasPrefix(string(csv.Proxy(i)), "origin") {
						t.Errorf("row %d, %s: %q in the typed dump, %q in CSV", i, col, got, want)
					}
				}
				for typ := range Other {
					was, is := DefaultRules().field(col, typ), learned.field(col, typ)
					if is.Version == version && was.Rule != is.Rule {
						t.Errorf("%s of a %v: %v by its tag %v, %v built in", col, typ, is.Rule, is.Tag, was.Rule)
					}
				}
			}
			letters := map[bool]int{}
			for _, byType := range tags {
				for _, tag := range byType {
					if tag != (Tag{}) {
						letters[tag.Persistence != 0]++
					}
				}
			}
			if has := version != "3.0.0"; letters[has] < 200 || letters[!has] > 0 {
				t.Errorf("%d tags say whether the value outlives a reload, %d do not", letters[true], letters[false])
			}
		})
	}
}
