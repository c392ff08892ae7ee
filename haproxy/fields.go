package haproxy

const (
	block = 64 // bytes that readFields looks at at once
	// maxBlocks and maxAtOnce bound what is read at once. Nearly all rows are shorter.
	maxBlocks = 16
	maxAtOnce = 256 // columns
)

// readRowAtOnce is readRow of a row that has no quotes, no more than 1,024 bytes and 256 columns, and
// is not one of the last of its dump: up to 71 bytes behind its line end are read, too. If it returns
// false the row must be read field by field, which tells what is wrong with it; cells and mask may have
// been written to. It takes room for one cell more than there are columns.
func (t *Table) readRowAtOnce(cells []int64, p int, mask *[maxColumns / 64]uint64) (next, n int, ok bool) {
	blocks := min((len(t.raw)-p-8)/block, maxBlocks) // 8: readFields looks behind them
	columns := len(cells)
	// A row that is wrong may have something behind its last comma: the one cell more is for that.
	if !hasReadFields || blocks <= 0 || columns > maxAtOnce || cap(cells) == columns {
		return 0, 0, false
	}
	fields := columns
	if t.schema.trailing {
		fields++ // nothing, behind the last comma
	}
	words := (*[maxAtOnce/64 + 2]uint64)(mask[:])
	*words = [maxAtOnce/64 + 2]uint64{}
	length, n, got, odd := readFields(&t.raw[p], blocks, p, &cells[0], fields, &words[0])
	if length < 0 || got != fields || words[columns>>6]>>(columns&63) != 0 {
		return 0, 0, false
	}
	if odd {
		for k, c := range cells[:n] {
			if isText(c) {
				if v, ok := parseNumber(t.text(c)); ok { // of more than 16 digits, or below 0
					cells[k] = v
				}
			}
		}
	}
	return p + length + 1, n, true
}
