package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"

	"millrace/event"
)

// Failpoints of the commit of a repair.
const (
	FailRepairBefore = "lakehouse.repair.commit.before"
	FailRepairAfter  = "lakehouse.repair.commit.after"
)

// Part of a table: the rows of one raw topic that the platform took in [From, To).
type Part struct {
	RawTopic string
	From, To time.Time
}

func (p Part) filter() iceberg.BooleanExpression {
	at := iceberg.Reference(PartitionColumn)
	return iceberg.NewAnd(iceberg.GreaterThanEqual(at, iceberg.Timestamp(p.From.UnixMicro())),
		iceberg.NewAnd(iceberg.LessThan(at, iceberg.Timestamp(p.To.UnixMicro())), iceberg.EqualTo(iceberg.Reference("raw_topic"), p.RawTopic)))
}

// Within are the raw offsets [From, To) of one raw partition.
type Within struct {
	Partition int32
	From, To  int64
}

func (w Within) filter() iceberg.BooleanExpression {
	offset := iceberg.Reference("raw_offset")
	return iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference("raw_partition"), w.Partition), iceberg.NewAnd(iceberg.GreaterThanEqual(offset, w.From), iceberg.LessThan(offset, w.To)))
}

// Spot is one row by its places and its hash.
type Spot struct {
	RawPartition int32
	RawOffset    int64
	Hash         int64
	Partition    int32 // of events.*
	At           int64 // offset there
}

// Spots reads the places of the rows of a part at a snapshot; within, if not nil, narrows it.
func (c *Catalog) Spots(ctx context.Context, name string, snapshot int64, p Part, within *Within, each func(Spot) error) error {
	filter, hash := p.filter(), "row_hash"
	if within != nil {
		filter = iceberg.NewAnd(filter, within.filter())
	}
	if name == FailedTable {
		hash = "failed_id"
	}
	return c.ScanRows(ctx, name, ScanOptions{Snapshot: snapshot, Filter: filter, Columns: []string{"raw_partition", "raw_offset", "kafka_partition", "kafka_offset", hash}}, func(b arrow.RecordBatch) error {
		rp, err := int32s(b, "raw_partition")
		if err != nil {
			return err
		}
		ro, err := int64s(b, "raw_offset")
		if err != nil {
			return err
		}
		kp, err := int32s(b, "kafka_partition")
		if err != nil {
			return err
		}
		ko, err := int64s(b, "kafka_offset")
		if err != nil {
			return err
		}
		hashes, err := hashesOf(b, hash)
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			if err := each(Spot{rp[i], ro[i], hashes(i), kp[i], ko[i]}); err != nil {
				return err
			}
		}
		return nil
	})
}

func columnOf(b arrow.RecordBatch, name string) (arrow.Array, error) {
	i := b.Schema().FieldIndices(name)
	if len(i) != 1 {
		return nil, fmt.Errorf("the scan gave no column %s", name)
	}
	return b.Column(i[0]), nil
}

func int32s(b arrow.RecordBatch, name string) ([]int32, error) {
	c, err := columnOf(b, name)
	if err != nil {
		return nil, err
	}
	v, ok := c.(*array.Int32)
	if !ok {
		return nil, fmt.Errorf("column %s is %s", name, c.DataType())
	}
	return v.Int32Values(), nil
}

func int64s(b arrow.RecordBatch, name string) ([]int64, error) {
	c, err := columnOf(b, name)
	if err != nil {
		return nil, err
	}
	v, ok := c.(*array.Int64)
	if !ok {
		return nil, fmt.Errorf("column %s is %s", name, c.DataType())
	}
	return v.Int64Values(), nil
}

// hashesOf gives the hash of each row: row_hash, or that of failed_id.
func hashesOf(b arrow.RecordBatch, name string) (func(i int) int64, error) {
	c, err := columnOf(b, name)
	if err != nil {
		return nil, err
	}
	switch c := c.(type) {
	case *array.Int64:
		return c.Value, nil
	case *array.String:
		return func(i int) int64 { return int64(xxhash.Sum64String(c.Value(i))) }, nil
	}
	return nil, fmt.Errorf("column %s is %s", name, c.DataType())
}

