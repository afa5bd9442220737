package pages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// copyFrom is how large the values of a page are from which it is copied as it is stored; smaller ones are gathered into pages of the usual size.
const copyFrom = 64 << 10

// Copy writes all rows as they come. It holds one page, and for each value of a dictionary of the input a number, of one column of one new row group.
func (g *Group) Copy(ctx context.Context) (err error) {
	var f *file
	files := 0
	defer func() {
		if f != nil && f.close != nil {
			err = errors.Join(err, f.close.Close())
		}
	}()
	groups := g.copyGroups()
	for i, parts := range groups {
		if f == nil {
			if f, err = g.newFile(files); err != nil {
				return err
			}
			files++
		}
		r := &rowGroup{}
		for _, p := range parts {
			r.rows += p.rows
		}
		for n := range g.leaves {
			c, err := g.copyColumn(ctx, &g.leaves[n], parts, f.out)
			if err != nil {
				return err
			}
			r.chunks = append(r.chunks, c)
			g.tell((float64(i) + float64(n+1)/float64(len(g.leaves))) / float64(len(groups)))
		}
		if err := f.add(r); err != nil {
			return err
		}
		if f.out.n >= g.fileFull() || i == len(groups)-1 {
			if err := f.finish(); err != nil {
				return err
			}
			f = nil
		}
	}
	return nil
}

// fileFull is from how many bytes a file takes no further row group: a file a little below the wanted size would otherwise become half as large again.
func (g *Group) fileFull() int64 { return g.opt.FileBytes / 10 * 9 }

// copyGroups puts the input's row groups together, into about equal new ones.
func (g *Group) copyGroups() [][]part {
	limit := max(1, g.bytes/max(1, (g.bytes+g.opt.RowGroupBytes-1)/g.opt.RowGroupBytes))
	var out [][]part
	var bytes, rows int64
	from := 0
	for i, p := range g.parts {
		if i > from && (bytes+p.bytes/2 > limit || rows+p.rows > g.opt.RowGroupRows) {
			out = append(out, g.parts[from:i])
			from, bytes, rows = i, 0, 0
		}
		bytes += p.bytes
		rows += p.rows
	}
	if from < len(g.parts) {
		out = append(out, g.parts[from:])
	}
	return out
}

// copier copies the chunks of one column into one.
type copier struct {
	g         *Group
	w         *chunkWriter
	page      pageOf
	raw       []byte // of chunks
	dict      []byte
	body      []byte
	idx       []uint32
	refs      []uint32
	unchanged []byte
}

func (g *Group) copyColumn(ctx context.Context, l *leaf, parts []part, out *counter) (chunkInfo, error) {
	m, err := g.merge(ctx, l, parts)
	if err != nil {
		return chunkInfo{}, err
	}
	k := &copier{g: g, w: g.newChunk(l, out)}
	k.page.w = k.w
	if m != nil && m.n > 0 {
		k.w.hash(m.data)
		if err := k.w.dictionary(&m.dictionary); err != nil {
			return chunkInfo{}, err
		}
		k.page.dict = m.n
	} else {
		m = nil
	}
	for i, p := range parts {
		if err := ctx.Err(); err != nil {
			return chunkInfo{}, err
		}
		c, err := g.read(p, l, &k.raw, false)
		if err != nil {
			return chunkInfo{}, err
		}
		k.w.stats.merge(c.meta)
		k.w.stats.nulls += c.nulls
		if m != nil {
			err = k.indexed(c, m.places[i])
		} else {
			err = k.plain(c)
		}
		if err != nil {
			return chunkInfo{}, err
		}
	}
	if err := k.page.flush(); err != nil {
		return chunkInfo{}, err
	}
	return k.w.finish(), nil
}

// took notes the levels of a page whose values were gathered.
func (k *copier) took(c *chunk, p *page) (err error) {
	if k.page.rep, k.page.def, err = c.levels(p, k.page.rep, k.page.def); err != nil {
		return err
	}
	k.page.levels += int(p.values)
	k.page.rows += int(p.rows)
	if k.page.full() {
		return k.page.flush()
	}
	return nil
}

