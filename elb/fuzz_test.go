package elb_test

import (
	"bytes"
	"strings"
	"testing"

	"myrmidon/elb"
)

// FuzzRecord takes any line as any format: nothing panics, the JSON is valid whatever the
// names, and the columns put together again are the line.
func FuzzRecord(f *testing.F) {
	for _, line := range []string{
		string(fullLine), string(ordinaryLine), albLine, nlbLine, clbLine, connLine, healthLine, cfLine, s3Line,
		"#Fields: date time", `a "b`, `"\" "`, "\x00\xff\x80", strings.Repeat("a ", 80), strings.Repeat("a\t", 80),
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		for format := elb.Unknown; format <= elb.S3Access+1; format++ {
			var r elb.Record
			err := r.Parse(format, line)
			for _, e := range []elb.Encoder{{}, {Nulls: true}, {Names: elb.ECS}, {Names: elb.ECS, Nulls: true}, {Names: 9}} {
				out := e.AppendJSON([]byte("x"), &r)
				if out[0] != 'x' || bytes.IndexByte(out, '\n') >= 0 {
					t.Fatalf("%v: %q", format, out)
				}
				decode(t, out[1:])
			}
			if err != nil {
				continue
			}
			if got := together(&r); !bytes.Equal(got, bytes.TrimSuffix(line, []byte(" "))) && !bytes.Equal(got, line) {
				t.Fatalf("%v: columns make\n%q of\n%q", format, got, line)
			}
			for i, field := range r.Fields() {
				v := r.At(i)
				v.Int()
				v.Float()
				v.Time()
				for range v.Items() {
				}
				if got := r.Get(field.Name); !bytes.Equal(got.Bytes(), v.Bytes()) {
					t.Fatalf("%v: Get(%s) = %q, At(%d) = %q", format, field.Name, got.Bytes(), i, v.Bytes())
				}
			}
		}
		elb.Detect(string(line), line)
		if !bytes.Equal(line, before) {
			t.Fatal("the line was changed")
		}
	})
}

// together puts the columns of a record together again.
func together(r *elb.Record) []byte {
	separator := byte(' ')
	if r.Format() == elb.CloudFront {
		separator = '\t'
	}
	var out []byte
	text := r.Text()
	for i := range r.Columns() {
		if i > 0 {
			out = append(out, separator)
		}
		// A quote or a bracket before the column's text is its own if the text begins
		// behind it.
		column := r.Column(i)
		if open := text[len(out):]; separator == ' ' && len(open) > 0 && (open[0] == '"' || r.Format() == elb.S3Access && open[0] == '[') && i < 59 {
			out = append(append(out, open[0]), column...)
			if end := len(out); end < len(text) {
				out = append(out, text[end])
			}
			continue
		}
		out = append(out, column...)
	}
	return out
}

// FuzzReader takes any object: each byte is in one line, and lines are numbered.
func FuzzReader(f *testing.F) {
	f.Add([]byte(albLine+"\n"+nlbLine+"\r\n\n#Fields: date time cs(Host)\n"+cfLine), 100)
	f.Add([]byte("\xef\xbb\xbf"+s3Line+"\nx\n"+strings.Repeat("y", 300)+"\n"), 50)
	f.Fuzz(func(t *testing.T, object []byte, limit int) {
		if limit > 1<<20 {
			limit = 1 << 20
		}
		r := elb.NewReader(bytes.NewReader(object), elb.Config{MaxLine: limit})
		var end, number, seen int64
		for record, err := range r.Lines() {
			at, next, line := int64(0), int64(0), int64(0)
			if err != nil {
				bad, ok := err.(*elb.LineError)
				if !ok || record != nil {
					t.Fatal(err)
				}
				at, next, line = bad.Offset, bad.End, bad.Line
			} else {
				decode(t, elb.Encoder{}.AppendJSON(nil, record))
				at, next, line = record.Offset, record.End, record.Line
				if !bytes.Contains(object[at:next], record.Text()) {
					t.Fatalf("line %d is not at %d-%d", line, at, next)
				}
			}
			if at < end || next <= at || line <= number {
				t.Fatalf("line %d at %d-%d follows line %d, which ends at %d", line, at, next, number, end)
			}
			if skipped := int64(bytes.Count(object[end:at], []byte("\n"))); line != number+1+skipped {
				t.Fatalf("line %d follows line %d and %d skipped ones", line, number, skipped)
			}
			end, number = next, line
			seen++
		}
		lines := int64(bytes.Count(object, []byte("\n")))
		if len(object) > 0 && object[len(object)-1] != '\n' {
			lines++
		}
		if seen+r.Skipped() != lines {
			t.Fatalf("%d lines, %d yielded and %d skipped", lines, seen, r.Skipped())
		}
	})
}
