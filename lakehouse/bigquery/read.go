package bigquery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/lakehouse"
)

const (
	batchRows = 8192
	microDay  = 24 * 3600 * 1_000_000
)

// snapshot is the files of a table at one snapshot.
type snapshot struct {
	t     *table.Table
	id    int64
	files map[string]table.FileScanTask // by path and deletes: the same key is the same rows
}

// snapshotOf lists the files of a snapshot; 0 has none.
func snapshotOf(ctx context.Context, t *table.Table, id int64) (snapshot, error) {
	s := snapshot{t: t, id: id, files: map[string]table.FileScanTask{}}
	if id == 0 {
		return s, nil
	}
	if t.SnapshotByID(id) == nil {
		return s, fmt.Errorf("%w: %d", lakehouse.ErrNoSnapshot, id)
	}
	scan := t.Scan(table.WithSnapshotID(id))
	defer func() { _ = scan.Close() }() // planned locally: there is nothing to give back
	tasks, err := scan.PlanFiles(ctx)
	if err != nil {
		return s, fmt.Errorf("files of snapshot %d: %w", id, err)
	}
	for _, task := range tasks {
		task.Start, task.Length, task.Residual = 0, task.File.FileSizeBytes(), nil // a large file is planned in pieces
		s.files[keyOf(task)] = task
	}
	return s, nil
}

func keyOf(t table.FileScanTask) string {
	var deletes []string
	for _, list := range [...][]iceberg.DataFile{t.DeleteFiles, t.EqualityDeleteFiles, t.DeletionVectorFiles} {
		for _, d := range list {
			key := d.FilePath()
			if at := d.ContentOffset(); at != nil {
				key += fmt.Sprint("@", *at)
			}
			deletes = append(deletes, key)
		}
	}
	slices.Sort(deletes)
	return strings.Join(append([]string{t.File.FilePath()}, deletes...), "\n")
}

func hasDeletes(t table.FileScanTask) bool {
	return len(t.DeleteFiles)+len(t.EqualityDeleteFiles)+len(t.DeletionVectorFiles) > 0
}

// without lists what s has and o has not, by path: the same order in every call.
func (s snapshot) without(o snapshot) []table.FileScanTask {
	var out []table.FileScanTask
	for key, task := range s.files {
		if _, ok := o.files[key]; !ok {
			out = append(out, task)
		}
	}
	slices.SortFunc(out, func(a, b table.FileScanTask) int { return strings.Compare(keyOf(a), keyOf(b)) })
	return out
}

// dayOf is the day of ingested_at, since 1970, that all rows of a file are of, if its partition says so.
func (s snapshot) dayOf(f iceberg.DataFile) (int32, bool) {
	spec := s.t.Metadata().PartitionSpecByID(int(f.SpecID()))
	if spec == nil {
		return 0, false
	}
	for _, field := range spec.Fields() {
		if _, ok := field.Transform.(iceberg.DayTransform); !ok || field.Name != lakehouse.PartitionColumn+"_day" {
			continue
		}
		switch v := f.Partition()[field.FieldID].(type) {
		case int32:
			return v, true
		case iceberg.Date:
			return int32(v), true
		}
	}
	return 0, false
}

