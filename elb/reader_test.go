package elb_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"myrmidon/elb"
)

// summary is what a reader yielded: a word for each pair.
func summary(r *elb.Reader) (out []string) {
	for record, err := range r.Lines() {
		var bad *elb.LineError
		switch {
		case errors.As(err, &bad):
			kind := "syntax"
			if errors.Is(err, elb.ErrUnknown) {
				kind = "unknown"
			} else if errors.Is(err, elb.ErrTooLong) {
				kind = "long"
			}
			out = append(out, fmt.Sprintf("%d@%d-%d %s %d", bad.Line, bad.Offset, bad.End, kind, bad.Length))
		case err != nil:
			out = append(out, err.Error())
		default:
			out = append(out, fmt.Sprintf("%d@%d-%d %s", record.Line, record.Offset, record.End, record.Format()))
		}
	}
	return out
}

func TestLinesHaveNumbersAndOffsets(t *testing.T) {
	long := strings.Repeat("x", 3000)
	object := "\ufeff" + healthLine + "\r\n" + // 0
		"\n" + "# a comment\n" +
		healthLine + "\n" +
		"garbage\n" +
		long + "\n" +
		nlbLine + "\n" + // another format
		strings.Repeat("\x00", 20) + "\n" +
		healthLine // no line break
	h, n := len(healthLine), len(nlbLine)
	var want []string
	at := int64(0)
	add := func(line, length int, format string, args ...any) {
		want = append(want, fmt.Sprintf("%d@%d-%d %s", line, at, at+int64(length), fmt.Sprintf(format, args...)))
		at += int64(length)
	}
	add(1, 3+h+2, "alb-health-check")
	at += 1 + 12
	add(4, h+1, "alb-health-check")
	add(5, 8, "syntax 7")
	add(6, 3001, "long 3000")
	add(7, n+1, "nlb")
	add(8, 21, "syntax 20")
	add(9, h, "alb-health-check")
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": iotest.OneByteReader,
		"eof":   iotest.DataErrReader,
	} {
		r := elb.NewReader(wrap(strings.NewReader(object)), elb.Config{MaxLine: 1000})
		if got := summary(r); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if r.Skipped() != 2 {
			t.Errorf("%s: %d lines skipped, want 2", name, r.Skipped())
		}
	}
}

// zeros is an endless line.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func TestALineOf100MBIsToldAndPassed(t *testing.T) {
	const size = 100 << 20
	r := elb.NewReader(io.MultiReader(strings.NewReader(healthLine+"\n"), io.LimitReader(zeros{}, size), strings.NewReader("\n"+healthLine+"\n"), io.LimitReader(zeros{}, size)), elb.Config{})
	n := len(healthLine) + 1
	want := []string{
		fmt.Sprintf("1@0-%d alb-health-check", n),
		fmt.Sprintf("2@%d-%d long %d", n, n+size+1, size),
		fmt.Sprintf("3@%d-%d alb-health-check", n+size+1, 2*n+size+1),
		fmt.Sprintf("4@%d-%d long %d", 2*n+size+1, 2*n+2*size+1, size),
	}
	if got := summary(r); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALineOfTheLimitIsTaken(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", ""} {
		for limit, want := range map[int]string{len(healthLine): "alb-health-check", len(healthLine) - 1: "long"} {
			got := summary(elb.NewReader(strings.NewReader(healthLine+end), elb.Config{MaxLine: limit}))
			if len(got) != 1 || !strings.Contains(got[0], want) {
				t.Errorf("limit %d, end %q: %q, want %s", limit, end, got, want)
			}
		}
	}
}

func TestAReadErrorEndsTheLines(t *testing.T) {
	broken := io.MultiReader(strings.NewReader(healthLine+"\n"+healthLine[:20]), iotest.ErrReader(io.ErrUnexpectedEOF))
	r := elb.NewReader(broken, elb.Config{})
	var records int
	var last error
	for record, err := range r.Lines() {
		if last = err; record != nil {
			records++
		}
	}
	if records != 1 || !errors.Is(last, io.ErrUnexpectedEOF) || !strings.Contains(last.Error(), fmt.Sprintf("line 2 at byte %d", len(healthLine)+21)) {
		t.Errorf("%d records, then %v", records, last)
	}
	// One in the middle of a line that is too long is told too.
	broken = io.MultiReader(io.LimitReader(zeros{}, 1<<20), iotest.ErrReader(io.ErrUnexpectedEOF))
	if got := summary(elb.NewReader(broken, elb.Config{MaxLine: 100})); len(got) != 1 || !strings.Contains(got[0], "unexpected EOF") {
		t.Errorf("got %q", got)
	}
	if got := summary(elb.NewReader(iotest.ErrReader(nil), elb.Config{})); len(got) != 1 || !strings.Contains(got[0], "no data") {
		t.Errorf("a reader that gives nothing: %q", got)
	}
}

