// Package clone makes one bucket, folder or prefix like another: the clone workload.
//
//	listing ──┬── only in the source, or different ──► copy   (phase copy)
//	(ranges)  ├── alike ──► skipped
//	          └── only in the destination ──► deleted, if asked  (phase delete, last)
//	                                          compared again     (phase verify, if asked)
//
// # How it works
//
// Source and destination are listed by ranges of keys and joined page by page, so that
// copying begins with the first page and memory depends on the ranges under way, not on
// the number of keys. A range is a shard of the run, and the objects to copy are its
// items: a range is divided while its end is far (see [object.Cursor]). Objects are
// copied by the destination where it can ([object.Importer]), without a request but the
// copy itself, on the condition that the source's ETag is that of the listing; else their
// bytes stream through the worker.
//
// # Promises
//
// Every object that the source's listing held and the filters took is copied, skipped
// because the destination has it, or listed as failed. Nothing is half-copied. Nothing
// is deleted before the copying of everything has succeeded, nor in a range of keys whose
// two listings were not complete and in order, nor without asking the source for it by its
// key.
package clone
