package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/role"
	"myrmidon/haproxy"
)

// A daemonResult is one round of a daemon.
type daemonResult struct {
	Version              string
	Rows, Columns, Bytes int     // of one dump
	Parse, Merge         float64 // microseconds of processor time a row
	Split                float64 // by encoding/csv, without numbers or names
	ParseAllocs          float64 // a dump
	MergeAllocs          float64 // a merge
	Poll, ReadOnly       float64 // milliseconds of processor time a poll
	PollAllocs           float64
	ReadOnlyAllocs       float64
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mallocs() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Mallocs)
}

// measure calls f n times and returns how much processor time one call took, and how
// often it allocated.
func measure(n int, f func() error) (took time.Duration, allocs float64, err error) {
	before, at := mallocs(), cpu()
	for range n {
		if err := f(); err != nil {
			return 0, 0, err
		}
	}
	took = (cpu() - at) / time.Duration(n)
	return took, (mallocs() - before) / float64(n), nil
}

func daemon(ctx context.Context, sockets []string) (r daemonResult, err error) {
	if err := r.parts(ctx, sockets); err != nil {
		return r, err
	}
	var cfg haproxy.Config
	for _, path := range sockets {
		cfg.Targets = append(cfg.Targets, haproxy.Target{Address: path})
	}
	c, err := haproxy.New(cfg)
	if err != nil {
		return r, err
	}
	defer c.Close()
	reader := readOnly{sockets: sockets, buffers: make([][]byte, len(sockets))}
	ours := func() error {
		if err := c.Poll(ctx); err != nil {
			return err
		}
		failed := 0
		c.Use(func(s *haproxy.Snapshot) { failed = s.Failed() })
		if failed > 0 {
			return fmt.Errorf("%d targets failed", failed)
		}
		return nil
	}
	const blocks, each = 5, 20
	for b := range blocks + 1 {
		took, allocs, err := measure(each, ours)
		if err != nil {
			return r, err
		}
		base, baseAllocs, err := measure(each, reader.poll)
		if err != nil {
			return r, err
		}
		if b == 0 {
			continue // buffers have grown, and learned what there is to learn
		}
		r.Poll += float64(took) / 1e6 / blocks
		r.ReadOnly += float64(base) / 1e6 / blocks
		r.PollAllocs += allocs / blocks
		r.ReadOnlyAllocs += baseAllocs / blocks
	}
	return r, nil
}

// parts measures parsing and merging of dumps in memory.
func (r *daemonResult) parts(ctx context.Context, sockets []string) error {
	var tables []*haproxy.Table
	var dumps [][]byte
	rows := 0
	for _, path := range sockets {
		replies, err := haproxy.Read(ctx, haproxy.Target{Address: path})
		if err != nil {
			return err
		}
		t := new(haproxy.Table)
		if len(tables) > 0 {
			t = tables[0].Clone() // which shares what was learned of the header, as a Collector does
		}
		if err := t.ParseCSV(replies[0].CSV); err != nil {
			return err
		}
		r.Version = replies[0].Process.Version
		dumps, tables = append(dumps, replies[0].CSV), append(tables, t)
		rows += t.Len()
	}
	r.Rows, r.Columns, r.Bytes = tables[0].Len(), len(tables[0].Columns()), len(dumps[0])
	var m haproxy.Merger
	var out haproxy.Table
	merge := func() error {
		m.Reset(&out)
		for _, t := range tables {
			if err := m.Add(t); err != nil {
				return err
			}
		}
		m.Table()
		return nil
	}
	scratch := tables[0].Clone()
	parse := func() error {
		for _, d := range dumps {
			if err := scratch.ParseCSV(d); err != nil {
				return err
			}
		}
		return nil
	}
	split := func() error {
		for _, d := range dumps {
			in := csv.NewReader(bytes.NewReader(d))
			in.ReuseRecord = true
			for {
				if _, err := in.Read(); err == io.EOF {
					break
				} else if err != nil {
					return err
				}
			}
		}
		return nil
	}
	var unused float64
	for _, step := range []struct {
		f      func() error
		times  int
		took   *float64
		allocs *float64
	}{{parse, 200, &r.Parse, &r.ParseAllocs}, {split, 20, &r.Split, &unused}, {merge, 200, &r.Merge, &r.MergeAllocs}} {
		if err := errors.Join(step.f(), step.f()); err != nil {
			return err
		}
		took, allocs, err := measure(step.times, step.f)
		if err != nil {
			return err
		}
		*step.took, *step.allocs = float64(took)/1e3/float64(rows), allocs
	}
	r.ParseAllocs /= float64(len(dumps))
	return nil
}

