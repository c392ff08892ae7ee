package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"myrmidon"
)

// Home is where a run's standing and evidence are kept: a folder of this machine
// ([RunDir]) or the registry of a fleet ([FleetRun]).
type Home interface {
	RunID() string
	// Info reads what the run's owner last knew.
	Info() (Info, error)
	// Lock makes this process the run's owner. The error wraps ErrOwned if there is one.
	Lock() error
	// Unlock gives the run up.
	Unlock() error
	// Control speaks to the run's owner.
	Control() Control
	// Abandon calls a run without an owner cancelled and frees its queue. The caller holds
	// the lock.
	Abandon() error
	// Report reads the report of a run that has ended; os.ErrNotExist if there is none.
	Report() (*Report, error)
	// OpenItems opens the evidence: a line of JSON ([ItemReport]) an item.
	OpenItems() (io.ReadCloser, error)
	// Place names the report's place for people.
	Place() string
	// Remove forgets the run and releases its lock.
	Remove() error

	owner() Owner
	// save stores what the owner knows. An error that wraps ErrOwned says that another
	// process has taken the run.
	save(info Info) error
	saveReport(rep *Report) error
	// newItems opens the evidence for writing, behind its first size units.
	newItems(size int64) (itemsWriter, error)
	// listen takes questions to the owner.
	listen(r *Run) (closer, error)
	// free forgets what only a retry would need.
	free() error
}

var (
	_ Home = (*RunDir)(nil)
	_ Home = (*FleetRun)(nil)
)

// Homes are the runs that are kept in one place.
type Homes interface {
	// Find returns the run whose ID begins with prefix, whatever its case; "latest" is the
	// newest. None or several are errors.
	Find(prefix string) (Home, error)
	// List returns what is known of each run, oldest first. What cannot be read is in
	// problems, and does not hide the others.
	List() (infos []Info, problems []error, err error)
	// Create makes a new run and locks it. The ID, the time and the state are filled in.
	Create(info Info) (Home, error)
}

var (
	_ Homes = (*State)(nil)
	_ Homes = (*FleetRuns)(nil)
)

// itemsWriter writes evidence, which is visible after finish as a whole or not at all.
type itemsWriter interface {
	io.Writer
	// finish returns how much there is now: see newItems.
	finish() (size int64, err error)
	// abort forgets what was not finished.
	abort()
}

type closer interface{ close() }

// findID returns the one of ids, ascending, that prefix names.
func findID(ids []string, prefix string) (id string, found int) {
	if prefix == "latest" && len(ids) > 0 {
		return ids[len(ids)-1], 1
	}
	for _, x := range ids {
		if prefix != "" && len(x) >= len(prefix) && strings.EqualFold(x[:len(prefix)], prefix) {
			id = x
			found++
		}
	}
	return id, found
}

// checkKnown refuses to carry a run that another version of the workload has planned.
func checkKnown(info Info, w myrmidon.Workload) error {
	if info.Version == w.Version {
		return nil
	}
	return myrmidon.WithHint(errors.New("run "+info.ID+" was made by another version of this program, whose specs differ"),
		"go on with that version, or start the run anew")
}

// abandoned is how a run stands that is called cancelled while nobody carries it.
func abandoned(h Home) (Info, error) {
	info, err := h.Info()
	if err != nil {
		return info, err
	}
	if info.State.Ended() {
		return info, fmt.Errorf("run %s has ended: %s", h.RunID(), info.State)
	}
	// A run that was retried and then killed still names what its former end parked.
	info.State, info.Ended, info.Parked = myrmidon.Cancelled, time.Now().UTC(), 0
	return info, nil
}