// StoredRows reads whole rows of one raw partition by their raw offsets, one for each offset even if there are copies.
func (c *Catalog) StoredRows(ctx context.Context, name string, snapshot int64, p Part, partition int32, offsets []int64, each func(event.Stored) error) error {
	if len(offsets) == 0 {
		return nil
	}
	want := make(map[int64]bool, len(offsets))
	for _, o := range offsets {
		want[o] = true
	}
	r := newStoredReader(name)
	filter := iceberg.NewAnd(p.filter(), Within{partition, slices.Min(offsets), slices.Max(offsets) + 1}.filter())
	return c.ScanRows(ctx, name, ScanOptions{Snapshot: snapshot, Filter: filter}, func(b arrow.RecordBatch) error {
		at, err := int64s(b, "raw_offset")
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			if !want[at[i]] {
				continue
			}
			delete(want, at[i])
			s, err := r.row(b, i)
			if err != nil {
				return fmt.Errorf("reading a row of table %s: %w", name, err)
			}
			if err := each(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Repaired says what a repair has done.
type Repaired struct {
	SnapshotID int64
	Rows       int64 // added, or removed
	Files      int64
	Refused    []error // rows that the table cannot hold
	Again      bool    // an earlier call had done it
}

// AppendRows adds rows that main lacks although its offsets are beyond them, in one snapshot that carries these offsets on and has id as RepairKey. Each row must lie
// below the head's offsets of topic topicID, else the stream will bring it: ErrConflict. Which rows are lacking is the caller's to know. A repeated call with the same id
// adds nothing.
func (c *Catalog) AppendRows(ctx context.Context, name, topicID, id string, rows []event.Stored) (Repaired, error) {
	out, err := c.appendRows(ctx, name, topicID, id, rows)
	if err != nil {
		return out, fmt.Errorf("repair %s of table %s: %w", id, name, err)
	}
	return out, nil
}

func (c *Catalog) appendRows(ctx context.Context, name, topicID, id string, rows []event.Stored) (out Repaired, err error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return out, err
	}
	if done := repaired(t, id); done != nil {
		return *done, nil
	}
	w, err := c.NewWriter(ctx, name)
	if err != nil {
		return out, err
	}
	need := map[int32]int64{}
	for i := range rows {
		s := &rows[i]
		from := Provenance{Topic: s.Topic, Partition: s.Partition, Offset: s.Offset}
		if s.Failed != nil {
			err = w.WriteFailed(ctx, s.Failed, from)
		} else {
			err = w.WriteEvent(ctx, s.Event, from)
		}
		var refused *RowError
		if errors.As(err, &refused) {
			out.Refused = append(out.Refused, err)
			continue
		}
		if err != nil {
			return out, errors.Join(err, w.Discard(ctx))
		}
		need[s.Partition] = max(need[s.Partition], s.Offset+1)
		out.Rows++
	}
	files, err := w.Finish(ctx)
	if err != nil || len(files) == 0 {
		return out, err
	}
	err = c.swap(ctx, name, func(t *table.Table) error {
		if done := repaired(t, id); done != nil {
			out.SnapshotID, out.Again = done.SnapshotID, done.SnapshotID != 0
			return nil
		}
		h, err := headOf(name, t)
		if err != nil {
			return err
		}
		for p, next := range need {
			if h.Vector.At(topicID, p) < next {
				return fmt.Errorf("%w: the table is at offset %d of partition %d again, below a row that was to be added", ErrConflict, h.Vector.At(topicID, p), p)
			}
		}
		tx := t.NewTransaction()
		if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
			return err
		}
		if err := tx.AddDataFiles(ctx, files, nil, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
			return err
		}
		return c.commitCarried(ctx, name, t, tx, iceberg.Properties{RepairKey: id}, FailRepairBefore, FailRepairAfter)
	})
	if err != nil {
		if !errors.Is(err, errLostReply) {
			err = errors.Join(err, w.remove(context.WithoutCancel(ctx), files))
		}
		return out, err
	}
	out.Files = int64(len(files))
	return out, c.noteRepaired(ctx, name, id, &out)
}

func (c *Catalog) noteRepaired(ctx context.Context, name, id string, out *Repaired) error {
	t, err := c.Load(ctx, name)
	if err != nil {
		return err
	}
	if done := repaired(t, id); done != nil {
		out.SnapshotID = done.SnapshotID
	}
	return nil
}

// repaired looks for the snapshot of a repair under the head.
func repaired(t *table.Table, id string) *Repaired {
	head := t.CurrentSnapshot()
	if head == nil {
		return nil
	}
	for _, s := range table.AncestorsOf(head.SnapshotID, t.SnapshotByID) {
		if s.Summary != nil && s.Summary.Properties[RepairKey] == id {
			p := s.Summary.Properties
			return &Repaired{SnapshotID: s.SnapshotID, Rows: max(p.GetInt64("added-records", 0)-p.GetInt64("deleted-records", 0), p.GetInt64("deleted-records", 0)-p.GetInt64("added-records", 0)), Again: true}
		}
	}
	return nil
}

// DropRows removes rows of one raw partition from main by writing the files that hold them anew: those of the raw offsets in drop, but for one of each whose value is
// true. It is one snapshot with the head's offsets and id as RepairKey. ErrConflict: the files were changed meanwhile, and the call may be made again with another id.
func (c *Catalog) DropRows(ctx context.Context, name, id string, p Part, partition int32, drop map[int64]bool) (Repaired, error) {
	out, err := c.dropRows(ctx, name, id, p, partition, drop)
	if err != nil {
		return out, fmt.Errorf("repair %s of table %s: %w", id, name, err)
	}
	return out, nil
}

func (c *Catalog) dropRows(ctx context.Context, name, id string, p Part, partition int32, drop map[int64]bool) (out Repaired, err error) {
	t, err := c.Load(ctx, name)
	if err != nil || len(drop) == 0 {
		return out, err
	}
	if done := repaired(t, id); done != nil {
		return *done, nil
	}
	base := t.CurrentSnapshot()
	if base == nil {
		return out, nil
	}
	offsets := slices.Collect(maps.Keys(drop))
	filter := iceberg.NewAnd(p.filter(), Within{partition, slices.Min(offsets), slices.Max(offsets) + 1}.filter())
	tasks, err := t.Scan(table.WithRowFilter(filter)).PlanFiles(ctx)
	if err != nil {
		return out, err
	}
	d := dropping{c: c, t: t, p: p, partition: partition, drop: drop, kept: map[int64]bool{}}
	var files []iceberg.DataFile
	for _, task := range wholeFiles(tasks) {
		hit, err := d.hits(ctx, task)
		if err != nil {
			return out, errors.Join(err, d.discard(ctx))
		}
		if !hit {
			continue
		}
		if err := d.rewrite(ctx, task); err != nil {
			return out, errors.Join(err, d.discard(ctx))
		}
		files = append(files, task.File)
	}
	if len(files) == 0 {
		return out, nil
	}
	err = c.swap(ctx, name, func(t *table.Table) error {
		if repaired(t, id) != nil {
			return nil
		}
		snap := t.CurrentSnapshot()
		if snap == nil || deleteCount(snap) != deleteCount(base) {
			return fmt.Errorf("%w: delete files were added", ErrConflict)
		}
		tx := t.NewTransaction()
		if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
			return err
		}
		if err := tx.ReplaceDataFilesWithDataFiles(ctx, files, d.files, nil, table.WithoutAutoNameMapping()); err != nil {
			if strings.Contains(err.Error(), "do not belong to the table") {
				err = fmt.Errorf("%w: %w", ErrConflict, err)
			}
			return err
		}
		return c.commitCarried(ctx, name, t, tx, iceberg.Properties{RepairKey: id}, FailRepairBefore, FailRepairAfter)
	})
	if err != nil {
		if !errors.Is(err, errLostReply) {
			err = errors.Join(err, d.discard(ctx))
		}
		return out, err
	}
	out.Rows, out.Files = d.dropped, int64(len(files))
	return out, c.noteRepaired(ctx, name, id, &out)
}

func deleteCount(s *table.Snapshot) int64 {
	if s.Summary == nil {
		return 0
	}
	return s.Summary.Properties.GetInt64("total-delete-files", 0)
}

// dropping writes files anew without some rows.
type dropping struct {
	c         *Catalog
	t         *table.Table
	p         Part
	partition int32
	drop      map[int64]bool
	kept      map[int64]bool
	files     []iceberg.DataFile
	dropped   int64
}

// ours gives the raw offset of each row that may have to go, -1 for others.
func (d *dropping) ours(b arrow.RecordBatch) (func(i int) int64, error) {
	rp, err := int32s(b, "raw_partition")
	if err != nil {
		return nil, err
	}
	ro, err := int64s(b, "raw_offset")
	if err != nil {
		return nil, err
	}
	col, err := columnOf(b, "raw_topic")
	if err != nil {
		return nil, err
	}
	topic, ok := col.(*array.String)
	if !ok {
		return nil, fmt.Errorf("column raw_topic is %s", col.DataType())
	}
	return func(i int) int64 {
		if _, named := d.drop[ro[i]]; named && rp[i] == d.partition && topic.Value(i) == d.p.RawTopic {
			return ro[i]
		}
		return -1
	}, nil
}

// hits says whether rows of a file have to go. What it would keep is remembered if none has to.
func (d *dropping) hits(ctx context.Context, task table.FileScanTask) (bool, error) {
	hit, seen := false, map[int64]bool{}
	err := d.read(ctx, task, []string{"raw_topic", "raw_partition", "raw_offset"}, func(b arrow.RecordBatch) error {
		ours, err := d.ours(b)
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			if at := ours(i); at >= 0 {
				hit = hit || !d.drop[at] || d.kept[at] || seen[at]
				seen[at] = true
			}
		}
		return nil
	})
	if err == nil && !hit {
		maps.Copy(d.kept, seen)
	}
	return hit, err
}

