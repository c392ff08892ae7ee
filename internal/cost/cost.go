// Package cost says what work would cost elsewhere, from price lists that carry their
// month and the page to compare them with. It does arithmetic only: it asks nobody,
// and knows no discounts, free tiers, taxes or, but for S3 between regions, data transfer.
//
// An [Estimate] is a comparison, not a bill: [Lambda] turns CPU time measured here
// into the time of a Lambda function of one vCPU, as if both cores were as fast.
package cost

import (
	"math"
	"strconv"
	"time"
)

// Table is one price list.
type Table struct {
	Region string
	AsOf   string // the month that the prices are of, YYYY-MM
	Source string // the page that has the present ones
	Prices map[Arch]Price
}

// Arch is the architecture of a Lambda function's processor.
type Arch string

// The architectures, by the names that AWS gives them.
const (
	X86 Arch = "x86_64"
	ARM Arch = "arm64"
)

// Price is what a Lambda function costs, in US dollars.
type Price struct {
	GBSecond float64 // a GB of memory for a second, first tier
	Request  float64 // one invocation
}

// LambdaPrices returns the list that [Lambda] reckons with. The caller owns it.
func LambdaPrices() Table {
	return Table{
		Region: "us-east-1",
		AsOf:   "2026-11",
		Source: "https://aws.amazon.com/lambda/pricing/",
		Prices: map[Arch]Price{
			X86: {GBSecond: 0.0000166667, Request: 0.20 / 1e6},
			ARM: {GBSecond: 0.0000133334, Request: 0.20 / 1e6},
		},
	}
}

const (
	// VCPUMemory is the memory, in MB, at which a function has the equivalent of one
	// vCPU (AWS Lambda Developer Guide, "Configure Lambda function memory"). What AWS
	// calls a MB and a GB here are 2^20 and 2^30 bytes.
	VCPUMemory = 1769
	// MaxInvocation is how long one invocation may last (AWS Lambda Developer Guide,
	// "Lambda quotas").
	MaxInvocation = 900 * time.Second
	// billingStep is the unit that durations are rounded up to (the pricing page).
	billingStep = time.Millisecond
)

// Estimate is what a piece of work would cost on Lambda.
type Estimate struct {
	USD         USD     `json:"usd"`
	GBSeconds   float64 `json:"gb_seconds"`
	Invocations int     `json:"invocations"`
	Arch        Arch    `json:"arch"`
	Region      string  `json:"region"`
	AsOf        string  `json:"prices_as_of"`
	Source      string  `json:"prices_from"`
}

// Lambda estimates cpu of CPU time, spread evenly over invocations of a function with
// one vCPU. Where that would exceed the time limit of an invocation, it counts as many
// as the limit makes necessary, so Estimate.Invocations can be larger than what was
// asked; cpu above 0 takes one at least. Negative arguments count as 0, an unknown
// arch as [X86].
func Lambda(cpu time.Duration, invocations int, arch Arch) Estimate {
	list := LambdaPrices()
	if _, ok := list.Prices[arch]; !ok {
		arch = X86
	}
	cpu = max(cpu, 0)
	n := max(invocations, 0, int(ceilDiv(cpu, MaxInvocation)))
	e := Estimate{Invocations: n, Arch: arch, Region: list.Region, AsOf: list.AsOf, Source: list.Source}
	if n == 0 {
		return e
	}
	// Each invocation is rounded up on its own.
	billed := ceilDiv(ceilDiv(cpu, time.Duration(n)), billingStep)
	seconds := float64(n) * float64(billed) * billingStep.Seconds()
	e.GBSeconds = seconds * VCPUMemory / 1024
	price := list.Prices[arch]
	e.USD = USD(e.GBSeconds*price.GBSecond + float64(n)*price.Request)
	return e
}

func ceilDiv(a, b time.Duration) time.Duration {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}

// USD is an amount of US dollars.
type USD float64

// String formats the amount for people: cents from a dollar on, and two significant
// digits below: $12.34, $0.45, $0.0011, $0.
func (d USD) String() string {
	sign, v := "", float64(d)
	if v < 0 {
		sign, v = "-", -v
	}
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return sign + "$" + strconv.FormatFloat(v, 'f', -1, 64)
	}
	decimals := 2
	if v < 0.1 {
		// What rounds up to the next power of ten (0.0099999) needs one digit less.
		rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 1, 64), 64)
		if err == nil && rounded > 0 {
			v = rounded
		}
		decimals = min(1-int(math.Floor(math.Log10(v)+1e-9)), 12)
	}
	return sign + "$" + strconv.FormatFloat(v, 'f', decimals, 64)
}
