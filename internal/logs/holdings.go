package logs

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"myrmidon/object"
)

// Files are documents in files, a line each, packed or plain: a destination that was written
// to by the sinks of files and of buckets. It implements [Holdings]. All files are read once,
// into a few bytes an object and, beyond 262,144 lines, temporary files of 16 bytes a line.
type Files struct {
	Store object.Store
	// Takes says which objects of the store are looked into; nil means all.
	Takes func(key string) bool
	// Foreign is how many lines were met that are no documents of logs.
	Foreign int64
}

// OfID implements [Holdings]: what Held has is all.
func (*Files) OfID(context.Context, string, Filter) (int64, error) { return 0, nil }

// Held implements [Holdings].
func (d *Files) Held(ctx context.Context, prefix string, single bool, f Filter) iter.Seq2[Held, error] {
	return func(yield func(Held, error) bool) {
		t := tally{most: tallyMemory}
		err := d.read(ctx, &t, prefix, single, f)
		var all map[string]*Held
		if err == nil {
			all, err = t.counts()
		}
		if err = errors.Join(err, t.close()); err != nil {
			yield(Held{}, err)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(*all[name], nil) {
				return
			}
		}
	}
}

func (d *Files) read(ctx context.Context, t *tally, prefix string, single bool, f Filter) error {
	return List(ctx, d.Store, Filter{}, func(o object.Info) error {
		if d.Takes != nil && !d.Takes(o.Key) {
			return nil
		}
		raw, _, err := d.Store.Get(ctx, o.Key, 0, -1)
		if err == nil {
			err = errors.Join(d.lines(raw, t, prefix, single, f), raw.Close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key, err)
		}
		return ctx.Err()
	})
}

// maxDocument bounds a line: one that is longer is an error.
const maxDocument = 256 << 20

// document is what a line says of where it comes from, under either kind of names.
type document struct {
	Time      time.Time `json:"@timestamp"`
	ID        string    `json:"id"`
	Object    string    `json:"object"`
	ECSID     string    `json:"event.id"`
	ECSObject string    `json:"log.file.path"`
}

// offsetMember is behind what a document of ours says of where it comes from.
var offsetMember = []byte(`,"offset":`)

// documentOf reads a line, mostly no more of it than its beginning: in a string, the quotes of
// offsetMember would be escaped.
func documentOf(line []byte) (doc document, ok bool) {
	line = bytes.TrimSpace(line)
	if i := bytes.Index(line, offsetMember); i > 0 && line[len(line)-1] == '}' {
		was := line[i]
		line[i] = '}'
		err := json.Unmarshal(line[:i+1], &doc)
		if line[i] = was; err == nil && doc.ID != "" && doc.Object != "" {
			return doc, true
		}
		doc = document{}
	}
	return doc, json.Unmarshal(line, &doc) == nil
}

func (d *Files) lines(raw io.Reader, t *tally, prefix string, single bool, f Filter) error {
	in, err := NewBody(raw)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxDocument)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		doc, ok := documentOf(lines.Bytes())
		if !ok {
			d.Foreign++
			continue
		}
		name := cmp.Or(doc.Object, doc.ECSObject)
		id, text, _ := strings.Cut(cmp.Or(doc.ID, doc.ECSID), "-")
		offset, err := strconv.ParseUint(text, 10, 64)
		if err != nil || name == "" {
			d.Foreign++
			continue
		}
		switch {
		case single && name != prefix, !strings.HasPrefix(name, prefix):
		case !f.Since.IsZero() && doc.Time.Before(f.Since):
		case !f.Until.IsZero() && !doc.Time.Before(f.Until):
		default:
			if err := t.add(name, id, offset); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

const (
	// tallyMemory is how many lines are held in memory: 4 MiB.
	tallyMemory = 1 << 18
	// tallyFiles is how many files they are spread over when there are more. Of 100 million
	// lines, each has 400,000.
	tallyFiles = 256
)

// tally counts the lines of objects, each once. Lines that do not fit into memory are spread
// over temporary files by a hash, so that each can be sorted alone.
type tally struct {
	most     int // lines in memory
	versions []version
	known    map[[2]string]uint64 // places in versions, by name and the object's part of the ID
	lines    [][2]uint64          // a version's place and a line's offset
	dir      string
	files    []*os.File
	out      []*bufio.Writer
}

// version is an object, as it was once.
type version struct {
	name         string
	lines, twice int64
}

func (t *tally) add(name, id string, offset uint64) error {
	at, ok := t.known[[2]string{name, id}]
	if !ok {
		if t.known == nil {
			t.known = make(map[[2]string]uint64)
		}
		at = uint64(len(t.versions))
		name, id = strings.Clone(name), strings.Clone(id)
		t.known[[2]string{name, id}] = at
		t.versions = append(t.versions, version{name: name})
	}
	line := [2]uint64{at, offset}
	if t.files != nil {
		return t.spill(line)
	}
	if t.lines = append(t.lines, line); len(t.lines) < t.most {
		return nil
	}
	if err := t.begin(); err != nil {
		return err
	}
	for _, line := range t.lines {
		if err := t.spill(line); err != nil {
			return err
		}
	}
	t.lines = t.lines[:0]
	return nil
}

// begin makes the files.
func (t *tally) begin() (err error) {
	if t.dir, err = os.MkdirTemp("", "myrmidon-audit-"); err != nil {
		return err
	}
	for i := range tallyFiles {
		f, err := os.Create(filepath.Join(t.dir, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		t.files = append(t.files, f)
		t.out = append(t.out, bufio.NewWriterSize(f, 8<<10))
	}
	return nil
}

func (t *tally) spill(line [2]uint64) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], line[0])
	binary.LittleEndian.PutUint64(b[8:], line[1])
	// Places and offsets are small and near each other: they are mixed.
	h := (line[0] + 1) * 0x9e3779b97f4a7c15
	h = (h ^ line[1]) * 0xff51afd7ed558ccd
	_, err := t.out[h>>56].Write(b[:])
	return err
}

// counts returns what there is, by name.
func (t *tally) counts() (map[string]*Held, error) {
	t.sort()
	for i, f := range t.files {
		if err := t.out[i].Flush(); err != nil {
			return nil, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		t.lines = t.lines[:0]
		in := bufio.NewReaderSize(f, 64<<10)
		for {
			var b [16]byte
			if _, err := io.ReadFull(in, b[:]); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			t.lines = append(t.lines, [2]uint64{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])})
		}
		t.sort()
	}
	out := make(map[string]*Held)
	for _, v := range t.versions {
		h := out[v.name]
		if h == nil {
			h = &Held{Object: v.name}
			out[v.name] = h
		}
		h.Lines += v.lines
		h.Twice += v.twice
	}
	return out, nil
}

// sort counts the lines that are in memory.
func (t *tally) sort() {
	slices.SortFunc(t.lines, func(a, b [2]uint64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	for i, line := range t.lines {
		v := &t.versions[line[0]]
		if i > 0 && line == t.lines[i-1] {
			v.twice++
		} else {
			v.lines++
		}
	}
}

// close takes the files away.
func (t *tally) close() (err error) {
	for _, f := range t.files {
		err = errors.Join(err, f.Close())
	}
	if t.dir != "" {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	return err
}
