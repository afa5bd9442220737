package pattern

import "slices"

// Match is what was found: the events in order, each with its step.
type Match[E any] struct {
	Pattern    string
	Key        string
	Start, End int64 // event times of the first and the last event, µs
	// At is the event time at which it was found: End, or, when a not-followed-by stands at the end, the last microsecond of Within.
	At     int64
	Events []Captured[E]
}

// Captured is an event of a match.
type Captured[E any] struct {
	Step  string
	At    int64
	Event E
}

// All are the events of a step.
func (m *Match[E]) All(step string) []E {
	var out []E
	for i := range m.Events {
		if m.Events[i].Step == step {
			out = append(out, m.Events[i].Event)
		}
	}
	return out
}

// Last is the last event of a step; false if it took none.
func (m *Match[E]) Last(step string) (e E, ok bool) {
	for i := len(m.Events) - 1; i >= 0; i-- {
		if m.Events[i].Step == step {
			return m.Events[i].Event, true
		}
	}
	return e, false
}

func (p *Pattern[E]) match(key string, n *node[E], at int64) *Match[E] {
	m := &Match[E]{Pattern: p.name, Key: key, End: n.ev.at, At: at}
	for ; n != nil; n = n.prev {
		m.Events = append(m.Events, Captured[E]{p.states[n.state].name, n.ev.at, n.ev.e})
	}
	slices.Reverse(m.Events)
	m.Start = m.Events[0].At
	return m
}

// Earlier are the events that a partial match has taken. It is valid during the call of a predicate only.
type Earlier[E any] struct {
	p    *Pattern[E]
	head *node[E]
}

// Len is how many events a step has taken.
func (x Earlier[E]) Len(step string) int {
	c := 0
	for n := x.head; n != nil; n = n.prev {
		if x.p.states[n.state].name == step {
			c++
		}
	}
	return c
}

// Last is the last event that a step has taken, and its event time; false if it has taken none.
func (x Earlier[E]) Last(step string) (e E, at int64, ok bool) {
	for n := x.head; n != nil; n = n.prev {
		if x.p.states[n.state].name == step {
			return n.ev.e, n.ev.at, true
		}
	}
	return e, 0, false
}

// First is the first event that a step has taken, and its event time; false if it has taken none.
func (x Earlier[E]) First(step string) (e E, at int64, ok bool) {
	for n := x.head; n != nil; n = n.prev {
		if x.p.states[n.state].name == step {
			e, at, ok = n.ev.e, n.ev.at, true
		}
	}
	return e, at, ok
}

// Backward calls f for the events, the last first, until it gives false.
func (x Earlier[E]) Backward(f func(step string, at int64, e E) bool) {
	for n := x.head; n != nil; n = n.prev {
		if !f(x.p.states[n.state].name, n.ev.at, n.ev.e) {
			return
		}
	}
}
