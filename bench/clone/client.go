package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/bench/internal/machine"
	"myrmidon/internal/testkit/program"
)

// client is a program that copies and lists.
type client struct {
	name    string // as in the table
	version string
	path    string
}

// clients are those that are measured. The peers are nil without -peers.
type clients struct{ myrmidon, s5cmd, rclone, aws *client }

// find builds ours and s5cmd, and looks for the others.
func find(ctx context.Context, dir string, peers bool) (c clients, err error) {
	ours := filepath.Join(dir, "myrmidon")
	build := exec.CommandContext(ctx, "go", "build", "-o", ours, "myrmidon/cmd/myrmidon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	if out, err := build.CombinedOutput(); err != nil {
		err = fmt.Errorf("build myrmidon: %w\n%s", err, bytes.TrimSpace(out))
		return c, myrmidon.WithHint(err, "run this inside the repository of Myrmidon")
	}
	c.myrmidon = &client{name: "myrmidon", path: ours}
	if !peers {
		return c, nil
	}
	const module = "github.com/peak/s5cmd/v2"
	path, err := program.Pinned(ctx, "s5cmd", module)
	if err != nil {
		return c, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("version of s5cmd: %w", err)
	}
	c.s5cmd = &client{name: "s5cmd", path: path, version: info.Main.Version}
	for _, d := range info.Deps {
		if d.Path == module {
			c.s5cmd.version = d.Version
		}
	}
	if c.rclone, err = installed(ctx, "rclone", "version"); err != nil {
		return c, err
	}
	c.aws, err = installed(ctx, "aws", "--version")
	return c, err
}

// versionNumber is the first one in what a program says of itself.
var versionNumber = regexp.MustCompile(`[0-9]+\.[0-9]+[^ \n]*`)

// installed finds a distribution's program: in /usr/bin, whatever else is first on PATH.
func installed(ctx context.Context, name, question string) (*client, error) {
	path := filepath.Join("/usr/bin", name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(name); err != nil {
			return nil, myrmidon.WithHint(err, "scripts/setup.sh bench-clone installs it; -peers=false does without")
		}
	}
	out, err := exec.CommandContext(ctx, path, question).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", path, question, err, bytes.TrimSpace(out))
	}
	return &client{name: name, path: path, version: versionNumber.FindString(string(out))}, nil
}

// cloneCommand is the command that copies all of a bucket: the package comment names the
// same.
func (c *client) cloneCommand(url string) []string {
	from, into := "s3://"+fromBucket, "s3://"+intoBucket
	switch c.name {
	case "s5cmd":
		return []string{"--endpoint-url", url, "--log", "error", "cp", from + "/*", into + "/"}
	case "rclone":
		return []string{
			"copy", "stub:" + fromBucket, "stub:" + intoBucket,
			"--checkers", "256", "--transfers", "256", "--fast-list", "--no-check-dest", "--use-server-modtime",
			"--s3-no-head", "--s3-no-head-object", "--s3-no-check-bucket", "--ignore-checksum", "--ignore-size",
		}
	case "aws":
		return []string{"--endpoint-url", url, "s3", "sync", from, into, "--only-show-errors"}
	}
	return []string{"clone", from, into, "-q"}
}

// uploadCommand is the command that copies a folder into a bucket.
func (c *client) uploadCommand(url, folder string) []string {
	into := "s3://" + intoBucket
	if c.name == "s5cmd" {
		return []string{"--endpoint-url", url, "--log", "error", "cp", folder + "/", into + "/"}
	}
	return []string{"clone", folder, into, "-q"}
}

// duCommand is the command that counts a bucket's objects.
func (c *client) duCommand(url string) []string {
	if c.name == "s5cmd" {
		return []string{"--endpoint-url", url, "du", "s3://" + fromBucket + "/*"}
	}
	return []string{"du", "s3://" + fromBucket, "--json"}
}

