package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"myrmidon"
)

// control.sock speaks HTTP: POST / with a controlRequest, answered by a controlReply. Only the user who owns the run can connect (mode 0600 in a folder of
// mode 0700).

// maxSocketPath is below the shortest limit among systems (108 bytes on Linux, 104 on
// macOS; unix(7)).
const maxSocketPath = 100

// socketFolder begins the name of the folder that holds the socket of a run whose own
// folder has a longer path.
const socketFolder = "myrmidon-control-"

type controlServer struct {
	http *http.Server
	path string
	temp string // folder of the socket where the run's own path is too long
	done chan struct{}
}

// listen opens control.sock. A socket that a killed owner left is replaced; the lock says
// that it is nobody's.
func (d *RunDir) listen(r *Run) (closer, error) {
	c := &controlServer{path: d.Path("control.sock"), done: make(chan struct{})}
	if at, err := os.Readlink(c.path); err == nil && strings.HasPrefix(filepath.Base(filepath.Dir(at)), socketFolder) {
		if err := os.RemoveAll(filepath.Dir(at)); err != nil {
			return nil, stateError("open the control socket", err)
		}
	}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, stateError("open the control socket", err)
	}
	at := c.path
	if len(at) > maxSocketPath {
		base := os.TempDir()
		if len(base)+len(socketFolder)+30 > maxSocketPath {
			base = "/tmp"
		}
		var err error
		if c.temp, err = os.MkdirTemp(base, socketFolder); err != nil {
			return nil, stateError("open the control socket", err)
		}
		at = filepath.Join(c.temp, "control.sock")
		if err := os.Symlink(at, c.path); err != nil {
			return nil, stateError("open the control socket", err)
		}
	}
	l, err := net.Listen("unix", at)
	if err != nil {
		return nil, stateError("open the control socket", err)
	}
	if err := os.Chmod(at, 0o600); err != nil {
		l.Close()
		return nil, stateError("open the control socket", err)
	}
	c.http = &http.Server{Handler: r.controlHandler(), ReadTimeout: 10 * time.Second}
	go func() {
		defer close(c.done)
		// Serve always returns an error; after close it is the expected one.
		if err := c.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.log.Warn("the control socket closed", "err", err)
		}
	}()
	return c, nil
}

// close answers the requests under way, for a second at most.
func (c *controlServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.http.Shutdown(ctx) != nil {
		c.http.Close()
	}
	<-c.done
	os.Remove(c.path)
	if c.temp != "" {
		os.RemoveAll(c.temp)
	}
}

type controlRequest struct {
	Do    string        `json:"do,omitempty"`
	IDs   []string      `json:"ids,omitempty"`   // of parked jobs
	Kinds []string      `json:"kinds,omitempty"` // to pause; none means the whole run
	Job   *myrmidon.Job `json:"job,omitempty"`
}

type controlReply struct {
	N      int               `json:"n,omitempty"`
	Yes    bool              `json:"yes,omitempty"`
	Stats  *Stats            `json:"stats,omitempty"`
	Parked []Parked          `json:"parked,omitempty"`
	Error  *myrmidon.Failure `json:"error,omitempty"`
}

// What an owner can be asked for.
const (
	doStats   = "stats"
	doParked  = "parked"
	doCancel  = "cancel"
	doPause   = "pause"
	doUnpause = "unpause"
	doRetry   = "retry"
	doDrop    = "drop"
	doStale   = "stale" // is this job done?
)

