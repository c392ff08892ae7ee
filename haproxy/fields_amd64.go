package haproxy

// hasReadFields is whether this processor has what readFields needs, as all since 2015 do.
var hasReadFields = bitInstructions()

// readFields reads a row: those of its fields that are not empty into cells, numbers of up to 16
// digits as such and all others as texts, and their bits into mask, which has none yet. It looks
// at blocks of 64 bytes, which are read as a whole; behind the last another eight are read. offset
// is where in its dump the row begins.
//
// It returns where the line end is, or -1 if there is none in the blocks, if the row has quotes (or
// there are some close behind), or more fields than columns; n cells of so many fields, and whether one
// of the texts may be a number.
//
//go:noescape
func readFields(row *byte, blocks, offset int, cells *int64, columns int, mask *uint64) (length, n, fields int, odd bool)

// bitInstructions is whether there are BLSR, PEXT, POPCNT, SHLX and TZCNT.
func bitInstructions() bool
