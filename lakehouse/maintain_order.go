package lakehouse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
)

// maxSortColumns bounds a sort order: its key is a part of every row while it is sorted.
const maxSortColumns = 8

// ErrPolicy says that a policy does not fit the table: a column that is not there, or has no order.
var ErrPolicy = errors.New("the policy does not fit the table")

// term is one column of an order.
type term struct {
	column string
	unit   int64 // of a time, in µs: the order is by full units; 0: by the value itself
}

const (
	hour = 3600 * 1_000_000
	day  = 24 * hour
)

var termForm = regexp.MustCompile(`^(?:(day|hour)\(([A-Za-z][A-Za-z0-9_]*)\)|([A-Za-z][A-Za-z0-9_]*))$`)

// parseTerm reads a column, day(column) or hour(column).
func parseTerm(s string) (term, error) {
	m := termForm.FindStringSubmatch(s)
	switch {
	case m == nil:
		return term{}, fmt.Errorf("%.60q is not a column, day(column) or hour(column)", s)
	case m[1] == "day":
		return term{m[2], day}, nil
	case m[1] == "hour":
		return term{m[2], hour}, nil
	}
	return term{column: m[3]}, nil
}

// fits says whether the order of a policy can be made of a table's columns. It reports every problem, each an ErrPolicy.
func (p Policy) fits(sc *iceberg.Schema) error {
	var errs []error
	look := func(field string, i int, t term) {
		f, ok := sc.FindFieldByName(t.column)
		if !ok {
			var names []string
			for _, f := range sc.Fields() {
				names = append(names, f.Name)
			}
			errs = append(errs, fmt.Errorf("%w: %s[%d]: there is no column %s; there are %s", ErrPolicy, field, i, t.column, strings.Join(names, ", ")))
			return
		}
		switch f.Type.(type) {
		case iceberg.TimestampType, iceberg.TimestampTzType:
			return
		case iceberg.Int32Type, iceberg.Int64Type, iceberg.DateType, iceberg.TimeType, iceberg.StringType, iceberg.BinaryType, iceberg.BooleanType, iceberg.Float32Type, iceberg.Float64Type, iceberg.DecimalType:
			if t.unit == 0 {
				return
			}
			errs = append(errs, fmt.Errorf("%w: %s[%d]: column %s is %s, which has no days and hours", ErrPolicy, field, i, t.column, f.Type))
		default:
			errs = append(errs, fmt.Errorf("%w: %s[%d]: column %s is %s, which has no order", ErrPolicy, field, i, t.column, f.Type))
		}
	}
	for i, s := range p.Sort {
		t, err := parseTerm(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: sort[%d]: %w", ErrPolicy, i, err))
			continue
		}
		look("sort", i, t)
	}
	for i, c := range p.ZOrder {
		look("zorder", i, term{column: c})
	}
	return errors.Join(errs...)
}

// keyColumn makes the keys of one column of a batch: bytes whose order is that of the values. No key of a column begins with another one of it, unless it is the
// last column of an order.
type keyColumn func(dst []byte, row int) []byte

// keyColumnOf gives the keys of a column. Nulls come first; a column without nulls in its type spends no byte on that.
func keyColumnOf(col arrow.Array, nullable, last bool, unit int64) (keyColumn, error) {
	var f keyColumn
	switch c := col.(type) {
	case *array.String:
		f = func(dst []byte, i int) []byte { return appendText(dst, c.Value(i), last) }
	case *array.LargeString:
		f = func(dst []byte, i int) []byte { return appendText(dst, c.Value(i), last) }
	case *array.Binary:
		f = func(dst []byte, i int) []byte { return appendText(dst, c.ValueString(i), last) }
	case *array.Timestamp:
		switch unit {
		case 0:
			f = func(dst []byte, i int) []byte { return appendInt(dst, int64(c.Value(i))) }
		default: // 2^31 hours are 245,000 years
			f = func(dst []byte, i int) []byte {
				return binary.BigEndian.AppendUint32(dst, uint32(floorDiv(int64(c.Value(i)), unit))^1<<31)
			}
		}
	case *array.Int64:
		f = func(dst []byte, i int) []byte { return appendInt(dst, c.Value(i)) }
	case *array.Int32:
		f = func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(c.Value(i))^1<<31) }
	case *array.Date32:
		f = func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(c.Value(i))^1<<31) }
	case *array.Time64:
		f = func(dst []byte, i int) []byte { return appendInt(dst, int64(c.Value(i))) }
	case *array.Boolean:
		f = func(dst []byte, i int) []byte { return appendBool(dst, c.Value(i)) }
	case *array.Float32:
		f = func(dst []byte, i int) []byte { return appendFloat(dst, float64(c.Value(i))) }
	case *array.Float64:
		f = func(dst []byte, i int) []byte { return appendFloat(dst, c.Value(i)) }
	case *array.Decimal128:
		f = func(dst []byte, i int) []byte { return appendDecimal(dst, c.Value(i)) }
	default:
		return nil, fmt.Errorf("a column of type %s has no order", col.DataType())
	}
	if !nullable {
		return f, nil
	}
	return func(dst []byte, i int) []byte {
		if col.IsNull(i) {
			return append(dst, 0)
		}
		return f(append(dst, 1), i)
	}, nil
}

