package lakehouse

import (
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"millrace/lakehouse/pages"
)

// arrayOf makes a column that was read without rows one of Arrow, as the orders and questions want it.
func arrayOf(c *pages.Column, t arrow.DataType) (arrow.Array, error) {
	n := c.Rows
	nulls := n - c.Values()
	var valid *memory.Buffer
	if nulls > 0 {
		bits := make([]byte, bitutil.BytesForBits(int64(n)))
		for i := range n {
			if !c.Null(i) {
				bitutil.SetBit(bits, i)
			}
		}
		valid = memory.NewBufferBytes(bits)
	}
	each := func(f func(row int, v []byte)) {
		next := 0
		for i := range n {
			if nulls == 0 || !c.Null(i) {
				f(i, c.Value(next))
				next++
			}
		}
	}
	made := func(buffers ...*memory.Buffer) arrow.Array {
		data := array.NewData(t, n, append([]*memory.Buffer{valid}, buffers...), nil, nulls, 0)
		defer data.Release()
		return array.MakeFromData(data)
	}
	fixed := func(width int) (arrow.Array, error) {
		if have := c.Fixed(); nulls == 0 && len(have) == n*width {
			return made(memory.NewBufferBytes(have)), nil
		}
		out := make([]byte, n*width)
		wrong := false
		each(func(row int, v []byte) {
			if len(v) != width {
				wrong = true
				return
			}
			copy(out[row*width:], v)
		})
		if wrong {
			return nil, fmt.Errorf("%w: a value of %s has not %d bytes", pages.ErrUnfit, t, width)
		}
		return made(memory.NewBufferBytes(out)), nil
	}
	switch t.ID() {
	case arrow.INT64, arrow.TIMESTAMP, arrow.TIME64, arrow.FLOAT64:
		return fixed(8)
	case arrow.INT32, arrow.DATE32, arrow.FLOAT32:
		return fixed(4)
	case arrow.BOOL:
		bits := make([]byte, bitutil.BytesForBits(int64(n)))
		each(func(row int, v []byte) {
			if v[0] != 0 {
				bitutil.SetBit(bits, row)
			}
		})
		return made(memory.NewBufferBytes(bits)), nil
	case arrow.STRING, arrow.BINARY:
		ends := make([]int32, n+1)
		var text []byte
		each(func(row int, v []byte) {
			text = append(text, v...)
			ends[row+1] = int32(len(v))
		})
		for i := range n {
			ends[i+1] += ends[i]
		}
		return made(memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(ends)), memory.NewBufferBytes(text)), nil
	case arrow.DECIMAL128:
		out := make([]decimal128.Num, n)
		wrong := false
		each(func(row int, v []byte) {
			if len(v) == 0 || len(v) > 16 {
				wrong = true
				return
			}
			var b [16]byte
			if v[0]&0x80 != 0 {
				for i := range b {
					b[i] = 0xff
				}
			}
			copy(b[16-len(v):], v)
			out[row] = decimal128.New(int64(binary.BigEndian.Uint64(b[:])), binary.BigEndian.Uint64(b[8:]))
		})
		if wrong {
			return nil, fmt.Errorf("%w: a decimal of another width", pages.ErrUnfit)
		}
		return made(memory.NewBufferBytes(arrow.Decimal128Traits.CastToBytes(out))), nil
	}
	return nil, fmt.Errorf("%w: a column of type %s", pages.ErrUnfit, t)
}
