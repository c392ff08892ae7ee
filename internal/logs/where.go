package logs

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/elb"
)

// Where is a condition on records. It may be used from many goroutines.
type Where struct {
	text string
	node node
}

// ParseWhere reads a condition:
//
//	elb_status_code >= 500 and not request_url contains "/health"
//	client_ip == "10.0.0.7" or user_agent =~ "(?i)bot"
//
// Comparisons are == != < <= > >=, contains and =~ (a regular expression of RE2). Numbers
// are compared with numbers, times with times as in RFC 3339 (time >= "2026-11-01T00:00:00Z"),
// everything else with text in quotes; of a list any value counts. A field alone asks
// whether the line has it; one that it does not have makes each comparison false.
// Parentheses group, not binds closest, and before or. Names are [elb.Field]'s, of any
// format, also those of ECS, and the short ones: see [ShortNames].
//
// Errors are permanent, and say at which character.
func ParseWhere(text string) (*Where, error) {
	p := &whereParser{text: text}
	n, err := p.or()
	if err == nil {
		if p.next(); p.token != "" {
			err = p.fail("%q is not expected", p.token)
		}
	}
	if err != nil {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("the condition %.200q: %w", text, err),
			`a condition is such as: elb_status_code >= 500 and not request_url contains "/health"`))
	}
	return &Where{text, n}, nil
}

// String returns the condition as it was read.
func (w *Where) String() string { return w.text }

// Match reports whether a record fulfils the condition. A nil Where takes all.
func (w *Where) Match(r *elb.Record) bool { return w == nil || w.node.match(r) }

type node interface{ match(r *elb.Record) bool }

type (
	andNode struct{ a, b node }
	orNode  struct{ a, b node }
	notNode struct{ a node }
	hasNode struct {
		field string
		short *short // instead of field
	}
)

func (n andNode) match(r *elb.Record) bool { return n.a.match(r) && n.b.match(r) }
func (n orNode) match(r *elb.Record) bool  { return n.a.match(r) || n.b.match(r) }
func (n notNode) match(r *elb.Record) bool { return !n.a.match(r) }
func (n hasNode) match(r *elb.Record) bool {
	if n.short != nil {
		return n.short.value(r) != nil
	}
	return !r.Get(n.field).Absent()
}

// comparison compares a field, as a number, a time or text.
type comparison struct {
	field   string
	short   *short // instead of field
	op      string
	kind    elb.Kind // Decimal, Time or String
	number  float64
	time    time.Time
	text    []byte
	pattern *regexp.Regexp
}

func (c *comparison) match(r *elb.Record) bool {
	if c.short != nil {
		text := c.short.value(r)
		return text != nil && c.one(text)
	}
	v := r.Get(c.field)
	if v.Absent() {
		return false
	}
	if k := v.Kind(); k == elb.Strings || k == elb.Numbers {
		for item := range v.Items() {
			if string(item) != "-" && c.one(item) {
				return true
			}
		}
		return false
	}
	switch c.kind {
	case elb.Decimal:
		f, ok := v.Float()
		return ok && c.ordered(compare(f, c.number))
	case elb.Time:
		t, ok := v.Time()
		return ok && c.ordered(t.Compare(c.time))
	}
	return c.one(v.Bytes())
}

