//go:build !amd64

package haproxy

// hasReadFields is false where rows are read field by field.
const hasReadFields = false

func readFields(*byte, int, int, *int64, int, *uint64) (length, n, fields int, odd bool) {
	return -1, 0, 0, false
}
