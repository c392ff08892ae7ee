package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"myrmidon"
	"myrmidon/internal/notify"
)

const (
	// ownFiles is what a process opens whatever it does: its state, the queue's files, a
	// terminal. It was 17 at most in a run of one job.
	ownFiles = 32
	// jobFiles is what a job of logs opens: an object, its connection, a checkpoint.
	jobFiles = 3
	// sourceFiles is what a source that is followed opens beside its jobs: a connection, a
	// listener, what it keeps.
	sourceFiles = 4
)

// shipFiles is how many files and connections shipping from sources to a sink may have open
// at once.
func shipFiles(slots, sources int, to string) uint64 {
	connections := 2 * slots
	if u, err := url.Parse(to); err == nil {
		if n, err := strconv.Atoi(u.Query().Get("connections")); err == nil && n > 0 {
			connections = n
		}
	}
	return uint64(ownFiles + sourceFiles*sources + jobFiles*slots + connections)
}

// webhookFiles is how many connections others may open to webhooks among the sources.
func webhookFiles(sources []string) (n uint64) {
	for _, source := range sources {
		if _, address := nameOf(source); strings.HasPrefix(address, "webhook://") {
			n += notify.MostConnections
		}
	}
	return n
}

// enoughFiles refuses what this process may not have open at once, before the work begins: in
// its middle, connections would fail one by one. The soft limit is no matter: Go raises it to
// the hard one at the start of the process, and gives children the one that it found.
func enoughFiles(need uint64, what string) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= need {
		return nil // where the limit is not known, the work says what it lacks
	}
	return usage(myrmidon.WithHint(fmt.Errorf("%s may need %d files and connections at once, and this process may have %d", what, need, limit.Cur),
		"raise the hard limit (ulimit -Hn, LimitNOFILE of systemd), or ask for less: --slots, connections=N in the address"))
}
