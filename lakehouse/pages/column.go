package pages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Column is the values of one column of all rows of some row groups. Values are those that are not null.
type Column struct {
	Rows int // of flat columns the number of levels, too

	leaf     *leaf
	rep, def []uint8 // nil: all are zero, all are the greatest
	n        int     // values

	fixed []byte // of a width each; booleans a byte each
	arena []byte // or byte arrays, their lengths before them
	refs  []uint32
	dict  *dictionary // or values of a dictionary
	idx   []uint32
}

// errMixed says that a page of a chunk with a dictionary does not use it.
var errMixed = errors.New("a page does not use the dictionary")

// column reads a column of some row groups. Of the rows it keeps those that dense has a number for; nil: all. Passes is into how many parts dense divides them.
func (g *Group) column(ctx context.Context, l *leaf, parts []part, dense []uint32, passes int) (*Column, error) {
	m, err := g.merge(ctx, l, parts)
	if err != nil {
		return nil, err
	}
	c, err := g.decode(ctx, l, parts, m, dense, passes)
	if errors.Is(err, errMixed) {
		c, err = g.decode(ctx, l, parts, nil, dense, passes)
	}
	return c, err
}

func (g *Group) decode(ctx context.Context, l *leaf, parts []part, m *merged, dense []uint32, passes int) (*Column, error) {
	out := &Column{leaf: l}
	var sizes, levels int64
	for _, p := range parts {
		out.Rows += int(p.rows)
		meta, err := g.inputs[p.input].Meta.RowGroup(p.group).ColumnChunk(l.index)
		if err != nil {
			return nil, fmt.Errorf("file %s, column %s: %w", g.inputs[p.input].Name, l.path, err)
		}
		sizes += meta.TotalUncompressedSize()
		levels += meta.NumValues()
	}
	// Footers are not trusted with memory: more than the group's rows make plausible is left to append.
	room := func(n int64) int { return int(min(n/int64(passes)+n/16*int64(min(1, passes-1)), 1<<30, 64*g.bytes)) }
	switch {
	case m != nil:
		out.dict, out.idx = &m.dictionary, make([]uint32, 0, room(levels))
	case l.width > 0:
		out.fixed = make([]byte, 0, room(levels*int64(l.width)))
	default:
		out.arena, out.refs = make([]byte, 0, room(sizes)), make([]uint32, 0, room(levels))
	}
	if l.rep > 0 {
		out.rep = make([]uint8, 0, room(levels))
	}
	if l.def > 0 {
		out.def = make([]uint8, 0, room(levels))
	}
	var buf, body, dictBody []byte
	var idx, refs []uint32
	var keep []bool
	row := 0 // of the group
	for i, p := range parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := g.read(p, l, &buf, false)
		if err != nil {
			return nil, err
		}
		var d *dictionary
		var base []uint32
		if c.dict != nil && m == nil {
			if d, err = g.dictionary(c, &dictBody); err != nil {
				return nil, err
			}
			if l.width == 0 && dense == nil {
				if base, err = out.keep(c, d.data, d.n); err != nil {
					return nil, err
				}
				out.refs = out.refs[:len(out.refs)-d.n] // places of the dictionary, not values of rows
			} else if l.width == 0 { // only values of rows that are kept
				base = make([]uint32, d.n)
				for j := range base {
					base[j] = unread
				}
			}
		}
		for j := range c.pages {
			pg := &c.pages[j]
			reps, defs := len(out.rep), len(out.def)
			if out.rep, out.def, err = c.levels(pg, out.rep, out.def); err != nil {
				return nil, err
			}
			n := int(pg.values - pg.nulls)
			if dense != nil {
				keep = out.choose(reps, defs, int(pg.values), dense[row:row+int(pg.rows)], keep[:0])
			}
			row += int(pg.rows)
			if n == 0 {
				continue
			}
			if body, err = g.values(c, pg, body); err != nil {
				return nil, err
			}
			switch {
			case m != nil && !pg.indexed():
				return nil, errMixed
			case m != nil:
				from := len(out.idx)
				if out.idx, err = c.indices(pg, body, len(m.places[i]), out.idx); err != nil {
					return nil, err
				}
				remap(out.idx[from:], m.places[i])
				if dense != nil {
					out.idx = kept(out.idx, from, 1, keep)
				}
			case pg.indexed():
				if d == nil {
					return nil, c.fail(errors.New("it has no dictionary"))
				}
				if idx, err = c.indices(pg, body, d.n, idx[:0]); err != nil {
					return nil, err
				}
				if dense != nil {
					idx = kept(idx, 0, 1, keep)
				}
				if l.width == 0 {
					for _, v := range idx {
						if base[v] == unread {
							if base[v], err = out.one(c, d.value(v)); err != nil {
								return nil, err
							}
						}
						out.refs = append(out.refs, base[v])
					}
				} else {
					out.fixed = d.gather(out.fixed, idx)
				}
			case l.width == 0:
				if pg.encoding != encPlain {
					return nil, c.fail(fmt.Errorf("%w: encoding %d", ErrUnfit, pg.encoding))
				}
				if dense == nil {
					if _, err = out.keep(c, body, n); err != nil {
						return nil, err
					}
					break
				}
				if refs, err = c.spans(body, n, 0, refs[:0]); err != nil {
					return nil, err
				}
				for v, at := range refs {
					if keep[v] {
						ref, err := out.one(c, body[at:at+4+binary.LittleEndian.Uint32(body[at:])])
						if err != nil {
							return nil, err
						}
						out.refs = append(out.refs, ref)
					}
				}
			default:
				from := len(out.fixed)
				if out.fixed, err = c.fixed(pg, body, out.fixed); err != nil {
					return nil, err
				}
				if dense != nil {
					out.fixed = kept(out.fixed, from, l.width, keep)
				}
			}
		}
	}
	if dense != nil {
		out.Rows = 0
		for _, v := range dense {
			if v != unread {
				out.Rows++
			}
		}
	}
	out.n = len(out.idx) + len(out.refs)
	if l.width > 0 {
		out.n += len(out.fixed) / l.width
	}
	return out, nil
}

