package haproxy

import "math/bits"

// An average is the sum of value times weight, in 128 bits, and of the weights.
type average struct {
	hi, lo uint64
	weight uint64
}

func (s *average) add(o average) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
	s.weight += o.weight
}

// addWeighed is add of what weigh returns. Small ones carry nothing.
func (s *average) addWeighed(c int64, weight uint64) {
	if uint64(c) < 1<<31 && weight < 1<<31 && s.lo < 1<<63 {
		s.lo += uint64(c) * weight
		s.weight += weight
		return
	}
	s.add(weigh(c, weight))
}

func (s *average) mean() int64 {
	hi, lo, negative := s.hi, s.lo, int64(s.hi) < 0
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	var carry uint64
	lo, carry = bits.Add64(lo, s.weight/2, 0)
	hi += carry
	if hi >= s.weight {
		return unmergeable // only if weights overflowed
	}
	q, _ := bits.Div64(hi, lo, s.weight)
	n := int64(q)
	if negative {
		n = -n
	}
	if !isNumber(n) {
		return unmergeable
	}
	return n
}

// maxWeight keeps a sum of 128 weights within 64 bits: of requests, nobody has as many.
const maxWeight = 1 << 56

// weigh returns value c with a weight, nothing if it is no number.
func weigh(c int64, weight uint64) average {
	if !isNumber(c) || weight == 0 {
		return average{}
	}
	if c >= 0 {
		hi, lo := bits.Mul64(uint64(c), weight)
		return average{hi, lo, weight}
	}
	hi, lo := bits.Mul64(uint64(-c), weight)
	lo, borrow := bits.Sub64(0, lo, 0)
	hi, _ = bits.Sub64(0, hi, borrow)
	return average{hi, lo, weight}
}

// requests is the weight of row i of a parsed table.
func (t *Table) requests(i int) uint64 {
	for _, k := range t.shapes[i].reqs {
		if c := t.cells[t.starts[i]+int(k)]; isNumber(c) && c > 0 {
			return uint64(min(c, maxWeight))
		} else if isText(c) {
			if n, ok := parseBig(t.text(c)); ok && n.Sign() > 0 {
				return maxWeight
			}
		}
	}
	return 0
}

// leafSums fills the averages of row i of t, which is as first copied it.
func (m *Merger) leafSums(sums []average, t *Table, i int) {
	requests := t.requests(i)
	for k, rule := range m.avgRule[t.types[i]] {
		// The columns are those of the first table.
		sums[k] = leaf(rule, t.cell(i, int(m.avg[k])), requests)
	}
}

func leaf(rule Rule, c int64, requests uint64) average {
	return weigh(c, weightOf(rule, requests))
}

// weightOf is what a number weighs by a rule.
func weightOf(rule Rule, requests uint64) uint64 {
	switch rule {
	case Average:
		return 1
	case AverageByRequests:
		return requests
	}
	return 0
}

// rowSums fills the averages of a row that came as row i of t.
func (m *Merger) rowSums(sums []average, p *plan, t *Table, i int) {
	for _, c := range p.avgs {
		sums[c.k] = t.sumsOf(c, i)
	}
}

// sumsOf is what row i of t adds to an average.
func (t *Table) sumsOf(c averaged, i int) average {
	if c.from >= 0 {
		return t.sums[i*len(t.avg)+int(c.from)]
	}
	return leaf(c.rule, t.row(i)[c.in], t.requests(i))
}

// mergeAverages adds row i of t to row at of out, whose cells are s and d.
func (m *Merger) mergeAverages(p *plan, at int, d []int64, t *Table, i int, s []int64) {
	out := m.out
	sums := out.sums[at*len(out.avg) : (at+1)*len(out.avg)]
	requests, leaves := uint64(0), len(t.avg) == 0
	if leaves {
		requests = t.requests(i)
	}
	for k := range p.avgs {
		c := &p.avgs[k]
		a, b := d[c.out], s[c.in]
		if b == empty {
			continue
		}
		if !leaves {
			sums[c.k].add(t.sumsOf(*c, i))
		} else if w := weightOf(c.rule, requests); w > 0 { // without traffic most weigh nothing
			sums[c.k].addWeighed(b, w)
		}
		// The greatest is what is shown if nothing weighs anything.
		if plain(a | b) {
			d[c.out] = max(a, b)
		} else if a != b || !isNumber(a) {
			d[c.out] = out.combine(Max, a, t, b)
		}
	}
}
