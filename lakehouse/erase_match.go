package lakehouse

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
)

// eraseColumns are the columns of a table that say whether a row is an erased subject's: none if it has no rows of persons.
func eraseColumns(t *table.Table) []string {
	has := func(name string) bool {
		_, ok := t.Schema().FindFieldByName(name)
		return ok
	}
	if alerts := [...]string{"tenant", "entity", "key", "occurred_at"}; !has("raw_offset") && has("alert_id") { // no raw offset: DropsAlert goes by time
		return alerts[:]
	}
	if !has("raw_offset") || !has("visitor_id") && !has("payload") {
		return nil
	}
	var out []string
	for _, name := range [...]string{"tenant", "visitor_id", "user_id", "previous_id", "payload", "raw_topic", "raw_partition", "raw_offset"} {
		if has(name) {
			out = append(out, name)
		}
	}
	return out
}

// eraseMatch finds erased rows in a batch.
type eraseMatch struct {
	erased                                           *event.Erased
	tenant, visitor, user, previous, payload, topics array.StringLike
	partition                                        *array.Int32
	offset                                           *array.Int64

	entity, key array.StringLike // of alerts, which have no provenance
	occurred    *array.Timestamp
}

func newEraseMatch(b arrow.RecordBatch, erased *event.Erased) (*eraseMatch, error) {
	m := &eraseMatch{erased: erased}
	of := map[string]*array.StringLike{
		"tenant": &m.tenant, "visitor_id": &m.visitor, "user_id": &m.user, "previous_id": &m.previous, "payload": &m.payload, "raw_topic": &m.topics,
	}
	alerts := len(b.Schema().FieldIndices("raw_offset")) == 0 // a property of events that became a column may have any name
	if alerts {
		of = map[string]*array.StringLike{"tenant": &m.tenant, "entity": &m.entity, "key": &m.key}
	}
	for name, to := range of {
		at := b.Schema().FieldIndices(name)
		if len(at) == 0 {
			continue
		}
		col, ok := b.Column(at[0]).(array.StringLike)
		if !ok {
			return nil, fmt.Errorf("column %s is %s", name, b.Column(at[0]).DataType())
		}
		*to = col
	}
	if alerts {
		var err error
		if m.occurred, err = column[*array.Timestamp](b, "occurred_at"); err != nil || m.tenant == nil || m.entity == nil || m.key == nil {
			return nil, fmt.Errorf("the columns are %v, with neither provenance nor what an alert is about", b.Schema())
		}
		return m, nil
	}
	var ok1, ok2 bool
	if at := b.Schema().FieldIndices("raw_partition"); len(at) == 1 {
		m.partition, ok1 = b.Column(at[0]).(*array.Int32)
	}
	if at := b.Schema().FieldIndices("raw_offset"); len(at) == 1 {
		m.offset, ok2 = b.Column(at[0]).(*array.Int64)
	}
	if !ok1 || !ok2 || m.topics == nil || m.tenant == nil {
		return nil, fmt.Errorf("the columns are %v, without tenant and provenance", b.Schema())
	}
	return m, nil
}

func textAt(col array.StringLike, i int) string {
	if col == nil || col.IsNull(i) {
		return ""
	}
	return col.Value(i)
}

func (m *eraseMatch) drops(i int) bool {
	if m.occurred != nil {
		return m.erased.DropsAlert(&event.Alert{Tenant: m.tenant.Value(i), Entity: m.entity.Value(i), Key: m.key.Value(i), OccurredAt: int64(m.occurred.Value(i))})
	}
	topic, partition, offset := m.topics.Value(i), m.partition.Value(i), m.offset.Value(i)
	if !m.erased.Below(topic, partition, offset) {
		return false
	}
	tenant := m.tenant.Value(i)
	return m.erased.Drops(tenant, textAt(m.visitor, i), textAt(m.user, i), topic, partition, offset) ||
		m.previous != nil && m.erased.DropsPrevious(tenant, textAt(m.previous, i), topic, partition, offset) ||
		m.payload != nil && m.erased.DropsPayload(tenant, textAt(m.payload, i), topic, partition, offset)
}

// countErased counts the erased rows of one file, without regard to delete files.
func countErased(ctx context.Context, t *table.Table, task table.FileScanTask, erased *event.Erased) (int64, error) {
	task.DeleteFiles, task.EqualityDeleteFiles, task.DeletionVectorFiles = nil, nil, nil
	n := int64(0)
	err := readTask(ctx, t, task, eraseColumns(t), func(b arrow.RecordBatch) error {
		m, err := newEraseMatch(b, erased)
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			if m.drops(i) {
				n++
			}
		}
		return nil
	})
	return n, err
}
