package checksum

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
)

// Combine returns the checksum of two runs of bytes in a row, of which it is given the
// checksums, and the length of the second in bytes. Both have the same name, for which
// [Combines] holds; else it is "".
//
// A CRC is the rest of a division of polynomials: what follows the first run multiplies its
// rest by x to the power of the bits that follow.
func Combine(first, second string, length int64) string {
	name, a := Split(first)
	other, b := Split(second)
	x, ok1 := number(name, a)
	y, ok2 := number(name, b)
	if name != other || !ok1 || !ok2 || length < 0 {
		return ""
	}
	field := fields[name]
	return field.join(name, field.times(x, field.power(length))^y)
}

// field are the polynomials modulo that of a CRC, the highest power in the lowest bit.
type field struct {
	poly  uint64
	width int // bits
}

var fields = map[string]field{
	CRC32:     {crc32.IEEE, 32},
	CRC32C:    {crc32.Castagnoli, 32},
	CRC64NVME: {nvmePolynomial, 64},
}

// times multiplies.
func (f field) times(a, b uint64) (product uint64) {
	for top := uint64(1) << (f.width - 1); a != 0; a = a << 1 & (top<<1 - 1) {
		if a&top != 0 {
			product ^= b
		}
		low := b & 1
		b >>= 1
		b ^= f.poly & -low
	}
	return product
}

// power returns x to the power of the bits of n bytes.
func (f field) power(n int64) uint64 {
	result, square := uint64(1)<<(f.width-1), uint64(1)<<(f.width-1-8)
	for left := uint64(n); left > 0; left >>= 1 {
		if left&1 != 0 {
			result = f.times(result, square)
		}
		square = f.times(square, square)
	}
	return result
}

// number reads the value of a CRC.
func number(name, value string) (uint64, bool) {
	f, ok := fields[name]
	raw, err := base64.StdEncoding.DecodeString(value)
	if !ok || err != nil || len(raw)*8 != f.width {
		return 0, false
	}
	if f.width == 32 {
		return uint64(binary.BigEndian.Uint32(raw)), true
	}
	return binary.BigEndian.Uint64(raw), true
}

// join writes a CRC.
func (f field) join(name string, v uint64) string {
	raw := binary.BigEndian.AppendUint64(nil, v<<(64-f.width))
	return Join(name, base64.StdEncoding.EncodeToString(raw[:f.width/8]))
}
