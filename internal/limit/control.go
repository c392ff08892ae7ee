package limit

import (
	"math"
	"time"
)

const (
	// tolerated is how many requests one push-back may be among without being taken
	// for congestion: a large service returns a stray 503 now and then, and at a
	// thousand in flight each round trip would otherwise find one and halve.
	tolerated = 128
	// lowCeiling is the limit below which the place of a push-back is not remembered.
	// Nor is it if nothing at all was served since the one before: the destination is
	// down then, and the limit no matter.
	lowCeiling = 4
	// The rests between trials, in windows of two round trips.
	shortRest, longRest = 4, 32
	// afterCut is the rest after a push-back that lost much, in the same windows.
	afterCut = 1
	// The pauses after a push-back at a limit of 1.
	firstPause, lastPause = 50 * time.Millisecond, time.Second
)

// phase is what the control is doing.
type phase uint8

const (
	climbing phase = iota // doubling each window
	resting               // limit is base
	raised                // trying a limit above base
	lowered               // trying a limit below base
)

// control finds the limit. It sees completions in windows: a window is as many
// completions as make a round trip or two (as many as are in flight make one), and
// ends with a rate, which is judged. It is guarded by its limiter's mutex.
type control struct {
	epoch time.Time // now() counts from here: a monotonic reading, cheaper than time.Now
	most  int

	phase   phase
	limit   int
	base    int     // the limit that is known to pay; limit differs from it in a trial
	rate    float64 // completions a second at base; 0 if not measured
	each    float64 // while climbing, the best rate a permit: what one that never queues gives
	ceiling int     // the limit that was pushed back last; 0 if unknown or passed
	cuts    uint32  // how often push-back changed the limit
	rest    int     // windows until the next trial
	restLen int     // how long the last rest was
	down    bool    // whether the next trial is downward
	again   bool    // the window is the second one at a limit that did not pay in the first
	dive    int     // by how many eighths; doubled, up to 4, as long as it costs nothing
	settle  bool    // the window is not judged: what is under way began at another limit
	served  bool    // something succeeded since the last cut
	calm    int     // how often something succeeded since the last push-back; enough at first
	pause   time.Duration

	start    time.Duration // of the window
	n        int           // completions in the window
	need     int           // completions that end it
	best     float64       // the highest rate seen in its last part
	pushes   int           // push-backs in the window
	slack    time.Duration // how much of the window the limit was not used up
	slackAt  time.Duration // since when it is not
	full     bool          // it is used up
	lastRate float64       // for Stats
}

func newControl(start, most int) control {
	most = max(most, 1)
	start = min(max(start, 1), most)
	c := control{epoch: time.Now(), most: most, limit: start, base: start, calm: tolerated}
	c.window()
	return c
}

func (c *control) now() time.Duration { return time.Since(c.epoch) }

// mark notes whether the limit is used up, which is when a window counts.
func (c *control) mark(inFlight int) {
	if full := inFlight >= c.limit; full != c.full {
		c.full = full
		now := c.now()
		switch {
		case !full:
			c.slackAt = now
		case c.n == 0: // nothing was going on
			c.start, c.slack = now, 0
		default:
			c.slack += now - c.slackAt
		}
	}
}

// window begins a window. Its length depends on the phase.
func (c *control) window() {
	now := c.now()
	c.start, c.slackAt = now, now
	c.n, c.best, c.pushes, c.slack = 0, 0, 0, 0
	switch {
	case c.phase == climbing && !c.again:
		c.need = max(c.limit, 8)
	case c.settle:
		c.need = max(c.limit, 4)
	case c.phase == resting:
		c.need = max(2*c.limit, 16)
	default:
		c.need = max(2*c.limit, 32)
	}
}

// completed counts a success, and judges the window if it was the last one in it.
//
// Requests that began together end together, so a window may end just after a burst
// or just before one, and rates differ by a burst. The rate is therefore the highest
// one in the last part of the window, which is the one just after a burst; and what
// ends at the very moment the window began belongs to the burst before.
func (c *control) completed() {
	c.served, c.pause = true, 0
	c.calm++
	c.n++
	from := c.need / 2
	if c.phase != climbing || c.again {
		from = c.need - c.need/4
	}
	if c.n > 1 && c.n < from {
		return
	}
	now := c.now()
	took := now - c.start
	if took <= 0 {
		c.n--
		return
	}
	if c.n >= from {
		c.best = max(c.best, float64(c.n)/took.Seconds())
	}
	if c.n < c.need {
		return
	}
	slack := c.slack
	if !c.full {
		slack += now - c.slackAt
	}
	if slack <= took/4 {
		c.lastRate = c.best
		c.judge(c.best)
	}
	c.window()
}