// answer does what the owner is asked for.
func (r *Run) answer(in controlRequest) (out controlReply) {
	if r.shared() && r.sinceSaved() > LeaseTime/2 {
		// This process was stopped or cut off: it may own the run no more.
		out.Error = myrmidon.AsFailure(myrmidon.WithHint(fmt.Errorf("the owner of run %s does not know whether it still is", r.info.ID), "try again in a few seconds"))
		return out
	}
	var err error
	switch in.Do {
	case doStats:
		s := r.Stats()
		out.Stats = &s
	case doParked:
		out.Parked, err = r.Parked()
	case doCancel:
		r.Cancel()
	case doPause:
		err = r.Pause(true, in.Kinds...)
	case doUnpause:
		err = r.Pause(false, in.Kinds...)
	case doRetry:
		out.N, err = r.Retry(in.IDs...)
	case doDrop:
		out.N, err = r.Drop(in.IDs...)
	case doStale:
		out.Yes = in.Job != nil && r.stale(*in.Job)
	default:
		err = fmt.Errorf("the owner of run %s is of a version that cannot %q", r.info.ID, in.Do)
	}
	out.Error = myrmidon.AsFailure(err)
	return out
}

func (r *Run) controlHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var in controlRequest
		var out controlReply
		if err := json.NewDecoder(io.LimitReader(req.Body, 1<<20)).Decode(&in); err != nil {
			out.Error = myrmidon.AsFailure(fmt.Errorf("control: %w", err))
		} else {
			out = r.answer(in)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			r.log.Debug("control: the client left", "err", err)
		}
	})
}

// Control speaks to the owner of a run from another process. Its calls fail with
// ErrNoOwner where no process owns the run.
type Control struct {
	run string
	ask func(ctx context.Context, in controlRequest) (controlReply, error)
}

// ErrNoOwner says that nobody listens: the run is not under way.
var ErrNoOwner = errors.New("no process owns the run")

// Control implements Home.
func (d *RunDir) Control() Control { return Control{d.ID, d.ask} }

// ask calls the owner through control.sock.
func (d *RunDir) ask(ctx context.Context, in controlRequest) (controlReply, error) {
	var out controlReply
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("control: %w", err)
	}
	at, err := filepath.EvalSymlinks(d.Path("control.sock"))
	if err != nil {
		return out, ErrNoOwner
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://run/"+in.Do, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("control: %w", err)
	}
	res, err := client.Do(req)
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		return out, ErrNoOwner
	}
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("its answer: %w", err)
	}
	return out, nil
}

func (c Control) call(ctx context.Context, in controlRequest) (controlReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out, err := c.ask(ctx, in)
	if err != nil && !errors.Is(err, ErrNoOwner) {
		err = fmt.Errorf("run %s: ask its owner: %w", c.run, err)
	}
	if err == nil && out.Error != nil {
		err = out.Error
	}
	return out, err
}

// Stats asks where the run is.
func (c Control) Stats(ctx context.Context) (Stats, error) {
	out, err := c.call(ctx, controlRequest{Do: doStats})
	if err != nil {
		return Stats{}, err
	}
	if out.Stats == nil {
		return Stats{}, fmt.Errorf("run %s: its owner sent no stats", c.run)
	}
	out.Stats.Live = true
	return *out.Stats, nil
}

// Cancel ends the run for good.
func (c Control) Cancel(ctx context.Context) error {
	_, err := c.call(ctx, controlRequest{Do: doCancel})
	return err
}

// Pause stops the run, or only jobs of some kinds, where they are; or lets them go on.
func (c Control) Pause(ctx context.Context, on bool, kinds ...string) error {
	in := controlRequest{Do: doUnpause, Kinds: kinds}
	if on {
		in.Do = doPause
	}
	_, err := c.call(ctx, in)
	return err
}

// Parked lists what is parked.
func (c Control) Parked(ctx context.Context) ([]Parked, error) {
	out, err := c.call(ctx, controlRequest{Do: doParked})
	return out.Parked, err
}

// Retry gives parked jobs another try; no IDs means all.
func (c Control) Retry(ctx context.Context, ids ...string) (int, error) {
	out, err := c.call(ctx, controlRequest{Do: doRetry, IDs: ids})
	return out.N, err
}

// Drop forgets parked jobs; no IDs means all.
func (c Control) Drop(ctx context.Context, ids ...string) (int, error) {
	out, err := c.call(ctx, controlRequest{Do: doDrop, IDs: ids})
	return out.N, err
}
