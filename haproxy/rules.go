package haproxy

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// A Rule is how the values of one field in several processes become one.
type Rule uint8

const (
	// Same shows the value if all processes have the same, and else who has which: what
	// is configured, names, and fields that nothing is known of.
	Same Rule = iota
	// Key is Same; a row is found by it.
	Key
	// Sum adds.
	Sum
	// SumLimits adds limits. Where one process has a limit and another has none (nothing
	// or 0), there is no sum: the field is mixed.
	SumLimits
	// Max takes the greatest.
	Max
	// Min takes the least.
	Min
	// Average is the mean, in which each process counts once.
	Average
	// AverageByRequests is the mean weighted by req_tot, or by stot where there were no
	// requests. Processes without either do not count; if there is no other, it is the
	// greatest.
	AverageByRequests
	// Least takes the least age in seconds; never (a negative one) only if all are.
	Least
	// Worst is Same, and [Table.State] is the worst of all.
	Worst
)

var ruleNames = []string{
	Same: "same", Key: "key", Sum: "sum", SumLimits: "sum-limits", Max: "max", Min: "min",
	Average: "average", AverageByRequests: "average-by-requests", Least: "least", Worst: "worst",
}

func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return fmt.Sprintf("Rule(%d)", uint8(r))
}

// ParseRule reads what String writes.
func ParseRule(s string) (Rule, error) {
	if i := slices.Index(ruleNames, s); i >= 0 {
		return Rule(i), nil
	}
	return 0, fmt.Errorf("haproxy: there is no rule %q: use one of %v", s, ruleNames)
}

// An Override replaces the rule of a field.
type Override struct {
	Field string
	// Types are the types of rows that it is meant for; all if there are none.
	Types []Type
	Rule  Rule
	// Note says why, for [Rules.Fields].
	Note string
}

// Where a rule comes from.
const (
	SourceBuiltIn  = "built-in"   // the tags of HAProxy 2.6.12, or of 3.5 for later fields
	SourceLearned  = "learned"    // the tags of the process that was asked
	SourceOverride = "overridden" // this package knows better than the tags
	SourceUser     = "user"
	SourceUnknown  = "unknown" // no tag: Same
)

