package logs

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"myrmidon"
)

// body is an object's bytes, inflated if they begin as gzip does, whatever its name says.
type body struct {
	raw    counted
	in     *bufio.Reader
	packed *gzip.Reader // nil for a plain object
}

// counted counts what was read, and remembers how it ended.
type counted struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

// newBody begins to read r from its first byte.
func newBody(r io.Reader) (*body, error) {
	b := &body{raw: counted{r: r}}
	b.in = bufio.NewReaderSize(&b.raw, 64<<10)
	magic, err := b.in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		if b.packed, err = gzip.NewReader(b.in); err != nil {
			return nil, b.explain(err)
		}
	}
	return b, nil
}

// Read gives inflated bytes. An error of the packing itself is permanent: the object was
// read as it is, and is damaged.
func (b *body) Read(p []byte) (int, error) {
	if b.packed == nil {
		return b.in.Read(p)
	}
	n, err := b.packed.Read(p)
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

func (b *body) explain(err error) error {
	if b.raw.err != nil && !errors.Is(b.raw.err, io.EOF) {
		return b.raw.err // the store's, worth another attempt
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("it ends too early")
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("its gzip is damaged: %w", err), "the lines before the damage were delivered; if the object is put again, ship it again"))
}

// skip passes over the first n inflated bytes.
func (b *body) skip(n int64) error {
	if n == 0 {
		return nil
	}
	if _, err := io.CopyN(io.Discard, b, n); err != nil {
		return fmt.Errorf("pass over %d bytes: %w", n, err)
	}
	return nil
}

// NewBody returns the inflated bytes of an object, which is recognised by its first
// bytes: gzip, of any number of members, or plain.
func NewBody(r io.Reader) (io.Reader, error) { return newBody(r) }
