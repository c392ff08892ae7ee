package checksum

import (
	"encoding/binary"
	"hash"
	"hash/crc64"
	"sync"
)

// The standard library's CRC-64 waits for each eight bytes before it looks up the next. Four
// stripes of a block are summed side by side here, which keeps the processor's loads busy, and
// their sums joined: twice as fast or more (BenchmarkSums).
const (
	stripe  = 4 << 10
	stripes = 4
)

// crc64Tables are made at the first use: 32 KiB.
var crc64Tables = sync.OnceValue(func() *[2]slicing {
	var t [2]slicing
	t[0][0] = *nvme
	for i := range 256 {
		crc := nvme[i]
		for j := 1; j < 8; j++ {
			crc = nvme[crc&0xff] ^ crc>>8
			t[0][j][i] = crc
		}
	}
	f := fields[CRC64NVME]
	power := f.power(stripe)
	for j := range 8 {
		for i := range 256 {
			t[1][j][i] = f.times(uint64(i)<<(8*j), power)
		}
	}
	return &t
})

// slicing is a table for each byte of eight.
type slicing [8][256]uint64

// eight looks up eight bytes at once, of which the first is the last that the table knows.
func (t *slicing) eight(v uint64) uint64 {
	return t[7][v&0xff] ^ t[6][v>>8&0xff] ^ t[5][v>>16&0xff] ^ t[4][v>>24&0xff] ^
		t[3][v>>32&0xff] ^ t[2][v>>40&0xff] ^ t[1][v>>48&0xff] ^ t[0][v>>56]
}

// shifted returns what a sum becomes when a stripe follows.
func (t *slicing) shifted(v uint64) uint64 {
	return t[0][v&0xff] ^ t[1][v>>8&0xff] ^ t[2][v>>16&0xff] ^ t[3][v>>24&0xff] ^
		t[4][v>>32&0xff] ^ t[5][v>>40&0xff] ^ t[6][v>>48&0xff] ^ t[7][v>>56]
}

// crc64Hash is a CRC64NVME under way.
type crc64Hash struct{ sum uint64 }

func newCRC64() hash.Hash { return new(crc64Hash) }

func (c *crc64Hash) Size() int      { return crc64.Size }
func (c *crc64Hash) BlockSize() int { return 1 }
func (c *crc64Hash) Reset()         { c.sum = 0 }

func (c *crc64Hash) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, c.sum) }

func (c *crc64Hash) Write(p []byte) (int, error) {
	n := len(p)
	if n >= stripe*stripes {
		t := crc64Tables()
		for ; len(p) >= stripe*stripes; p = p[stripe*stripes:] {
			c.sum = ^block(t, ^c.sum, p[:stripe*stripes])
		}
	}
	c.sum = crc64.Update(c.sum, nvme, p)
	return n, nil
}

// block goes on from the register a with a block.
func block(t *[2]slicing, a uint64, p []byte) uint64 {
	var b, c, d uint64
	table := &t[0]
	p0, p1, p2, p3 := p[:stripe], p[stripe:2*stripe], p[2*stripe:3*stripe], p[3*stripe:4*stripe]
	for i := 0; i < stripe; i += 8 {
		a = table.eight(a ^ binary.LittleEndian.Uint64(p0[i:]))
		b = table.eight(b ^ binary.LittleEndian.Uint64(p1[i:]))
		c = table.eight(c ^ binary.LittleEndian.Uint64(p2[i:]))
		d = table.eight(d ^ binary.LittleEndian.Uint64(p3[i:]))
	}
	shift := &t[1]
	return shift.shifted(shift.shifted(shift.shifted(a)^b)^c) ^ d
}
