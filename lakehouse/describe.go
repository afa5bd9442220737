package lakehouse

import (
	"context"
	"fmt"

	"github.com/apache/iceberg-go"
)

// TableDetail is what `millrace tables describe` shows of a table.
type TableDetail struct {
	TableInfo
	SnapshotID int64          `json:"snapshot_id"`
	Location   string         `json:"location"`
	Format     int            `json:"format_version"`
	SchemaID   int            `json:"schema_id"`
	Columns    []ColumnDetail `json:"columns"`
	Partition  []string       `json:"partition"`
	Sort       []string       `json:"sort"`
	Policy     Policy         `json:"policy"`
}

// ColumnDetail is one column.
type ColumnDetail struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`
	Type     string `json:"type"`
	Required bool   `json:"required"`
	Doc      string `json:"doc,omitempty"`
}

// Describe reads what is known of a table.
func (c *Catalog) Describe(ctx context.Context, name string) (TableDetail, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return TableDetail{}, err
	}
	sc, spec := t.Schema(), t.Spec()
	d := TableDetail{TableInfo: infoOf(name, t), Location: t.Location(), Format: t.Metadata().Version(), SchemaID: sc.ID, Partition: []string{}, Sort: []string{}, Policy: PolicyOf(name)}
	if s := t.CurrentSnapshot(); s != nil {
		d.SnapshotID = s.SnapshotID
	}
	for _, f := range sc.Fields() {
		d.Columns = append(d.Columns, ColumnDetail{f.ID, f.Name, f.Type.String(), f.Required, f.Doc})
	}
	of := func(source int, by iceberg.Transform) string {
		col, ok := sc.FindColumnName(source)
		if !ok {
			col = fmt.Sprintf("column %d", source)
		}
		if _, same := by.(iceberg.IdentityTransform); same {
			return col
		}
		return by.String() + "(" + col + ")"
	}
	for _, f := range spec.Fields() {
		d.Partition = append(d.Partition, of(f.SourceIDs[0], f.Transform))
	}
	for _, f := range t.SortOrder().Fields() {
		d.Sort = append(d.Sort, of(f.SourceIDs[0], f.Transform))
	}
	return d, nil
}
