package pages

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// Bounds of what a file may make us hold.
const (
	maxPage  = 1 << 30 // bytes of a page, uncompressed
	maxChunk = 1 << 31 // bytes of a column chunk, as it is stored
)

// page is a page of a column chunk; its body is as it is stored.
type page struct {
	header
	body []byte
}

// chunk is the pages of one column of one row group of an input.
type chunk struct {
	name   string // of the file
	leaf   *leaf
	rows   int64
	meta   *metadata.ColumnChunkMetaData
	dict   *page
	pages  []page
	values int64 // with nulls
	nulls  int64
}

func (c *chunk) fail(err error) error {
	return fmt.Errorf("file %s, column %s: %w", c.name, c.leaf.path, err)
}

// read reads a column chunk, or with dictOnly no more than its dictionary. Bodies are parts of buf, which is used again by the next call.
func (g *Group) read(p part, l *leaf, buf *[]byte, dictOnly bool) (*chunk, error) {
	in := g.inputs[p.input]
	c := &chunk{name: in.Name, leaf: l, rows: p.rows}
	var err error
	if c.meta, err = in.Meta.RowGroup(p.group).ColumnChunk(l.index); err != nil {
		return nil, c.fail(err)
	}
	from := c.meta.DataPageOffset()
	size := c.meta.TotalCompressedSize()
	if c.meta.HasDictionaryPage() && c.meta.DictionaryPageOffset() > 0 && c.meta.DictionaryPageOffset() < from {
		if dictOnly {
			size = min(size, from-c.meta.DictionaryPageOffset())
		}
		from = c.meta.DictionaryPageOffset()
	} else if dictOnly {
		return c, nil
	}
	if from < 4 || size <= 0 || size > maxChunk {
		return nil, c.fail(errors.New("the place of its pages is broken"))
	}
	if int64(cap(*buf)) < size {
		*buf = make([]byte, size+size/4)
	}
	b := (*buf)[:size]
	if _, err := in.R.ReadAt(b, from); err != nil {
		return nil, c.fail(fmt.Errorf("reading %d bytes at %d: %w", size, from, err))
	}
	var rows int64
	for len(b) > 0 {
		h, n, err := parseHeader(b)
		if err != nil {
			return nil, c.fail(err)
		}
		if int64(h.packed) > int64(len(b)-n) || h.size > maxPage {
			return nil, c.fail(errors.New("a page is larger than the rest of its column"))
		}
		pg := page{h, b[n : n+int(h.packed)]}
		b = b[n+int(h.packed):]
		switch h.kind {
		case pageDataV1:
			return nil, c.fail(fmt.Errorf("%w: a data page of version 1", ErrUnfit))
		case pageDictionary:
			if c.dict != nil || len(c.pages) > 0 || h.encoding != encPlain && h.encoding != encPlainDict {
				return nil, c.fail(errors.New("its dictionary is broken"))
			}
			c.dict = &pg
			continue
		}
		if l.rep == 0 && h.rows != h.values || l.def == 0 && h.nulls != 0 {
			return nil, c.fail(errHeader)
		}
		c.pages = append(c.pages, pg)
		c.values += int64(h.values)
		c.nulls += int64(h.nulls)
		rows += int64(h.rows)
	}
	if !dictOnly && (rows != c.rows || c.values != c.meta.NumValues()) {
		return nil, c.fail(fmt.Errorf("its pages have %d rows and %d values, not %d and %d", rows, c.values, c.rows, c.meta.NumValues()))
	}
	return c, nil
}

// inflate decompresses into buf.
func (g *Group) inflate(c *chunk, body []byte, size int, plain bool, buf []byte) ([]byte, error) {
	if plain {
		if len(body) != size {
			return nil, c.fail(errors.New("a page has another size than its header says"))
		}
		return append(buf[:0], body...), nil
	}
	if size == 0 && len(body) == 0 {
		return buf[:0], nil
	}
	if cap(buf) < size {
		buf = make([]byte, 0, size+size/8)
	}
	out, err := g.dec.DecodeAll(body, buf[:0])
	if err != nil {
		return nil, c.fail(fmt.Errorf("decompressing a page: %w", err))
	}
	if len(out) != size {
		return nil, c.fail(fmt.Errorf("a page has %d bytes, not %d", len(out), size))
	}
	return out, nil
}

// values decompresses the values of a data page.
func (g *Group) values(c *chunk, p *page, buf []byte) ([]byte, error) {
	levels := int(p.def + p.rep)
	return g.inflate(c, p.body[levels:], int(p.size)-levels, p.plain, buf)
}

