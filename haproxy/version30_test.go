package haproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// headers26and30 are the names of the columns of HAProxy 2.6, and of 3.0: those of 2.6,
// with nine more before the "-" behind which the columns of its modules are, and QUIC's
// before those of HTTP/2 (management guide of 3.0, 9.1 "CSV format", and what 3.0 prints
// on the pages of its users). No 3.0 was at hand to write it itself.
func headers26and30() (old, young []string) {
	for line := range strings.Lines(builtInTags) {
		old = append(old, strings.Fields(line)[0])
	}
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
	targets := []Target{
		{Address: newStub(t, answer30("2.6.12", 1, old, "", frontend("stot", "10", "h2_open_connections", "4"), server("8", "9"))).path},
		{Address: newStub(t, answer30("3.0.11", 2, young, typed, frontend("stot", "5", "h1sess", "2", "h2sess", "3", "quic_half_open_conn", "1", "h2_open_connections", "1"), server("20", "3"))).path},
		{Address: newStub(t, answer30("3.0.11", 3, young, typed, frontend("stot", "7", "h1sess", "4", "h2sess", "3", "quic_half_open_conn", "2", "h2_open_connections", "2"), server("20", "0"))).path},
	}
	for name, order := range map[string][]Target{"the old one first": targets, "the old one last": {targets[1], targets[2], targets[0]}} {
		t.Run(name, func(t *testing.T) {
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

// What a process said of its tags is not asked again, so a poll that is cancelled keeps it.
func TestTagsOfACancelledPollAreKept(t *testing.T) {
	_, young := headers26and30()
	row := map[string]string{"pxname": "www", "svname": "FRONTEND", "type": "0", "iid": "2", "h1sess": "2", "-": "-"}
	typed := "F.2.0.0.pxname.1:KNS:str:www\nF.2.0.1.svname.1:KNS:str:FRONTEND\nF.2.0.103.h1sess.1:MCP:u64:2\n"
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
	second := newStub(t, func(conn net.Conn, command string) {
		<-said
		time.AfterFunc(50*time.Millisecond, cancel) // the first is read by then
		io.Copy(io.Discard, conn)
	})
	c, err := New(Config{Targets: []Target{{Address: first.path}, {Address: second.path}}, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Poll(ctx); err == nil {
		t.Fatal("it was not cancelled")
	}
	second.set(answer30("3.0.11", 2, young, typed, row))
	if got := cell(t, poll(t, c).Table, "www", "FRONTEND", "h1sess"); got != "4" {
		t.Errorf("h1sess is %s, want 4", got)
	}
}
