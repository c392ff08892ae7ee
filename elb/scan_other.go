//go:build !amd64

package elb

import "unsafe"

// markBlocks fills in the marks of so many blocks of 64 bytes, from p on, and returns whether
// a byte is special: not 0 if one is.
func markBlocks(p *byte, blocks int, to *marks) (special uint64) {
	return markBytes(unsafe.Slice(p, blocks*marked), unsafe.Slice(to, blocks))
}

// lookAtBlocks counts the quotes of so many blocks.
func lookAtBlocks(p *byte, blocks int) (special, quotes uint64) {
	return lookBytes(unsafe.Slice(p, blocks*marked))
}
