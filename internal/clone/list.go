package clone

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"myrmidon"
	"myrmidon/object"
)

// List names a list of keys, which a run works through instead of listing the source. It is
// kept in parts: pages of keys in byte order, each key once, and last a head.
type List struct {
	// ID names the list of a fleet's run; that of a local run is in its folder.
	ID string `json:"id,omitempty"`
}

// listHeadPart is the name of the head; pages are numbered from 0.
const listHeadPart = "head"

type listHead struct {
	Pages int   `json:"pages"`
	Keys  int64 `json:"keys"`
}

// Pages of a list are of at most so many keys, and bytes of keys, so that their jobs fit a
// slice and they fit a broker's values.
const (
	listKeys  = 8000
	listBytes = 256 << 10
	// maxLine bounds a line: a report's may have a key of 1,024 bytes, each escaped, and
	// what came of it.
	maxLine = 1 << 20
)

// Gathered is a list of keys on its way from a file to where its run keeps it.
type Gathered struct {
	keys *sorter
	Read int64 // keys, those that come again included
}

// Gather reads a list: a key a line, or between NUL bytes if zero is set. A line that is a
// JSON object stands for its "key". Empty lines are left out, and a carriage return at the
// end of one. It takes some 20 MiB of memory; more is sorted in files in dir, which the
// caller removes. Errors name the line, and are permanent where the list is not one.
func Gather(r io.Reader, zero bool, dir string) (*Gathered, error) {
	g := &Gathered{keys: &sorter{dir: dir, most: sortMemory}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	if zero {
		lines.Split(splitZero)
	}
	n := 0
	for lines.Scan() {
		n++
		key := lines.Bytes()
		if !zero {
			var err error
			if key, err = keyOf(key); err != nil {
				return nil, myrmidon.Permanent(fmt.Errorf("line %d %w", n, err))
			}
		}
		if len(key) == 0 {
			continue
		}
		if len(key) > 4*object.MaxKey {
			return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("line %d has %d bytes, and a key %d at most", n, len(key), object.MaxKey), "a list has a key a line; --from0 if they are separated by NUL bytes"))
		}
		g.Read++
		if err := g.keys.add(key); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("line %d is longer than %d bytes", n+1, maxLine), "a list has a key a line; --from0 if they are separated by NUL bytes"))
	} else if err != nil {
		return nil, err
	}
	return g, nil
}

func splitZero(data []byte, end bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if end && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// keyOf returns the key of a line.
func keyOf(line []byte) ([]byte, error) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || line[0] != '{' || !json.Valid(line) {
		return line, nil
	}
	var l struct {
		Key *text `json:"key"`
	}
	if err := json.Unmarshal(line, &l); err != nil || l.Key == nil {
		return nil, myrmidon.WithHint(errors.New(`is a JSON object without a "key"`), `lines of --report have one; a key that looks like JSON is given with --from0`)
	}
	return []byte(*l.Key), nil
}

// Keep hands the parts of the list to put, in order: pages, and at last the head, so that a
// list that has one is whole. It returns how many keys there are, each once. It is called
// once.
func (g *Gathered) Keep(put func(part string, data []byte) error) (keys int64, err error) {
	var head listHead
	var page []byte
	n := 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		data, err := pack(page)
		if err == nil {
			err = put(strconv.Itoa(head.Pages), data)
		}
		head.Pages++
		page, n = page[:0], 0
		return err
	}
	err = g.keys.each(func(key []byte) error {
		if n == listKeys || len(page)+len(key) > listBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		page = appendKey(page, key)
		n++
		head.Keys++
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(head)
	if err != nil {
		return 0, err
	}
	return head.Keys, put(listHeadPart, data)
}

// appendKey writes a key behind others: its length, and its bytes.
func appendKey(b, key []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(key))), key...)
}

func pack(keys []byte) ([]byte, error) {
	var b bytes.Buffer
	zip, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err == nil {
		_, err = zip.Write(keys)
	}
	if err == nil {
		err = zip.Close()
	}
	return b.Bytes(), err
}

// unpackKeys returns the keys of a page. What is none is a permanent error.
func unpackKeys(data []byte) (keys []string, err error) {
	bad := func(err error) error {
		return myrmidon.Permanent(fmt.Errorf("clone: a page of the list of keys is damaged: %w", err))
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, bad(err)
	}
	all, err := io.ReadAll(io.LimitReader(zip, 2*listBytes))
	if err != nil {
		return nil, bad(err)
	}
	text := string(all)
	for at := 0; at < len(text); {
		size, n := binary.Uvarint(all[at:])
		if n <= 0 || size > uint64(len(text)-at-n) {
			return nil, bad(io.ErrUnexpectedEOF)
		}
		keys = append(keys, text[at+n:at+n+int(size)])
		at += n + int(size)
	}
	return keys, nil
}

// KeepIn returns a function for [Gathered.Keep] that writes the parts into a folder, and
// ReadIn one that reads them.
func KeepIn(dir string) func(part string, data []byte) error {
	return func(part string, data []byte) error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		tmp := filepath.Join(dir, part+".tmp")
		if err := os.WriteFile(tmp, data, 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(dir, part))
	}
}

// ReadIn reads a part that [KeepIn] has written.
func ReadIn(dir, part string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, part)) }
