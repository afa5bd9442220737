// Package pattern finds sequences of events of one key: it stands inside an operator, behind the ordered buffer of package streaming, and keeps the partial matches in a
// store of the task.
//
//	Ordered ─(key, time, event)─> Set.Add ─┬─ Match
//	                 timers ─> Set.Timer ──┘        partial matches <─> Store, Timer <─> changelog
//
// A pattern is written as begin / next / followed-by / not-followed-by with times and optional, and always within a time, so that partial matches end by themselves. It is
// compiled once into a nondeterministic automaton with a buffer of captured events that the runs share (Agrawal et al., "Efficient Pattern Matching over Event Streams",
// SIGMOD 2008: SASE+); words and meaning are those of Apache Flink's CEP library, where the two differ it is said.
//
// What a match is. Events of a key are numbered in the order of Add. A match gives events to steps so that
//
//   - the events go up, and so do their steps; a step gets between min and max events (Times; one without it), or none if it is Optional;
//   - the step's predicate holds for each of its events, given the events before it in the match;
//   - the first event of a Next step directly follows the event before it in the match. The first event of a FollowedBy step is the first one after that event for which
//     the step's predicate holds (skip till next match): other events in between do not matter. So are further events of a Times step, unless it is Consecutive: then each
//     directly follows;
//   - strictly between two events of a match there is none for which a NotFollowedBy that stands between their steps holds, given the events up to there. An event that is
//     taken does not stand between (in Flink it does);
//   - from the first to the last event it is at most Within. A NotFollowedBy at the end holds until Within after the first event has passed, and the match is found then.
//
// Every such match is given once (no skip), or with SkipPast only those that do not overlap: when a match is found, what began at or before its last event is forgotten.
package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// Predicate tells whether e may be taken, given the events that the partial match has taken before. It must be a pure function.
type Predicate[E any] func(e E, earlier Earlier[E]) bool

type kind uint8

const (
	begin kind = iota
	next
	followedBy
	notFollowedBy
)

type step[E any] struct {
	name        string
	kind        kind
	holds       Predicate[E]
	min, max    int
	optional    bool
	consecutive bool
}

// Builder puts a pattern together. Its mistakes are reported by Compile.
type Builder[E any] struct {
	name    string
	version int
	steps   []step[E]
	within  time.Duration
	skip    bool
	errs    []error
}

// New begins a pattern. Its name is part of the state: partial matches belong to the pattern of that name.
func New[E any](name string) *Builder[E] { return &Builder[E]{name: name} }

// Version tells patterns of one name apart that look the same but whose predicates mean something else: partial matches of another version are forgotten.
func (b *Builder[E]) Version(v int) *Builder[E] {
	b.version = v
	return b
}

// Begin is the first step: a partial match begins at every event for which it holds.
func (b *Builder[E]) Begin(name string, holds Predicate[E]) *Builder[E] {
	return b.add(name, begin, holds)
}

// Next is a step whose first event directly follows (strict contiguity).
func (b *Builder[E]) Next(name string, holds Predicate[E]) *Builder[E] {
	return b.add(name, next, holds)
}

// FollowedBy is a step whose first event is the next one that fits (relaxed contiguity: skip till next match).
func (b *Builder[E]) FollowedBy(name string, holds Predicate[E]) *Builder[E] {
	return b.add(name, followedBy, holds)
}

// NotFollowedBy ends a partial match when an event for which it holds comes before the next step's; as the last step, before Within is over.
func (b *Builder[E]) NotFollowedBy(name string, holds Predicate[E]) *Builder[E] {
	return b.add(name, notFollowedBy, holds)
}

func (b *Builder[E]) add(name string, k kind, holds Predicate[E]) *Builder[E] {
	for _, s := range b.steps {
		if s.name == name {
			b.bad("step %q is named twice", name)
		}
	}
	if name == "" || holds == nil {
		b.bad("step %q needs a name and a predicate", name)
	}
	if (k == begin) != (len(b.steps) == 0) {
		b.bad("step %q: a pattern has one Begin, its first step", name)
	}
	b.steps = append(b.steps, step[E]{name: name, kind: k, holds: holds, min: 1, max: 1})
	return b
}

// Times lets the last step take least to most events, relaxed unless it is Consecutive. Each number of them is a match of its own.
func (b *Builder[E]) Times(least, most int) *Builder[E] {
	if s := b.positive("Times"); s != nil {
		if least < 1 || most < least || most > maxTimes {
			b.bad("step %q: Times(%d, %d), want 1 <= least <= most <= %d", s.name, least, most, maxTimes)
		}
		s.min, s.max = least, most
	}
	return b
}

// Optional lets the last step be left out. Taking it and leaving it out are both tried.
func (b *Builder[E]) Optional() *Builder[E] {
	if s := b.positive("Optional"); s != nil {
		if s.kind == begin {
			b.bad("step %q: Begin cannot be optional", s.name)
		}
		s.optional = true
	}
	return b
}

