package rules

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/event"
)

// Kind is the way in which a rule looks at a key's events.
type Kind string

// The kinds.
const (
	Velocity         Kind = "velocity"          // at least threshold events within the window
	Distinct         Kind = "distinct"          // at least threshold values of a field within the window
	CardTesting      Kind = "card_testing"      // at least threshold cards, or declines refusals, within the window
	AmountOutlier    Kind = "amount_outlier"    // an amount far above the key's own
	ImpossibleTravel Kind = "impossible_travel" // another country, faster than threshold km/h
	TimeAnomaly      Kind = "time_anomaly"      // less than threshold seconds from one event to another
	FirstSeen        Kind = "first_seen"        // values that a key with a history has never had
	Pattern          Kind = "pattern"           // a sequence of events within the window
	Model            Kind = "model"             // a model's score of at least threshold
)

// Kinds lists them.
func Kinds() []Kind {
	return []Kind{Velocity, Distinct, CardTesting, AmountOutlier, ImpossibleTravel, TimeAnomaly, FirstSeen, Pattern, Model}
}

// Entities lists what rules may be about.
func Entities() []string {
	return []string{event.EntityVisitor, event.EntityUser, event.EntityCard, event.EntityIP, event.EntityDevice}
}

// Rule is one rule of a Set.
type Rule struct {
	Name      string
	Kind      Kind
	Entity    string
	On        []string // names of the events at which it may be met
	Where     string   // normal form, "" if it has none
	Of        []string // fields: distinct, first_seen
	From      string   // time_anomaly: name of the event from which time is taken
	Sequence  []string // pattern: names
	Window    time.Duration
	Threshold float64
	Declines  int // card_testing; 0: not counted
	History   int // amount_outlier: orders before which nothing is said
	Severity  string
	Score     float64
	Reason    string
	Cooldown  time.Duration // after an alert, until the next about the same key

	where  predicate
	of     []field
	id     uint32 // of its state: what it counts, not from where on it is too much
	window int64  // µs
	quiet  int64
}

// Set is a version of all rules.
type Set struct {
	Version int
	Hash    string // hex, of the canonical form
	Model   string // version of the model that rules of kind model ask, "" if they take the one there is
	Rules   []*Rule

	source []byte
	plans  map[string]*Plan
	scorer *Scorer
}

// Scorer is a model that rules of kind model ask.
type Scorer struct {
	Model   string // name
	Version string
	Score   func(features []float64) float64 // NaN: it has no score
}

// Asks says whether there is a rule of kind model.
func (s *Set) Asks() bool {
	return slices.ContainsFunc(s.Rules, func(r *Rule) bool { return r.Kind == Model })
}

// Scorer is what SetScorer gave.
func (s *Set) Scorer() *Scorer { return s.scorer }

// Source is the file that the set was read from.
func (s *Set) Source() []byte { return s.source }

// Plan gives the rules about an entity, nil if there are none.
func (s *Set) Plan(entity string) *Plan { return s.plans[entity] }

// Names lists the events that rules about the given entities look at.
func (s *Set) Names(entities ...string) []string {
	var out []string
	for _, e := range entities {
		if p := s.plans[e]; p != nil {
			for n := range p.by {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Plan is what has to be done with the events of one entity's keys.
type Plan struct {
	by    map[string][]*Rule // by name of the event
	ids   map[uint32]*Rule
	Score func(features []float64) float64 // of rules of kind model; nil: they are never met
}

// Wants says whether an event of this name matters to the plan.
func (p *Plan) Wants(name string) bool { return p != nil && len(p.by[name]) > 0 }

// watches lists the events that a rule has to see.
func (r *Rule) watches() []string {
	out := slices.Clone(r.On)
	if r.From != "" {
		out = append(out, r.From)
	}
	out = append(out, r.Sequence...)
	slices.Sort(out)
	return slices.Compact(out)
}

// keeps is how long after a key's last event the rule remembers something of it.
func (r *Rule) keeps() int64 { return max(r.window, r.quiet) }

// canonical is a text that is the same for rules that do the same.
func (r *Rule) canonical(all bool) string {
	on := slices.Sorted(slices.Values(r.On))
	parts := []string{r.Name, string(r.Kind), r.Entity, strings.Join(on, ","), r.Where, strings.Join(r.Of, ","), r.From, strings.Join(r.Sequence, ","), r.Window.String()}
	if all {
		f := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
		parts = append(parts, f(r.Threshold), strconv.Itoa(r.Declines), strconv.Itoa(r.History), r.Severity, f(r.Score), r.Reason, r.Cooldown.String())
	}
	return strings.Join(parts, "\x1f")
}

// Explain fills in a rule's reason.
func (h *Hit) Explain() string {
	n := strconv.FormatFloat(h.N, 'f', 1, 64)
	if h.N == float64(int64(h.N)) {
		n = strconv.FormatInt(int64(h.N), 10)
	}
	return strings.NewReplacer("{n}", n, "{threshold}", strconv.FormatFloat(h.Rule.Threshold, 'g', 6, 64), "{window}", days(h.Rule.Window), "{from}", h.From, "{to}", h.To).Replace(h.Rule.Reason)
}

// days writes a duration as rule files do.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day && d%day == 0:
		return strconv.Itoa(int(d/day)) + "d"
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return d.String()
}
