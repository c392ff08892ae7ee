package haproxy

// hasReadFields is whether this processor has what readFields needs, as those of servers have
// since Intel's Haswell (2013) and AMD's Excavator (2015), and Celerons and Atoms came to have later.
// AMD's before Zen 3 have a slow PEXT, of which a block takes one: how fast they are was not measured.
var hasReadFields = bitInstructions()

// readFields reads a row: those of its fields that are not empty into cells, numbers of up to 16
// digits as such and all others as texts, and their bits into mask, which has none yet. offset is
// where in its dump the row begins.
//
// It looks at no more than so many blocks of 64 bytes, each as a whole, and at the eight bytes behind
// the last of them. cells has room for so many columns, and mask for columns/64+2 words: the bits of a
// block, up to 64, are written before its fields are counted.
//
// It returns where the line end is, or -1 if there is none in the blocks, if there is a quote up to
// the end of the line end's block, or if there are more fields than columns; how many cells it wrote
// of how many fields; and whether a text may be a number, of more than 16 digits or below 0.
//
//go:noescape
func readFields(row *byte, blocks, offset int, cells *int64, columns int, mask *uint64) (length, n, fields int, odd bool)

// bitInstructions is whether there are PMOVZXWQ (SSE4.1), POPCNT, BLSR and TZCNT (BMI1), PEXT, SHLX
// and SHRX (BMI2). They work on general registers, or those of SSE, so that none needs what an
// operating system has to save beyond those.
func bitInstructions() bool