// indexed copies a chunk into one whose dictionary has its values at other places.
func (k *copier) indexed(c *chunk, places []uint32) error {
	for i := range c.pages {
		p := &c.pages[i]
		var err error
		if k.body, err = k.g.values(c, p, k.body); err != nil {
			return err
		}
		if !p.indexed() && p.values > p.nulls { // the dictionary was given up here
			if err := k.whole(c, p); err != nil {
				return err
			}
			continue
		}
		from := len(k.page.idx)
		if k.page.idx, err = c.indices(p, k.body, len(places), k.page.idx); err != nil {
			return err
		}
		remap(k.page.idx[from:], places)
		if err := k.took(c, p); err != nil {
			return err
		}
	}
	return nil
}

// plain copies a chunk into one without a dictionary.
func (k *copier) plain(c *chunk) error {
	var d *dictionary
	if c.dict != nil {
		var err error
		if d, err = k.g.dictionary(c, &k.dict); err != nil {
			return err
		}
		k.w.hash(d.data)
		if ok, err := k.same(c, d); err != nil || ok {
			return err
		}
	}
	for i := range c.pages {
		p := &c.pages[i]
		var err error
		if k.body, err = k.g.values(c, p, k.body); err != nil {
			return err
		}
		n := int(p.values - p.nulls)
		switch {
		case n == 0:
		case p.indexed() && d == nil:
			return c.fail(errors.New("it has no dictionary"))
		case p.indexed():
			if k.idx, err = c.indices(p, k.body, d.n, k.idx[:0]); err != nil {
				return err
			}
			k.page.plain = d.gather(k.page.plain, k.idx)
		case len(k.body) >= copyFrom:
			if err := k.whole(c, p); err != nil {
				return err
			}
			continue
		default:
			from := len(k.page.plain)
			if k.page.plain, err = k.checked(c, p, k.page.plain); err != nil {
				return err
			}
			k.w.hash(k.page.plain[from:])
		}
		if err := k.took(c, p); err != nil {
			return err
		}
	}
	return nil
}

// checked appends the values of a page that has no dictionary, whose decompressed body is at hand.
func (k *copier) checked(c *chunk, p *page, to []byte) (_ []byte, err error) {
	if c.leaf.width > 0 {
		return c.fixed(p, k.body, to)
	}
	if p.encoding != encPlain {
		return nil, c.fail(fmt.Errorf("%w: encoding %d", ErrUnfit, p.encoding))
	}
	if k.refs, err = c.spans(k.body, int(p.values-p.nulls), 0, k.refs[:0]); err != nil {
		return nil, err
	}
	return append(to, k.body...), nil
}

// whole copies a page as it is stored. Its values were decompressed, and are looked at: what is broken is not to be found by the readers of the copy.
func (k *copier) whole(c *chunk, p *page) (err error) {
	if err := k.page.flush(); err != nil {
		return err
	}
	if k.unchanged, err = k.checked(c, p, k.unchanged[:0]); err != nil {
		return err
	}
	k.w.hash(k.unchanged)
	if _, _, err := c.levels(p, nil, nil); err != nil {
		return err
	}
	return k.w.put(p.header, nil, p.body)
}

// same copies a chunk whose dictionary has every row's value, in the order of rows, as writers make it that find out too late that no value is there twice:
// such a dictionary is a page of plain values, but for its header.
func (k *copier) same(c *chunk, d *dictionary) (bool, error) {
	if c.leaf.rep > 0 || c.nulls > 0 || int64(d.n) != c.values || len(d.data) < copyFrom {
		return false, nil
	}
	at := uint32(0)
	for i := range c.pages {
		p := &c.pages[i]
		if !p.indexed() {
			return false, nil
		}
		var err error
		if k.body, err = k.g.values(c, p, k.body); err != nil {
			return false, err
		}
		if k.idx, err = c.indices(p, k.body, d.n, k.idx[:0]); err != nil {
			return false, err
		}
		for _, v := range k.idx {
			if v != at {
				return false, nil
			}
			at++
		}
	}
	if err := k.page.flush(); err != nil {
		return false, err
	}
	var levels []byte
	if c.leaf.def > 0 {
		levels = append(binary.AppendUvarint(nil, uint64(d.n)<<1), byte(c.leaf.def))
	}
	h := header{kind: pageDataV2, size: int32(len(levels)) + c.dict.size, packed: int32(len(levels)) + c.dict.packed, values: int32(d.n), rows: int32(d.n), encoding: encPlain, def: int32(len(levels))}
	return true, k.w.put(h, levels, c.dict.body)
}
