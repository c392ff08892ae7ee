package logs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/elb"
	"myrmidon/internal/enrich"
)

// Filter says which lines are taken, and what of them. The zero Filter takes all of all.
type Filter struct {
	Format string    `json:"format,omitempty"` // as elb.ParseFormat has it; "" detects it
	Since  time.Time `json:"since,omitzero"`   // lines of this time or later
	Until  time.Time `json:"until,omitzero"`   // lines before this time
	Where  string    `json:"where,omitempty"`  // see [ParseWhere]
	// Fields are those that documents have, in the format's order; none means all. A short
	// name ([ShortNames]) stands for the field that holds it.
	Fields []string `json:"fields,omitempty"`
	ECS    bool     `json:"ecs,omitempty"` // names of the Elastic Common Schema
	// Sample is the share of lines that are taken, from 0 to 1; 0 means all. The same line
	// is always taken, or never.
	Sample float64 `json:"sample,omitempty"`
	// RedactQuery overwrites the values in queries of URLs with X.
	RedactQuery bool `json:"redact_query,omitempty"`
	// GeoIP and UserAgent are files by which fields are added: see [enrich.Config].
	GeoIP     []string `json:"geoip,omitempty"`
	UserAgent string   `json:"user_agent,omitempty"`
}

// Prepared is a Filter that was read. It may be used from many goroutines.
type Prepared struct {
	Format  elb.Format
	filter  Filter
	where   *Where
	fields  map[string]bool
	encoder elb.Encoder
	more    *enrich.Enricher // nil where nothing is added: see [Filter.Open]
}

// Prepare reads a filter. Errors are permanent.
func (f Filter) Prepare() (*Prepared, error) {
	p := &Prepared{filter: f}
	var err error
	if f.Format != "" {
		if p.Format, err = elb.ParseFormat(f.Format); err != nil {
			return nil, myrmidon.Permanent(err)
		}
	}
	if f.ECS {
		p.encoder.Names = elb.ECS
	}
	if f.Where != "" {
		if p.where, err = ParseWhere(f.Where); err != nil {
			return nil, err
		}
	}
	if math.IsNaN(f.Sample) || f.Sample < 0 || f.Sample > 1 {
		return nil, myrmidon.Permanent(fmt.Errorf("a sample of %v: it is a share from 0 to 1, such as 0.01 for one line of a hundred", f.Sample))
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return nil, myrmidon.Permanent(errors.New("no line is that new and that old: the time since is not before the time until"))
	}
	for _, name := range f.Fields {
		added := f.enriched() && enrich.IsField(name)
		if _, err := kindOf(name); err != nil && !added {
			return nil, myrmidon.Permanent(err)
		}
		if p.fields == nil {
			p.fields = make(map[string]bool)
		}
		p.fields[name] = added
		named := shortOf(name)
		for _, format := range formats { // whichever of its names was given
			i, err := elb.Lookup(format, name)
			switch {
			case named != nil:
				i = named.of(format)
			case err != nil:
				i = -1
			}
			if i >= 0 {
				field := elb.Fields(format)[i]
				p.fields[field.Name], p.fields[field.ECS] = true, true
			}
		}
	}
	return p, nil
}

// Takes reports whether a line of an object is taken. object names it: see [ID].
func (p *Prepared) Takes(r *elb.Record, object string) bool {
	if !p.filter.Since.IsZero() || !p.filter.Until.IsZero() {
		t, ok := r.Time()
		if ok && (t.Before(p.filter.Since) || !p.filter.Until.IsZero() && !t.Before(p.filter.Until)) {
			return false
		}
	}
	return p.where.Match(r) && (p.filter.Sample == 0 || p.sampled(object, r.Offset))
}

func (p *Prepared) sampled(object string, offset int64) bool {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", object, offset)
	// FNV leaves the high bits of short inputs alike: they are mixed once more.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11)/(1<<53) < p.filter.Sample
}

// Append appends a record as a JSON object and returns the longer slice. It overwrites
// the record's bytes if values are redacted.
func (p *Prepared) Append(dst []byte, r *elb.Record) []byte {
	if p.filter.RedactQuery {
		Redact(r)
	}
	n := len(dst)
	dst = p.encoder.AppendJSON(dst, r)
	if p.fields != nil {
		dst = dst[:n+keep(dst[n:], p.fields)]
	}
	if p.more == nil {
		return dst
	}
	// Every format has these two under their names of ECS, or not at all.
	return p.more.Append(dst, r.Get("source.ip").Bytes(), r.Get("user_agent.original").Bytes(), r.Format() == elb.CloudFront)
}

// keep leaves of a JSON object, as the encoder writes it, the members that are in names,
// and returns its new length.
func keep(doc []byte, names map[string]bool) int {
	out := 1
	for at := 1; at < len(doc)-1; {
		begin := at
		colon := begin + 1 + skipText(doc[begin+1:])
		end := colon + 1
		for depth := 0; end < len(doc)-1; end++ {
			switch c := doc[end]; {
			case c == '"':
				end += skipText(doc[end+1:])
				continue
			case c == '[' || c == '{':
				depth++
			case c == ']' || c == '}':
				depth--
			}
			if doc[end] == ',' && depth == 0 {
				break
			}
		}
		if names[string(doc[begin+1:colon-1])] {
			if out > 1 {
				doc[out] = ','
				out++
			}
			out += copy(doc[out:], doc[begin:end])
		}
		at = end + 1
	}
	doc[out] = '}'
	return out + 1
}

// skipText returns how many bytes of text lie up to and with the quote that ends it.
func skipText(text []byte) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// queried are the fields that hold URLs, and queries those that are a query.
var (
	queried = []string{"request_url", "redirect_url", "transformed_uri", "referer", "cs_referer"}
	whole   = []string{"request", "request_uri"} // where they do not split into a URL and the rest
	queries = []string{"cs_uri_query"}
)

// Redact overwrites the values in the queries of a record's URLs with X: names stay, and
// the number of bytes. A query without "=" is overwritten whole, and one ends where its field
// does, since clients send spaces and quotes in them. Columns without a name may hold URLs, too.
func Redact(r *elb.Record) {
	for _, name := range queried {
		redactURL(r.Get(name).Bytes())
	}
	if r.Get("request_url").Absent() {
		for _, name := range whole {
			redactURL(r.Get(name).Bytes())
		}
	}
	if fields := r.Fields(); len(fields) > 0 {
		for i := fields[len(fields)-1].Column + 1; i < r.Columns(); i++ {
			redactURL(r.Column(i))
		}
	}
	for _, name := range queries {
		if v := r.Get(name); !v.Absent() {
			redactQuery(v.Bytes())
		}
	}
}

func redactURL(url []byte) {
	if i := bytes.IndexByte(url, '?'); i >= 0 {
		redactQuery(url[i+1:])
	}
}

func redactQuery(q []byte) {
	for len(q) > 0 {
		part := q
		if i := bytes.IndexAny(q, "&#"); i >= 0 {
			part, q = q[:i], q[i+1:]
		} else {
			q = nil
		}
		if i := bytes.IndexByte(part, '='); i >= 0 {
			part = part[i+1:]
		}
		for i := range part {
			part[i] = 'X'
		}
	}
}

// FieldNames is a text for help: the names of a format's fields.
func FieldNames(f elb.Format) string {
	var names []string
	for _, field := range elb.Fields(f) {
		names = append(names, field.Name)
	}
	return strings.Join(names, " ")
}
