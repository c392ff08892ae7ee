// Package engine carries runs from their spec to their report: it plans, hands out,
// retries, tracks and reports, on top of a [Backend] (a queue, a log and blobs) that
// survives the process.
//
//	         spec
//	          │
//	┌─────────▼─────────┐  slices: jobs + event + cursor, one atomic batch
//	│ plan job (worker) ├──────────────────────────────┐
//	└─────────▲─────────┘                              ▼
//	          │ phase start            ┌────────────────────────────┐
//	┌─────────┴─────────┐              │  Queue   fresh │ retries   │
//	│  owner            │              └───────┬────────▲───────────┘
//	│  tracker: bitmaps │                 pull │        │ failed items,
//	│  run.json, control│              ┌───────▼────────┴───┐ not before t
//	└─────────▲─────────┘   events     │ worker: N slots    │
//	          └────────────────────────┤ handler(job)       ├──► stores, sinks
//	                     Log           └────────────────────┘
//
// # Promises
//
//   - Order of durable steps: effect, then event, then acknowledgement. Whatever
//     process dies between two of them, the job comes again and either finds its
//     event (and is dropped) or repeats an idempotent effect.
//   - A slice of a plan is stored whole or not at all, with the event that tells of
//     it. A planner that is repeated after a crash is refused ([ErrStaleSlice]) and
//     goes on from the stored cursor.
//   - An item is done or failed once: two bitmaps a shard, and done wins.
//   - An attempt is a failure that a handler reported. Redeliveries do not count.
//   - One process owns a run: it holds the run's lock file ([RunDir.Lock]), or in a fleet
//     its lease ([FleetRun.Lock]), while it tracks and reports. What it knows is in
//     run.json, or in the registry, replaced each second.
//
// # One machine and fleets
//
// [Start] carries a run. Locally the owner also does the jobs, in its Slots, on a backend
// in the run's folder. In a fleet the backend is shared, and every [Worker] does jobs of all
// runs: see [Fleet] for what they know of one another.
//
// # Retries
//
// A failing item is tried three times in all unless its kind says otherwise. The
// wait before attempt n+1 is 1 s × 2^(n-1), at most 5 minutes, ± 25 % jitter, or what
// the handler asked for if that is longer. Permanent errors are parked at once. A
// parked job keeps its reason and those of its items, and can be retried or dropped by hand
// ([Parked]).
//
// Workers alternate pulls: retries at most every second one while fresh work exists,
// so that a storm of failures cannot starve fresh work, nor the other way round.
//
// A job that kills its process is found by its starts, not by its deliveries: see
// suspect.go. It is parked after twenty that had no end.
package engine
