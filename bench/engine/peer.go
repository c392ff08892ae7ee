package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"myrmidon"
)

const (
	bootTime = 2 * time.Minute  // until a node takes connections; 6 to 20 s were seen
	stopTime = 20 * time.Second // until one that was told to stop is killed
)

// warming is the number of messages of the first load, a second's worth.
const warming = 20_000

// Figure is what one round of one queue reached.
type Figure struct {
	Enqueue float64       // jobs a second, until the queue has said that they are safe
	Consume float64       // jobs a second, pulled and acknowledged one by one
	P50     time.Duration // from enqueueing one job to its handler, queue idle

	// Single is Enqueue, one job at a time from many goroutines; 0 where it is the same.
	Single float64

	// ConsumeMultiple is Consume with one acknowledgement for many jobs; 0 where there
	// is no such thing.
	ConsumeMultiple float64
}

// rabbit is a RabbitMQ node of our own, and the program that loads it. It listens on
// 127.0.0.1 alone, on ports that were free, and has its files below one folder; it
// shares nothing with a RabbitMQ that the machine runs.
type rabbit struct {
	Version string
	url     string
	load    string // program
	epmd    *child // Erlang's name server, without which a node does not start
	node    *child
}

// startRabbit starts a node whose files are below dir, an empty folder, and builds the
// program that loads it. The node has RabbitMQ's own defaults but for where it listens
// and writes, and no plugin. One load that does not count has made it ready: Erlang
// loads code when it is first called. It ends with stop, and dies with this process.
func startRabbit(ctx context.Context, dir string) (*rabbit, error) {
	server, err := findServer()
	if err != nil {
		return nil, err
	}
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return nil, myrmidon.WithHint(fmt.Errorf("find Erlang's epmd: %w", err), installRabbit)
	}
	load, err := buildLoad(ctx, dir)
	if err != nil {
		return nil, err
	}
	r, err := startNode(ctx, dir, server, epmd, load)
	if err != nil {
		return nil, err
	}
	if _, err := r.round(ctx, warming); err != nil {
		return nil, errors.Join(fmt.Errorf("warm up: %w", err), r.stop())
	}
	return r, nil
}

const installRabbit = "scripts/setup.sh bench-engine installs it"

// findServer returns RabbitMQ's own start script. Debian's rabbitmq-server on PATH is
// another one, which changes user and folder, and so comes last.
func findServer() (string, error) {
	found, err := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return slices.Max(found), nil
	}
	path, err := exec.LookPath("rabbitmq-server")
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("find RabbitMQ: %w", err), installRabbit)
	}
	return path, nil
}

// buildLoad builds bench/engine/rabbit, a module of its own, into dir.
func buildLoad(ctx context.Context, dir string) (program string, err error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("find the module: %w", err), "run it in the repository: make bench-engine")
	}
	if program, err = filepath.Abs(filepath.Join(dir, "load")); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, ".")
	build.Dir = filepath.Join(strings.TrimSpace(string(root)), "bench", "engine", "rabbit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", build.Dir, err, bytes.TrimSpace(said))
	}
	return program, nil
}

// startNode starts epmd and a node by their programs, and waits until the node speaks
// AMQP.
func startNode(ctx context.Context, dir, server, epmd, load string) (_ *rabbit, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return r <= ' ' }) {
		return nil, fmt.Errorf("start RabbitMQ below %q: its start script takes no folder with spaces", dir)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	amqp, dist, names := ports[0], ports[1], ports[2]
	if err := writeConfig(dir, amqp); err != nil {
		return nil, fmt.Errorf("configure RabbitMQ in %s: %w", dir, err)
	}
	env := nodeEnv(dir, dist, names)
	r := &rabbit{
		Version: strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(server))), "rabbitmq_server-"),
		url:     fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", amqp),
		load:    load,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	// A node would start epmd as a daemon that outlives it, unless one answers.
	if r.epmd, err = startChild(dir, env, epmd, "-address", "127.0.0.1", "-port", strconv.Itoa(names)); err != nil {
		return nil, fmt.Errorf("start epmd: %w", err)
	}
	if err = r.epmd.await(ctx, func() bool { return listens(names) }); err != nil {
		return nil, fmt.Errorf("start epmd: %w", err)
	}
	if r.node, err = startChild(dir, env, server); err != nil {
		return nil, fmt.Errorf("start RabbitMQ: %w", err)
	}
	if err = r.node.await(ctx, func() bool { return speaksAMQP(amqp) }); err != nil {
		return nil, fmt.Errorf("start RabbitMQ: %w", err)
	}
	return r, nil
}

// freePorts returns n ports of 127.0.0.1 that nothing listens on, all different.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // nothing was sent: there is nothing to lose
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// writeConfig writes what a node reads at its start: where it listens, no plugin, and a
// secret of its own, which any program would need that speaks to it as a node.
func writeConfig(dir string, amqp int) error {
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"rabbitmq.conf", fmt.Sprintf("listeners.tcp.local = 127.0.0.1:%d\nlog.file.level = warning\n", amqp), 0o600},
		{"enabled_plugins", "[].\n", 0o600},
		{"rabbitmq-env.conf", "", 0o600}, // else the system's is read
		{".erlang.cookie", rand.Text(), 0o400},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	return nil
}

