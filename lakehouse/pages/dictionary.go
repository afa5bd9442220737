package pages

import (
	"context"
	"errors"

	"github.com/apache/arrow-go/v18/parquet"
)

// dictionary is the values of a column, each once, as PLAIN writes them.
type dictionary struct {
	width int // of a value; 0: byte arrays
	data  []byte
	at    []uint32 // where values of byte arrays begin, their length first
	n     int
}

// value is the i-th one, of byte arrays with its length.
func (d *dictionary) value(i uint32) []byte {
	if d.width > 0 {
		return d.data[int(i)*d.width : (int(i)+1)*d.width]
	}
	from := d.at[i]
	if int(i)+1 < d.n {
		return d.data[from:d.at[i+1]]
	}
	return d.data[from:]
}

// bare is a value without its length.
func (d *dictionary) bare(i uint32) []byte {
	v := d.value(i)
	if d.width == 0 {
		return v[4:]
	}
	return v
}

// dictionary decompresses the dictionary of a chunk; its data is a part of buf.
func (g *Group) dictionary(c *chunk, buf *[]byte) (*dictionary, error) {
	if c.leaf.kind == parquet.Types.Boolean {
		return nil, c.fail(errors.New("booleans have no dictionary"))
	}
	p := c.dict
	body, err := g.inflate(c, p.body, int(p.size), false, *buf)
	if err != nil {
		return nil, err
	}
	*buf = body
	d := &dictionary{width: c.leaf.width, data: body, n: int(p.values)}
	if d.width > 0 {
		if len(body) != d.n*d.width {
			return nil, c.fail(errors.New("its dictionary has another size than its values"))
		}
		return d, nil
	}
	if d.n > len(body)/4 {
		return nil, c.fail(errors.New("its dictionary is too short"))
	}
	d.at, err = c.spans(body, d.n, 0, make([]uint32, 0, d.n))
	return d, err
}

// merged is the dictionaries of the chunks of a column in one, with the place in it of each value of each chunk.
type merged struct {
	dictionary
	places [][]uint32 // by part
}

// merge makes one dictionary of those of a column in some row groups. There is none if it would be larger than allowed, if it would not pay, or if a chunk has none.
func (g *Group) merge(ctx context.Context, l *leaf, parts []part) (*merged, error) {
	if l.kind == parquet.Types.Boolean {
		return nil, nil
	}
	clear(g.dictID)
	m := &merged{dictionary: dictionary{width: l.width}, places: make([][]uint32, len(parts))}
	var buf, body []byte
	var values int64
	for i, p := range parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := g.read(p, l, &buf, true)
		if err != nil {
			return nil, err
		}
		if c.dict == nil {
			if allNull(c) {
				continue
			}
			return nil, nil
		}
		d, err := g.dictionary(c, &body)
		if err != nil {
			return nil, err
		}
		values += c.meta.NumValues()
		places := make([]uint32, d.n)
		for j := range places {
			v := d.value(uint32(j))
			id, ok := g.dictID[string(v)]
			if !ok {
				id = uint32(m.n)
				g.dictID[string(v)] = id
				if m.width == 0 {
					m.at = append(m.at, uint32(len(m.data)))
				}
				m.data = append(m.data, v...)
				m.n++
			}
			places[j] = id
		}
		m.places[i] = places
		if len(m.data) > g.opt.DictBytes {
			return nil, nil
		}
	}
	if int64(m.n)*2 > values && values > 0 { // hardly a value twice
		return nil, nil
	}
	return m, nil
}

// allNull says whether a chunk has nulls only, as far as its footer tells.
func allNull(c *chunk) bool {
	ts, err := c.meta.Statistics()
	return err == nil && ts != nil && ts.HasNullCount() && ts.NullCount() == c.meta.NumValues()
}

// used is a dictionary of those values only that some indices point at, which are changed to be of it. ids has a place for each value and is zero before and after.
func (d *dictionary) used(idx, ids []uint32) *dictionary {
	out := &dictionary{width: d.width}
	var from []uint32
	for i, v := range idx {
		id := ids[v]
		if id == 0 {
			from = append(from, v)
			id = uint32(len(from))
			ids[v] = id
		}
		idx[i] = id - 1
	}
	for _, v := range from {
		ids[v] = 0
		if out.width == 0 {
			out.at = append(out.at, uint32(len(out.data)))
		}
		out.data = append(out.data, d.value(v)...)
	}
	out.n = len(from)
	return out
}
