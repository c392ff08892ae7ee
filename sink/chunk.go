package sink

// chunkSize is how much memory records are copied into at once: one allocation for many.
const chunkSize = 32 << 10

// chunk is memory that documents are copied into, one behind the other. It is used again when
// all of them are settled: the collector would else come round hundreds of times a second.
type chunk struct {
	buf  []byte
	held int // documents that are not settled
}

// copy copies a document to where the next ones will be. The chunk is nil if the document has
// memory of its own. The lock is held.
func (b *Batcher) copy(data []byte) ([]byte, *chunk) {
	if len(data) > chunkSize/4 {
		return append([]byte(nil), data...), nil
	}
	c := b.chunk
	if c == nil || cap(c.buf)-len(c.buf) < len(data) {
		c = b.nextChunk()
	}
	from := len(c.buf)
	c.buf = append(c.buf, data...)
	c.held++
	return c.buf[from:len(c.buf):len(c.buf)], c
}

// nextChunk replaces the chunk that is full.
func (b *Batcher) nextChunk() *chunk {
	full := b.chunk
	b.chunk = nil
	b.reuse(full)
	if n := len(b.spare); n > 0 {
		b.chunk, b.spare[n-1] = b.spare[n-1], nil
		b.spare = b.spare[:n-1]
	} else {
		b.chunk = &chunk{buf: make([]byte, 0, chunkSize)}
	}
	return b.chunk
}

// free says that nobody looks at a document of c any more. The lock is held.
func (b *Batcher) free(c *chunk) {
	if c != nil {
		c.held--
		b.reuse(c)
	}
}

// reuse keeps c for what comes, if nothing of it is held. A batcher that was full once has no
// more than its memory of them.
func (b *Batcher) reuse(c *chunk) {
	if c != nil && c.held == 0 && c != b.chunk {
		c.buf = c.buf[:0]
		b.spare = append(b.spare, c)
	}
}