func TestALoopCanBeLeftAndAReaderSetUpInTheMiddle(t *testing.T) {
	header := "#Version: 1.0\n#Fields: time date sc-status x-new(Thing) time-taken x-new(Thing) extra\n"
	object := header + strings.Repeat("10:20:30\t2026-03-01\t404\ta\t0.5\tb\tc\td\n", 5)
	whole := summary(elb.NewReader(strings.NewReader(object), elb.Config{}))
	r := elb.NewReader(strings.NewReader(object), elb.Config{})
	var record elb.Record
	for next, err := range r.Lines() {
		if err != nil {
			t.Fatal(err)
		}
		record = *next
		checkFields(t, decode(t, elb.Encoder{}.AppendJSON(nil, next)), map[string]any{
			"time": "2026-03-01T10:20:30Z", "sc_status": 404.0, "x_new_thing": "a", "time_taken": 0.5, "x_new_thing_5": "b", "extra_6": "c", "extra": []any{"d"},
		})
		checkNames(t, next)
		break
	}
	if rest := summary(r); strings.Join(rest, "\n") != strings.Join(whole[1:], "\n") {
		t.Errorf("taken up again: %q, want %q", rest, whole[1:])
	}
	again := elb.NewReader(strings.NewReader(object[record.End:]), elb.Config{Offset: record.End, Line: record.Line, Header: r.Header()})
	if rest := summary(again); strings.Join(rest, "\n") != strings.Join(whole[1:], "\n") {
		t.Errorf("set up in the middle: %q, want %q", rest, whole[1:])
	}
}

func TestAHeaderOfManyNamesIsHeld(t *testing.T) {
	var names, values []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("a-very-long-name-that-is-longer-than-any-of-those-that-exist-%d", i))
		values = append(values, fmt.Sprint("v", i))
	}
	object := "#Fields: date\ttime " + strings.Join(names, " ") + "\n2026-03-01\t10:20:30\t" + strings.Join(values, "\t") + "\n"
	for record, err := range elb.NewReader(strings.NewReader(object), elb.Config{}).Lines() {
		if err != nil {
			t.Fatal(err)
		}
		got := decode(t, elb.Encoder{Names: elb.ECS}.AppendJSON(nil, record))
		last := strings.ReplaceAll(names[56], "-", "_")
		checkFields(t, got, map[string]any{"aws.cloudfront." + last: "v56", "aws.extra": []any{strings.Join(values[57:], "\t")}})
	}
}

func TestAFormatThatIsGivenStays(t *testing.T) {
	got := summary(elb.NewReader(strings.NewReader(albLine+"\n#Fields: date\n"+nlbLine+"\n"+albLine+"\n"), elb.Config{Format: elb.ALB}))
	if len(got) != 3 || !strings.Contains(got[1], "syntax") || !strings.HasSuffix(got[2], " alb") {
		t.Errorf("got %q", got)
	}
	got = summary(elb.NewReader(strings.NewReader("hello\n"+albLine+"\n"), elb.Config{}))
	if len(got) != 2 || !strings.Contains(got[0], "unknown") || !strings.HasSuffix(got[1], " alb") {
		t.Errorf("got %q", got)
	}
	secret := strings.Replace(albLine, "2026-03-01T", "TOKEN", 1)
	for _, err := range elb.NewReader(strings.NewReader(secret+"\n"), elb.Config{Format: elb.ALB}).Lines() {
		var bad *elb.LineError
		if !errors.As(err, &bad) || string(bad.Text) != secret || strings.Contains(err.Error(), "TOKEN") {
			t.Errorf("err = %v", err)
		}
	}
}
