package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"myrmidon/internal/logs"
)

// watch says how it goes, and when no line comes any more.
func (n *following) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := time.Now()
	n.writeStatus(n.summary(), "following")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, s := range n.sources {
			if s.feed.Stats().Failing == nil && s.failing.Swap(false) {
				fmt.Fprintf(n.screen, "myrmidon: %s is followed again\n", plain(s.name))
			}
			if is := s.expect > 0 && s.count.Quiet() > s.expect; s.quiet.Swap(is) != is {
				n.log.Warn(s.heard(is), "source", s.name)
			}
		}
		if time.Since(told) < n.f.stats {
			continue
		}
		told = time.Now()
		sum := n.summary()
		n.writeStatus(sum, "following")
		if !n.quiet {
			fmt.Fprint(n.screen, n.progress(sum))
		}
	}
}

// summary is what all came to until now.
func (n *following) summary() logs.Summary {
	sum := n.ships.Summary()
	sum.Destination = bare(n.spec.Sink)
	if len(n.sources) == 1 {
		sum.From(n.sources[0].address) // of a prefix
		sum.Source = n.sources[0].feed.String()
	}
	for _, s := range n.sources {
		of, st := s.count.Summary(), s.feed.Stats()
		of.Waiting, of.Strange, of.LastSeen = st.Waiting, st.Strange, st.Told.UTC()
		of.Quiet = s.quiet.Load()
		if st.Failing != nil {
			of.Failing, of.Since = st.Failing.Error(), st.Since.UTC()
		}
		sum.Sources = append(sum.Sources, of)
	}
	sum.CPU, sum.PeakMemory = processUsage()
	return sum
}

// processUsage is the CPU time of this process, in seconds, and the most memory that it held, in
// bytes (getrusage(2)).
func processUsage() (cpu float64, memory int64) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0, 0 // only possible for a bad argument
	}
	memory = int64(ru.Maxrss)
	if runtime.GOOS != "darwin" { // which counts in bytes
		memory *= 1024
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds(), memory
}

// stamped is a summary of a moment, as a line of JSON.
func stamped(sum logs.Summary, state string) ([]byte, error) {
	sum.Time, sum.State = time.Now().UTC(), state
	data, err := json.Marshal(sum)
	return append(data, '\n'), err
}

// progress words a summary: a line for all, and one for each source.
func (n *following) progress(sum logs.Summary) string {
	if n.json {
		data, err := stamped(sum, "following")
		if err != nil {
			return fmt.Sprintf("myrmidon: %v\n", err)
		}
		return string(data)
	}
	var b strings.Builder
	l := sum.Lines
	fmt.Fprintf(&b, "myrmidon: %d lines, %d acked, %d not parsed, %d refused\n", l.Encountered, l.Acked, l.Unparsed, l.Failed)
	for _, s := range sum.Sources {
		fmt.Fprintf(&b, "  %s: %d lines, %s waiting", plain(s.Name), s.Lines.Encountered, plural(s.Waiting, "object"))
		if s.Lag != nil {
			fmt.Fprintf(&b, ", newest line %v old", time.Duration(*s.Lag*float64(time.Second)).Round(time.Second))
		}
		if s.LastSeen.IsZero() {
			b.WriteString(", nothing seen yet")
		} else {
			fmt.Fprintf(&b, ", last seen %v ago", time.Since(s.LastSeen).Round(time.Second))
		}
		if s.LastError != "" {
			fmt.Fprintf(&b, "; the last object: %s", plain(s.LastError))
		}
		if s.Failing != "" {
			fmt.Fprintf(&b, "; failing since %s: %s", s.Since.Format(time.RFC3339), plain(s.Failing))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// writeStatus replaces the file of --status. That it cannot be written is told once, and makes
// the command fail at its end.
func (n *following) writeStatus(sum logs.Summary, state string) {
	if n.f.status == "" {
		return
	}
	data, err := stamped(sum, state)
	if err == nil {
		err = os.WriteFile(n.f.status+".part", data, 0o644)
	}
	if err == nil {
		err = os.Rename(n.f.status+".part", n.f.status)
	}
	if err != nil {
		err = fmt.Errorf("--status: %w", err)
		if n.status == nil {
			n.complain(err)
		}
	}
	n.status = err
}
