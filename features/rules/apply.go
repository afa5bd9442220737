package rules

import (
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"millrace/event"
)

// Hit is a rule that is met at an event.
type Hit struct {
	Rule     *Rule
	N        float64 // what was counted or measured
	From, To string
	Score    float64  // of this and the other rules that the key has met in the last hour: 1 − Π(1 − score), as if they were independent
	Others   []string // their names
}

// Apply gives an event of the state's key to the rules, at an event time, and appends what they found to out. late says that the event comes when its turn in the order
// of event time is over: rules that count take it at the given time all the same, so that nobody can hide by a clock that is behind; rules that compare times or histories
// do not look at it.
func (p *Plan) Apply(s *State, e *event.Rekeyed, at int64, late bool, out []Hit) []Hit {
	for _, r := range p.by[e.Name] {
		met := slices.Contains(r.On, e.Name) && (r.where == nil || r.where(e))
		var h Hit
		var ok bool
		switch r.Kind {
		case Velocity:
			if met {
				h, ok = r.velocity(s.cell(r.id), at)
			}
		case Distinct:
			if v := r.of[0].text(e); met && v != "" {
				h, ok = r.distinct(s.cell(r.id), v, at)
			}
		case CardTesting:
			if met {
				h, ok = r.cardTesting(s.cell(r.id), e, at)
			}
		case AmountOutlier:
			if met && !late && e.Value > 0 && e.Currency != "" {
				h, ok = r.amount(s.cell(r.id^uint32(xxh3.HashString(e.Currency))), float64(e.Value)/event.MicrosPerUnit, at)
			}
		case ImpossibleTravel:
			if met && !late {
				h, ok = r.travel(s.cell(r.id), e.Country, at)
			}
		case TimeAnomaly:
			if !late && (met || e.Name == r.From) {
				h, ok = r.timing(s.cell(r.id), e.Name == r.From, at)
			}
		case FirstSeen:
			if met && !late {
				h, ok = r.firstSeen(s.cell(r.id), e, at)
			}
		case Pattern:
			if !late {
				h, ok = r.pattern(s.cell(r.id), e, at)
			}
		case Model:
			if met && !late && p.Score != nil {
				h, ok = r.model(s.cell(r.id), e, at, p.Score)
			}
		}
		if !ok {
			continue
		}
		h.Rule = r
		p.combine(s, &h, at)
		out = append(out, h)
	}
	return out
}

// touch notes the time of an event and how long its cell is kept.
func (r *Rule) touch(c *cell, at int64) {
	c.last = max(c.last, at)
	c.until = c.last + r.keeps()
}

// fire says whether a rule that is met may say so again.
func (r *Rule) fire(c *cell, at int64) bool {
	if c.fired != 0 && at-c.fired < r.quiet {
		return false
	}
	c.fired = at
	return true
}

// combine adds a hit to those of the last hour and takes their score.
func (p *Plan) combine(s *State, h *Hit, at int64) {
	s.hits = slices.DeleteFunc(s.hits, func(x past) bool { return x.at+together <= at || x.id == h.Rule.id })
	miss := 1 - h.Rule.Score
	for _, x := range s.hits {
		if r := p.ids[x.id]; r != nil {
			miss *= 1 - x.score
			h.Others = append(h.Others, r.Name)
		}
	}
	h.Score = 1 - miss
	if len(s.hits) >= maxPast {
		s.hits = s.hits[1:]
	}
	s.hits = append(s.hits, past{h.Rule.id, at, h.Rule.Score})
}

// count puts n into the sub-bucket of a time, and gives the sum over the window that ends with the newest one. The window is twelve sub-buckets, the newest of which is not
// full: between 11/12 and all of it.
func (c *cell) count(window, at int64, n uint32) uint64 {
	width := max(1, window/ringBins)
	bin := at / width
	if c.ring == nil {
		c.ring, c.head = make([]uint32, ringBins), bin
	}
	if bin > c.head {
		for i := range min(bin-c.head, ringBins) {
			c.ring[(c.head+1+i)%ringBins] = 0
		}
		c.head = bin
	}
	if bin > c.head-ringBins && bin >= 0 {
		slot := &c.ring[bin%ringBins]
		*slot = min(*slot, math.MaxUint32-n) + n
	}
	sum := uint64(0)
	for _, v := range c.ring {
		sum += uint64(v)
	}
	return sum
}

// see marks a value and gives the number of values seen within the window. Beyond maxMarks the value that was not seen for longest is forgotten.
func (c *cell) see(hash uint64, window, at int64) int {
	newest := max(c.last, at)
	c.marks = slices.DeleteFunc(c.marks, func(m mark) bool { return m.at <= newest-window })
	if at <= newest-window {
		return len(c.marks)
	}
	for i := range c.marks {
		if c.marks[i].hash == hash {
			c.marks[i].at = max(c.marks[i].at, at)
			return len(c.marks)
		}
	}
	if len(c.marks) >= maxMarks {
		oldest := 0
		for i := range c.marks {
			if c.marks[i].at < c.marks[oldest].at {
				oldest = i
			}
		}
		c.marks = slices.Delete(c.marks, oldest, oldest+1)
	}
	c.marks = append(c.marks, mark{hash, at})
	return len(c.marks)
}

// seen says whether a value is marked.
func (c *cell) seen(hash uint64) bool {
	return slices.ContainsFunc(c.marks, func(m mark) bool { return m.hash == hash })
}
