package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/clone"
)

const (
	shownFailures = 10   // that a command lists; all are in the run's items
	keptFailures  = 1000 // that are looked through for those, since a retry may have done the first
)

// listFailures says on stderr which objects of a clone failed and why, and what was not
// done because of them.
func (c *carrier) listFailures(home engine.Home, rep *engine.Report) {
	if rep.State != myrmidon.Partial && rep.State != myrmidon.Failed || rep.Counts.Failed == 0 && len(rep.Parked) == 0 {
		return
	}
	failed, err := failedItems(home)
	if err != nil {
		c.log.Warn("could not read what failed", "run", rep.ID, "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	hinted := make(map[string]bool)
	add := func(line, hint string) {
		lines = append(lines, "  "+plain(line))
		if hint != "" && !hinted[hint] {
			hinted[hint] = true
			lines = append(lines, "    "+plain(hint))
		}
	}
	plans := 0
	for _, p := range rep.Parked {
		if strings.Contains(p.ID, "-plan-") {
			if plans++; plans <= shownFailures && rep.State == myrmidon.Partial { // else it is said already
				add(p.Reason.Message, p.Reason.Hint)
			}
		}
	}
	for _, it := range failed[:min(len(failed), shownFailures)] {
		add(fmt.Sprintf("%s %q: %s", it.Phase, it.Name, it.LastError), it.Hint)
	}
	if n := rep.Counts.Failed; n > 0 {
		fmt.Fprintf(c.stderr, "myrmidon: %s failed\n", plural(n, "object"))
	}
	if plans > 0 {
		fmt.Fprintf(c.stderr, "myrmidon: the listings are not complete: what lies in %s of keys was not looked at\n", plural(plans, "range"))
	}
	for _, l := range lines {
		fmt.Fprintln(c.stderr, l)
	}
	if rest := rep.Counts.Failed - shownFailures; rest > 0 {
		fmt.Fprintf(c.stderr, "  and %d more: myrmidon runs items %s\n", rest, rep.ID)
	}
	var spec clone.Spec
	for _, p := range rep.Phases {
		if p.Name == "delete" && !p.Ran && json.Unmarshal(rep.Spec, &spec) == nil && spec.Delete {
			fmt.Fprintln(c.stderr, "  nothing was deleted, since not everything was copied")
		}
	}
	if rep.State == myrmidon.Partial {
		fmt.Fprintf(c.stderr, "  when the causes are gone: myrmidon runs retry %s\n", rep.ID)
	}
}

// failedItems are the first items of a run that failed and were not done later.
func failedItems(home engine.Home) ([]engine.ItemReport, error) {
	items, err := home.OpenItems()
	if err != nil {
		return nil, err
	}
	defer items.Close() // it is only read
	type address struct {
		phase        string
		shard, index uint32
	}
	at := make(map[address]int)
	var found []engine.ItemReport
	for dec := json.NewDecoder(items); ; {
		var it engine.ItemReport
		if err := dec.Decode(&it); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			out := found[:0]
			for _, it := range found {
				if it.State == "parked" {
					out = append(out, it)
				}
			}
			return out, err
		}
		a := address{it.Phase, it.Shard, it.Index}
		if i, known := at[a]; known {
			found[i] = it
		} else if it.State == "parked" && len(found) < keptFailures {
			at[a] = len(found)
			found = append(found, it)
		}
	}
}
