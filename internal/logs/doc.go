// Package logs takes access logs from a bucket or a folder to a log stack: the logs
// workload, and what its commands do without an engine.
//
//	listing ──► objects of the time asked for ──► job: up to 16 objects, one an item
//	                                                │
//	object ──► inflate ──► lines (elb) ──► filter ──► sink.Batcher ──► acked
//	                         │               │             │
//	                         └── unparsed    └── filtered  └── failed
//
// # Promises
//
// Every line that an object holds is counted once: encountered = parsed + unparsed, and
// parsed = acked + failed + filtered; a run whose sums differ fails. A line that is no
// record, or that the destination refuses for good, is listed with its place and its
// reason, its object is parked, and the rest goes on. A retry of that object reads those
// lines alone.
//
// A line is delivered at least once. Its id is the same each time (see [ID]), so that
// Elasticsearch stores it once and others can tell.
//
// # Checkpoints
//
// While an object is read, how far every line has been settled is stored every few
// seconds: the object's ETag, the offset in inflated bytes, and the counts up to there. A
// job that comes again, because its process was killed, goes on from it: a plain object is
// opened there, a packed one is inflated up to there. An object that was replaced
// meanwhile is read from its beginning. Objects that are done are passed over.
//
// A job whose context has a deadline stops in time, with a checkpoint, and what is left of it
// goes on in another: see [myrmidon.Continue].
//
// # Audits
//
// [Config.Audit] compares the lines of each object with what a destination says that it has.
package logs
