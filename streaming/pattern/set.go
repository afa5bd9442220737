package pattern

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"millrace/streaming"
)

// Spec describes the patterns of a task that look at the same events.
type Spec[E any] struct {
	Store    uint16 // declared in Topology.Stores: the partial matches, keyed by pattern and key
	Owner    uint16 // of the timers, which the operator gives to Set.Timer
	Codec    streaming.Codec[E]
	Patterns []*Pattern[E]
	// MaxRuns bounds the partial matches of a pattern and key. Beyond it the oldest is dropped. Default 64.
	MaxRuns int
	// Match gets every match, in the order in which they are found. It may emit records, write other stores and set timers, but not Add to the same set. m is its own to keep.
	Match func(m *Match[E]) error
	// Dropped is told of partial matches that went because of MaxRuns. It may be nil.
	Dropped func(pattern, key string, runs int) error
}

// Set is the patterns of one task and their partial matches. Like a store it belongs to the task's goroutine.
type Set[E any] struct {
	t       *streaming.Task
	spec    Spec[E]
	store   *streaming.Store[*runs[E]]
	dropped atomic.Int64

	out  advance[E]
	buf  []byte
	none runs[E] // scratch: what a key without partial matches has
}

// Open makes the set of a declared store. It is called in Topology.New only.
func Open[E any](t *streaming.Task, spec Spec[E]) (*Set[E], error) {
	if spec.MaxRuns == 0 {
		spec.MaxRuns = 64
	}
	if spec.Codec == nil || spec.Match == nil || spec.MaxRuns < 1 {
		return nil, fmt.Errorf("patterns of store %d: Codec, Match and MaxRuns of at least 1 are needed", spec.Store)
	}
	s := &Set[E]{t: t, spec: spec, store: streaming.OpenStore(t, spec.Store, streaming.Codec[*runs[E]](&codec[E]{events: spec.Codec}))}
	return s, s.Use(spec.Patterns...)
}

// Use changes the patterns between two events. Partial matches of a pattern that is gone, or whose structure or Version is another, are forgotten, at the latest when their
// time is over. Which patterns are in force is not part of the set's state: the operator says so again after a restore and after an abort.
func (s *Set[E]) Use(patterns ...*Pattern[E]) error {
	var errs []error
	for i, p := range patterns {
		if slices.ContainsFunc(patterns[:i], func(x *Pattern[E]) bool { return x.name == p.name }) {
			errs = append(errs, fmt.Errorf("pattern %q is given twice", p.name))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	s.spec.Patterns = slices.Clone(patterns)
	return nil
}

// Len is the number of partial matches' keys (pattern and key): 0 when nothing is held.
func (s *Set[E]) Len() int { return s.store.Len() }

// Dropped counts the partial matches that went because of MaxRuns since the set was made on this worker, work that was aborted and done again included. It may be called
// from any goroutine.
func (s *Set[E]) Dropped() int64 { return s.dropped.Load() }

// Add gives an event of a key to the patterns. A key's events come in the order that the patterns are about: that of event time when streaming.Ordered feeds them. e is
// retained while a partial match holds it, so it must neither refer to what the caller reuses nor be changed.
func (s *Set[E]) Add(key string, at int64, e E) error {
	for _, p := range s.spec.Patterns {
		if err := s.add(p, key, at, e); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set[E]) add(p *Pattern[E], key string, at int64, e E) error {
	s.buf = append(append(append(s.buf[:0], p.name...), sep...), key...)
	have, ok := s.store.GetBytes(s.buf)
	now := have
	if !ok {
		s.none = runs[E]{mark: p.mark, timer: noTimer, valid: true}
		now = &s.none
	} else if now = s.own(p, have); len(now.list) > 0 {
		if p.expire(&s.out, now, at) {
			n := *now
			n.list = slices.Clone(s.out.list)
			now = &n
			// what has waited long enough was found before this event
			if err := s.found(p, key, true); err != nil {
				return err
			}
		}
	}
	if p.advance(&s.out, now, at, e) {
		n := *now
		n.seq++
		now = &n
		if over := len(s.out.list) - s.spec.MaxRuns; over > 0 {
			s.dropped.Add(int64(over))
			s.out.list = append(s.out.list[:0], s.out.list[over:]...)
			if s.spec.Dropped != nil {
				if err := s.spec.Dropped(p.name, key, over); err != nil {
					return err
				}
			}
		}
		n.list = slices.Clone(s.out.list)
	} else {
		s.out.matches = s.out.matches[:0]
	}
	if now != have {
		s.put(p, have, now)
	}
	return s.found(p, key, false)
}

// own gives the runs under the key in buf if they are of this pattern; those of another of the same name are forgotten.
func (s *Set[E]) own(p *Pattern[E], v *runs[E]) *runs[E] {
	if v.mark == p.mark && (v.valid || p.fits(v)) {
		v.valid = true
		return v
	}
	s.t.DeleteTimer(s.spec.Owner, string(s.buf), v.timer)
	return &runs[E]{mark: p.mark, timer: noTimer, valid: true}
}

// put stores runs under the key in buf, and sees that a timer is set while there are any.
func (s *Set[E]) put(p *Pattern[E], have, now *runs[E]) {
	if len(now.list) == 0 {
		if now.timer != noTimer {
			s.t.DeleteTimer(s.spec.Owner, string(s.buf), now.timer)
		}
		if have != nil {
			s.store.DeleteBytes(s.buf)
		}
		return
	}
	first := p.deadline(&now.list[0])
	for i := range now.list {
		first = min(first, p.deadline(&now.list[i]))
	}
	// the deadline itself is still within; a timer that is too early does no harm
	if now.timer == noTimer || now.timer > first+1 {
		if now.timer != noTimer {
			s.t.DeleteTimer(s.spec.Owner, string(s.buf), now.timer)
		}
		now.timer = first + 1
		s.t.SetTimer(s.spec.Owner, string(s.buf), now.timer)
	}
	s.store.PutBytes(s.buf, now)
}

// found tells the matches of the last step.
func (s *Set[E]) found(p *Pattern[E], key string, waited bool) error {
	for i, n := range s.out.matches {
		s.out.matches[i] = nil
		at := n.ev.at
		if waited {
			root := n
			for root.prev != nil {
				root = root.prev
			}
			at = root.ev.at + p.within
		}
		if err := s.spec.Match(p.match(key, n, at)); err != nil {
			return err
		}
	}
	s.out.matches = s.out.matches[:0]
	clear(s.out.list)
	return nil
}

// Timer takes the set's timers: partial matches whose time is over go, and what a not-followed-by was waiting for is found.
func (s *Set[E]) Timer(tm streaming.Timer) error {
	v, ok := s.store.Get(tm.Key)
	if !ok || v.timer != tm.At {
		return nil
	}
	name, key, _ := strings.Cut(tm.Key, sep)
	i := slices.IndexFunc(s.spec.Patterns, func(p *Pattern[E]) bool { return p.name == name })
	if i < 0 {
		s.store.Delete(tm.Key)
		return nil
	}
	p := s.spec.Patterns[i]
	s.buf = append(s.buf[:0], tm.Key...)
	now := *s.own(p, v)
	now.timer = noTimer
	p.expire(&s.out, &now, tm.At)
	now.list = slices.Clone(s.out.list)
	s.put(p, v, &now)
	return s.found(p, key, true)
}
