package ffmpeg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"myrmidon"
)

const (
	maxDamage  = 20  // complaints kept
	maxLog     = 40  // lines of standard error kept
	maxLogLine = 400 // bytes of a line kept
)

// stderrLog takes a process's standard error apart, line by line, in bounded memory.
// It is written by one goroutine and read after that has ended.
type stderrLog struct {
	line    []byte // begun and not ended
	skip    bool   // the line is overlong: drop the rest of it
	ring    [maxLog]string
	lines   int
	damage  []string
	damaged int

	url, name string // what stands for what in all lines, if url is not ""

	first    string // the first line of an error that is neither damage nor an echo
	last     string
	noSpace  string // the line that says so, for each cause that can be told
	denied   string
	missing  string
	noMemory string
	notMedia string
}

func (l *stderrLog) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part, rest, ended := bytes.Cut(b, []byte("\n"))
		b = rest
		if !l.skip {
			l.line = append(l.line, part[:min(len(part), maxLogLine-len(l.line))]...)
			l.skip = len(l.line) == maxLogLine
		}
		if ended {
			l.end()
		}
	}
	return n, nil
}

// close ends a last line that had no newline.
func (l *stderrLog) close() {
	if len(l.line) > 0 {
		l.end()
	}
}

func (l *stderrLog) end() {
	line := strings.ToValidUTF8(string(bytes.TrimSpace(l.line)), "\ufffd")
	l.line, l.skip = l.line[:0], false
	if l.url != "" {
		line = strings.ReplaceAll(line, l.url, l.name)
	}
	if line != "" {
		l.note(line)
	}
}

// prefix is what -loglevel level puts before a message: the component with its
// address, which differs from run to run, and the level.
var prefix = regexp.MustCompile(`^(\[[^\]]* @ 0x[0-9a-f]+\] )*\[(panic|fatal|error|warning|info|verbose)\] `)

// complaints are parts of messages by which demuxers and decoders say that the
// content is not whole. Lines on missing references are not among them: a decoder that
// starts at an open group of pictures prints those about frames nobody asked for.
var complaints = []string{
	"Error while decoding stream", // ffmpeg 5, 6
	"Error submitting packet to decoder",
	"Error submitting a packet to the decoder",
	"Decoding error:",
	"corrupt decoded frame",
	"corrupt input packet",
	"Packet corrupt",
	"partial file",
	"Invalid NAL",
	"error while decoding MB",
	"decode_slice_header error",
	"concealing",
	"missing picture in access unit",
	"no frame!",
	"non-existing PPS",
	"non-existing SPS",
	"Truncating packet",
	"truncated",
	"File ended prematurely",
	"moov atom not found",
	"Invalid data found",
	"invalid as first byte of an EBML number",
	"ac-tex damaged",
	"Header missing",
	"channel element",
	"Reserved bit set",
	"Number of bands",
	"Error decoding",
}

// echoes are lines that follow another that tells the cause.
var echoes = []string{
	"Conversion failed!",
	"Error opening input file",
	"Error opening output file",
	"Error initializing output stream",
	"Failed to configure output pad",
	"Error initializing complex filters",
	"Terminating thread with return code",
	"Task finished with error code",
}

// note files one line.
func (l *stderrLog) note(line string) {
	message := line
	serious := true // what has no level was printed by the linker, or a script
	if m := prefix.FindStringSubmatch(line); m != nil {
		message = line[len(m[0]):]
		serious = m[2] == "panic" || m[2] == "fatal" || m[2] == "error"
	}
	l.ring[l.lines%maxLog] = message
	l.lines++
	l.last = message
	switch {
	case strings.Contains(message, syscall.ENOSPC.Error()), strings.Contains(message, "No space left on device"):
		keep(&l.noSpace, message)
	case strings.Contains(message, "Permission denied"):
		keep(&l.denied, message)
	case strings.Contains(message, "No such file or directory"):
		keep(&l.missing, message)
	case strings.Contains(message, "Cannot allocate memory"), strings.Contains(message, "malloc of size"):
		keep(&l.noMemory, message)
	}
	if contains(message, complaints) {
		l.damaged++
		if len(l.damage) < maxDamage {
			l.damage = append(l.damage, message)
		}
		if strings.Contains(message, "moov atom not found") ||
			strings.HasSuffix(message, "Invalid data found when processing input") {
			keep(&l.notMedia, message)
		}
		return
	}
	if serious && !contains(message, echoes) {
		keep(&l.first, message)
	}
}

func keep(s *string, message string) {
	if *s == "" {
		*s = message
	}
}

func contains(message string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(message, part) {
			return true
		}
	}
	return false
}