// nodeEnv is all of a node's environment: nothing that is set for the machine's own
// RabbitMQ reaches it. The names are those of rabbitmq-env.conf(5) and erl(1).
func nodeEnv(dir string, dist, names int) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir, // for .erlang.cookie
		"LANG=C.UTF-8",
		"ERL_EPMD_PORT=" + strconv.Itoa(names),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_SECONDS=0", // no dump of gigabytes
		"RABBITMQ_NODENAME=bench-" + strconv.Itoa(dist) + "@localhost",
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(dist),
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(dir, "rabbitmq-env.conf"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(dir, "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "data"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"),
		// With "input allowed" the script becomes the node, where it would else stay as
		// its parent: then what we stop, and what dies with us, is the node.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}",
	}
}

// listens reports whether something takes connections on a port of 127.0.0.1.
func listens(port int) bool {
	c, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	c.Close() // nothing was sent
	return true
}

// speaksAMQP reports whether what listens on a port answers AMQP 0-9-1's protocol
// header with a method frame, Connection.Start (section 2.2.4 of the specification).
func speaksAMQP(port int) bool {
	c, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	defer c.Close() // the handshake is not gone on with
	first := make([]byte, 1)
	return c.SetDeadline(time.Now().Add(5*time.Second)) == nil &&
		errors.Join(second(c.Write([]byte("AMQP\x00\x00\x09\x01"))), second(c.Read(first))) == nil &&
		first[0] == 1
}

func second(_ int, err error) error { return err }

// round loads the node once with n messages, in queues of the round's own.
func (r *rabbit) round(ctx context.Context, n int) (Figure, error) {
	if r.node.exited() {
		return Figure{}, fmt.Errorf("load RabbitMQ: the node has ended: %w", r.node.failure())
	}
	// A thousand messages a second would be a broken machine, not a figure.
	limit := time.Minute + time.Duration(n)*time.Millisecond
	cmd := exec.CommandContext(ctx, r.load, "-url", r.url, "-n", strconv.Itoa(n), "-timeout", limit.String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, ownGroup()
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return Figure{}, fmt.Errorf("load RabbitMQ: %w", context.Cause(ctx))
	}
	if err != nil {
		return Figure{}, fmt.Errorf("load RabbitMQ with %d messages: %w\n%s", n, err, bytes.TrimSpace(stderr.Bytes()))
	}
	f, err := parseReport(stdout.Bytes())
	if err != nil {
		return Figure{}, fmt.Errorf("read what loading RabbitMQ gave, %q: %w", stdout.String(), err)
	}
	return f, nil
}

// parseReport reads the line that bench/engine/rabbit prints.
func parseReport(line []byte) (Figure, error) {
	var report struct {
		Enqueue         float64       `json:"enqueue"`
		Consume         float64       `json:"consume"`
		ConsumeMultiple float64       `json:"consume_multiple"`
		P50             time.Duration `json:"p50_ns"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&report); err != nil {
		return Figure{}, err
	}
	f := Figure{Enqueue: report.Enqueue, Consume: report.Consume, P50: report.P50, ConsumeMultiple: report.ConsumeMultiple}
	if !(f.Enqueue > 0 && f.Consume > 0 && f.ConsumeMultiple > 0 && f.P50 > 0) {
		return Figure{}, errors.New("a figure is missing")
	}
	return f, nil
}

// stop ends the node, then epmd. A node that does not end in time is killed, which is
// an error. stop may be called more than once; only the first does anything.
func (r *rabbit) stop() error {
	err := errors.Join(r.node.stop(), r.epmd.stop())
	r.node, r.epmd = nil, nil
	return err
}

// child is a process of ours with a group of its own, which dies with us.
type child struct {
	cmd   *exec.Cmd
	said  string        // file that holds its output
	grace time.Duration // from SIGTERM to SIGKILL
	ended chan struct{} // closed when it was waited for
}

// startChild starts a program with nothing but env around it. What it says goes to a
// file in dir.
func startChild(dir string, env []string, program string, args ...string) (*child, error) {
	c := &child{said: filepath.Join(dir, filepath.Base(program)+".out"), grace: stopTime, ended: make(chan struct{})}
	out, err := os.Create(c.said)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	c.cmd = exec.Command(program, args...)
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr, c.cmd.SysProcAttr = dir, env, out, out, ownGroup()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		c.cmd.Wait() // failure says how it ended
	}()
	return c, nil
}

// exited reports whether the process is gone; a nil child is.
func (c *child) exited() bool {
	if c == nil {
		return true
	}
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// failure is how the process ended and the last of what it said.
func (c *child) failure() error {
	if c == nil {
		return errors.New("it was stopped")
	}
	said, err := os.ReadFile(c.said)
	if err != nil {
		return err
	}
	said = bytes.TrimSpace(said[max(0, len(said)-2000):])
	return fmt.Errorf("%s: %v\n%s", c.cmd.Path, c.cmd.ProcessState, said)
}

// await looks at ready until it is true, the process has ended, ctx has, or bootTime is
// over.
func (c *child) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("%s takes no connection after %v", c.cmd.Path, bootTime))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-c.ended:
			return c.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// stop ends the process: by SIGTERM, after its grace by SIGKILL. What is left of its
// group is killed with it.
func (c *child) stop() error {
	if c.exited() {
		return nil
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.cmd.Path, err)
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(c.grace):
	}
	err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
	return errors.Join(fmt.Errorf("stop %s: killed, since it had not ended after %v", c.cmd.Path, c.grace), err)
}
