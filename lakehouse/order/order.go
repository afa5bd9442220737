package order

import (
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
)

// Order makes the keys of rows. It is set up for one schema.
type Order struct {
	terms []Term
	at    []int // columns of terms
	null  []bool
	z     *ZOrder // nil: a sort order
}

// New sets up the order by terms (Parse), or the z-order of columns. Nulls come first.
func New(sort, zorder []string, sc *arrow.Schema) (*Order, error) {
	o := &Order{}
	for _, s := range sort {
		t, err := Parse(s)
		if err != nil {
			return nil, err
		}
		o.terms = append(o.terms, t)
	}
	for _, c := range zorder {
		o.terms = append(o.terms, Term{Column: c})
	}
	for _, t := range o.terms {
		i := sc.FieldIndices(t.Column)
		if len(i) != 1 {
			return nil, fmt.Errorf("order: there is no column %s", t.Column)
		}
		o.at, o.null = append(o.at, i[0]), append(o.null, sc.Field(i[0]).Nullable)
	}
	if len(zorder) > 0 {
		o.z = newZOrder(len(o.terms))
	}
	return o, nil
}

// Z is the z-order, which is to see a sample of the rows before their keys are made; nil: the order is another.
func (o *Order) Z() *ZOrder { return o.z }

// Columns are the names of those that the order is of.
func (o *Order) Columns() []string {
	out := make([]string, len(o.terms))
	for i, t := range o.terms {
		out[i] = t.Column
	}
	return out
}

// Keys are the keys of rows, one behind the other.
type Keys struct {
	ends  []uint32
	bytes []byte
}

func (k *Keys) key(row int) []byte {
	from := uint32(0)
	if row > 0 {
		from = k.ends[row-1]
	}
	return k.bytes[from:k.ends[row]]
}

// Keys makes those of a batch.
func (o *Order) Keys(b arrow.RecordBatch) (*Keys, error) {
	rows := int(b.NumRows())
	if o.z != nil {
		return o.z.keys(o, b)
	}
	cols, err := o.keyFuncs(b)
	if err != nil {
		return nil, err
	}
	out := &Keys{ends: make([]uint32, rows), bytes: make([]byte, 0, rows*12*len(cols))}
	for i := range rows {
		for _, c := range cols {
			out.bytes = c(out.bytes, i)
		}
		if len(out.bytes) > math.MaxInt32 {
			return nil, fmt.Errorf("the sort keys of %d rows are larger than 2 GiB", i)
		}
		out.ends[i] = uint32(len(out.bytes))
	}
	return out, nil
}

func (o *Order) keyFuncs(b arrow.RecordBatch) ([]Key, error) {
	out := make([]Key, len(o.terms))
	for i, t := range o.terms {
		var err error
		last := i == len(o.terms)-1 || o.z != nil // a z-order compares each column by itself
		if out[i], err = KeyOf(b.Column(o.at[i]), o.null[i], last, t.Unit); err != nil {
			return nil, fmt.Errorf("ordering by %s: %w", t.Column, err)
		}
	}
	return out, nil
}

// ErrTooLarge says that the keys of all rows are larger than their ends can say.
var ErrTooLarge = errors.New("the sort keys of the rows are larger than 4 GiB")

// Add appends the keys of a batch.
func (k *Keys) Add(by *Order, b arrow.RecordBatch) error {
	more, err := by.Keys(b)
	if err != nil {
		return err
	}
	base := len(k.bytes)
	if int64(base)+int64(len(more.bytes)) > math.MaxUint32 {
		return ErrTooLarge
	}
	k.bytes = append(k.bytes, more.bytes...)
	for _, e := range more.ends {
		k.ends = append(k.ends, uint32(base)+e)
	}
	return nil
}
