package pages

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// moveRows is how many rows are moved at a time: their places are looked up first, then their values, so that the processor waits for many at once.
const moveRows = 1024

// leafBytes is about how much a column needs while it is moved.
func (g *Group) leafBytes(l *leaf) int64 {
	var values, size int64
	for _, p := range g.parts {
		if m, err := g.inputs[p.input].Meta.RowGroup(p.group).ColumnChunk(l.index); err == nil { // it was looked at by Open
			values += m.NumValues()
			size += m.TotalUncompressedSize()
		}
	}
	n := 8 * values // a reference and a place in a dictionary
	if l.width > 0 {
		n += values * int64(l.width)
	} else {
		n += size
	}
	if l.rep > 0 {
		n += 8*g.rows + values
	}
	if l.def > 0 {
		n += 4*g.rows + values
	}
	return n
}

// passes is how often a column is read so that it fits into memory, some of the new row groups each time.
func (g *Group) passes(l *leaf) int64 {
	if g.opt.Memory <= 0 {
		return 1
	}
	return max(1, (g.leafBytes(l)+g.opt.Memory-1)/g.opt.Memory)
}

// Fits says whether Reorder can hold to the memory it may have, with no column read more than most times.
func (g *Group) Fits(most int64) bool {
	for i := range g.leaves {
		if n := g.passes(&g.leaves[i]); n > 1 && n > min(most, g.groups()) {
			return false
		}
	}
	return true
}

// Reorder writes the rows in an order: each of their numbers once. It goes column by column, and holds the values of one.
func (g *Group) Reorder(ctx context.Context, order []uint32) (err error) {
	if int64(len(order)) != g.rows {
		return fmt.Errorf("an order of %d rows for %d", len(order), g.rows)
	}
	if g.rows == 0 {
		return nil
	}
	groups := g.orderGroups(order)
	first, err := g.newFile(0)
	if err != nil {
		return err
	}
	f := first
	defer func() {
		if f != nil && f.close != nil {
			err = errors.Join(err, f.close.Close())
		}
	}()
	var spool *os.File
	var wait *bufio.Writer
	var waiting *counter
	if len(groups) > 1 {
		if spool, err = g.opt.Spool(); err != nil {
			return fmt.Errorf("making a file for row groups: %w", err)
		}
		wait = bufio.NewWriterSize(spool, 1<<20)
		waiting = &counter{w: wait}
	}
	rgs := make([]rowGroup, len(groups))
	for n := range g.leaves {
		passes := int(min(g.passes(&g.leaves[n]), int64(len(groups))))
		for k := range passes {
			from, to := len(groups)*k/passes, len(groups)*(k+1)/passes
			m, err := g.newPass(ctx, &g.leaves[n], groups[from:to], passes)
			if err != nil {
				return err
			}
			for i, rows := range groups[from:to] {
				if err := ctx.Err(); err != nil {
					return err
				}
				out := waiting
				if from+i == 0 {
					out = first.out
				}
				c, err := m.chunk(m.places(rows), out)
				if err != nil {
					return err
				}
				r := &rgs[from+i]
				r.rows = int64(len(rows))
				r.chunks = append(r.chunks, c)
				g.tell((float64(n) + float64(from+i+1)/float64(len(groups))) / float64(len(g.leaves)))
			}
		}
	}
	if wait != nil {
		if err := wait.Flush(); err != nil {
			return fmt.Errorf("writing row groups that wait: %w", err)
		}
	}
	files := 1
	for i := range rgs {
		if f == nil {
			if f, err = g.newFile(files); err != nil {
				return err
			}
			files++
		}
		if i > 0 {
			if err := g.place(ctx, f, &rgs[i], spool); err != nil {
				return err
			}
		}
		if err := f.add(&rgs[i]); err != nil {
			return err
		}
		if f.out.n >= g.fileFull() || i == len(rgs)-1 {
			if err := f.finish(); err != nil {
				return err
			}
			f = nil
		}
	}
	return nil
}

// place copies the chunks of a row group that has waited to its file.
func (g *Group) place(ctx context.Context, f *file, r *rowGroup, spool *os.File) error {
	for i := range r.chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &r.chunks[i]
		at := f.out.n
		if _, err := io.Copy(f.out, io.NewSectionReader(spool, c.at, c.size)); err != nil {
			return fmt.Errorf("writing a row group: %w", err)
		}
		if f.out.n-at != c.size {
			return fmt.Errorf("writing a row group: %d of %d bytes were there", f.out.n-at, c.size)
		}
		c.at = at
	}
	g.tell(1)
	return nil
}