// judge draws the conclusion from a window's rate.
func (c *control) judge(rate float64) {
	if c.settle {
		c.settle = false
		return
	}
	switch c.phase {
	case climbing:
		switch {
		case c.rate == 0 || c.pays(rate):
			c.climb(rate)
		case !c.again:
			// New permits cost once what later ones do not: connections are made for them.
			c.again = true
		default:
			c.restAt(c.clamp(rate/c.each, c.limit), shortRest)
		}
	case resting:
		switch {
		case c.rate == 0:
			c.rate = rate
		case rate < c.rate*3/4 || rate > c.rate*4/3: // the destination or the work is another
			c.rate, c.rest, c.restLen, c.down = rate, min(c.rest, shortRest), shortRest, rate < c.rate
		default:
			c.rate = (c.rate + rate) / 2
		}
		if c.rest--; c.rest <= 0 {
			c.try()
		}
	case raised:
		switch knee := float64(c.base) * rate / c.rate; {
		case (c.limit-c.base)*16 <= c.base:
			// Too small a step to be measured: not being pushed back is enough.
			c.down = false
			c.restAt(c.limit, shortRest)
		case c.pays(rate):
			c.each = 0
			c.climb(rate)
		default:
			at := c.clamp(knee, c.limit)
			c.down = c.down && !moved(at, c.base)
			c.restAt(at, 2*c.restLen)
		}
	case lowered:
		knee := c.clamp(float64(c.limit)*c.rate/rate, c.base)
		if knee <= c.limit+c.limit/16 {
			c.dive, c.down = 2*c.dive, true // it cost nothing: go on
		} else {
			c.dive = 0
		}
		c.restAt(knee, 2*c.restLen)
	}
}

// pays reports whether a higher limit gave at least half of the throughput that it
// would give if nothing queued.
func (c *control) pays(rate float64) bool {
	return rate/c.rate-1 >= (float64(c.limit)/float64(c.base)-1)/2
}

// clamp turns an estimate of the smallest limit that gives the full throughput into a
// limit of at most top, with a thirty-second to spare.
func (c *control) clamp(knee float64, top int) int {
	return int(min(max(math.Ceil(knee*33/32), 1), float64(top)))
}

// climb accepts the limit and doubles it, or goes half of the way to where the last
// push-back was. Where there is nothing to climb it rests.
func (c *control) climb(rate float64) {
	if !c.again || c.each == 0 { // a burst that is seen twice tells too much
		c.each = max(c.each, rate/float64(c.limit))
	}
	c.phase, c.again = climbing, false
	c.base, c.rate = c.limit, rate
	next, near := c.above(c.base)
	if near || next == c.limit {
		c.restAt(c.limit, shortRest)
		return
	}
	c.limit = next
}

// above returns the next limit to climb to, and whether it lies so near to where a
// push-back was that only small steps are safe.
func (c *control) above(limit int) (next int, near bool) {
	if limit > c.ceiling+c.ceiling/16 {
		c.ceiling = 0 // passed
	}
	switch next = 2 * limit; {
	case c.ceiling == 0:
	case limit < c.ceiling-c.ceiling/16:
		next = min(next, (limit+c.ceiling+1)/2)
	default:
		next, near = limit+max(1, limit/32), true
	}
	return min(next, c.most), near
}

// try begins a trial, up or down in turn.
func (c *control) try() {
	down := c.down
	c.down = !c.down
	next, _ := c.above(c.base)
	if c.ceiling == 0 {
		next = min(next, c.base+max(1, c.base/4))
	}
	switch {
	case next > c.base && (!down || c.base == 1):
		c.phase, c.limit = raised, next
	case c.base > 1:
		c.dive = min(max(c.dive, 1), 4)
		c.phase, c.limit, c.settle = lowered, c.base-max(1, c.base*c.dive/8), true
	default:
		c.rest = longRest
	}
}

// restAt makes limit the base and rests there for a number of windows; if the base
// has moved, for a short while only.
func (c *control) restAt(limit, windows int) {
	if moved(limit, c.base) {
		windows = shortRest
	}
	c.phase, c.settle, c.again = resting, true, false
	c.limit, c.base = limit, limit
	c.rate, c.each = 0, 0
	c.restLen = min(max(windows, shortRest), longRest)
	c.rest = c.restLen
}

// moved reports whether a limit differs from the one before by more than what chance
// and the spare thirty-second make of it.
func moved(limit, before int) bool {
	d := limit - before
	return max(d, -d)*16 > before
}

// pushedBack lowers the limit and returns for how long permits are to be held back if
// it cannot be lowered. A push-back of what began before the last cut says nothing of
// the limit as it is now.
func (c *control) pushedBack(p Permit) (pause time.Duration) {
	calm := c.calm
	c.calm = 0
	if p.cuts != c.cuts {
		return 0
	}
	c.pushes++
	switch {
	case c.pushes*tolerated <= c.limit:
		if c.phase == resting {
			c.limit--
			c.base--
		}
		return 0
	case c.limit == 1:
		c.pause = min(max(2*c.pause, firstPause), lastPause)
		return c.pause
	case calm >= tolerated:
		return 0
	}
	c.cuts++
	c.ceiling = c.limit
	if !c.served || c.limit < lowCeiling {
		c.ceiling = 0
	}
	c.served = false
	if c.limit > c.base {
		trial, rest := c.phase == raised, 2*c.restLen
		if c.limit > c.base+1 && moved(c.limit, c.base) {
			rest, c.down = shortRest, false // look between the two
		}
		c.restAt(c.base, rest)
		if !trial {
			c.rest = afterCut
		}
	} else {
		c.restAt(c.limit/2, shortRest)
		c.rest = afterCut
	}
	c.window()
	return 0
}
