// Package haproxy reads the statistics of any number of HAProxy processes and presents
// them as one, merged as HAProxy's own metadata prescribes.
//
// A [Target] is a stats socket, a master socket or a stats page. [Read] gives the dumps
// behind one target, [ParseCSV] makes a [Table] of a dump, and [Merge] makes one table of
// several. [ReadAll] does all three for all targets at once:
//
//	snapshot, err := haproxy.ReadAll(ctx, haproxy.Config{Targets: targets})
//	if err != nil {
//		return err
//	}
//	view := snapshot.Table.View(haproxy.Filter{Types: []haproxy.Type{haproxy.Backend}})
//	view.Sort("errors")
//	view.Top(20)
//	return view.WriteCSV(os.Stdout)
//
// A [Collector] polls again and again: its counters never go back, and it knows rates
// and what changed. A [View] chooses and orders rows and writes them as CSV, as lines of
// JSON, or for Prometheus ([WritePrometheus]).
//
// # How fields are merged
//
// Each field of each type of rows has a [Rule]. It follows from the tag that HAProxy
// gives the field in its typed output: those of HAProxy 2.6, and of the fields that came
// since, are built in, and a collector learns those of other versions, once each. Where tags mislead, the package corrects them, and
// [Rules.With] replaces any rule; [Rules.Fields] shows all of them, where each is from
// and why.
//
// Counters, gauges and rates add up; maxima stay maxima (the true one lies between it and
// the sum, as processes peak at different times). Averages weigh by requests. Ages take
// the least, without never. Limits of a process add up. What every process observes for
// itself is the worst, with who says what: the status "UP 3/4, DOWN 1/4". What is
// configured must be the same, and is else shown in that way; numbers that have no sum
// are "mixed". A field that nothing is known of is treated as configured. Nothing is
// guessed.
//
// # Promises
//
// Merging one table gives the same table; tables may be merged in any order and any
// grouping. A dump that was cut off is never taken for whole. A target that fails, for
// whatever reason, is named with the reason, and the others are served.
//
// # Limits
//
// A table takes 8 bytes a cell that is not empty, and its text; a dump may have 256 MiB, a field
// too. Rows are known by type, proxy and server; of rows with the same key, the n-th belong
// together. The package needs only the standard library, and a processor of 64 bits.
package haproxy