// groups is how many row groups an order becomes.
func (g *Group) groups() int64 {
	return min(g.rows, max(1, (g.bytes+g.opt.RowGroupBytes-1)/g.opt.RowGroupBytes, (g.rows+g.opt.RowGroupRows-1)/g.opt.RowGroupRows))
}

// orderGroups cuts an order into row groups of equal size.
func (g *Group) orderGroups(order []uint32) [][]uint32 {
	n := g.groups()
	out := make([][]uint32, 0, n)
	for i := range n {
		out = append(out, order[g.rows*i/n:g.rows*(i+1)/n])
	}
	return out
}

// mover writes values of a column in an order.
type mover struct {
	g      *Group
	c      *Column
	levels []uint32 // by row, where its levels begin; nil: at its number
	values []uint32 // by row, where its values begin; nil: at its number
	ids    []uint32
	at     []uint32 // values of the rows at hand
	idx    []uint32
	dense  []uint32 // by row of the group, its number among those that were read; nil: all were
	rows   []uint32
}

// unread marks a row that another pass reads.
const unread = math.MaxUint32

// newPass reads what a column has for some of the new row groups.
func (g *Group) newPass(ctx context.Context, l *leaf, groups [][]uint32, passes int) (*mover, error) {
	var dense []uint32
	rows := g.rows
	if passes > 1 {
		dense = make([]uint32, g.rows)
		for i := range dense {
			dense[i] = unread
		}
		for _, part := range groups {
			for _, r := range part {
				dense[r] = 0
			}
		}
		rows = 0
		for i, v := range dense {
			if v != unread {
				dense[i] = uint32(rows)
				rows++
			}
		}
	}
	col, err := g.column(ctx, l, g.parts, dense, passes)
	if err != nil {
		return nil, err
	}
	if int64(col.Rows) != rows {
		return nil, fmt.Errorf("column %s has %d rows, not %d", l.path, col.Rows, rows)
	}
	m := newMover(g, col)
	m.dense = dense
	return m, nil
}

// places are the numbers of rows among those that were read.
func (m *mover) places(rows []uint32) []uint32 {
	if m.dense == nil {
		return rows
	}
	m.rows = grow(m.rows[:0], len(rows))
	for i, r := range rows {
		m.rows[i] = m.dense[r]
	}
	return m.rows
}

func newMover(g *Group, c *Column) *mover {
	m := &mover{g: g, c: c}
	if c.dict != nil {
		m.ids = make([]uint32, c.dict.n)
	}
	switch {
	case c.leaf.rep > 0:
		m.levels, m.values = make([]uint32, 0, c.Rows+1), make([]uint32, 0, c.Rows+1)
		n := uint32(0)
		for i, r := range c.rep {
			if r == 0 {
				m.levels, m.values = append(m.levels, uint32(i)), append(m.values, n)
			}
			if c.def == nil || int(c.def[i]) == c.leaf.def {
				n++
			}
		}
		m.levels, m.values = append(m.levels, uint32(len(c.rep))), append(m.values, n)
	case c.def != nil && c.n < c.Rows:
		m.values = make([]uint32, c.Rows)
		n := uint32(0)
		for i, d := range c.def {
			m.values[i] = n
			if int(d) == c.leaf.def {
				n++
			}
		}
	}
	return m
}

// take adds the levels of some rows to a page, and gives the numbers of their values.
func (m *mover) take(rows []uint32, p *pageOf) []uint32 {
	p.rows += len(rows)
	c := m.c
	if c.leaf.rep > 0 {
		m.at = m.at[:0]
		for _, r := range rows {
			from, to := m.levels[r], m.levels[r+1]
			p.rep = append(p.rep, c.rep[from:to]...)
			if c.def != nil {
				p.def = append(p.def, c.def[from:to]...)
			}
			p.levels += int(to - from)
			for v := m.values[r]; v < m.values[r+1]; v++ {
				m.at = append(m.at, v)
			}
		}
		return m.at
	}
	p.levels += len(rows)
	if c.def == nil {
		return rows
	}
	n := len(p.def)
	p.def = grow(p.def, len(rows))
	def := p.def[n:]
	if m.values == nil { // no row is null
		for i := range def {
			def[i] = uint8(c.leaf.def)
		}
		return rows
	}
	for i, r := range rows {
		def[i] = c.def[r]
	}
	m.at = m.at[:0]
	for i, r := range rows {
		if int(def[i]) == c.leaf.def {
			m.at = append(m.at, m.values[r])
		}
	}
	return m.at
}