// one compares a text.
func (c *comparison) one(text []byte) bool {
	switch {
	case c.kind == elb.Decimal:
		f, err := strconv.ParseFloat(string(text), 64)
		return err == nil && c.ordered(compare(f, c.number))
	case c.op == "contains":
		return bytes.Contains(text, c.text)
	case c.pattern != nil:
		return c.pattern.Match(text)
	}
	return c.ordered(bytes.Compare(text, c.text))
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (c *comparison) ordered(sign int) bool {
	switch c.op {
	case "==":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	}
	return sign >= 0
}

// whereParser reads a condition from left to right.
type whereParser struct {
	text  string
	at    int    // behind token
	begin int    // of token
	token string // "" at the end
	text0 bool   // token is text that stood in quotes
	kept  bool   // token is to be read again
	deep  int
}

func (p *whereParser) fail(format string, a ...any) error {
	return fmt.Errorf("at character %d: "+format, append([]any{p.begin + 1}, a...)...)
}

// next reads a token.
func (p *whereParser) next() {
	if p.kept {
		p.kept = false
		return
	}
	for p.at < len(p.text) && strings.IndexByte(" \t\n", p.text[p.at]) >= 0 {
		p.at++
	}
	p.begin, p.token, p.text0 = p.at, "", false
	if p.at == len(p.text) {
		return
	}
	rest := p.text[p.at:]
	for _, op := range []string{"==", "!=", "<=", ">=", "=~", "<", ">", "(", ")"} {
		if strings.HasPrefix(rest, op) {
			p.token = op
			p.at += len(op)
			return
		}
	}
	if q := rest[0]; q == '"' || q == '\'' {
		if end := strings.IndexByte(rest[1:], q); end >= 0 {
			p.token, p.text0 = rest[1:1+end], true
			p.at += end + 2
			return
		}
	}
	n := strings.IndexAny(rest, " \t\n<>=!()\"'")
	if n < 0 {
		n = len(rest)
	}
	p.token = rest[:max(n, 1)]
	p.at += len(p.token)
}

// word reports whether the next token is this word, and reads it if so.
func (p *whereParser) word(w string) bool {
	p.next()
	if p.text0 || !strings.EqualFold(p.token, w) {
		p.kept = true
		return false
	}
	return true
}

func (p *whereParser) or() (node, error) {
	a, err := p.and()
	for err == nil && p.word("or") {
		var b node
		b, err = p.and()
		a = orNode{a, b}
	}
	return a, err
}

func (p *whereParser) and() (node, error) {
	a, err := p.not()
	for err == nil && p.word("and") {
		var b node
		b, err = p.not()
		a = andNode{a, b}
	}
	return a, err
}

// maxDepth bounds parentheses and nots, which are read by recursion.
const maxDepth = 100

func (p *whereParser) not() (node, error) {
	if p.deep++; p.deep > maxDepth {
		return nil, p.fail("more than %d levels", maxDepth)
	}
	defer func() { p.deep-- }()
	switch {
	case p.word("not"):
		a, err := p.not()
		return notNode{a}, err
	case p.word("("):
		a, err := p.or()
		if err == nil && !p.word(")") {
			err = p.fail("a ) is missing")
		}
		return a, err
	}
	return p.compared()
}

func (p *whereParser) compared() (node, error) {
	p.next()
	if p.token == "" || p.text0 {
		return nil, p.fail("the name of a field is expected")
	}
	name := p.token
	kind, err := kindOf(name)
	if err != nil {
		return nil, p.fail("%w", err)
	}
	named := shortOf(name)
	p.next()
	c := &comparison{field: name, short: named, op: strings.ToLower(p.token)}
	switch c.op {
	case "==", "!=", "<", "<=", ">", ">=", "contains", "=~":
	case "=":
		return nil, p.fail("= is written ==")
	default:
		p.kept = true
		return hasNode{name, named}, nil
	}
	p.next()
	if p.token == "" && !p.text0 {
		return nil, p.fail("a value is expected behind %s", c.op)
	}
	if name == "status" && p.text0 { // that of health checks, which is no number
		c.short, kind = nil, elb.String
	}
	return c, p.value(c, kind)
}

// value reads what a field is compared with.
func (p *whereParser) value(c *comparison, kind elb.Kind) (err error) {
	value := p.token
	if c.op == "contains" || c.op == "=~" {
		if !p.text0 {
			return p.fail("%s wants text in quotes", c.op)
		}
		if kind == elb.Integer || kind == elb.Decimal || kind == elb.Time {
			return p.fail("%s is a %s, which has no text: use == != < <= > >=", c.field, kind)
		}
		c.text = []byte(value)
		if c.op == "=~" {
			if c.pattern, err = regexp.Compile(value); err != nil {
				return p.fail("%w", err)
			}
		}
		return nil
	}
	switch kind {
	case elb.Integer, elb.Decimal, elb.Numbers:
		c.kind = elb.Decimal
		if c.number, err = strconv.ParseFloat(value, 64); err != nil || p.text0 {
			return p.fail("%s is a number, and %.40q is none", c.field, value)
		}
	case elb.Time:
		c.kind = elb.Time
		if c.time, err = time.Parse(time.RFC3339, value); err != nil {
			return p.fail(`%s is a time, and %.40q is none such as "2026-11-01T12:00:00Z"`, c.field, value)
		}
	default:
		if !p.text0 {
			return p.fail("%s is text, and is compared with text in quotes", c.field)
		}
		c.text = []byte(value)
	}
	return nil
}

// formats are all formats of logs.
var formats = []elb.Format{elb.ALB, elb.Classic, elb.NLB, elb.ALBConnection, elb.ALBHealthCheck, elb.CloudFront, elb.S3Access}

// kindOf returns the kind of a field of any format.
func kindOf(name string) (elb.Kind, error) {
	if s := shortOf(name); s != nil {
		return s.kind, nil
	}
	for _, f := range formats {
		i, err := elb.Lookup(f, name)
		if err == nil {
			return elb.Fields(f)[i].Kind, nil
		}
	}
	return 0, fmt.Errorf("no format has a field %.60q: myrmidon logs fields lists them, and their short names", name)
}