func (d *dropping) read(ctx context.Context, task table.FileScanTask, columns []string, each func(arrow.RecordBatch) error) error {
	opts := []table.ScanOption{table.WithMaxConcurrency(1), table.WithArrowBatchSize(scanRows)}
	if len(columns) > 0 {
		opts = append(opts, table.WithSelectedFields(columns...))
	}
	scan := d.t.Scan(opts...)
	defer func() { _ = scan.Close() }() // planned by us: there is nothing to give back
	_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{task})
	if err != nil {
		return Damaged(ctx, d.t, []table.FileScanTask{task}, err)
	}
	for b, err := range batches {
		if err != nil {
			return Damaged(ctx, d.t, []table.FileScanTask{task}, err)
		}
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// rewrite writes a file anew without the rows that have to go.
func (d *dropping) rewrite(ctx context.Context, task table.FileScanTask) error {
	t, err := unsorted(d.t)
	if err != nil {
		return err
	}
	if t, err = withBlooms(t, bloomBytes(task.File.Count())); err != nil {
		return err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()})
	if err != nil {
		return fmt.Errorf("arrow schema: %w", err)
	}
	var failed error
	rows := func(yield func(arrow.RecordBatch, error) bool) {
		failed = d.read(ctx, task, nil, func(b arrow.RecordBatch) error {
			ours, err := d.ours(b)
			if err != nil {
				return err
			}
			return runs(int(b.NumRows()), func(i int) bool {
				at := ours(i)
				switch {
				case at < 0:
					return true
				case d.drop[at] && !d.kept[at]:
					d.kept[at] = true
					return true
				}
				d.dropped++
				return false
			}, func(from, to int) error {
				if !yield(b.NewSlice(int64(from), int64(to)), nil) {
					return errStopped
				}
				return nil
			})
		})
		if failed != nil && !errors.Is(failed, errStopped) {
			yield(nil, failed)
		}
	}
	for f, err := range table.WriteRecords(ctx, t, sc, rows, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(2), table.WithTargetFileSize(max(1<<20, 2*task.File.FileSizeBytes()))) {
		if err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		d.files = append(d.files, f)
	}
	return nil
}

// runs calls each with the runs of rows that are kept.
func runs(n int, keep func(i int) bool, each func(from, to int) error) error {
	from := -1
	for i := range n {
		switch k := keep(i); {
		case k && from < 0:
			from = i
		case !k && from >= 0:
			if err := each(from, i); err != nil {
				return err
			}
			from = -1
		}
	}
	if from >= 0 {
		return each(from, n)
	}
	return nil
}

func (d *dropping) discard(ctx context.Context) error {
	store, err := d.t.FS(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range d.files {
		errs = append(errs, remove(store, f.FilePath()))
	}
	return errors.Join(errs...)
}
