package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"myrmidon/engine"
	"myrmidon/internal/clone"
	"myrmidon/internal/cost"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// cloneBill is the cost of a clone's report: the requests to each side, by verb, and what
// they cost at AWS prices.
type cloneBill struct {
	Source      map[string]int64 `json:"source"`
	Destination map[string]int64 `json:"destination"`
	// AtLeast says that some requests may be missing: see engine.UsageReport.
	AtLeast bool `json:"at_least"`
	cost.S3Bill
	NotCounted []string `json:"not_counted"`
}

// billOf adds up the requests of a report. A clone whose sides are folders has no bill.
func billOf(r *engine.Report) *cloneBill {
	b := &cloneBill{Source: make(map[string]int64), Destination: make(map[string]int64), AtLeast: r.Usage.AtLeast}
	all := make(map[string]int64)
	for name, n := range r.Usage.Requests {
		side, verb, _ := strings.Cut(name, " ")
		all[verb] += n
		if side == clone.SourceSide {
			b.Source[verb] += n
		} else {
			b.Destination[verb] += n
		}
	}
	var spec clone.Spec
	if len(all) == 0 || json.Unmarshal(r.Spec, &spec) != nil {
		return nil
	}
	transfer := int64(-1)
	if from, to := wire.Region(spec.Source), wire.Region(spec.Destination); from != "" && from == to {
		transfer = 0
	} else if from != "" && to != "" {
		transfer = r.Tally[clone.TallyServer]
	}
	b.S3Bill = cost.S3(all, transfer)
	if transfer < 0 {
		b.NotCounted = append(b.NotCounted, "transfer between regions")
	}
	b.NotCounted = append(b.NotCounted, "transfer to the internet", "retrieval from colder classes", "storage")
	return b
}

// String is the bill for people.
func (b *cloneBill) String() string {
	most := ""
	if b.AtLeast {
		most = "at least "
	}
	transfer := "transfer not counted"
	if b.Transfer != nil {
		transfer = size(*b.Transfer) + " between regions"
	}
	return fmt.Sprintf("requests  source: %s   destination: %s   %s%s at AWS prices of %s (%s; %s)",
		verbsOf(b.Source, most), verbsOf(b.Destination, most), most, b.USD, b.AsOf, b.Region, transfer)
}

func verbsOf(n map[string]int64, most string) string {
	var out []string
	for v := range object.Verbs {
		if name := v.String(); n[name] > 0 {
			out = append(out, fmt.Sprintf("%s %d", name, n[name]))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return most + strings.Join(out, ", ")
}