// levels appends the levels of a page, nothing for columns that have none.
func (c *chunk) levels(p *page, rep, def []uint8) (_, _ []uint8, err error) {
	n := int(p.values)
	if c.leaf.rep > 0 {
		rep = grow(rep, n)
		part := rep[len(rep)-n:]
		if err := decodeHybrid(part, p.body[:p.rep], widthOf(c.leaf.rep)); err != nil {
			return nil, nil, c.fail(err)
		}
		rows := 0
		for _, v := range part {
			if int(v) > c.leaf.rep {
				return nil, nil, c.fail(errors.New("a repetition level is broken"))
			}
			if v == 0 {
				rows++
			}
		}
		if rows != int(p.rows) || n > 0 && part[0] != 0 {
			return nil, nil, c.fail(errors.New("a page begins within a row, or has another number of them than it says"))
		}
	}
	if c.leaf.def > 0 {
		def = grow(def, n)
		part := def[len(def)-n:]
		if err := decodeHybrid(part, p.body[p.rep:p.rep+p.def], widthOf(c.leaf.def)); err != nil {
			return nil, nil, c.fail(err)
		}
		nulls := 0
		for _, v := range part {
			if int(v) > c.leaf.def {
				return nil, nil, c.fail(errors.New("a definition level is broken"))
			}
			if int(v) < c.leaf.def {
				nulls++
			}
		}
		if nulls != int(p.nulls) {
			return nil, nil, c.fail(errors.New("a page has another number of nulls than it says"))
		}
	}
	return rep, def, nil
}

// grow makes a slice longer by n elements whose values are anything.
func grow[T any](s []T, n int) []T {
	if len(s)+n <= cap(s) {
		return s[:len(s)+n]
	}
	to := make([]T, len(s)+n, max(len(s)+n, 2*cap(s)))
	copy(to, s)
	return to
}

// indices appends the dictionary indices of a page, each below limit.
func (c *chunk) indices(p *page, body []byte, limit int, to []uint32) ([]uint32, error) {
	n := int(p.values - p.nulls)
	if n == 0 {
		return to, nil
	}
	if len(body) == 0 || body[0] > 32 {
		return nil, c.fail(errHybrid)
	}
	to = grow(to, n)
	part := to[len(to)-n:]
	if err := decodeHybrid(part, body[1:], int(body[0])); err != nil {
		return nil, c.fail(err)
	}
	most := uint32(0)
	for _, v := range part {
		most = max(most, v)
	}
	if int64(most) >= int64(limit) {
		return nil, c.fail(errors.New("an index is not in the dictionary"))
	}
	return to, nil
}

// fixed makes values of fixed width, a byte for each boolean, of a page that has no dictionary, and appends them.
func (c *chunk) fixed(p *page, body, to []byte) ([]byte, error) {
	n := int(p.values - p.nulls)
	switch {
	case c.leaf.kind == parquet.Types.Boolean && p.encoding == encPlain:
		if len(body) < (n+7)/8 {
			return nil, c.fail(errors.New("a page is too short"))
		}
		to = grow(to, n)
		unpack(to[len(to)-n:], body, 1)
		return to, nil
	case c.leaf.kind == parquet.Types.Boolean && p.encoding == encRLE:
		if n == 0 {
			return to, nil
		}
		if len(body) < 4 || int64(binary.LittleEndian.Uint32(body)) > int64(len(body)-4) {
			return nil, c.fail(errHybrid)
		}
		to = grow(to, n)
		if err := decodeHybrid(to[len(to)-n:], body[4:], 1); err != nil {
			return nil, c.fail(err)
		}
		return to, nil
	case p.encoding == encPlain:
		if len(body) != n*c.leaf.width {
			return nil, c.fail(errors.New("a page has another size than its values"))
		}
		return append(to, body...), nil
	case p.encoding == encDelta && c.leaf.kind == parquet.Types.Int64:
		out, err := decodeDelta(to, body, n)
		if err != nil {
			return nil, c.fail(err)
		}
		return out, nil
	}
	return nil, c.fail(fmt.Errorf("%w: encoding %d", ErrUnfit, p.encoding))
}

// spans checks byte arrays as PLAIN writes them, and appends where each begins, its length first, counted from base.
func (c *chunk) spans(body []byte, n int, base uint32, to []uint32) ([]uint32, error) {
	at := 0
	for range n {
		if len(body)-at < 4 {
			return nil, c.fail(errors.New("a page is too short"))
		}
		to = append(to, base+uint32(at))
		size := binary.LittleEndian.Uint32(body[at:])
		if int64(size) > int64(len(body)-at-4) {
			return nil, c.fail(errors.New("a value is longer than its page"))
		}
		at += 4 + int(size)
	}
	if at != len(body) {
		return nil, c.fail(errors.New("a page has bytes behind its values"))
	}
	return to, nil
}

// indexed says whether a page has indices of a dictionary.
func (p *page) indexed() bool { return p.encoding == encIndices || p.encoding == encPlainDict }
