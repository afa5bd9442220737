package pattern

import "math/bits"

// event is one that some partial match has taken. Runs share it; it is encoded once.
type event[E any] struct {
	at  int64
	seq uint64 // its place among the events that are held for the key
	e   E
	enc []byte
	ref
}

// node is one event of a partial match, and what was taken before it. Runs that went the same way share their nodes: since nothing is ever cut out of the middle, a tree
// is all that is left of SASE's versioned buffer.
type node[E any] struct {
	prev  *node[E]
	ev    *event[E]
	state uint8
	ref
}

// ref is scratch of the encoder.
type ref struct{ round, index uint64 }

// run is a partial match, and which ways on it still has: one bit for each choice of the state it stands in.
type run[E any] struct {
	head  *node[E]
	root  *event[E]
	count int // events that the state it stands in has taken
	open  uint64
}

// runs of a key, in the order in which they began. A value in a store is never changed: an event that does something makes another.
type runs[E any] struct {
	mark  uint32 // of the pattern they belong to
	list  []run[E]
	seq   uint64 // of the next event
	timer int64  // the one that is set; noTimer
	valid bool   // checked against its pattern
}

// advance gives the runs after an event and what it completes; both are the caller's scratch. changed is false if everything is as before.
type advance[E any] struct {
	list    []run[E]
	matches []*node[E]
}

func (p *Pattern[E]) advance(out *advance[E], in *runs[E], at int64, e E) (changed bool) {
	out.list, out.matches = out.list[:0], out.matches[:0]
	var ev *event[E]
	taken := func() *event[E] {
		if ev == nil {
			ev = &event[E]{at: at, seq: in.seq, e: e}
		}
		return ev
	}
	for i := range in.list {
		r := in.list[i]
		x := &p.states[r.head.state]
		earlier := Earlier[E]{p, r.head}
		place := len(out.list)
		out.list = append(out.list, r)
		for left := r.open; left != 0; left &= left - 1 {
			k := bits.TrailingZeros64(left)
			c := &x.choices[k]
			switch {
			case !c.wait && p.states[c.to].holds(e, earlier):
				count := 1
				if x.loops && k == 0 {
					count = r.count + 1
				}
				r.open &^= 1 << k
				if p.take(out, r.head, taken(), r.root, c.to, count) {
					return true
				}
			case c.strict || c.hit(e, earlier):
				r.open &^= 1 << k
			}
		}
		if r.open == in.list[i].open {
			continue
		}
		changed = true
		if r.open != 0 {
			out.list[place] = r
		} else {
			out.list = append(out.list[:place], out.list[place+1:]...)
		}
	}
	if p.states[0].holds(e, Earlier[E]{p, nil}) {
		p.take(out, nil, taken(), taken(), 0, 1)
		return true
	}
	return changed
}

// take makes the run that has taken ev. It tells whether that ends all runs: with SkipPast, when it is a match.
func (p *Pattern[E]) take(out *advance[E], prev *node[E], ev, root *event[E], to, count int) bool {
	n := &node[E]{prev: prev, ev: ev, state: uint8(to)}
	x := &p.states[to]
	if x.accepts && count >= x.min {
		out.matches = append(out.matches, n)
		if p.skip {
			out.list = out.list[:0]
			return true
		}
	}
	if open := x.open(count); open != 0 {
		out.list = append(out.list, run[E]{head: n, root: root, count: count, open: open})
	}
	return false
}

// open are the choices of a run that has taken count events here.
func (x *state[E]) open(count int) uint64 {
	open := uint64(1)<<len(x.choices) - 1
	if x.loops && count >= x.max {
		open &^= 1
	}
	if count < x.min {
		open &= 1
	}
	return open
}

func (c *choice[E]) hit(e E, earlier Earlier[E]) bool {
	for _, holds := range c.guards {
		if holds(e, earlier) {
			return true
		}
	}
	return false
}

// expire gives the runs that still have time at now, and what the others complete by having waited.
func (p *Pattern[E]) expire(out *advance[E], in *runs[E], now int64) (changed bool) {
	out.list, out.matches = out.list[:0], out.matches[:0]
	skipped := false
	var past uint64 // with SkipPast: the last event of what was found
	for i := range in.list {
		r := in.list[i]
		switch {
		case skipped && r.root.seq <= past:
			changed = true
		case p.deadline(&r) >= now:
			out.list = append(out.list, r)
		default:
			changed = true
			if x := &p.states[r.head.state]; p.waits(x, r.open) {
				out.matches = append(out.matches, r.head)
				if p.skip {
					skipped, past = true, max(past, r.head.ev.seq)
				}
			}
		}
	}
	if !skipped {
		return changed
	}
	rest := out.list[:0]
	for _, r := range out.list {
		if r.root.seq > past {
			rest = append(rest, r)
		}
	}
	clear(out.list[len(rest):])
	out.list = rest
	return true
}

// waits: the last choice, to wait, is open.
func (p *Pattern[E]) waits(x *state[E], open uint64) bool {
	k := len(x.choices) - 1
	return k >= 0 && x.choices[k].wait && open&(1<<k) != 0
}

func (p *Pattern[E]) deadline(r *run[E]) int64 { return r.root.at + p.within }

// fits tells whether runs that were read back can be of this pattern.
func (p *Pattern[E]) fits(in *runs[E]) bool {
	for i := range in.list {
		r := &in.list[i]
		for n := r.head; n != nil; n = n.prev {
			if int(n.state) >= len(p.states) || n.prev != nil && (n.prev.state > n.state || n.prev.ev.seq >= n.ev.seq) {
				return false
			}
		}
		x := &p.states[r.head.state]
		if r.count < 1 || r.count > x.max || r.open == 0 || r.open&^x.open(r.count) != 0 {
			return false
		}
	}
	return true
}
