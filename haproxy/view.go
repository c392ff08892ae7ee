package haproxy

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Filter chooses rows. The zero Filter chooses all.
type Filter struct {
	// Types are the types to take; all if there are none.
	Types []Type
	// Match are patterns as of [path.Match], of which one must fit the name of the proxy,
	// or "proxy/server" if the pattern has a slash. All rows fit if there are none.
	Match []string
}

// Check returns an error that names the first pattern that is none.
func (f Filter) Check() error {
	for _, p := range f.Match {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("haproxy: the pattern %q: %w", p, err)
		}
	}
	return nil
}

func (f Filter) fits(t *Table, i int) bool {
	if len(f.Types) > 0 && !slices.Contains(f.Types, t.types[i]) {
		return false
	}
	if len(f.Match) == 0 {
		return true
	}
	return f.matches(string(t.Proxy(i)), string(t.Server(i)))
}

// Takes reports whether the filter chooses a row of this type, proxy and server, as an
// [Event] names it.
func (f Filter) Takes(typ, proxy, server string) bool {
	if len(f.Types) > 0 && !slices.ContainsFunc(f.Types, func(t Type) bool { return t.String() == typ }) {
		return false
	}
	return len(f.Match) == 0 || f.matches(proxy, server)
}

func (f Filter) matches(proxy, server string) bool {
	for _, p := range f.Match {
		name := proxy
		if strings.Contains(p, "/") {
			name += "/" + server
		}
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// A View is some rows of a table in some order. It refers to the table.
type View struct {
	Table *Table
	// Rows are indexes of rows.
	Rows []int
	// Fields are the columns to write beyond type, proxy and server; all if there are
	// none.
	Fields []string
}

// View returns the rows of t that the filter chooses, in t's order.
func (t *Table) View(f Filter) *View {
	v := &View{Table: t}
	v.Select(t, f)
	return v
}

// Select makes v the rows of t that the filter chooses; the memory of Rows is used again.
func (v *View) Select(t *Table, f Filter) {
	v.Table, v.Rows = t, v.Rows[:0]
	for i := range t.rows {
		if f.fits(t, i) {
			v.Rows = append(v.Rows, i)
		}
	}
}

// sortSums are the columns of a key that is none.
func sortSums(key string) []string {
	switch key {
	case "errors":
		return []string{"ereq", "econ", "eresp", "eint"}
	case "bytes":
		return []string{"bin", "bout"}
	case "sessions":
		return []string{"scur"}
	case "requests":
		return []string{"req_tot"}
	case "queue":
		return []string{"qcur"}
	}
	return nil
}

// SortKeys are the keys that Sort knows beside the columns.
func SortKeys() []string {
	return []string{"name", "state", "errors", "bytes", "sessions", "requests", "queue"}
}

// Sort orders the rows by a column or one of SortKeys: the greatest number first, then
// text in its order, then what is empty. "name" sorts by proxy, type and server, "state"
// puts the worst first, and "errors" is the sum of ereq, econ, eresp and eint.
func (v *View) Sort(key string) error {
	t := v.Table
	switch key {
	case "name":
		slices.SortStableFunc(v.Rows, func(a, b int) int {
			return cmp.Or(bytes.Compare(t.Proxy(a), t.Proxy(b)), cmp.Compare(t.types[a], t.types[b]),
				bytes.Compare(t.Server(a), t.Server(b)))
		})
		return nil
	case "state":
		slices.SortStableFunc(v.Rows, func(a, b int) int {
			return cmp.Compare(severity([]byte(t.State(a))), severity([]byte(t.State(b))))
		})
		return nil
	}
	names := sortSums(key)
	if names == nil {
		if t.Column(key) < 0 {
			return fmt.Errorf("haproxy: there is nothing called %q to sort by: use a column, or one of %s",
				key, strings.Join(SortKeys(), ", "))
		}
		names = []string{key}
	}
	type sortKey struct {
		row    int
		number int64
		ok     bool
		text   string
	}
	keys := make([]sortKey, len(v.Rows))
	for k, i := range v.Rows {
		keys[k].row = i
		for _, name := range names {
			n, ok := t.Int(i, t.Column(name))
			keys[k].number += n
			keys[k].ok = keys[k].ok || ok
		}
		if !keys[k].ok && len(names) == 1 {
			keys[k].text = t.Text(i, t.Column(names[0]))
		}
	}
	slices.SortStableFunc(keys, func(a, b sortKey) int {
		switch {
		case a.ok != b.ok:
			if a.ok {
				return -1
			}
			return 1
		case a.ok:
			return cmp.Compare(b.number, a.number)
		case (a.text == "") != (b.text == ""):
			if a.text != "" {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.text, b.text)
	})
	for k := range keys {
		v.Rows[k] = keys[k].row
	}
	return nil
}

// Top keeps the first n rows.
func (v *View) Top(n int) {
	if n >= 0 && n < len(v.Rows) {
		v.Rows = v.Rows[:n]
	}
}

// columns are the indexes of the columns to write.
func (v *View) columns() ([]int, error) {
	t := v.Table
	if t.schema == nil {
		return nil, fmt.Errorf("haproxy: the table was never filled")
	}
	var out []int
	if len(v.Fields) == 0 {
		for i := range t.schema.names {
			out = append(out, i)
		}
		return out, nil
	}
	for _, i := range []int{t.schema.pxname, t.schema.svname, t.schema.typ} {
		if i >= 0 {
			out = append(out, i)
		}
	}
	for _, name := range v.Fields {
		i := t.Column(name)
		if i < 0 {
			return nil, fmt.Errorf("haproxy: there is no field %q: the dump has %s", name, strings.Join(t.schema.names, ", "))
		}
		if !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	return out, nil
}