// readOnly polls sockets and does nothing with what they say.
type readOnly struct {
	sockets []string
	buffers [][]byte
}

func (r *readOnly) poll() error {
	errs := make([]error, len(r.sockets))
	var wg sync.WaitGroup
	for i, path := range r.sockets {
		wg.Go(func() { r.buffers[i], errs[i] = readInto(path, r.buffers[i][:0]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func readInto(path string, buf []byte) ([]byte, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return buf, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show info;show stat\n"); err != nil {
		return buf, err
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, max(1<<20, 2*cap(buf))), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// A manyResult is one round of many sockets: processor milliseconds of a poll of 16 and
// of 64, and the megabytes of the process that polled 64.
type manyResult struct{ Few, Many, RSS float64 }

const few, lots = 16, 64

// measureMany replays one real dump on 64 sockets and polls them from another process.
func measureMany(ctx context.Context, dir, socket string, out *manyResult) (err error) {
	dump, err := readInto(socket, nil)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "dump")
	if err := os.WriteFile(file, dump, 0o600); err != nil {
		return err
	}
	args := []string{file}
	var sockets []string
	for i := range lots {
		sockets = append(sockets, filepath.Join(dir, strconv.Itoa(i)+".sock"))
	}
	cmd, err := role.Command(ctx, "replay", append(args, sockets...)...)
	if err != nil {
		return err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // killed: there is nothing to learn from how it ended
		for _, s := range sockets {
			os.Remove(s)
		}
	}()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	var a, b manyResult
	if err := role.Ask(ctx, &a, "many", sockets[:few]...); err != nil {
		return err
	}
	if err := role.Ask(ctx, &b, "many", sockets...); err != nil {
		return err
	}
	*out = manyResult{a.Many, b.Many, b.RSS}
	return nil
}

// replay answers on sockets with the content of a file, whatever it is asked.
func replay(ctx context.Context, file string, sockets []string) error {
	dump, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, path := range sockets {
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					if _, err := conn.Read(make([]byte, 4096)); err == nil {
						conn.Write(dump) // who does not read it complains
					}
				}()
			}
		}()
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

// many polls sockets thirty times.
func many(ctx context.Context, sockets []string) (manyResult, error) {
	var cfg haproxy.Config
	for _, path := range sockets {
		cfg.Targets = append(cfg.Targets, haproxy.Target{Address: path})
	}
	cfg.Timeout = 10 * time.Second // it is not speed that the deadline is about here
	c, err := haproxy.New(cfg)
	if err != nil {
		return manyResult{}, err
	}
	defer c.Close()
	poll := func() error { return c.Poll(ctx) }
	if err := errors.Join(poll(), poll(), poll()); err != nil {
		return manyResult{}, err
	}
	took, _, err := measure(30, poll)
	if err != nil {
		return manyResult{}, err
	}
	failed := 0
	c.Use(func(s *haproxy.Snapshot) { failed = s.Failed() })
	if failed > 0 {
		return manyResult{}, fmt.Errorf("%d of %d sockets failed", failed, len(sockets))
	}
	return manyResult{Many: float64(took) / 1e6, RSS: float64(machine.OwnPeak()) / 1e6}, nil
}
