package order

import (
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
)

// Term is one column of an order.
type Term struct {
	Column string
	Unit   int64 // of a time, in µs: the order is by full units; 0: by the value itself
}

// Units of times, in µs.
const (
	Hour = 3600 * 1_000_000
	Day  = 24 * Hour
)

var termForm = regexp.MustCompile(`^(?:(day|hour)\(([A-Za-z][A-Za-z0-9_]*)\)|([A-Za-z][A-Za-z0-9_]*))$`)

// Parse reads a column, day(column) or hour(column).
func Parse(s string) (Term, error) {
	m := termForm.FindStringSubmatch(s)
	switch {
	case m == nil:
		return Term{}, fmt.Errorf("%.60q is not a column, day(column) or hour(column)", s)
	case m[1] == "day":
		return Term{m[2], Day}, nil
	case m[1] == "hour":
		return Term{m[2], Hour}, nil
	}
	return Term{Column: m[3]}, nil
}

// Key makes the keys of one column of a batch: bytes whose order is that of the values. No key of a column begins with another one of it, unless it is the
// last column of an order.
type Key func(dst []byte, row int) []byte

// KeyOf gives the keys of a column. Nulls come first; a column without nulls in its type spends no byte on that.
func KeyOf(col arrow.Array, nullable, last bool, unit int64) (Key, error) {
	var f Key
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
			f = func(dst []byte, i int) []byte { return AppendInt(dst, int64(c.Value(i))) }
		default: // 2^31 hours are 245,000 years
			f = func(dst []byte, i int) []byte {
				return binary.BigEndian.AppendUint32(dst, uint32(floorDiv(int64(c.Value(i)), unit))^1<<31)
			}
		}
	case *array.Int64:
		f = func(dst []byte, i int) []byte { return AppendInt(dst, c.Value(i)) }
	case *array.Int32:
		f = func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(c.Value(i))^1<<31) }
	case *array.Date32:
		f = func(dst []byte, i int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(c.Value(i))^1<<31) }
	case *array.Time64:
		f = func(dst []byte, i int) []byte { return AppendInt(dst, int64(c.Value(i))) }
	case *array.Boolean:
		f = func(dst []byte, i int) []byte { return AppendBool(dst, c.Value(i)) }
	case *array.Float32:
		f = func(dst []byte, i int) []byte { return AppendFloat(dst, float64(c.Value(i))) }
	case *array.Float64:
		f = func(dst []byte, i int) []byte { return AppendFloat(dst, c.Value(i)) }
	case *array.Decimal128:
		f = func(dst []byte, i int) []byte { return AppendDecimal(dst, c.Value(i)) }
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

// AppendInt makes the key of a number.
func AppendInt(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
}

// AppendBool makes the key of a truth value: false comes first.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendFloat keeps the order of IEEE 754 numbers: the sign bit of positive ones is set, all bits of negative ones are turned.
func AppendFloat(dst []byte, v float64) []byte {
	b := math.Float64bits(v)
	if b>>63 == 1 {
		return binary.BigEndian.AppendUint64(dst, ^b)
	}
	return binary.BigEndian.AppendUint64(dst, b|1<<63)
}

// AppendDecimal makes the key of a decimal; two compare if they have one scale.
func AppendDecimal(dst []byte, v decimal128.Num) []byte {
	return binary.BigEndian.AppendUint64(AppendInt(dst, v.HighBits()), v.LowBits())
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
