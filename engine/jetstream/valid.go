package jetstream

// validJSON reports whether b is one JSON value, as json.Valid does: that one took a third
// of what reading a job costs.
func validJSON(b []byte) bool {
	v := validator{b: b}
	return v.value(0) && v.blank() == len(b)
}

// maxDepth is how deep values may be nested, as encoding/json has it.
const maxDepth = 10_000

// validator steps through JSON; at is where it stands.
type validator struct {
	b  []byte
	at int
}

// blank skips white space and returns where it stands then.
func (v *validator) blank() int {
	for v.at < len(v.b) {
		switch v.b[v.at] {
		case ' ', '\t', '\n', '\r':
			v.at++
		default:
			return v.at
		}
	}
	return v.at
}

// next takes c, if it comes next but for white space.
func (v *validator) next(c byte) bool {
	if v.blank() == len(v.b) || v.b[v.at] != c {
		return false
	}
	v.at++
	return true
}

// value skips a value that is nested in depth others.
func (v *validator) value(depth int) bool {
	if v.blank() == len(v.b) || depth > maxDepth {
		return false
	}
	switch c := v.b[v.at]; c {
	case '"':
		return v.text()
	case '{', '[':
		v.at++
		return v.values(c+2, depth+1) // '}' and ']' are two behind their openings
	case 't':
		return v.word("true")
	case 'f':
		return v.word("false")
	case 'n':
		return v.word("null")
	default:
		return v.number()
	}
}

// values skips what is in an object or array, up to its end.
func (v *validator) values(end byte, depth int) bool {
	if v.next(end) {
		return depth <= maxDepth
	}
	for {
		if end == '}' {
			if v.blank(); !v.text() || !v.next(':') {
				return false
			}
		}
		if !v.value(depth) {
			return false
		}
		if !v.next(',') {
			return v.next(end)
		}
	}
}

func (v *validator) word(w string) bool {
	if len(v.b)-v.at < len(w) || string(v.b[v.at:v.at+len(w)]) != w {
		return false
	}
	v.at += len(w)
	return true
}

func (v *validator) text() bool {
	if v.at == len(v.b) || v.b[v.at] != '"' {
		return false
	}
	for i := v.at + 1; i < len(v.b); i++ {
		switch c := v.b[i]; {
		case c == '"':
			v.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			if i++; i == len(v.b) {
				return false
			}
			switch v.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i == len(v.b) || !hex(v.b[i]) {
						return false
					}
				}
			default:
				return false
			}
		}
	}
	return false
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// digits skips digits and returns how many there were.
func (v *validator) digits() (n int) {
	for v.at < len(v.b) && '0' <= v.b[v.at] && v.b[v.at] <= '9' {
		v.at++
		n++
	}
	return n
}

func (v *validator) number() bool {
	at := func(set string) bool {
		for i := range len(set) {
			if v.at < len(v.b) && v.b[v.at] == set[i] {
				v.at++
				return true
			}
		}
		return false
	}
	at("-")
	if !at("0") && v.digits() == 0 {
		return false
	}
	if at(".") && v.digits() == 0 {
		return false
	}
	if at("eE") {
		at("+-")
		return v.digits() > 0
	}
	return true
}