// choose keeps the levels of a page's rows that have a number, and says which values are theirs.
func (c *Column) choose(reps, defs, levels int, dense []uint32, keep []bool) []bool {
	rep, def := c.rep[reps:], c.def[defs:]
	row, to := -1, 0
	for i := range levels {
		if c.leaf.rep == 0 || rep[i] == 0 {
			row++
		}
		chosen := dense[row] != unread
		if c.leaf.def == 0 || int(def[i]) == c.leaf.def {
			keep = append(keep, chosen)
		}
		if !chosen {
			continue
		}
		if c.leaf.rep > 0 {
			rep[to] = rep[i]
		}
		if c.leaf.def > 0 {
			def[to] = def[i]
		}
		to++
	}
	if c.leaf.rep > 0 {
		c.rep = c.rep[:reps+to]
	}
	if c.leaf.def > 0 {
		c.def = c.def[:defs+to]
	}
	return keep
}

// kept moves the values that are kept, of width elements each, to the front of those from a place on.
func kept[T any](values []T, from, width int, keep []bool) []T {
	to := from
	for i, yes := range keep {
		if yes {
			copy(values[to:to+width], values[from+i*width:from+(i+1)*width])
			to += width
		}
	}
	return values[:to]
}

// one adds a byte array with its length to the arena.
func (c *Column) one(in *chunk, v []byte) (uint32, error) {
	at := len(c.arena)
	if int64(at)+int64(len(v)) >= math.MaxUint32 {
		return 0, in.fail(fmt.Errorf("%w: values of more than 4 GiB", ErrUnfit))
	}
	c.arena = append(c.arena, v...)
	return uint32(at), nil
}

// keep adds byte arrays to the arena and their places to refs, of which it gives a copy.
func (c *Column) keep(in *chunk, body []byte, n int) ([]uint32, error) {
	if int64(len(c.arena))+int64(len(body)) > math.MaxUint32 {
		return nil, in.fail(fmt.Errorf("%w: values of more than 4 GiB", ErrUnfit))
	}
	from := len(c.refs)
	var err error
	if c.refs, err = in.spans(body, n, uint32(len(c.arena)), c.refs); err != nil {
		return nil, err
	}
	c.arena = append(c.arena, body...)
	return append([]uint32{}, c.refs[from:]...), nil
}

func remap(idx, places []uint32) {
	for i, v := range idx {
		idx[i] = places[v]
	}
}

// gather appends values of fixed width.
func (d *dictionary) gather(to []byte, idx []uint32) []byte {
	if d.width == 8 {
		from := len(to)
		to = grow(to, 8*len(idx))
		part := to[from:]
		for i, v := range idx {
			binary.LittleEndian.PutUint64(part[8*i:], binary.LittleEndian.Uint64(d.data[8*int(v):]))
		}
		return to
	}
	for _, v := range idx {
		to = append(to, d.value(v)...)
	}
	return to
}

// Null says which rows of a flat column are null; nil if none can be.
func (c *Column) Null(row int) bool { return c.def != nil && int(c.def[row]) < c.leaf.def }

// Values is how many there are.
func (c *Column) Values() int { return c.n }

// Value is the i-th one that is not null: of numbers little-endian bytes, of byte arrays without their length.
func (c *Column) Value(i int) []byte {
	switch {
	case c.dict != nil:
		return c.dict.bare(c.idx[i])
	case c.leaf.width > 0:
		return c.fixed[i*c.leaf.width : (i+1)*c.leaf.width]
	}
	at := int(c.refs[i])
	return c.arena[at+4 : at+4+int(binary.LittleEndian.Uint32(c.arena[at:]))]
}

// Column reads a flat column of one row group of the group.
func (g *Group) Column(ctx context.Context, leaf, part int) (*Column, error) {
	l := &g.leaves[leaf]
	if l.rep > 0 {
		return nil, fmt.Errorf("column %s is repeated", l.path)
	}
	return g.decode(ctx, l, g.parts[part:part+1], nil, nil, 1)
}

// Fixed is all values of a fixed width, one behind the other; nil of byte arrays and of values of a dictionary.
func (c *Column) Fixed() []byte { return c.fixed }
