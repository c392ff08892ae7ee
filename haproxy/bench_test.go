package haproxy

import (
	"context"
	"io"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/haproxyd"
)

// cpu is the processor time of this process so far: other processes do not disturb it as
// much as they do wall time.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perRow adds how much processor time a row takes, in microseconds: the bounds are 0.35
// for parsing and 0.2 for merging.
func perRow(b *testing.B, before time.Duration, rows int) {
	b.ReportMetric(float64(cpu(b)-before)/1e3/float64(b.N)/float64(rows), "cpu-us/row")
}

func BenchmarkParse(b *testing.B) {
	data := dumps(b)
	var t Table
	rows := 0
	if err := t.ParseCSV(data[0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(data[0])))
	before := cpu(b)
	for i := 0; b.Loop(); i++ {
		if err := t.ParseCSV(data[i%len(data)]); err != nil {
			b.Fatal(err)
		}
		rows = t.Len()
	}
	perRow(b, before, rows)
}

func BenchmarkMerge(b *testing.B) {
	var tables []*Table
	rows := 0
	for _, data := range dumps(b) {
		t := new(Table)
		if len(tables) > 0 {
			t.schema = tables[0].schema // as a Collector has it
		}
		if err := t.ParseCSV(data); err != nil {
			b.Fatal(err)
		}
		tables = append(tables, t)
		rows += t.Len()
	}
	var m Merger
	var out Table
	m.Reset(&out)
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		m.Reset(&out)
		for _, t := range tables {
			if err := m.Add(t); err != nil {
				b.Fatal(err)
			}
		}
		m.Table()
	}
	perRow(b, before, rows)
}

func BenchmarkWriteCSV(b *testing.B) {
	merged, err := mergedDumps(b)
	if err != nil {
		b.Fatal(err)
	}
	v := merged.View(Filter{})
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if err := v.WriteCSV(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	perRow(b, before, merged.Len())
}

// mergedDumps is what one look at four processes shows.
func mergedDumps(b *testing.B) (*Table, error) {
	var tables []*Table
	for _, data := range dumps(b) {
		t := new(Table)
		if err := t.ParseCSV(data); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return Merge(nil, tables...)
}

// BenchmarkPoll polls four real processes; what it allocates is Go's for connections and
// goroutines.
func BenchmarkPoll(b *testing.B) {
	var cfg Config
	for range 4 {
		cfg.Targets = append(cfg.Targets, Target{Address: haproxyd.Start(b, large).Socket})
	}
	for name, run := range map[string]func(c *Collector){
		"collector": func(c *Collector) {
			if err := c.Poll(context.Background()); err != nil {
				b.Fatal(err)
			}
		},
		"read-only": func(c *Collector) {
			c.startReading(context.Background())()
			c.forget()
		},
	} {
		b.Run(name, func(b *testing.B) {
			c, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			for range 3 {
				run(c)
			}
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				run(c)
			}
			b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/op")
		})
	}
}
