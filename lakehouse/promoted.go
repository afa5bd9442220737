package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event/schema"
	"millrace/internal/fault"
)

// AddPromoted adds the columns of promoted properties to a table, under their field ids, and widens those that have become wider. It is idempotent and may run in
// several processes at once; rows that are there have NULL. A column that is there with another id or type is fault MR-ICE-002.
func (c *Catalog) AddPromoted(ctx context.Context, name string, ps []schema.Promotion) error {
	if len(ps) == 0 {
		return nil
	}
	return c.patiently(ctx, func() error { return c.addPromoted(ctx, name, ps) })
}

func (c *Catalog) addPromoted(ctx context.Context, name string, ps []schema.Promotion) error {
	const attempts = 10
	for range attempts {
		t, err := c.Load(ctx, name)
		if err != nil {
			return err
		}
		fields, changed, err := promotedFields(t.Schema().Fields(), ps)
		if err != nil {
			return fault.New("MR-ICE-002", fmt.Errorf("table %s: %w", name, err))
		}
		if changed == 0 {
			return nil
		}
		id := 0
		for _, sc := range t.Metadata().Schemas() {
			id = max(id, sc.ID+1)
		}
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertCurrentSchemaID(t.Schema().ID), table.AssertLastAssignedFieldID(t.Metadata().LastColumnID())}
		_, _, err = c.base.CommitTable(ctx, c.ident(name), reqs, []table.Update{table.NewAddSchemaUpdate(iceberg.NewSchema(id, fields...)), table.NewSetCurrentSchemaUpdate(-1)})
		if err == nil {
			return nil
		}
		if !errors.Is(err, table.ErrCommitFailed) && !strings.Contains(strings.ToLower(err.Error()), "requirement failed") {
			return fmt.Errorf("adding %d promoted columns to table %s: %w", changed, name, err)
		}
	}
	return fmt.Errorf("adding promoted columns to table %s: it changed %d times meanwhile", name, attempts)
}

// promotedFields gives have with the promoted columns, and how many of them are new or wider.
func promotedFields(have []iceberg.NestedField, ps []schema.Promotion) ([]iceberg.NestedField, int, error) {
	out := append([]iceberg.NestedField(nil), have...)
	changed := 0
	var want []schema.Column
	for _, p := range ps {
		col := p.Column()
		for i, f := range out {
			if f.ID != col.ID || f.Name != col.Name {
				continue
			}
			switch {
			case f.Type.Equals(iceberg.PrimitiveTypes.Int32) && col.Type == schema.Long:
				out[i].Type = iceberg.PrimitiveTypes.Int64
				changed++
			case f.Type.Equals(iceberg.PrimitiveTypes.Int64) && col.Type == schema.Int: // another process knows a newer promotion
				col.Type = schema.Long
			}
		}
		want = append(want, col)
	}
	out, added, err := merge(out, nestedFields(want), "")
	return out, changed + added, err
}

// appendPromoted appends the value of a promoted column to its builder.
func appendPromoted(b array.Builder, v *schema.Promoted) {
	if !v.OK {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(v.Text)
	case *array.BooleanBuilder:
		b.Append(v.Num != 0)
	case *array.Int32Builder:
		b.Append(int32(v.Num))
	case *array.Int64Builder:
		b.Append(v.Num)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.Num))
	case *array.Decimal128Builder:
		b.Append(decimal128.FromI64(v.Num))
	default:
		panic(fmt.Sprintf("no promoted column has the type of %T", b)) // promotedOf has seen to it
	}
}

// promotedSlot is a promoted column of a layout.
type promotedSlot struct {
	at    int // among the table's columns
	value int // among the extractor's values
}

// promotedDoc begins the documentation of promoted columns in a table's schema, which so says what fills them: every writer does, also one that repairs.
const promotedDoc = "promoted: property "

// promotedOf lists the promoted columns that a table has.
func promotedOf(sc *iceberg.Schema) []schema.Promotion {
	types := map[string]string{}
	for _, name := range schema.PromotedTypes() {
		types[icebergType(schema.Promotion{Type: name}.Column()).String()] = name
	}
	var out []schema.Promotion
	for _, f := range sc.Fields() {
		property, ok := strings.CutPrefix(f.Doc, promotedDoc)
		if t := types[f.Type.String()]; ok && f.ID >= schema.FirstPromotedID && t != "" {
			out = append(out, schema.Promotion{Name: f.Name, Type: t, Property: property, ID: f.ID})
		}
	}
	return out
}

// ColumnType is the Iceberg type of a column.
func ColumnType(c schema.Column) string { return icebergType(c).String() }
