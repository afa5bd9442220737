package lakehouse

import (
	"fmt"
	"hash/maphash"

	"millrace/lakehouse/order"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// distinctRows is how many rows tell whether a column has most values once: a dictionary of such is as large as the column, and costs a look-up a value until the
// writer gives it up, which in a small file is never.
const distinctRows = 1024

// distinct are the columns whose values are nearly all different among the first rows of a batch. Few rows tell nothing.
func distinct(b arrow.RecordBatch) []string {
	rows := int(min(b.NumRows(), distinctRows))
	if rows < 100 {
		return nil
	}
	var out []string
	seed := maphash.MakeSeed()
	for i, f := range b.Schema().Fields() {
		key, err := order.KeyOf(b.Column(i), true, true, 0)
		if err != nil { // lists
			continue
		}
		seen := make(map[uint64]struct{}, rows)
		var k []byte
		for r := range rows {
			k = key(k[:0], r)
			seen[maphash.Bytes(seed, k)] = struct{}{}
		}
		if len(seen)*10 > rows*9 {
			out = append(out, f.Name)
		}
	}
	return out
}

// withoutDictionaries is a table whose writers make none for some columns.
func withoutDictionaries(t *table.Table, columns []string) (*table.Table, error) {
	if len(columns) == 0 {
		return t, nil
	}
	p := iceberg.Properties{}
	for _, c := range columns {
		p["write.parquet.dict-encoding-enabled.column."+c] = "false"
	}
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err == nil {
		err = b.SetProperties(p)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	meta, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	return table.New(t.Identifier(), meta, t.MetadataLocation(), t.FS, nil), nil
}
