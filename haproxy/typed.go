package haproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseTyped reads the answer to "show stat typed", with its closing blank line, as a
// table and the tags of its fields. Columns are in the order of their positions, those
// that no row has are missing. It is slower than ParseCSV, and HAProxy takes five times
// as long to write it.
func ParseTyped(data []byte) (*Table, Tags, error) {
	if !bytes.HasSuffix(data, []byte("\n\n")) {
		return nil, nil, fmt.Errorf("%w: no blank line ends it, after %d bytes", ErrTruncated, len(data))
	}
	var b tableBuilder
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			continue // also between the answers to several commands
		}
		f, err := parseTypedLine(line)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: line %d: %w", ErrNotStats, n, err)
		}
		b.add(f)
	}
	return b.table()
}

// typedField is one field of one row.
type typedField struct {
	typ           Type
	proxy, object int64 // iid and sid
	pos           int
	name          string
	tag           Tag
	value         []byte
}

// parseTypedLine reads "S.4.1.6.slim.1:CLP:u32:10"; since HAProxy 3.3 it is CLPV.
func parseTypedLine(line []byte) (typedField, error) {
	var f typedField
	malformed := func() error { return fmt.Errorf("%.80q is no typed field", line) }
	// The value may have colons, and a name dots.
	parts := bytes.SplitN(line, []byte(":"), 4)
	if len(parts) != 4 || len(parts[1]) < 3 {
		return f, malformed()
	}
	f.tag = makeTag(parts[1], string(parts[2]))
	f.value = parts[3]
	head := strings.SplitN(string(parts[0]), ".", 5)
	if len(head) != 5 {
		return f, malformed()
	}
	dot := strings.LastIndexByte(head[4], '.')
	if dot < 0 {
		return f, malformed()
	}
	f.name = head[4][:dot]
	f.typ = typeOfLetter(head[0])
	var err1, err2, err3 error
	f.proxy, err1 = strconv.ParseInt(head[1], 10, 64)
	f.object, err2 = strconv.ParseInt(head[2], 10, 64)
	f.pos, err3 = strconv.Atoi(head[3])
	if errors.Join(err1, err2, err3) != nil || f.pos < 0 || f.pos >= maxColumns || f.name == "" {
		return f, malformed()
	}
	return f, nil
}

func typeOfLetter(s string) Type {
	if i := strings.Index("FBSL", s); i >= 0 && len(s) == 1 {
		return Type(i)
	}
	return Other
}