// tail returns the last lines, oldest first.
func (l *stderrLog) tail() []string {
	n := min(l.lines, maxLog)
	out := make([]string, 0, n)
	for i := l.lines - n; i < l.lines; i++ {
		out = append(out, l.ring[i%maxLog])
	}
	return out
}

// reason is the line that says most: an error, else damage, else the last line.
func (l *stderrLog) reason() string {
	switch {
	case l.first != "":
		return l.first
	case len(l.damage) > 0:
		return l.damage[0]
	}
	return l.last
}

// lastWords is reason as the end of a sentence.
func (l *stderrLog) lastWords() string {
	if r := l.reason(); r != "" {
		return "; it last said: " + r
	}
	return ""
}

// verdict turns the end of a process that nobody here killed into an error, or nil.
func (p *process) verdict(limits Limits, out Outcome, waitErr error) error {
	l := p.log
	// Checked first, whatever the status: a full disk has been seen with status 0.
	if l.noSpace != "" {
		return myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("%s: %s: %w", p.name, strings.TrimSuffix(l.noSpace, ": No space left on device"), syscall.ENOSPC),
			"free space on the disk that holds the temporary folder, or point TMPDIR to a larger one"))
	}
	if waitErr == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(waitErr, &exit) {
		return fmt.Errorf("%s: %w", p.name, waitErr)
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return p.killed(status.Signal(), limits, out)
	}
	switch {
	case l.noMemory != "" && limits.Memory > 0:
		return p.overMemory(limits)
	case l.denied != "":
		return myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("%s: %s: %w", p.name, strings.TrimSuffix(l.denied, ": Permission denied"), fs.ErrPermission),
			"give this user the right to read the input and to write the temporary folder"))
	case l.missing != "":
		return myrmidon.Permanent(fmt.Errorf("%s: %s: %w", p.name,
			strings.TrimSuffix(l.missing, ": No such file or directory"), fs.ErrNotExist))
	case l.notMedia != "":
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: %s", p.name, l.reason()), hintBroken))
	}
	return &statusError{p.name, exit.ExitCode(), l.reason()}
}

// statusError is a program that ended by itself, with a status other than 0.
type statusError struct {
	program string
	status  int
	reason  string // its own words; "" if it had none
}

func (e *statusError) Error() string {
	if e.reason == "" {
		return fmt.Sprintf("%s ended with exit status %d and said nothing", e.program, e.status)
	}
	return fmt.Sprintf("%s: %s (exit status %d)", e.program, e.reason, e.status)
}

const hintBroken = "the file is damaged or not complete: export or fetch it again"

// cpuAhead is by how much the kernel may count CPU time for the limit, which it does by the ticks
// of its clock, ahead of what it reports in the end: 120 ms of 1 s were seen on a busy machine.
const cpuAhead = 500 * time.Millisecond

// killed explains the signal that ended the process.
func (p *process) killed(s syscall.Signal, limits Limits, out Outcome) error {
	most := (limits.CPU + time.Second - 1).Truncate(time.Second) // as the kernel has it
	switch {
	case s == syscall.SIGXFSZ:
		return myrmidon.Permanent(fmt.Errorf("%s wrote a file beyond its limit of %d bytes and was killed", p.name, limits.FileSize))
	case limits.CPU > 0 && (s == syscall.SIGKILL || s == syscall.SIGXCPU) && out.CPU >= most-max(most/10, cpuAhead):
		return myrmidon.Permanent(fmt.Errorf("%s used more than its limit of %v of CPU time and was killed", p.name, limits.CPU))
	case s == syscall.SIGKILL:
		return myrmidon.WithHint(fmt.Errorf("%s was killed (out of memory?)", p.name),
			"run fewer slots, or on a machine with more memory")
	case p.log.noMemory != "" && limits.Memory > 0:
		return p.overMemory(limits)
	case s == syscall.SIGSEGV, s == syscall.SIGABRT, s == syscall.SIGBUS, s == syscall.SIGILL, s == syscall.SIGFPE:
		return fmt.Errorf("%s crashed (%v)%s", p.name, s, p.log.lastWords())
	}
	return fmt.Errorf("%s was ended by a signal (%v)", p.name, s)
}

// overMemory is permanent: with the same input and threads the same memory is needed.
func (p *process) overMemory(limits Limits) error {
	return myrmidon.Permanent(myrmidon.WithHint(
		fmt.Errorf("%s needed more than its limit of %d MiB of memory: %s", p.name, limits.Memory>>20, p.log.noMemory),
		"the picture is too large for the memory that a job may have"))
}
