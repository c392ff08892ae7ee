package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"myrmidon/elb"
)

// usual is the way that most scripts take: a regular expression with a group a column, a
// map, json.Marshal. It is Athena's, with the columns that were added since.
var usual = regexp.MustCompile(`^([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*):([0-9]*) ([^ ]*)[:-]([0-9]*) ([-.0-9]*) ([-.0-9]*) ([-.0-9]*) (|[-0-9]*) (-|[-0-9]*) ([-0-9]*) ([-0-9]*) "([^ ]*) (.*) (- |[^ ]*)" "([^"]*)" ([A-Z0-9-_]+) ([A-Za-z0-9.-]*) ([^ ]*) "([^"]*)" "([^"]*)" "([^"]*)" ([-.0-9]*) ([^ ]*) "([^"]*)" "([^"]*)" "([^ ]*)" "([^\s]+?)" "([^\s]+)" "([^ ]*)" "([^ ]*)" ?([^ ]*)?( .*)?$`)

// different is how many lines there are to parse: they fit into the processor's cache, as what
// has just been inflated does.
const different = 1000

// parseResult is in lines a second of processor time.
type parseResult struct {
	Ours, Regexp float64
	Allocs       float64 // of ours, a line
}

// parse measures ours and the usual way in turns, on one processor.
func parse(size string) (r parseResult, err error) {
	runtime.GOMAXPROCS(1)
	turns, few := 8, 1000
	if size == "short" {
		turns, few = 2, 50
	}
	l := newLines()
	var input [][]byte
	for range different {
		input = append(input, l.append(nil))
	}
	var names []string
	for _, f := range elb.Fields(elb.ALB) {
		names = append(names, f.Name)
	}
	var ours, theirs time.Duration
	var count, slow int
	p := parser{input: input}
	if err := p.all(1); err != nil { // its buffer grows
		return r, err
	}
	var before, after runtime.MemStats
	var allocs uint64
	for range turns {
		start := cpuTime()
		for i := range few {
			if err := theUsualWay(input[i%len(input)], names); err != nil {
				return r, err
			}
		}
		theirs += cpuTime() - start
		slow += few
		runtime.GC()
		runtime.ReadMemStats(&before)
		start = cpuTime()
		if err := p.all(few / 10); err != nil {
			return r, err
		}
		ours += cpuTime() - start
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		count += few / 10 * len(input)
	}
	return parseResult{
		Ours: float64(count) / ours.Seconds(), Regexp: float64(slow) / theirs.Seconds(),
		Allocs: float64(allocs) / float64(count),
	}, nil
}

// parser writes lines as JSON, each in the place of the one before.
type parser struct {
	input  [][]byte
	record elb.Record
	out    []byte
}

// all parses all lines, so many times.
func (p *parser) all(times int) error {
	for range times {
		for _, line := range p.input {
			if err := p.record.Parse(elb.ALB, line); err != nil {
				return err
			}
			p.out = elb.Encoder{}.AppendJSON(p.out[:0], &p.record)
		}
	}
	return nil
}

func theUsualWay(line []byte, names []string) error {
	groups := usual.FindStringSubmatch(string(line))
	if len(groups) < 36 {
		return fmt.Errorf("the regular expression does not match %s", line)
	}
	record := make(map[string]string, len(names))
	for i, group := range groups[1:] {
		record[names[i]] = group
	}
	_, err := json.Marshal(record)
	return err
}

// cpuTime is the time that this process spent on processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // no such process can be: it is this one
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
