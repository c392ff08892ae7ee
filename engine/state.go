package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// State is the folder that holds this machine's runs:
//
//	runs/<ULID>/run.json      what the owner last knew, replaced each second
//	            lock          held by the owner; names it
//	            control.sock  the owner listens here for cancel, pause and retry
//	            queue/        the backend, while there is something to do or to retry
//	            list/         what the command gave the run to work through, if anything
//	            items.jsonl   evidence, a line an item, written when a run ends
//	            report.json   the report
type State struct{ dir string }

// DefaultStateDir is $XDG_STATE_HOME/myrmidon, or ~/.local/state/myrmidon (XDG base
// directory specification 0.8).
func DefaultStateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "myrmidon"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("no folder for the state of runs: %w", err), "name one with --state")
	}
	return filepath.Join(home, ".local", "state", "myrmidon"), nil
}

// OpenState returns the state in dir, which need not exist yet.
func OpenState(dir string) (*State, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	return &State{abs}, nil
}

// Info is what run.json holds.
type Info struct {
	ID         string         `json:"id"`
	Workload   string         `json:"workload"`
	Version    uint32         `json:"version,omitempty"` // of the workload's specs
	Title      string         `json:"title"`             // for people: "talk.mp4 -> ./out"
	State      myrmidon.State `json:"state"`
	Paused     bool           `json:"paused,omitempty"`
	Kinds      []string       `json:"paused_kinds,omitempty"`
	Phase      string         `json:"phase,omitempty"`
	Durability string         `json:"durability"`
	Slots      int            `json:"slots"`
	Owner      Owner          `json:"owner"`
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`
	Ended      time.Time      `json:"ended,omitzero"`
	Active     time.Duration  `json:"active_ns"` // time that an owner worked on it
	Counts     Counts         `json:"items"`
	Totals     Totals         `json:"totals"`
	OwnCPU     time.Duration  `json:"own_cpu_ns"` // of owner processes, without their children
	PeakRSS    int64          `json:"peak_rss"`   // bytes; owner and children together
	Parked     int            `json:"parked,omitempty"`
	LastError  string         `json:"last_error,omitempty"`
	Hint       string         `json:"hint,omitempty"`
	// Resumed counts the owners that took the run up before its end, after another one.
	Resumed int `json:"resumed,omitempty"`
	// Blobs is the prefix of the blobs that a fleet's run was given: forgotten with it.
	Blobs string `json:"blobs,omitempty"`
	// ItemsSize and ItemsSeq say which events items.jsonl holds after an end of the run.
	ItemsSize int64           `json:"items_size,omitempty"`
	ItemsSeq  uint64          `json:"items_seq,omitempty"`
	Spec      json.RawMessage `json:"spec"`

	// Term counts the owners that a fleet's run has had. Left is set by one that gave the
	// run up on purpose: it is then not taken over, only resumed. Free is set by one that
	// must end: anybody may take the run at once.
	Term uint64 `json:"term,omitempty"`
	Left bool   `json:"left,omitempty"`
	Free bool   `json:"free,omitempty"`

	// Live says whether an owner holds the lock; it is found out when the run is read.
	Live bool `json:"-"`
}

// Owner is the process that owns or last owned a run.
type Owner struct {
	PID  int    `json:"pid"`
	Host string `json:"host"`
}

// String names the process for people.
func (o Owner) String() string { return fmt.Sprintf("process %d on %s", o.PID, o.Host) }

// thisProcess names this process to others.
func thisProcess() Owner {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	return Owner{os.Getpid(), host}
}

// Standing is the state as people see it: a run that should run but has no owner is
// interrupted.
func (i Info) Standing() string {
	switch {
	case i.State.Ended():
		return string(i.State)
	case !i.Live:
		return "interrupted"
	case i.Paused:
		return "paused"
	}
	return string(i.State)
}

// GivenDir is the folder in that of a run for what its command gave it to work through. It
// is removed with the queue.
const GivenDir = "list"

// RunDir is the folder of one run.
type RunDir struct {
	ID   string
	dir  string
	lock *os.File
}

// ErrOwned is wrapped by the error of Lock when another process owns the run.
var ErrOwned = errors.New("the run has an owner")

// ErrNoRun is wrapped where a run is not found.
var ErrNoRun = errors.New("no such run")

// Dir returns the folder.
func (s *State) Dir() string { return s.dir }

func (s *State) runs() string { return filepath.Join(s.dir, "runs") }

// Create implements Homes: it makes the folder of a new run and locks it.
func (s *State) Create(info Info) (Home, error) {
	id := ulid.Make().String()
	d := &RunDir{ID: id, dir: filepath.Join(s.runs(), id)}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, stateError("make a folder for the run", err)
	}
	if err := d.Lock(); err != nil {
		return nil, err
	}
	info.ID, info.Created, info.State = id, time.Now().UTC(), myrmidon.Planning
	if err := d.save(info); err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

func stateError(what string, err error) error {
	err = fmt.Errorf("state: %s: %w", what, err)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return myrmidon.WithHint(err, "free some disk space, or choose another folder with --state")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return myrmidon.WithHint(err, "choose a folder that you may write to with --state")
	}
	return err
}

// Find implements Homes.
func (s *State) Find(prefix string) (Home, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	switch id, found := findID(ids, prefix); found {
	case 1:
		return s.dirOf(id), nil
	case 0:
		return nil, myrmidon.WithHint(fmt.Errorf("%w: %s in %s", ErrNoRun, prefix, s.dir), "myrmidon runs lists them; --state names another folder, --nats a fleet")
	default:
		return nil, myrmidon.WithHint(fmt.Errorf("%d runs begin with %s", found, prefix), "give more of the ID")
	}
}

func (s *State) dirOf(id string) *RunDir { return &RunDir{ID: id, dir: filepath.Join(s.runs(), id)} }

// ids returns the runs' IDs, oldest first.
func (s *State) ids() ([]string, error) {
	entries, err := os.ReadDir(s.runs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateError("list runs", err)
	}
	var ids []string
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// List returns what is known of each run, oldest first. A folder that cannot be read is
// in problems, and does not hide the others. One without run.json is passed over: its run
// is being made or forgotten this moment, or its maker was killed before it began.
func (s *State) List() (infos []Info, problems []error, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		info, err := s.dirOf(id).Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		infos = append(infos, info)
	}
	return infos, problems, nil
}

// RunID implements Home.
func (d *RunDir) RunID() string { return d.ID }

// Place implements Home.
func (d *RunDir) Place() string { return d.Path("report.json") }

func (d *RunDir) saveReport(rep *Report) error {
	rep.ItemsFile = d.Path("items.jsonl")
	return d.writeJSON("report.json", rep)
}

// newItems begins a file with the first size bytes of items.jsonl.
func (d *RunDir) newItems(size int64) (itemsWriter, error) {
	path := d.Path("items.jsonl")
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, stateError("write the items of run "+d.ID, err)
	}
	out := &itemsFile{File: f, path: path}
	if err := copyHead(f, path, size); err != nil {
		out.abort()
		return nil, stateError("write the items of run "+d.ID, err)
	}
	return out, nil
}

// copyHead copies the first n bytes of the file at path to w.
func copyHead(w io.Writer, path string, n int64) error {
	if n == 0 {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, n)
	return err
}

// OpenItems implements Home.
func (d *RunDir) OpenItems() (io.ReadCloser, error) {
	f, err := os.Open(d.Path("items.jsonl"))
	if err != nil {
		return nil, stateError("read the items of run "+d.ID, err)
	}
	return f, nil
}

func (d *RunDir) free() error {
	if err := errors.Join(os.RemoveAll(d.Path("queue")), os.RemoveAll(d.Path(GivenDir))); err != nil {
		return stateError("free the run's queue", err)
	}
	return nil
}

// Path returns the path of a file in the run's folder.
func (d *RunDir) Path(name string) string { return filepath.Join(d.dir, name) }

// Info reads run.json.
func (d *RunDir) Info() (Info, error) {
	var info Info
	data, err := os.ReadFile(d.Path("run.json"))
	if err != nil {
		return info, stateError("read run "+d.ID, err)
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return info, myrmidon.WithHint(fmt.Errorf("state: %s: %w", d.Path("run.json"), err), "the file was changed by hand or by another program; delete its folder to forget the run")
	}
	if info.ID != d.ID {
		return info, myrmidon.WithHint(fmt.Errorf("state: %s is not of run %s but of %q", d.Path("run.json"), d.ID, info.ID), "the file was changed by hand or by another program; delete its folder to forget the run")
	}
	info.Live = d.lock != nil || d.owned()
	return info, nil
}

// save replaces run.json.
func (d *RunDir) save(info Info) error {
	info.Updated = time.Now().UTC()
	return d.writeJSON("run.json", info)
}

func (d *RunDir) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %s of run %s: %w", name, d.ID, err)
	}
	tmp := d.Path(name + ".tmp")
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return stateError("write "+name+" of run "+d.ID, err)
	}
	if err := os.Rename(tmp, d.Path(name)); err != nil {
		return stateError("write "+name+" of run "+d.ID, err)
	}
	return nil
}

// Lock makes this process the run's owner until Unlock or its end. The error wraps
// ErrOwned and names the owner if there is one. The lock cannot outlive its process.
func (d *RunDir) Lock() error {
	f, err := os.OpenFile(d.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return stateError("lock run "+d.ID, err)
	}
	// Somebody who lists runs shares it for some microseconds (see owned).
	if err := filelock.TakeFromLookers(f); err != nil {
		f.Close()
		if !errors.Is(err, filelock.ErrHeld) {
			return stateError("lock run "+d.ID, err)
		}
		return myrmidon.WithHint(fmt.Errorf("run %s: %w: %s", d.ID, ErrOwned, d.owner()),
			"watch it with myrmidon runs show, or end it with myrmidon runs cancel")
	}
	line, err := json.Marshal(thisProcess())
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(line, 0)
		}
	}
	if err != nil {
		f.Close()
		return stateError("lock run "+d.ID, err)
	}
	d.lock = f
	return nil
}

// Unlock gives the run up.
func (d *RunDir) Unlock() error {
	if d.lock == nil {
		return nil
	}
	f := d.lock
	d.lock = nil
	return filelock.Close(f)
}

// owned reports whether some process holds the lock.
func (d *RunDir) owned() bool {
	f, err := os.Open(d.Path("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	// A shared lock for a moment: readers do not disturb one another.
	return errors.Is(filelock.Share(f), filelock.ErrHeld)
}

// owner reads who wrote the lock file.
func (d *RunDir) owner() Owner {
	o := Owner{Host: "an unknown machine"}
	data, err := os.ReadFile(d.Path("lock"))
	if err == nil {
		// A lock taken this moment may not have its line yet; the zero Owner says so.
		_ = json.Unmarshal(data, &o)
	}
	return o
}

// Abandon calls a run without an owner cancelled and frees its queue. The caller holds
// the lock.
func (d *RunDir) Abandon() error {
	info, err := abandoned(d)
	if err != nil {
		return err
	}
	if err := d.save(info); err != nil {
		return err
	}
	return d.free()
}

// Report reads the report of a run that has ended.
func (d *RunDir) Report() (*Report, error) {
	data, err := os.ReadFile(d.Path("report.json"))
	if err != nil {
		return nil, stateError("read the report of run "+d.ID, err)
	}
	r := new(Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("state: %s: %w", d.Path("report.json"), err)
	}
	return r, nil
}

// Remove forgets the run and releases its lock.
func (d *RunDir) Remove() error {
	err := os.RemoveAll(d.dir)
	return errors.Join(err, d.Unlock())
}

// itemsFile is items.jsonl while it is written.
type itemsFile struct {
	*os.File
	path string
	done bool
}

func (f *itemsFile) finish() (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return 0, stateError("write "+f.path, err)
	}
	f.done = true
	return size, nil
}

func (f *itemsFile) abort() {
	if !f.done {
		f.Close()
		os.Remove(f.Name())
	}
}