// Consecutive lets nothing lie between the events of the last step.
func (b *Builder[E]) Consecutive() *Builder[E] {
	if s := b.positive("Consecutive"); s != nil {
		s.consecutive = true
	}
	return b
}

// positive is the last step, which must be one that takes events.
func (b *Builder[E]) positive(what string) *step[E] {
	if len(b.steps) == 0 {
		b.bad("%s before any step", what)
		return nil
	}
	s := &b.steps[len(b.steps)-1]
	if s.kind == notFollowedBy {
		b.bad("step %q: %s of a step that takes nothing", s.name, what)
		return nil
	}
	return s
}

// Within bounds the time from the first event of a match to its last, both included. Every pattern has it.
func (b *Builder[E]) Within(d time.Duration) *Builder[E] {
	b.within = d
	return b
}

// SkipPast makes matches not overlap. Of several that are found at the same event the one that began first is given.
func (b *Builder[E]) SkipPast() *Builder[E] {
	b.skip = true
	return b
}

func (b *Builder[E]) bad(format string, a ...any) { b.errs = append(b.errs, fmt.Errorf(format, a...)) }

const (
	maxSteps = 32
	maxTimes = 1 << 16
	sep      = "\x1f" // between name and key in the store
)

// Pattern is a compiled pattern. It has no state, and may be used by many tasks at once.
type Pattern[E any] struct {
	name   string
	mark   uint32 // of its structure
	within int64
	skip   bool
	states []state[E]
}

// state is a step that takes events: where a run may go from there.
type state[E any] struct {
	step[E]
	choices []choice[E]
	loops   bool // the first choice is to take one more
	accepts bool // a run that has enough here is a match
}

// choice is one way on: to the state `to`, or to wait for the end of time.
type choice[E any] struct {
	to     int
	wait   bool
	strict bool
	guards []Predicate[E] // the not-followed-by steps in between
}

// Compile checks the pattern and makes the automaton. It reports every mistake.
func (b *Builder[E]) Compile() (*Pattern[E], error) {
	errs := b.errs
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if b.name == "" || strings.Contains(b.name, sep) {
		bad("a name without the byte 0x1f is needed")
	}
	if len(b.steps) == 0 {
		bad("it has no steps")
	}
	if b.within < time.Microsecond {
		bad("Within is %s, want at least 1µs", b.within)
	}
	p := &Pattern[E]{name: b.name, within: b.within.Microseconds(), skip: b.skip}
	place := make([]int, len(b.steps)) // of each step among the states
	for i, s := range b.steps {
		if place[i] = len(p.states); s.kind != notFollowedBy {
			p.states = append(p.states, state[E]{step: s})
		} else if i+1 < len(b.steps) && b.steps[i+1].kind == next {
			bad("step %q directly before the Next step %q: nothing can be between", s.name, b.steps[i+1].name)
		}
	}
	if len(p.states) > maxSteps {
		bad("%d steps that take events, want at most %d", len(p.states), maxSteps)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("compiling pattern %q: %w", b.name, errors.Join(errs...))
	}
	for i, s := range b.steps {
		if s.kind != notFollowedBy {
			p.states[place[i]].link(b.steps[i+1:], place[i]+1)
		}
	}
	p.mark = b.fingerprint()
	return p, nil
}

// link makes the choices of a state from the steps behind it.
func (x *state[E]) link(rest []step[E], to int) {
	if x.loops = x.max > 1; x.loops {
		x.choices = append(x.choices, choice[E]{to: to - 1, strict: x.consecutive})
	}
	var guards []Predicate[E]
	for _, s := range rest {
		if s.kind == notFollowedBy {
			guards = append(guards[:len(guards):len(guards)], s.holds)
			continue
		}
		x.choices = append(x.choices, choice[E]{to: to, strict: s.kind == next, guards: guards})
		if to++; !s.optional {
			return
		}
	}
	if len(guards) > 0 {
		x.choices = append(x.choices, choice[E]{wait: true, guards: guards})
	} else {
		x.accepts = true
	}
}

// fingerprint tells structures apart: a partial match means something only to the structure that made it.
func (b *Builder[E]) fingerprint() uint32 {
	h := fnv.New32a()
	buf := binary.AppendVarint(nil, int64(b.version))
	buf = binary.AppendVarint(buf, b.within.Microseconds())
	flag := func(on bool) {
		if on {
			buf = append(buf, 1)
		} else {
			buf = append(buf, 0)
		}
	}
	flag(b.skip)
	for _, s := range b.steps {
		buf = append(binary.AppendUvarint(buf, uint64(len(s.name))), s.name...)
		buf = binary.AppendUvarint(append(buf, byte(s.kind)), uint64(s.min))
		buf = binary.AppendUvarint(buf, uint64(s.max))
		flag(s.optional)
		flag(s.consecutive)
	}
	h.Write(buf)
	return h.Sum32()
}

// Name is the pattern's name.
func (p *Pattern[E]) Name() string { return p.name }
