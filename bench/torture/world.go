package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/netfault"
)

// cable is a victim's connection to all others.
type cable interface {
	Cut() error
	Heal() error
}

// proxies are a victim's cable where there are no namespaces: one for each address that
// it is told.
type proxies []*netfault.Proxy

func (p proxies) Cut() error {
	for _, x := range p {
		x.Cut()
	}
	return nil
}

func (p proxies) Heal() error {
	for _, x := range p {
		x.Heal()
	}
	return nil
}

// world is what a run lives in: a broker of one or three servers, workers and an owner,
// each in a network namespace of its own, and the server of its effects, which no fault
// strikes.
//
//	n1 (n2 n3)   w1 w2 w3   owner     namespaces, each with a cable that is cut
//	     └───────────┴────────┴────── bridge ── this process: effects, faults, verdict
type world struct {
	dir     string // of logs and the broker's store
	network *netfault.Net
	proxies proxies // all of them, where there is no network
	brokers []*natsserver.Server
	cluster *natsserver.Cluster // nil for one server
	effects *effects
	procs   map[string]*process
	cables  map[string]cable
}

// setting says what a world is made of.
type setting struct {
	spec       spec
	brokers    int // 1 or 3
	workers    int
	slots      int // of a worker
	namespaces bool
}

// victims are the names of all that can be struck.
func (s setting) victims() (out []string) {
	for i := range s.brokers {
		out = append(out, "n"+strconv.Itoa(i+1))
	}
	for i := range s.workers {
		out = append(out, "w"+strconv.Itoa(i+1))
	}
	return append(out, ownerName)
}

