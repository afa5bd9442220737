package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// rowFilter applies a filter to rows. iceberg-go 0.7.0 has three faults in doing so: it compares another column, without an error, where the filter looks at one behind a list of structs
// that is not read; it panics at IS NULL of a decimal; and it has no prefixes. So it only chooses files by the filter.
type rowFilter struct {
	test    batchTest
	columns []string // that it looks at
}

// batchTest makes the test of a batch's rows.
type batchTest func(b arrow.RecordBatch) (func(i int) bool, error)

func newRowFilter(sc *iceberg.Schema, filter iceberg.BooleanExpression) (*rowFilter, error) {
	bound, err := iceberg.BindExpr(sc, filter, true)
	if err != nil {
		return nil, err
	}
	if bound, err = iceberg.RewriteNotExpr(bound); err != nil { // then a comparison with null is false wherever it stands
		return nil, fmt.Errorf("filter: %w", err)
	}
	v := &filterVisitor{}
	test, err := iceberg.VisitExpr[batchTest](bound, v)
	if err = errors.Join(append(v.errs, err)...); err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return &rowFilter{test, v.columns}, nil
}

// keep gives the rows of a batch that pass, nil if there are none. The caller owns it.
func (f *rowFilter) keep(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	return pick(ctx, b, f.test)
}

type filterVisitor struct {
	columns []string
	errs    []error
}

func always(yes bool) batchTest {
	return func(arrow.RecordBatch) (func(int) bool, error) { return func(int) bool { return yes }, nil }
}

func both(l, r batchTest, join func(a, b func(int) bool) func(int) bool) batchTest {
	return func(b arrow.RecordBatch) (func(int) bool, error) {
		x, err1 := l(b)
		y, err2 := r(b)
		return join(x, y), errors.Join(err1, err2)
	}
}

// VisitTrue implements iceberg.BooleanExprVisitor, as do the others.
func (*filterVisitor) VisitTrue() batchTest { return always(true) }

// VisitFalse is never true.
func (*filterVisitor) VisitFalse() batchTest { return always(false) }

// VisitNot does not come: it was rewritten.
func (v *filterVisitor) VisitNot(batchTest) batchTest {
	v.errs = append(v.errs, errors.New("a negation is left"))
	return always(false)
}

// VisitAnd is both.
func (*filterVisitor) VisitAnd(l, r batchTest) batchTest {
	return both(l, r, func(x, y func(int) bool) func(int) bool { return func(i int) bool { return x(i) && y(i) } })
}

// VisitOr is either.
func (*filterVisitor) VisitOr(l, r batchTest) batchTest {
	return both(l, r, func(x, y func(int) bool) func(int) bool { return func(i int) bool { return x(i) || y(i) } })
}

// VisitUnbound does not come: it was bound.
func (v *filterVisitor) VisitUnbound(p iceberg.UnboundPredicate) batchTest {
	v.errs = append(v.errs, fmt.Errorf("%s is not bound to a column", p))
	return always(false)
}

// VisitBound is a comparison.
func (v *filterVisitor) VisitBound(p iceberg.BoundPredicate) batchTest {
	f := p.Ref().Field()
	if !slices.Contains(v.columns, f.Name) {
		v.columns = append(v.columns, f.Name)
	}
	var lits []iceberg.Literal
	switch p := p.(type) {
	case iceberg.BoundLiteralPredicate:
		lits = []iceberg.Literal{p.Literal()}
	case iceberg.BoundSetPredicate:
		lits = p.Literals().Members()
	}
	op := p.Op()
	pass, ok := map[iceberg.Operation]func(int) bool{
		iceberg.OpEQ: func(c int) bool { return c == 0 }, iceberg.OpNEQ: func(c int) bool { return c != 0 }, iceberg.OpLT: func(c int) bool { return c < 0 },
		iceberg.OpLTEQ: func(c int) bool { return c <= 0 }, iceberg.OpGT: func(c int) bool { return c > 0 }, iceberg.OpGTEQ: func(c int) bool { return c >= 0 },
	}[op]
	set := op == iceberg.OpIn || op == iceberg.OpNotIn
	null := op == iceberg.OpIsNull || op == iceberg.OpNotNull
	prefix := op == iceberg.OpStartsWith || op == iceberg.OpNotStartsWith
	if !ok && !set && !null && !prefix {
		v.errs = append(v.errs, fmt.Errorf("column %s: %s cannot be applied", f.Name, op))
		return always(false)
	}
	return func(b arrow.RecordBatch) (func(int) bool, error) {
		col, err := columnOf(b, f.Name)
		if err != nil {
			return nil, err
		}
		if null {
			return func(i int) bool { return col.IsNull(i) == (op == iceberg.OpIsNull) }, nil
		}
		if prefix {
			text, ok := col.(*array.String)
			begin, isText := lits[0].Any().(string)
			if !ok || !isText {
				return nil, fmt.Errorf("column %s is %s and has no beginning", f.Name, col.DataType())
			}
			return func(i int) bool {
				return text.IsValid(i) && strings.HasPrefix(text.Value(i), begin) == (op == iceberg.OpStartsWith)
			}, nil
		}
		to := make([]func(int) int, len(lits))
		for j, lit := range lits {
			if to[j], err = comparer(col, lit.Any()); err != nil {
				return nil, fmt.Errorf("column %s: %w", f.Name, err)
			}
		}
		if set {
			return func(i int) bool {
				return col.IsValid(i) && slices.ContainsFunc(to, func(c func(int) int) bool { return c(i) == 0 }) == (op == iceberg.OpIn)
			}, nil
		}
		return func(i int) bool { return col.IsValid(i) && pass(to[0](i)) }, nil
	}
}

// comparer compares a column's values with a literal of its type.
func comparer(col arrow.Array, lit any) (func(i int) int, error) {
	switch c := col.(type) {
	case *array.Int32:
		if v, ok := lit.(int32); ok {
			return func(i int) int { return cmp.Compare(c.Value(i), v) }, nil
		}
	case *array.Int64:
		if v, ok := lit.(int64); ok {
			return func(i int) int { return cmp.Compare(c.Value(i), v) }, nil
		}
	case *array.String:
		if v, ok := lit.(string); ok {
			return func(i int) int { return strings.Compare(c.Value(i), v) }, nil
		}
	case *array.Timestamp:
		if v, ok := lit.(iceberg.Timestamp); ok {
			return func(i int) int { return cmp.Compare(int64(c.Value(i)), int64(v)) }, nil
		}
	case *array.Date32:
		if v, ok := lit.(iceberg.Date); ok {
			return func(i int) int { return cmp.Compare(int32(c.Value(i)), int32(v)) }, nil
		}
	case *array.Boolean:
		if v, ok := lit.(bool); ok {
			return func(i int) int {
				switch {
				case c.Value(i) == v:
					return 0
				case v:
					return -1
				}
				return 1
			}, nil
		}
	case *array.Float64:
		if v, ok := lit.(float64); ok {
			return func(i int) int { return cmp.Compare(c.Value(i), v) }, nil
		}
	case *array.Decimal128:
		typ, _ := c.DataType().(*arrow.Decimal128Type) // a decimal array's type
		if v, ok := lit.(iceberg.Decimal); ok && int32(v.Scale) == typ.Scale {
			return func(i int) int { return c.Value(i).Cmp(v.Val) }, nil
		}
	}
	return nil, fmt.Errorf("%s cannot be compared with %v", col.DataType(), lit)
}