// ParseJSON reads the answer to "show stat json" as ParseTyped does.
func ParseJSON(data []byte) (*Table, Tags, error) {
	var rows [][]struct {
		ObjType string `json:"objType"`
		ProxyID int64  `json:"proxyId"`
		ID      int64  `json:"id"`
		Field   struct {
			Pos  int    `json:"pos"`
			Name string `json:"name"`
		} `json:"field"`
		Tags struct {
			Origin, Nature, Scope string
		} `json:"tags"`
		Value struct {
			Type  string          `json:"type"`
			Value json.RawMessage `json:"value"`
		} `json:"value"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset >= int64(len(bytes.TrimSpace(data))) {
			return nil, nil, fmt.Errorf("%w: %w", ErrTruncated, err)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrNotStats, err)
	}
	var b tableBuilder
	for i, row := range rows {
		for _, f := range row {
			typ := Other
			for t, name := range typeNames[:Other] {
				if strings.EqualFold(f.ObjType, name) {
					typ = Type(t)
				}
			}
			value := []byte(f.Value.Value)
			if len(value) > 0 && value[0] == '"' {
				var s string
				if err := json.Unmarshal(value, &s); err != nil {
					return nil, nil, fmt.Errorf("%w: row %d: %w", ErrNotStats, i+1, err)
				}
				value = []byte(s)
			}
			tag := Tag{
				Origin: originLetter(f.Tags.Origin), Nature: natureLetter(f.Tags.Nature), Scope: scopeLetter(f.Tags.Scope),
				Value: f.Value.Type,
			}
			if f.Field.Pos < 0 || f.Field.Pos >= maxColumns || f.Field.Name == "" {
				return nil, nil, fmt.Errorf("%w: row %d: the field %q at %d", ErrNotStats, i+1, f.Field.Name, f.Field.Pos)
			}
			b.add(typedField{typ, f.ProxyID, f.ID, f.Field.Pos, f.Field.Name, tag, value})
		}
	}
	return b.table()
}

// The words of the JSON form, and their letters in the typed one.
func originLetter(s string) byte {
	return letter(s, "Metric M", "Status S", "Key K", "Config C", "Product P")
}

func natureLetter(s string) byte {
	return letter(s, "Gauge G", "Limit L", "Min m", "Max M", "Rate R", "Counter C", "Duration D", "Age A",
		"Time T", "Name N", "Output O", "Avg a")
}

func scopeLetter(s string) byte {
	return letter(s, "Cluster C", "Process P", "Service S", "System s")
}

func letter(s string, words ...string) byte {
	for _, w := range words {
		if s != "" && w[:len(w)-2] == s {
			return w[len(w)-1]
		}
	}
	return '?'
}

// tableBuilder gathers rows whose columns are not known before.
type tableBuilder struct {
	names []string // by position
	tags  Tags
	rows  [][]typedField
}

func (b *tableBuilder) add(f typedField) {
	for len(b.names) <= f.pos {
		b.names = append(b.names, "")
	}
	b.names[f.pos] = f.name
	if b.tags == nil {
		b.tags = make(Tags)
	}
	tags := b.tags[f.name]
	tags[f.typ] = f.tag
	b.tags[f.name] = tags
	if n := len(b.rows); n > 0 {
		first := &b.rows[n-1][0]
		last := &b.rows[n-1][len(b.rows[n-1])-1]
		if first.typ == f.typ && first.proxy == f.proxy && first.object == f.object && f.pos > last.pos {
			b.rows[n-1] = append(b.rows[n-1], f)
			return
		}
	}
	b.rows = append(b.rows, []typedField{f})
}

func (b *tableBuilder) table() (*Table, Tags, error) {
	if len(b.rows) == 0 {
		return nil, nil, fmt.Errorf("%w: it has no field at all", ErrNotStats)
	}
	at := make([]int, len(b.names)) // by position
	var names []string
	for pos, name := range b.names {
		if name != "" {
			at[pos] = len(names)
			names = append(names, name)
		}
	}
	s, err := newSchema(names, true)
	if err != nil {
		return nil, nil, err
	}
	if len(b.rows)*len(names) > maxCells {
		return nil, nil, fmt.Errorf("haproxy: too many rows: %d of %d columns", len(b.rows), len(names))
	}
	t := &Table{schema: s}
	cells := make([]int64, len(names))
	for _, row := range b.rows {
		for i := range cells {
			cells[i] = empty
		}
		for _, f := range row {
			if n, ok := parseNumber(f.value); ok {
				cells[at[f.pos]] = n
			} else if len(f.value) > 0 {
				cells[at[f.pos]] = t.addText(f.value)
			}
		}
		t.add(row[0].typ, cells)
	}
	return t, b.tags, nil
}

// LearnTags asks the process behind a stats socket, or the first worker behind a master
// socket, for the tags of its fields, by small dumps: of the smallest backend that has
// servers, and of the frontend with the most rows. t is the process's own dump. The
// deadline is that of ctx, or [DefaultTimeout].
func LearnTags(ctx context.Context, target Target, t *Table) (Tags, error) {
	s, err := newSource(target)
	if err != nil {
		return nil, err
	}
	defer s.close()
	deadline, stop := s.inTime(ctx)
	defer stop()
	if s.page != nil {
		return nil, fmt.Errorf("haproxy: %s: tags are learned from a stats socket only", s.name)
	}
	prefix, end := "", "\n"
	if data, err := s.ask(ctx, deadline, "show proc;quit\n", untilUnknown); err == nil {
		if workers := readWorkers(data); len(workers) > 0 && !isUnknown(data) {
			prefix, end = "@!"+strconv.FormatInt(workers[0].pid, 10)+" ", ";quit\n"
		}
	}
	return s.learn(ctx, deadline, prefix, end, t.samples())
}

func (s *source) learn(ctx context.Context, deadline time.Time, prefix, end string, samples []int64) (Tags, error) {
	var commands []string
	for _, iid := range samples {
		commands = append(commands, fmt.Sprintf("%sshow stat %d -1 -1 typed", prefix, iid))
	}
	if len(commands) == 0 {
		return nil, fmt.Errorf("haproxy: %s: the dump has no frontend and no backend to ask about", s.name)
	}
	data, err := s.ask(ctx, deadline, strings.Join(commands, ";")+end, func(data []byte) ([]byte, bool) { return data, false })
	if err != nil {
		return nil, err
	}
	_, tags, err := ParseTyped(data)
	if err != nil {
		return nil, fmt.Errorf("haproxy: %s: the answer to %q: %w", s.name, strings.Join(commands, ";"), err)
	}
	return tags, nil
}

// samples are the iids of a frontend and a backend that show most fields for least rows.
func (t *Table) samples() []int64 {
	iid := t.Column("iid")
	rows := make(map[int64]int)
	for i := range t.rows {
		if n, ok := t.Int(i, iid); ok {
			rows[n]++
		}
	}
	frontend, backend, lone := int64(-1), int64(-1), int64(-1)
	for i := range t.rows {
		n, ok := t.Int(i, iid)
		if !ok {
			continue
		}
		switch t.types[i] {
		case Frontend:
			if frontend < 0 || rows[n] > rows[frontend] {
				frontend = n
			}
		case Backend:
			lone = n
			// A checked server in HTTP mode has all fields.
			if rows[n] > 1 && (backend < 0 || rows[n] < rows[backend]) {
				backend = n
			}
		}
	}
	if backend < 0 {
		backend = lone
	}
	var out []int64
	for _, n := range []int64{frontend, backend} {
		if n >= 0 && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
