package jetstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"myrmidon"
)

// Jobs are JSON, as encoding/json writes and reads them. They are what passes through the
// queue in numbers, and reflection took a third of what storing and handing out one
// costs, so they are written and read here. What is not just as appendJob writes it is
// left to encoding/json.

// errNoJSON says that what a workload gave as a job's spec is none.
var errNoJSON = errors.New("its spec is not valid JSON")

// appendJob appends a job that engine.CheckJob has passed.
func appendJob(b []byte, j *myrmidon.Job) ([]byte, error) {
	number := func(name string, v int64) { b = strconv.AppendInt(append(b, name...), v, 10) }
	b = append(append(b, `{"kind":"`...), j.Kind...) // of letters, digits, -, _ and a dot
	b = append(b, '"')
	if j.Version != 0 {
		number(`,"version":`, int64(j.Version))
	}
	if j.Long {
		b = append(b, `,"long":true`...)
	}
	b = append(append(b, `,"run":"`...), j.Run...) // likewise, without a dot
	number(`","phase":`, int64(j.Phase))
	number(`,"shard":`, int64(j.Shard))
	number(`,"first":`, int64(j.First))
	number(`,"count":`, int64(j.Count))
	for i, only := range j.Only {
		name := ","
		if i == 0 {
			name = `,"only":[`
		}
		number(name, int64(only))
	}
	if len(j.Only) > 0 {
		b = append(b, ']')
	}
	number(`,"attempt":`, int64(j.Attempt))
	if j.Continued != 0 {
		number(`,"continued":`, int64(j.Continued))
	}
	if j.Epoch != 0 {
		number(`,"epoch":`, int64(j.Epoch))
	}
	if j.Name != "" {
		b = appendText(append(b, `,"name":`...), j.Name)
	}
	if j.Units != 0 {
		number(`,"units":`, j.Units)
	}
	if len(j.Spec) > 0 {
		if !validJSON(j.Spec) {
			return nil, errNoJSON
		}
		b = append(append(b, `,"spec":`...), j.Spec...)
	}
	return append(b, '}'), nil
}

// appendText appends s as a JSON string, escaped as encoding/json does.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, _ := json.Marshal(s) // a string is never an error
			return append(b, escaped...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// parseJob reads a job that appendJob has written, and reports whether it was one. The
// spec is a part of data. If kind and run are those that j has, their strings are kept.
func parseJob(data []byte, j *myrmidon.Job) bool {
	p := parser{rest: data}
	var out myrmidon.Job
	p.want(`{"kind":`)
	out.Kind = p.text(j.Kind)
	if p.has(`,"version":`) {
		out.Version = p.uint32()
	}
	out.Long = p.has(`,"long":true`)
	p.want(`,"run":`)
	out.Run = p.text(j.Run)
	p.want(`,"phase":`)
	out.Phase = p.uint32()
	p.want(`,"shard":`)
	out.Shard = p.uint32()
	p.want(`,"first":`)
	out.First = p.uint32()
	p.want(`,"count":`)
	out.Count = p.uint32()
	if p.has(`,"only":[`) {
		out.Only = append(out.Only, p.uint32())
		for p.has(",") {
			out.Only = append(out.Only, p.uint32())
		}
		p.want("]")
	}
	p.want(`,"attempt":`)
	out.Attempt = p.uint32()
	if p.has(`,"continued":`) {
		out.Continued = p.uint32()
	}
	if p.has(`,"epoch":`) {
		out.Epoch = p.uint32()
	}
	if p.has(`,"name":`) {
		out.Name = p.text("")
	}
	if p.has(`,"units":`) {
		out.Units = p.int64()
	}
	if p.has(`,"spec":`) {
		n := max(len(p.rest)-1, 0) // all but the brace
		out.Spec, p.rest = json.RawMessage(p.rest[:n:n]), p.rest[n:]
		p.bad = p.bad || !validJSON(out.Spec)
	}
	p.want("}")
	if p.bad || len(p.rest) > 0 {
		return false
	}
	*j = out
	return true
}

// parser takes one thing after the other from the front of rest.
type parser struct {
	rest []byte
	bad  bool // something else came
}

// has takes what it is told, if it comes next.
func (p *parser) has(text string) bool {
	if len(p.rest) < len(text) || string(p.rest[:len(text)]) != text {
		return false
	}
	p.rest = p.rest[len(text):]
	return true
}

func (p *parser) want(text string) { p.bad = !p.has(text) || p.bad }

// text takes a string of printable ASCII without escapes, which may be like another.
func (p *parser) text(like string) string {
	if n := len(like); n > 0 && len(p.rest) > n+1 && p.rest[0] == '"' && p.rest[n+1] == '"' && string(p.rest[1:n+1]) == like {
		p.rest = p.rest[n+2:]
		return like
	}
	if !p.has(`"`) {
		p.bad = true
		return ""
	}
	n := bytes.IndexByte(p.rest, '"')
	for i := range max(n, 0) {
		if c := p.rest[i]; c < ' ' || c > '~' || c == '\\' {
			n = -1
			break
		}
	}
	if n < 0 {
		p.bad = true
		return ""
	}
	s := string(p.rest[:n])
	p.rest = p.rest[n+1:]
	return s
}

// digits takes a number without fraction and exponent, as JSON has it.
func (p *parser) digits() string {
	n := 0
	if n < len(p.rest) && p.rest[n] == '-' {
		n++
	}
	first := n
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	p.bad = p.bad || n == first || p.rest[first] == '0' && n > first+1
	s := string(p.rest[:n])
	p.rest = p.rest[n:]
	return s
}

func (p *parser) uint32() uint32 {
	v, err := strconv.ParseUint(p.digits(), 10, 32)
	p.bad = p.bad || err != nil
	return uint32(v)
}

func (p *parser) int64() int64 {
	v, err := strconv.ParseInt(p.digits(), 10, 64)
	p.bad = p.bad || err != nil
	return v
}