// read gives the rows of one file in their order, with its deletes applied. each must not keep a batch.
func (s snapshot) read(ctx context.Context, task table.FileScanTask, columns []string, each func(arrow.RecordBatch) error) error {
	opts := []table.ScanOption{table.WithSnapshotID(s.id), table.WithMaxConcurrency(1), table.WithArrowBatchSize(batchRows)}
	if len(columns) > 0 {
		opts = append(opts, table.WithSelectedFields(columns...))
	}
	scan := s.t.Scan(opts...)
	defer func() { _ = scan.Close() }() // planned by us: there is nothing to give back
	_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{task})
	if err != nil {
		return fmt.Errorf("reading %s: %w", task.File.FilePath(), lakehouse.Damaged(ctx, s.t, []table.FileScanTask{task}, err))
	}
	for b, err := range batches {
		if err != nil {
			return fmt.Errorf("reading %s: %w", task.File.FilePath(), lakehouse.Damaged(ctx, s.t, []table.FileScanTask{task}, err))
		}
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// vectorAt is how far each partition had been stored. Rows do not say which topic id they are of.
func vectorAt(v lakehouse.Vector) (map[int32]int64, error) {
	if len(v) > 1 {
		return nil, fmt.Errorf("the table was fed from %d topics, and its rows do not say from which of them they are", len(v))
	}
	for _, parts := range v {
		return parts, nil
	}
	return nil, nil
}

// keys are the columns of a batch that say where a row came from, what it sums to, and whose it is.
type keys struct {
	hash, ingested, partition, offset      int64Column
	tenant, visitor, user, previous, topic *array.String
	rawPartition, rawOffset                int64Column
	erased                                 *event.Erased
	stored                                 map[int32]int64
	rowDay                                 int32
	rowHash                                int64
	rowFresh, rowErased                    bool
}

type int64Column func(i int) int64

// keyColumns are what keysOf needs of a table.
func keyColumns(sc *iceberg.Schema, erased *event.Erased) []string {
	out := []string{"row_hash", lakehouse.PartitionColumn, "kafka_partition", "kafka_offset"}
	if erased.Len() > 0 {
		out = append(out, "tenant", "visitor_id", "user_id", "raw_topic", "raw_partition", "raw_offset")
		if _, ok := sc.FindFieldByName("previous_id"); ok {
			out = append(out, "previous_id")
		}
	}
	return out
}

func keysOf(b arrow.RecordBatch, stored map[int32]int64, erased *event.Erased) (*keys, error) {
	k := &keys{stored: stored, erased: erased}
	var err error
	ints := func(name string) int64Column {
		at := b.Schema().FieldIndices(name)
		if len(at) == 1 {
			switch c := b.Column(at[0]).(type) {
			case *array.Int64:
				return c.Value
			case *array.Int32:
				return func(i int) int64 { return int64(c.Value(i)) }
			case *array.Timestamp:
				return func(i int) int64 { return int64(c.Value(i)) }
			}
		}
		err = fmt.Errorf("column %s is missing or of another type", name)
		return nil
	}
	text := func(name string, must bool) *array.String {
		at := b.Schema().FieldIndices(name)
		if len(at) == 1 {
			if c, ok := b.Column(at[0]).(*array.String); ok {
				return c
			}
		}
		if must {
			err = fmt.Errorf("column %s is missing or of another type", name)
		}
		return nil
	}
	k.hash, k.ingested, k.partition, k.offset = ints("row_hash"), ints(lakehouse.PartitionColumn), ints("kafka_partition"), ints("kafka_offset")
	if erased.Len() > 0 {
		k.tenant, k.visitor, k.user, k.topic = text("tenant", true), text("visitor_id", true), text("user_id", true), text("raw_topic", true)
		k.rawPartition, k.rawOffset = ints("raw_partition"), ints("raw_offset")
		k.previous = text("previous_id", false)
	}
	return k, err
}

// row reads one row: its day, its hash, whether it lies behind what was stored, and whether it is of an erased subject.
func (k *keys) row(i int) {
	at := k.ingested(i)
	day := at / microDay
	if at%microDay < 0 {
		day--
	}
	k.rowDay, k.rowHash = int32(day), k.hash(i)
	k.rowFresh = k.offset(i) >= k.stored[int32(k.partition(i))]
	k.rowErased = false
	if k.erased.Len() == 0 {
		return
	}
	topic, partition, offset := k.topic.Value(i), int32(k.rawPartition(i)), k.rawOffset(i)
	user := ""
	if k.user.IsValid(i) {
		user = k.user.Value(i)
	}
	k.rowErased = k.erased.Drops(k.tenant.Value(i), k.visitor.Value(i), user, topic, partition, offset)
	if !k.rowErased && k.previous != nil && k.previous.IsValid(i) {
		k.rowErased = k.erased.DropsPrevious(k.tenant.Value(i), k.previous.Value(i), topic, partition, offset)
	}
}
