package elb

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Kind is the type of a field. A kind says what the field is in JSON, always.
type Kind uint8

const (
	String  Kind = iota // a JSON string, as AWS wrote it
	Integer             // a JSON number, below 10^18
	Decimal             // a JSON number
	Time                // a JSON string: RFC 3339 in UTC, such as 2018-07-02T22:23:00.186641Z
	Address             // a JSON string: an IP address, without brackets
	Strings             // a JSON array of strings
	Numbers             // a JSON array of integers, null where one is absent
)

// String returns the kind's name, such as "integer".
func (k Kind) String() string {
	names := [...]string{"string", "integer", "decimal", "time", "address", "strings", "numbers"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Field describes a field of a format.
type Field struct {
	Name   string // client_ip
	ECS    string // the name in the Elastic Common Schema, or under aws. where that has none
	Kind   Kind
	Unit   string // s, ms, bytes, or empty
	Column int    // of the line, from 0
	AWS    string // the column's name in AWS's documentation: client:port
	Source string // the page that documents the format
}

// Fields returns the fields of a format in the order in which JSON has them, or nil for
// Unknown. A field's place in the slice is its position for [Record.At].
//
// Those of CloudFront are its 33 standard ones. A file whose #Fields header names others
// has others; ask its records by name.
func Fields(f Format) []Field {
	if s := schemaOf(f); s != nil {
		return slices.Clone(s.fields)
	}
	return nil
}

// Lookup returns the position of the field of that name, which may be the one in the
// Elastic Common Schema. The error lists the names that there are.
func Lookup(f Format, name string) (int, error) {
	s := schemaOf(f)
	if s == nil {
		return 0, fmt.Errorf("elb: field %q: no format is given", name)
	}
	if i, ok := s.byName[name]; ok {
		return i, nil
	}
	names := make([]string, len(s.fields))
	for i, field := range s.fields {
		names[i] = field.Name
	}
	return 0, fmt.Errorf("elb: %s logs have no field %q: want one of %s", f, name, strings.Join(names, ", "))
}

// shape is how a column's text becomes fields.
type shape uint8

const (
	asText      shape = iota
	asInteger         // one Integer
	asDecimal         // one Decimal
	asInstant         // one Time, in ISO 8601
	asBracketed       // one Time, as S3 writes it
	asAddress         // one Address
	asEndpoint        // host:port: NAME_ip and NAME_port
	asTarget          // the same, and NAME_addr with what is neither (a Lambda function)
	asRequest         // "GET http://… HTTP/1.1": the line if it does not split, method, URL, protocol
	asProtocol        // one String: HTTP/1.1, in ECS 1.1
	asSpaced          // Strings between spaces
	asCodes           // Numbers between spaces
	asALPN            // Strings as "h2","http/1.1"
	asDate            // a Time's day: no field if the time of day is there
	asClock           // a Time's rest
)

// column is a column of a line: its name in AWS's documentation, its shape and its fields'
// names in the Elastic Common Schema.
type column struct {
	aws   string
	name  string // of its field, if not made of aws
	shape shape
	ecs   string // separated by spaces if there are more
	unit  string
}

// step is what a column is to who goes through them all: small, so that the 34 of a line
// take few cache lines.
type step struct {
	shape         shape
	first, fields int // its first field and how many
}

// maxColumns is how many columns of a line are looked at one by one: the rest of a longer
// line is kept as one. The longest format has 34.
const maxColumns = 60

// schema is a format, ready for use. It never changes.
type schema struct {
	format  Format
	columns []column
	steps   []step // of the columns
	fields  []Field
	byName  map[string]int
	keys    [2]keys
	date    int // CloudFront: the column of the day, or -1
}

// keys are the names as JSON has them.
type keys struct {
	fields           []key
	extra, malformed string
	size             int // of all, with what stands between them
}

// key is a field's name, `"client_ip":"`, with the quote that opens a string's value;
// numbers leave it out. block holds its first bytes, which are all of most, to be copied
// without a call.
type key struct {
	block [32]byte
	long  string
}

// schemas are made when they are first asked for: other commands of a program that links
// this package start faster.
var schemas = sync.OnceValue(func() *[formats]*schema {
	return &[formats]*schema{
		Classic:        newSchema(Classic, classicColumns),
		ALB:            newSchema(ALB, albColumns),
		ALBConnection:  newSchema(ALBConnection, albConnectionColumns),
		ALBHealthCheck: newSchema(ALBHealthCheck, albHealthCheckColumns),
		NLB:            newSchema(NLB, nlbColumns),
		CloudFront:     newSchema(CloudFront, cloudFrontColumns),
		S3Access:       newSchema(S3Access, s3AccessColumns),
	}
})

func schemaOf(f Format) *schema {
	if f < formats {
		return schemas()[f]
	}
	return nil
}

// newSchema makes a schema of columns, whose names must differ.
func newSchema(f Format, columns []column) *schema {
	s := &schema{format: f, columns: slices.Clone(columns), byName: make(map[string]int), date: -1}
	has := func(want shape) bool {
		return slices.ContainsFunc(columns, func(c column) bool { return c.shape == want })
	}
	if has(asClock) {
		s.date = slices.IndexFunc(columns, func(c column) bool { return c.shape == asDate })
	}
	for i, c := range s.columns {
		fields := fieldsOf(c)
		if i == s.date {
			fields = nil // its field is the clock's
		}
		s.steps = append(s.steps, step{c.shape, len(s.fields), len(fields)})
		ecs := strings.Fields(c.ecs)
		for j, field := range fields {
			field.Column, field.Unit, field.AWS, field.Source, field.ECS = i, c.unit, c.aws, sources[f], field.Name
			if c.shape == asClock && s.date < 0 {
				field.Kind = String // without a day it is no time
			}
			if j < len(ecs) {
				field.ECS = ecs[j]
			}
			s.fields = append(s.fields, field)
		}
	}
	for i, field := range s.fields {
		s.byName[field.Name] = i
	}
	for i, field := range s.fields {
		if _, taken := s.byName[field.ECS]; !taken {
			s.byName[field.ECS] = i
		}
	}
	s.keys = [2]keys{newKeys(s.fields, false), newKeys(s.fields, true)}
	return s
}

// fieldsOf returns the names and kinds of a column's fields.
func fieldsOf(c column) []Field {
	name := c.name
	if name == "" {
		name = fieldName(c.aws)
	}
	host, _, _ := strings.Cut(name, "_port")
	switch c.shape {
	case asInteger:
		return []Field{{Name: name, Kind: Integer}}
	case asDecimal:
		return []Field{{Name: name, Kind: Decimal}}
	case asInstant, asBracketed, asClock:
		return []Field{{Name: name, Kind: Time}}
	case asAddress:
		return []Field{{Name: name, Kind: Address}}
	case asEndpoint:
		return []Field{{Name: host + "_ip", Kind: Address}, {Name: host + "_port", Kind: Integer}}
	case asTarget:
		return []Field{{Name: name}, {Name: "target_ip", Kind: Address}, {Name: "target_port", Kind: Integer}}
	case asRequest:
		return []Field{{Name: name}, {Name: "request_method"}, {Name: "request_url"}, {Name: "request_protocol"}}
	case asSpaced, asALPN:
		return []Field{{Name: name, Kind: Strings}}
	case asCodes:
		return []Field{{Name: name, Kind: Numbers}}
	}
	return []Field{{Name: name}}
}

// fieldName makes a name of AWS's: cs(User-Agent) becomes cs_user_agent.
func fieldName(aws string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(strings.ToLower(aws), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) {
		if b.Len() > 0 {
			b.WriteByte('_')
		}
		b.WriteString(part)
	}
	return b.String()
}

func newKeys(fields []Field, ecs bool) keys {
	k := keys{extra: `"extra":[`, malformed: `"malformed":{`}
	if ecs {
		k = keys{extra: `"aws.extra":[`, malformed: `"aws.malformed":{`}
	}
	for _, f := range fields {
		name := f.Name
		if ecs {
			name = f.ECS
		}
		next := key{long: `"` + name + `":"`}
		copy(next.block[:], next.long)
		k.fields = append(k.fields, next)
		k.size += len(next.long) + len(`",`)
	}
	return k
}
