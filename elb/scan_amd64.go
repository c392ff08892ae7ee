package elb

// markBlocks fills in the marks of so many blocks of 64 bytes, from p on, and returns whether
// a byte is special: not 0 if one is. It takes SSE2, which all processors of this kind have.
//
//go:noescape
func markBlocks(p *byte, blocks int, to *marks) (special uint64)

// lookAtBlocks counts the quotes of so many blocks.
//
//go:noescape
func lookAtBlocks(p *byte, blocks int) (special, quotes uint64)