// appendText keeps the order of texts: a zero byte inside becomes 0 255, the end 0 0, unless nothing follows.
func appendText(dst []byte, s string, last bool) []byte {
	if last {
		return append(dst, s...)
	}
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			return append(append(dst, s...), 0, 0)
		}
		dst = append(append(dst, s[:i]...), 0, 255)
		s = s[i+1:]
	}
}

func appendInt(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// appendFloat keeps the order of IEEE 754 numbers: the sign bit of positive ones is set, all bits of negative ones are turned.
func appendFloat(dst []byte, v float64) []byte {
	b := math.Float64bits(v)
	if b>>63 == 1 {
		return binary.BigEndian.AppendUint64(dst, ^b)
	}
	return binary.BigEndian.AppendUint64(dst, b|1<<63)
}

func appendDecimal(dst []byte, v decimal128.Num) []byte {
	return binary.BigEndian.AppendUint64(appendInt(dst, v.HighBits()), v.LowBits())
}

// ordering makes the keys of rows. It is set up for one schema.
type ordering struct {
	terms []term
	at    []int // columns of terms
	null  []bool
	z     *zorder // nil: a sort order
}

func newOrdering(p Policy, sc *arrow.Schema) (*ordering, error) {
	o := &ordering{}
	for _, s := range p.Sort {
		t, err := parseTerm(s)
		if err != nil {
			return nil, err
		}
		o.terms = append(o.terms, t)
	}
	for _, c := range p.ZOrder {
		o.terms = append(o.terms, term{column: c})
	}
	for _, t := range o.terms {
		i := sc.FieldIndices(t.column)
		if len(i) != 1 {
			return nil, fmt.Errorf("%w: ordering: no column %s", ErrPolicy, t.column)
		}
		o.at, o.null = append(o.at, i[0]), append(o.null, sc.Field(i[0]).Nullable)
	}
	if len(p.ZOrder) > 0 {
		o.z = newZOrder(len(o.terms))
	}
	return o, nil
}

// columns are the names of those that the order is of.
func (o *ordering) columns() []string {
	out := make([]string, len(o.terms))
	for i, t := range o.terms {
		out[i] = t.column
	}
	return out
}

// rowKeys are the keys of rows, one behind the other.
type rowKeys struct {
	ends  []uint32
	bytes []byte
}

func (k *rowKeys) key(row int) []byte {
	from := uint32(0)
	if row > 0 {
		from = k.ends[row-1]
	}
	return k.bytes[from:k.ends[row]]
}

// keys makes those of a batch.
func (o *ordering) keys(b arrow.RecordBatch) (*rowKeys, error) {
	rows := int(b.NumRows())
	if o.z != nil {
		return o.z.keys(o, b)
	}
	cols, err := o.keyColumns(b)
	if err != nil {
		return nil, err
	}
	out := &rowKeys{ends: make([]uint32, rows), bytes: make([]byte, 0, rows*12*len(cols))}
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

func (o *ordering) keyColumns(b arrow.RecordBatch) ([]keyColumn, error) {
	out := make([]keyColumn, len(o.terms))
	for i, t := range o.terms {
		var err error
		last := i == len(o.terms)-1 || o.z != nil // a z-order compares each column by itself
		if out[i], err = keyColumnOf(b.Column(o.at[i]), o.null[i], last, t.unit); err != nil {
			return nil, fmt.Errorf("ordering by %s: %w", t.column, err)
		}
	}
	return out, nil
}