// chunk writes the values of some rows.
func (m *mover) chunk(rows []uint32, out *counter) (chunkInfo, error) {
	c := m.c
	w := m.g.newChunk(c.leaf, out)
	p := &pageOf{w: w}
	indexed := false
	if c.dict != nil {
		d, err := m.dictionary(rows, w)
		if err != nil {
			return chunkInfo{}, err
		}
		if indexed = d != nil; indexed {
			p.dict = d.n
		}
	}
	idx := m.idx
	for from := 0; from < len(rows); from += moveRows {
		at := m.take(rows[from:min(from+moveRows, len(rows))], p)
		before := len(p.plain)
		switch {
		case indexed:
			p.idx = append(p.idx, idx[:len(at)]...)
			idx = idx[len(at):]
		case c.dict != nil:
			for _, v := range at {
				p.plain = append(p.plain, c.dict.value(c.idx[v])...)
			}
		case c.leaf.width == 0:
			p.plain = c.texts(p.plain, at)
		default:
			p.plain = c.numbers(p.plain, at)
		}
		if !indexed {
			w.stats.plain(p.plain[before:])
			w.hash(p.plain[before:])
		}
		if p.full() {
			m.count(p)
			if err := p.flush(); err != nil {
				return chunkInfo{}, err
			}
		}
	}
	m.count(p)
	if err := p.flush(); err != nil {
		return chunkInfo{}, err
	}
	return w.finish(), nil
}

// count adds up the nulls of a page.
func (m *mover) count(p *pageOf) {
	for _, d := range p.def {
		if int(d) < m.c.leaf.def {
			p.w.stats.nulls++
		}
	}
}

// dictionary writes that of some rows, whose indices it leaves in m.idx; nil if most values are there once.
func (m *mover) dictionary(rows []uint32, w *chunkWriter) (*dictionary, error) {
	m.idx = m.idx[:0]
	var none pageOf
	for from := 0; from < len(rows); from += moveRows {
		none.rep, none.def = none.rep[:0], none.def[:0]
		at := m.take(rows[from:min(from+moveRows, len(rows))], &none)
		n := len(m.idx)
		m.idx = grow(m.idx, len(at))
		to := m.idx[n:]
		for i, v := range at {
			to[i] = m.c.idx[v]
		}
	}
	if len(m.idx) == 0 {
		return nil, nil
	}
	d := m.c.dict.used(m.idx, m.ids)
	if d.n*2 > len(m.idx) {
		return nil, nil
	}
	w.stats.plain(d.data)
	w.hash(d.data)
	return d, w.dictionary(d)
}

// numbers appends values of fixed width.
func (c *Column) numbers(to []byte, at []uint32) []byte {
	width := c.leaf.width
	n := len(to)
	to = grow(to, width*len(at))
	part := to[n:]
	switch width {
	case 8:
		for i, v := range at {
			binary.LittleEndian.PutUint64(part[8*i:], binary.LittleEndian.Uint64(c.fixed[8*int(v):]))
		}
	case 4:
		for i, v := range at {
			binary.LittleEndian.PutUint32(part[4*i:], binary.LittleEndian.Uint32(c.fixed[4*int(v):]))
		}
	case 1:
		for i, v := range at {
			part[i] = c.fixed[v]
		}
	default:
		for i, v := range at {
			copy(part[width*i:width*(i+1)], c.fixed[width*int(v):])
		}
	}
	return to
}

// texts appends byte arrays with their lengths.
func (c *Column) texts(to []byte, at []uint32) []byte {
	var ends [moveRows]int
	for len(at) > 0 {
		block := at[:min(len(at), moveRows)]
		at = at[len(block):]
		size := 0
		for i, v := range block {
			size += 4 + int(binary.LittleEndian.Uint32(c.arena[c.refs[v]:]))
			ends[i] = size
		}
		n := len(to)
		to = grow(to, size)
		part := to[n:]
		from := 0
		for i, v := range block {
			copy(part[from:ends[i]], c.arena[c.refs[v]:])
			from = ends[i]
		}
	}
	return to
}
