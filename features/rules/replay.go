package rules

import (
	"encoding/hex"

	"github.com/zeebo/xxh3"

	"millrace/event"
)

// Device is the hash by which rules know a browser: of what it says of itself.
func Device(userAgent, os, browser, locale, timeZone string) string {
	h := xxh3.HashString(userAgent)
	for _, s := range [...]string{os, browser, locale, timeZone} {
		h = h*31 + xxh3.HashString(s)
	}
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(h >> (56 - 8*i))
	}
	return hex.EncodeToString(raw[:])
}

// Keys calls f for each entity that an event is about, with its key set in e.
func Keys(e *event.Rekeyed, f func()) {
	set := func(entity, key string) {
		if key != "" {
			e.Entity, e.Key = entity, key
			f()
		}
	}
	set(event.EntityVisitor, e.VisitorID)
	set(event.EntityCard, e.CardFingerprint)
	set(event.EntityIP, e.IPHash)
	set(event.EntityUser, e.UserID)
	if e.IPHash != "" {
		set(event.EntityDevice, e.IPHash+"."+e.Device)
	}
}

// Replay is what a set would have done with events of the past.
type Replay struct {
	set    *Set
	states map[string]*State
	by     map[string]*Outcome
	hits   []Hit
	key    []byte
	swept  int64

	Events int64 // that any rule looked at
}

// Outcome is that of one rule.
type Outcome struct {
	Rule     string    `json:"rule"`
	Kind     Kind      `json:"kind"`
	Entity   string    `json:"entity"`
	Severity string    `json:"severity"`
	Events   int64     `json:"events"` // by names that it is on
	Alerts   int64     `json:"alerts"`
	Share    float64   `json:"share"` // of alerts among those events
	TooMuch  bool      `json:"too_much"`
	Examples []Example `json:"examples,omitempty"`
}

// Example is one of the first alerts.
type Example struct {
	Key     string `json:"key"`
	EventID string `json:"event_id"`
	At      int64  `json:"at"` // µs
	Reason  string `json:"reason"`
}

// What is too much: more than one alert in a hundred events, if there are enough to tell.
const (
	tooMuchShare = 0.01
	tooMuchLeast = 20
	examples     = 3
)

// NewReplay begins with no history.
func NewReplay(set *Set) *Replay {
	r := &Replay{set: set, states: map[string]*State{}, by: map[string]*Outcome{}}
	for _, x := range set.Rules {
		r.by[x.Name] = &Outcome{Rule: x.Name, Kind: x.Kind, Entity: x.Entity, Severity: x.Severity}
	}
	return r
}

// Add takes the next event, in about the order in which they came. It retains nothing of it.
func (r *Replay) Add(e *event.Rekeyed) {
	r.Events++
	Keys(e, func() {
		plan := r.set.Plan(e.Entity)
		if !plan.Wants(e.Name) {
			return
		}
		for _, x := range plan.by[e.Name] {
			r.by[x.Name].Events++
		}
		r.key = e.AppendKey(r.key[:0])
		s := r.states[string(r.key)]
		if s == nil {
			s = &State{}
			r.states[string(r.key)] = s
		}
		r.hits = plan.Apply(s, e, e.At, false, r.hits[:0])
		for i := range r.hits {
			h := &r.hits[i]
			o := r.by[h.Rule.Name]
			o.Alerts++
			if len(o.Examples) < examples {
				o.Examples = append(o.Examples, Example{Key: string([]byte(e.Key)), EventID: string([]byte(e.EventID)), At: e.OccurredAt, Reason: h.Explain()})
			}
		}
	})
	if hour := e.At / (3600 * microsASec); hour > r.swept { // so that memory is that of the windows, not of all the past
		r.swept = hour
		for k, s := range r.states {
			if s.Expire(e.At); s.Empty() {
				delete(r.states, k)
			}
		}
	}
}

// Outcomes gives that of every rule, in the file's order.
func (r *Replay) Outcomes() []Outcome {
	var out []Outcome
	for _, x := range r.set.Rules {
		o := *r.by[x.Name]
		if o.Events > 0 {
			o.Share = float64(o.Alerts) / float64(o.Events)
		}
		o.TooMuch = o.Alerts > tooMuchLeast && o.Share > tooMuchShare
		out = append(out, o)
	}
	return out
}