// A Field is how one field of one type of rows is merged, and why.
type Field struct {
	Name   string `json:"name"`
	Type   Type   `json:"-"`
	Rule   Rule   `json:"-"`
	Tag    Tag    `json:"-"`
	Source string `json:"source"`
	// Version is that of the process from which the tag was learned.
	Version string `json:"version,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Rules say how each field is merged. They do not change, and may be used from many
// goroutines. A nil *Rules is that of DefaultRules.
type Rules struct {
	names  []string // in the order in which they were first known
	fields map[string]*[types]Field
	user   []Override
}

// corrections are where HAProxy's tags mislead.
func corrections() []Override {
	watched := "every process watches the same servers"
	return []Override{
		{Field: "type", Rule: Key, Note: "rows are found by it"},
		{Field: "rate_max", Rule: Max, Note: "a backend's is tagged as a gauge, but is a maximum; the true one lies between this and the sum"},
		{Field: "act", Rule: Max, Note: watched},
		{Field: "bck", Rule: Max, Note: watched},
		{Field: "agg_server_status", Rule: Max, Note: watched},
		{Field: "agg_server_check_status", Rule: Max, Note: watched},
		{Field: "agg_check_status", Rule: Max, Note: watched},
		{Field: "downtime", Rule: Max, Note: watched},
		{Field: "check_health", Rule: Min, Note: "tagged as configuration, but is a state: the worst"},
		{Field: "agent_health", Rule: Min, Note: "tagged as configuration, but is a state: the worst"},
		{Field: "srid", Rule: Same, Note: "tagged as a counter, but tells a server from a former one of its number"},
		{Field: "status", Rule: Worst, Note: "the worst, and who says what"},
		{Field: "slim", Rule: SumLimits, Note: "each process has this limit for itself"},
		{Field: "rate_lim", Rule: SumLimits, Note: "each process has this limit for itself"},
		{Field: "weight", Rule: Average, Note: "a weight is not an average over requests"},
		{Field: "uweight", Rule: Average, Note: "a weight is not an average over requests"},
		{Field: "throttle", Rule: Average, Note: "a percentage of the weight"},
	}
}

// rule is what a tag prescribes.
func (t Tag) rule() Rule {
	switch {
	case t == Tag{}:
		return Same
	case t.Origin == 'K' && t.Nature == 'N':
		return Key
	case t.Origin == 'C' && t.Nature == 'L' && t.Scope == 'P':
		return SumLimits
	case t.Origin != 'M' || t.Value == "str":
		return Same
	}
	switch t.Nature {
	case 'C', 'G', 'R':
		return Sum
	case 'M', 'D':
		return Max
	case 'm':
		return Min
	case 'a':
		return AverageByRequests
	case 'A':
		return Least
	}
	return Same
}

var defaultRules = sync.OnceValue(func() *Rules {
	r := &Rules{fields: make(map[string]*[types]Field, len(builtIn()))}
	r.take(builtIn(), fieldsOf(builtInTags), SourceBuiltIn, "2.6.12")
	r.take(readTags(laterTags), fieldsOf(laterTags), SourceBuiltIn, "3.5-dev5")
	r.correct()
	return r
})

// DefaultRules are the rules by the built-in tags, corrected.
func DefaultRules() *Rules { return defaultRules() }

// Learn returns rules in which tags, as a process of this version gives them, replace
// the built-in ones; corrections and the user's overrides stay. For how to get tags see
// [ParseTyped] and [LearnTags].
func (r *Rules) Learn(tags Tags, version string) *Rules {
	out := r.orDefault().clone()
	out.take(tags, slices.Sorted(maps.Keys(tags)), SourceLearned, version)
	out.correct()
	return out
}

// With returns rules in which the overrides replace others.
func (r *Rules) With(overrides ...Override) (*Rules, error) {
	for _, o := range overrides {
		if o.Field == "" {
			return nil, fmt.Errorf("haproxy: an override names no field")
		}
		if int(o.Rule) >= len(ruleNames) {
			return nil, fmt.Errorf("haproxy: the override of %s: there is no %v", o.Field, o.Rule)
		}
		key := o.Field == "pxname" || o.Field == "svname" || o.Field == "type"
		if key != (o.Rule == Key) {
			return nil, fmt.Errorf("haproxy: the override of %s: the keys are pxname, svname and type, always", o.Field)
		}
		for _, t := range o.Types {
			if t >= types {
				return nil, fmt.Errorf("haproxy: the override of %s: there is no type %d", o.Field, t)
			}
		}
	}
	out := r.orDefault().clone()
	out.user = append(out.user, overrides...)
	out.override(overrides, SourceUser)
	return out, nil
}

// Rule is the rule of a field in rows of a type.
func (r *Rules) Rule(name string, t Type) Rule { return r.field(name, t).Rule }

// Fields are the rules of all fields that rows of some type have, each type for itself.
func (r *Rules) Fields() []Field {
	r = r.orDefault()
	var out []Field
	for _, name := range r.names {
		for _, f := range r.fields[name] {
			if f.Source != SourceUnknown && (f.Tag != Tag{} || f.Source == SourceUser) {
				out = append(out, f)
			}
		}
	}
	return out
}

func (r *Rules) field(name string, t Type) Field {
	if f := r.orDefault().fields[name]; f != nil && t < types {
		return f[t]
	}
	return Field{Name: name, Type: t, Source: SourceUnknown}
}

func (r *Rules) orDefault() *Rules {
	if r == nil {
		return DefaultRules()
	}
	return r
}

func (r *Rules) clone() *Rules {
	out := &Rules{names: slices.Clone(r.names), user: slices.Clone(r.user), fields: make(map[string]*[types]Field, len(r.fields))}
	for name, f := range r.fields {
		c := *f
		out.fields[name] = &c
	}
	return out
}

// take replaces the rules of fields by those of their tags; correct has to follow.
func (r *Rules) take(tags Tags, names []string, source, version string) {
	for _, name := range names {
		f := r.entry(name)
		for t, tag := range tags[name] {
			if tag != (Tag{}) {
				f[t] = Field{Name: name, Type: Type(t), Rule: tag.rule(), Tag: tag, Source: source, Version: version}
			}
		}
	}
}

// correct overrides what tags say where this package, or the user, knows better.
func (r *Rules) correct() {
	r.override(corrections(), SourceOverride)
	r.override(r.user, SourceUser)
}

func (r *Rules) entry(name string) *[types]Field {
	f := r.fields[name]
	if f == nil {
		f = new([types]Field)
		for t := range f {
			f[t] = Field{Name: name, Type: Type(t), Source: SourceUnknown}
		}
		r.fields[name] = f
		r.names = append(r.names, name)
	}
	return f
}

func (r *Rules) override(overrides []Override, source string) {
	for _, o := range overrides {
		f := r.entry(o.Field)
		for t := range f {
			if len(o.Types) > 0 && !slices.Contains(o.Types, Type(t)) {
				continue
			}
			if source == SourceOverride && f[t].Tag.rule() == o.Rule && f[t].Tag != (Tag{}) {
				continue // the tag says so by itself
			}
			f[t].Rule, f[t].Source, f[t].Note = o.Rule, source, o.Note
		}
	}
}
