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

// control.sock speaks HTTP: GET /stats and /parked, POST /cancel, /pause, /unpause,
// /retry and /drop. Only the user who owns the run can connect (mode 0600 in a folder of
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
func (r *Run) listen() (*controlServer, error) {
	c := &controlServer{path: r.dir.Path("control.sock"), done: make(chan struct{})}
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
	IDs []string `json:"ids,omitempty"`
}

type controlReply struct {
	N      int               `json:"n,omitempty"`
	Stats  *Stats            `json:"stats,omitempty"`
	Parked []Parked          `json:"parked,omitempty"`
	Error  *myrmidon.Failure `json:"error,omitempty"`
}

func (r *Run) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, fn func(controlRequest) (controlReply, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			var in controlRequest
			err := json.NewDecoder(io.LimitReader(req.Body, 1<<20)).Decode(&in)
			var out controlReply
			if err == nil || errors.Is(err, io.EOF) {
				out, err = fn(in)
			}
			out.Error = myrmidon.AsFailure(err)
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(out); err != nil {
				r.log.Debug("control: the client left", "err", err)
			}
		})
	}
	handle("GET /stats", func(controlRequest) (controlReply, error) {
		s := r.Stats()
		return controlReply{Stats: &s}, nil
	})
	handle("GET /parked", func(controlRequest) (controlReply, error) {
		p, err := r.Parked()
		return controlReply{Parked: p}, err
	})
	handle("POST /cancel", func(controlRequest) (controlReply, error) {
		r.Cancel()
		return controlReply{}, nil
	})
	handle("POST /pause", func(controlRequest) (controlReply, error) { return controlReply{}, r.Pause(true) })
	handle("POST /unpause", func(controlRequest) (controlReply, error) { return controlReply{}, r.Pause(false) })
	handle("POST /retry", func(in controlRequest) (controlReply, error) {
		n, err := r.Retry(in.IDs...)
		return controlReply{N: n}, err
	})
	handle("POST /drop", func(in controlRequest) (controlReply, error) {
		n, err := r.Drop(in.IDs...)
		return controlReply{N: n}, err
	})
	return mux
}

// Control speaks to the owner of a run from another process.
type Control struct{ dir *RunDir }

// ErrNoOwner says that nobody listens: the run is not under way.
var ErrNoOwner = errors.New("no process owns the run")

// Control returns the run's control. Its calls fail with ErrNoOwner where no process owns
// the run.
func (d *RunDir) Control() Control { return Control{d} }

func (c Control) call(ctx context.Context, method, path string, in controlRequest) (controlReply, error) {
	var out controlReply
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("control: %w", err)
	}
	path0, err := filepath.EvalSymlinks(c.dir.Path("control.sock"))
	if err != nil {
		return out, ErrNoOwner
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path0)
		},
	}}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://run"+path, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("control: %w", err)
	}
	res, err := client.Do(req)
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		return out, ErrNoOwner
	}
	if err != nil {
		return out, fmt.Errorf("run %s: ask its owner: %w", c.dir.ID, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("run %s: answer of its owner: %w", c.dir.ID, err)
	}
	if out.Error != nil {
		return out, out.Error
	}
	return out, nil
}

// Stats asks where the run is.
func (c Control) Stats(ctx context.Context) (Stats, error) {
	out, err := c.call(ctx, "GET", "/stats", controlRequest{})
	if err != nil {
		return Stats{}, err
	}
	if out.Stats == nil {
		return Stats{}, fmt.Errorf("run %s: its owner sent no stats", c.dir.ID)
	}
	out.Stats.Live = true
	return *out.Stats, nil
}

// Cancel ends the run for good.
func (c Control) Cancel(ctx context.Context) error {
	_, err := c.call(ctx, "POST", "/cancel", controlRequest{})
	return err
}

// Pause stops the run where it is, or lets it go on.
func (c Control) Pause(ctx context.Context, on bool) error {
	path := "/unpause"
	if on {
		path = "/pause"
	}
	_, err := c.call(ctx, "POST", path, controlRequest{})
	return err
}

// Parked lists what is parked.
func (c Control) Parked(ctx context.Context) ([]Parked, error) {
	out, err := c.call(ctx, "GET", "/parked", controlRequest{})
	return out.Parked, err
}

// Retry gives parked jobs another try; no IDs means all.
func (c Control) Retry(ctx context.Context, ids ...string) (int, error) {
	out, err := c.call(ctx, "POST", "/retry", controlRequest{IDs: ids})
	return out.N, err
}

// Drop forgets parked jobs; no IDs means all.
func (c Control) Drop(ctx context.Context, ids ...string) (int, error) {
	out, err := c.call(ctx, "POST", "/drop", controlRequest{IDs: ids})
	return out.N, err
}