// environment is this process's without what would lead a client elsewhere, and with
// what leads it to a server. home is an empty folder for its files.
func environment(url string, server []string, home string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasPrefix(upper, "AWS_"), strings.HasPrefix(upper, "RCLONE_"), strings.HasPrefix(upper, "S3_"),
			strings.HasPrefix(upper, "MYRMIDON_"), strings.HasSuffix(upper, "_PROXY"), upper == "HOME":
		default:
			env = append(env, v)
		}
	}
	for _, v := range server {
		if v != "AWS_PROFILE=" { // awscli takes it for a profile without a name
			env = append(env, v)
		}
	}
	return append(env,
		"HOME="+home, "MYRMIDON_STATE="+filepath.Join(home, "state"),
		"RCLONE_CONFIG="+filepath.Join(home, "rclone.conf"), "RCLONE_CONFIG_STUB_TYPE=s3", "RCLONE_CONFIG_STUB_PROVIDER=Other",
		"RCLONE_CONFIG_STUB_ENV_AUTH=true", "RCLONE_CONFIG_STUB_REGION=us-east-1", "RCLONE_CONFIG_STUB_ENDPOINT="+url)
}

// figure is what one command took.
type figure struct {
	Wall time.Duration
	CPU  time.Duration // user and system, of the client
	// RSS is the most bytes that were resident. The kernel counts what a child shares with
	// its parent until it is another program (ru_maxrss in getrusage(2)), so it is not
	// less than this process's: some 20 MB.
	RSS   int64
	Asked asked
}

// requests returns how often the stub was asked for a verb.
func (f figure) requests(verb string) int64 { return f.Asked.Counts[verb].Requests }

// measure lets a client copy or count set on a new stub, and fails unless all of set has
// arrived once or was counted.
func measure(ctx context.Context, dir string, c *client, step step) (f figure, err error) {
	set, copying := step.set, step.copying
	home, err := os.MkdirTemp(dir, "home-*")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	s, err := startStub(ctx, set)
	if err != nil {
		return f, err
	}
	args := c.duCommand(s.URL)
	if copying {
		args = c.cloneCommand(s.URL)
	}
	if step.atOnce > 0 {
		args = append(args, "--concurrency", strconv.Itoa(step.atOnce))
	}
	var stdout, stderr bytes.Buffer
	cmd := c.command(ctx, home, environment(s.URL, s.Env, home), args)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	f, err = timed(cmd)
	var stubErr error
	f.Asked, stubErr = s.finish()
	if err = errors.Join(err, stubErr); err == nil && copying {
		err = f.Asked.wrong(set)
	} else if err == nil {
		err = counted(stdout.String(), set.N)
	}
	if err != nil {
		return f, fmt.Errorf("%s %s, %d objects: %w\n%s", c.name, strings.Join(args, " "), set.N, err, lastLines(stderr.String(), 10))
	}
	return f, nil
}

// command is a client's process, which a signal ends.
func (c *client) command(ctx context.Context, home string, env, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Dir, cmd.Env = home, env
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 10*time.Second
	return cmd
}

// timed runs a process and returns what it took.
func timed(cmd *exec.Cmd) (f figure, err error) {
	start := time.Now()
	err = cmd.Run()
	f.Wall = time.Since(start)
	if cmd.ProcessState != nil {
		f.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		f.RSS = machine.Peak(cmd.ProcessState)
	}
	return f, err
}

// lastLines returns the end of what a client complained of: it may be a line an object.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// countOf finds the number of objects in what du prints: ours in JSON, s5cmd's in words.
var countOf = regexp.MustCompile(`"objects":(\d+)|in (\d+) objects`)

// counted checks what du has printed against the number of objects.
func counted(out string, want int) error {
	m := countOf.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("no number of objects in %.200q", out)
	}
	if n, err := strconv.Atoi(m[1] + m[2]); err != nil || n != want {
		return fmt.Errorf("it counted %s objects", m[1]+m[2])
	}
	return nil
}