// newWorld builds a world and starts its broker and effects; start starts the rest.
func newWorld(ctx context.Context, dir string, s setting) (_ *world, err error) {
	w := &world{dir: dir, procs: make(map[string]*process), cables: make(map[string]cable)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	options := natsserver.Options{Dir: filepath.Join(dir, "broker"), NoAdvertise: !s.namespaces}
	host := "127.0.0.1"
	id := 0
	join := func() (*netfault.NS, error) {
		id++
		return w.network.Join(id)
	}
	if s.namespaces {
		if w.network, err = netfault.NewNet("torture"); err != nil {
			return nil, err
		}
		host = w.network.Addr().String()
		for i := range s.brokers {
			ns, err := join()
			if err != nil {
				return nil, err
			}
			options.Namespaces = append(options.Namespaces, ns)
			w.cables["n"+strconv.Itoa(i+1)] = ns
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("torture: serve effects: %w", err)
	}
	w.effects = serveEffects(l)
	if err := w.launch(ctx, s.brokers, options); err != nil {
		return nil, err
	}
	roles := []role{{Name: ownerName, Spec: s.spec}}
	for i := range s.workers {
		roles = append(roles, role{Name: "w" + strconv.Itoa(i+1), Slots: s.slots})
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, r := range roles {
		var ns *netfault.NS
		if s.namespaces {
			if ns, err = join(); err != nil {
				return nil, err
			}
		}
		if err := w.cast(program, r, ns); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// launch starts the broker.
func (w *world) launch(ctx context.Context, n int, o natsserver.Options) (err error) {
	if n == 1 {
		var one *natsserver.Server
		if one, err = natsserver.Launch(ctx, o); err == nil {
			w.brokers = []*natsserver.Server{one}
		}
		return err
	}
	if w.cluster, err = natsserver.LaunchCluster(ctx, n, o); err == nil {
		w.brokers = w.cluster.Nodes
	}
	return err
}

// cast prepares the process of a role. Without a namespace it reaches the others through
// proxies of its own.
func (w *world) cast(program string, r role, ns *netfault.NS) error {
	addrs := []string{w.effects.listen.Addr().String()}
	for _, b := range w.brokers {
		addrs = append(addrs, b.Addr())
	}
	if ns != nil {
		w.cables[r.Name] = ns
	} else {
		var own proxies
		for i, a := range addrs {
			p, err := netfault.NewProxy(a)
			if err != nil {
				return err
			}
			w.proxies = append(w.proxies, p)
			own = append(own, p)
			addrs[i] = p.Addr()
		}
		w.cables[r.Name] = own
	}
	r.Effects, r.Broker = addrs[0], "nats://"+strings.Join(addrs[1:], ",nats://")
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	w.procs[r.Name] = &process{
		name: r.Name, log: filepath.Join(w.dir, r.Name+".log"),
		command: func() *exec.Cmd {
			cmd := exec.Command(program)
			if ns != nil {
				cmd = ns.Command(program)
			}
			cmd.Env = append(os.Environ(), roleKey+"="+string(text), "GOTRACEBACK=all")
			return cmd
		},
	}
	return nil
}

// url is where this process, which no fault strikes, reaches the broker.
func (w *world) url() string {
	if w.cluster != nil {
		return w.cluster.URL()
	}
	return w.brokers[0].URL()
}

func (w *world) start() error {
	for _, p := range w.procs {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// broker returns the server of that name; nil if it is none's.
func (w *world) broker(name string) *natsserver.Server {
	for _, b := range w.brokers {
		if b.Name() == name {
			return b
		}
	}
	return nil
}

// begin strikes; false if the victim was dead already.
func (w *world) begin(s strike) (bool, error) {
	if s.kind == cut {
		return true, w.cables[s.victim].Cut()
	}
	if b := w.broker(s.victim); b != nil {
		if s.kind == kill {
			return true, b.Kill()
		}
		return true, b.Pause()
	}
	if s.kind == kill {
		return w.procs[s.victim].kill()
	}
	return w.procs[s.victim].pause()
}

// finish takes a strike back.
func (w *world) finish(s strike) error {
	if s.kind == cut {
		return w.cables[s.victim].Heal()
	}
	if b := w.broker(s.victim); b != nil {
		if s.kind == kill {
			return b.Restart()
		}
		return b.Continue()
	}
	if s.kind == kill {
		return w.procs[s.victim].start()
	}
	return w.procs[s.victim].resume()
}

// unexpected says which processes have ended though nobody killed them, or otherwise than
// they should. drained: they were asked to.
func (w *world) unexpected(drained bool) (out []string) {
	for name, p := range w.procs {
		for _, err := range p.ended() {
			exit, _ := errors.AsType[*exec.ExitError](err)
			switch {
			case name == ownerName && exit != nil && exit.ExitCode() == exitTaken:
				// The run has another owner.
			case err == nil && (name == ownerName || drained):
			case drained && exit != nil && endedBy(exit, syscall.SIGTERM):
				// It was asked before it could listen.
			case err == nil:
				out = append(out, name+" ended by itself")
			default:
				out = append(out, fmt.Sprintf("%s ended by itself: %v", name, err))
			}
		}
	}
	return out
}

// endedBy says whether a signal has ended a process.
func endedBy(exit *exec.ExitError, sig syscall.Signal) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

// dump makes all that runs say where it is, in its log, and end.
func (w *world) dump() error {
	var errs []error
	for _, p := range w.procs {
		_, err := p.signal(syscall.SIGQUIT, true)
		errs = append(errs, err)
	}
	for _, b := range w.brokers {
		errs = append(errs, os.WriteFile(filepath.Join(w.dir, b.Name()+".log"), []byte(b.Output()), 0o644))
	}
	time.Sleep(time.Second)
	return errors.Join(errs...)
}

// drain asks workers and owner to end, and says which do not.
func (w *world) drain(within time.Duration) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range w.procs {
		all.Go(func() {
			if err := p.drain(within); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// close ends all that is left.
func (w *world) close() error {
	var errs []error
	for _, p := range w.procs {
		_, err := p.kill()
		errs = append(errs, err)
	}
	switch {
	case w.cluster != nil:
		errs = append(errs, w.cluster.Close())
	case len(w.brokers) > 0:
		errs = append(errs, w.brokers[0].Close())
	}
	for _, p := range w.proxies {
		errs = append(errs, p.Close())
	}
	if w.effects != nil {
		errs = append(errs, w.effects.close())
	}
	if w.network != nil {
		errs = append(errs, w.network.Close())
	}
	return errors.Join(errs...)
}
