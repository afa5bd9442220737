package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"millrace/streaming"
)

// The runs of a key as stored: u8 1 ‖ u32 mark of the pattern ‖ varint timer ‖ uvarint number of events, for each in order varint time, uvarint length, bytes ‖
// uvarint number of nodes, for each (after what it refers to) uvarint event, u8 state, uvarint 1 + node before it or 0 ‖ uvarint number of runs, for each in order
// uvarint head, uvarint count, uvarint open choices.
const format = 1

const noTimer = math.MinInt64

// codec is used by one task: it holds scratch.
type codec[E any] struct {
	events streaming.Codec[E]
	round  uint64
	evs    []*event[E]
	nodes  []*node[E]
	path   []*node[E]
}

// Append implements streaming.Codec.
func (c *codec[E]) Append(b []byte, v *runs[E]) []byte {
	c.collect(v)
	b = binary.BigEndian.AppendUint32(append(b, format), v.mark)
	b = binary.AppendVarint(b, v.timer)
	b = binary.AppendUvarint(b, uint64(len(c.evs)))
	for _, ev := range c.evs {
		if ev.enc == nil {
			ev.enc = c.events.Append(make([]byte, 0, 32), ev.e)
		}
		b = binary.AppendUvarint(binary.AppendVarint(b, ev.at), uint64(len(ev.enc)))
		b = append(b, ev.enc...)
	}
	b = binary.AppendUvarint(b, uint64(len(c.nodes)))
	for _, n := range c.nodes {
		b = append(binary.AppendUvarint(b, n.ev.index), n.state)
		if n.prev == nil {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, 1+n.prev.index)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(v.list)))
	for i := range v.list {
		r := &v.list[i]
		b = binary.AppendUvarint(b, r.head.index)
		b = binary.AppendUvarint(b, uint64(r.count))
		b = binary.AppendUvarint(b, r.open)
	}
	clear(c.evs)
	clear(c.nodes)
	clear(c.path[:cap(c.path)])
	return b
}

// collect lists the nodes and events that runs refer to, each once: nodes behind those they refer to, events in their order.
func (c *codec[E]) collect(v *runs[E]) {
	c.round++
	c.evs, c.nodes = c.evs[:0], c.nodes[:0]
	for i := range v.list {
		c.path = c.path[:0]
		for n := v.list[i].head; n != nil && n.round != c.round; n = n.prev {
			c.path = append(c.path, n)
		}
		for _, n := range slices.Backward(c.path) {
			n.round, n.index = c.round, uint64(len(c.nodes))
			c.nodes = append(c.nodes, n)
			if n.ev.round != c.round {
				n.ev.round = c.round
				c.evs = append(c.evs, n.ev)
			}
		}
	}
	slices.SortFunc(c.evs, func(a, b *event[E]) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	for i, ev := range c.evs {
		ev.index = uint64(i)
	}
}

var errCut = errors.New("partial matches are cut off")

// Decode implements streaming.Codec.
func (c *codec[E]) Decode(src []byte) (*runs[E], error) {
	if len(src) < 5 {
		return nil, errCut
	}
	if src[0] != format {
		return nil, fmt.Errorf("partial matches of format %d, this version reads %d", src[0], format)
	}
	d := reader{b: src[5:]}
	v := &runs[E]{mark: binary.BigEndian.Uint32(src[1:]), timer: d.signed()}
	evs := make([]event[E], d.length(2))
	for i := range evs {
		ev := &evs[i]
		ev.at, ev.seq = d.signed(), uint64(i)
		raw := d.bytes(d.number())
		if d.bad {
			return nil, errCut
		}
		e, err := c.events.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("decoding an event of a partial match: %w", err)
		}
		ev.e, ev.enc = e, slices.Clone(raw)
		if ev.enc == nil {
			ev.enc = []byte{}
		}
	}
	v.seq = uint64(len(evs))
	nodes := make([]node[E], d.length(3))
	roots := make([]*event[E], len(nodes))
	for i := range nodes {
		ev, state, prev := d.number(), d.byte(), d.number()
		if d.bad || ev >= uint64(len(evs)) || prev > uint64(i) || state >= maxSteps {
			return nil, errCut
		}
		n := &nodes[i]
		n.ev, n.state, roots[i] = &evs[ev], state, &evs[ev]
		if prev > 0 {
			n.prev, roots[i] = &nodes[prev-1], roots[prev-1]
		}
	}
	v.list = make([]run[E], d.length(3))
	for i := range v.list {
		head, count, open := d.number(), d.number(), d.number()
		if d.bad || head >= uint64(len(nodes)) || count > maxTimes {
			return nil, errCut
		}
		v.list[i] = run[E]{head: &nodes[head], root: roots[head], count: int(count), open: open}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errCut
	}
	return v, nil
}

// reader reads numbers until something is wrong.
type reader struct {
	b   []byte
	bad bool
}

func (d *reader) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *reader) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// length is a number of things of at least size bytes each, so that a wrong one asks for no memory.
func (d *reader) length(size int) int {
	n := d.number()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}
