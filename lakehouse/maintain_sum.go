package lakehouse

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"

	"millrace/event"
)

// sum is the checksum of rows: of row_hash, or of the hash of the id in tables that have none.
type sum struct{ event.Checksum }

func (*sum) columns(t *table.Table) []string {
	for _, name := range [...]string{"row_hash", "failed_id", "alert_id"} {
		if _, ok := t.Schema().FindFieldByName(name); ok {
			return []string{name}
		}
	}
	return nil
}

func (s *sum) add(b arrow.RecordBatch) error {
	if i := b.Schema().FieldIndices("row_hash"); len(i) == 1 {
		col, ok := b.Column(i[0]).(*array.Int64)
		if !ok {
			return fmt.Errorf("row_hash is %s", b.Column(i[0]).DataType())
		}
		for _, h := range col.Int64Values() {
			s.Add(h)
		}
		return nil
	}
	i := b.Schema().FieldIndices("failed_id")
	if len(i) == 0 {
		i = b.Schema().FieldIndices("alert_id")
	}
	if len(i) != 1 {
		return errors.New("the table has none of row_hash, failed_id and alert_id")
	}
	col, ok := b.Column(i[0]).(*array.String)
	if !ok {
		return fmt.Errorf("%s is %s", b.ColumnName(i[0]), b.Column(i[0]).DataType())
	}
	for i := range col.Len() {
		s.Add(int64(xxhash.Sum64String(col.Value(i))))
	}
	return nil
}
