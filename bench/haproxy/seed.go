package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// What follows is the seed's way, as it is described, not its code: 82 fields by name, a
// map for each row, rows paired by their index, four rules.

var (
	seedAverage = strings.Fields("qtime ctime rtime ttime check_duration agent_duration weight throttle")
	seedMax     = strings.Fields("qmax smax rate_max req_rate_max conn_rate_max lastchg lastsess qtime_max ctime_max rtime_max ttime_max")
	seedSum     = strings.Fields(`qcur scur slim stot bin bout dreq dresp ereq econ eresp wretr wredis act bck chkfail chkdown downtime
		qlimit lbtot rate rate_lim hrsp_1xx hrsp_2xx hrsp_3xx hrsp_4xx hrsp_5xx hrsp_other req_rate req_tot cli_abrt srv_abrt comp_in
		comp_out comp_byp comp_rsp intercepted dcon dses wrew connect reuse cache_lookups cache_hits`)
)

// seed prints the merged rows of the sockets.
func seed(sockets []string, out io.Writer) error {
	tables := make([][]map[string]string, len(sockets))
	errs := make([]error, len(sockets))
	var names []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, path := range sockets {
		wg.Go(func() {
			var header []string
			header, tables[i], errs[i] = seedRead(path)
			mu.Lock()
			names = header
			mu.Unlock()
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if len(names) > 82 {
		names = names[:82]
	}
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "# %s,\n", strings.Join(names, ","))
	for k := range tables[0] {
		merged := make(map[string]string)
		for _, name := range names {
			var values []string
			for _, t := range tables {
				if k >= len(t) {
					return fmt.Errorf("seed: rows differ")
				}
				values = append(values, t[k][name])
			}
			merged[name] = seedMerge(name, values)
		}
		for _, name := range names {
			w.WriteString(merged[name])
			w.WriteByte(',')
		}
		w.WriteByte('\n')
	}
	return w.Flush()
}

func seedRead(path string) (names []string, rows []map[string]string, err error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil, nil, err
	}
	s := bufio.NewScanner(conn)
	for s.Scan() {
		fields := strings.Split(s.Text(), ",")
		if names == nil {
			fields[0] = strings.TrimPrefix(fields[0], "# ")
			names = fields
			continue
		}
		if len(fields) < 2 {
			continue
		}
		row := make(map[string]string)
		for i, f := range fields {
			if i < len(names) {
				row[names[i]] = f
			}
		}
		rows = append(rows, row)
	}
	return names, rows, s.Err()
}

// seedMerge is pass (the first value), average, max or sum.
func seedMerge(name string, values []string) string {
	rule := ""
	switch {
	case slices.Contains(seedAverage, name):
		rule = "average"
	case slices.Contains(seedMax, name):
		rule = "max"
	case slices.Contains(seedSum, name):
		rule = "sum"
	default:
		return values[0]
	}
	total, most, n := 0, 0, 0
	for _, v := range values {
		x, err := strconv.Atoi(v)
		if err != nil {
			continue
		}
		total, most, n = total+x, max(most, x), n+1
	}
	switch {
	case n == 0:
		return ""
	case rule == "average":
		return strconv.Itoa(total / n)
	case rule == "max":
		return strconv.Itoa(most)
	}
	return strconv.Itoa(total)
}
