package lakehouse

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// textBuffer gathers a column of text. Arrow's own builder costs several times as much for a value, and text is most of a row. Rows without a value are null.
type textBuffer struct {
	data   []byte
	ends   []int32 // of the rows up to the last value
	valid  [batchRows / 8]byte
	values int
}

// value sets the value of a row behind the last one that has one.
func (c *textBuffer) value(row int, s string) {
	for len(c.ends) < row {
		c.ends = append(c.ends, int32(len(c.data)))
	}
	c.data = append(c.data, s...)
	c.ends = append(c.ends, int32(len(c.data))) // a block is a few MB
	c.valid[row/8] |= 1 << (row % 8)
	c.values++
}

// array takes the values out as a column of so many rows, which the caller releases.
func (c *textBuffer) array(rows int) arrow.Array {
	offsets := make([]byte, 4*(rows+1))
	ends := arrow.Int32Traits.CastFromBytes(offsets)[1:]
	n := copy(ends, c.ends)
	for ; n < rows; n++ {
		ends[n] = int32(len(c.data))
	}
	var valid *memory.Buffer
	if c.values < rows {
		valid = memory.NewBufferBytes(slices.Clone(c.valid[:(rows+7)/8]))
	}
	d := array.NewData(arrow.BinaryTypes.String, rows, []*memory.Buffer{valid, memory.NewBufferBytes(offsets), memory.NewBufferBytes(slices.Clone(c.data))}, nil, rows-c.values, 0)
	defer d.Release()
	c.data, c.ends, c.values = c.data[:0], c.ends[:0], 0
	clear(c.valid[:])
	return array.NewStringData(d)
}
