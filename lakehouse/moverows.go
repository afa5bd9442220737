package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// spot is where a row came from: unique in a table of one topic.
type spot struct {
	partition int32
	offset    int64
}

type spots map[spot]bool

// filter narrows a scan to where the spots are.
func (s spots) filter() iceberg.BooleanExpression {
	low, high := map[int32]int64{}, map[int32]int64{}
	for p := range s {
		if lo, ok := low[p.partition]; !ok || p.offset < lo {
			low[p.partition] = p.offset
		}
		high[p.partition] = max(high[p.partition], p.offset+1)
	}
	f, err := offsetsBetween(Vector{"": low}, Vector{"": high})
	if err != nil { // one topic
		return iceberg.AlwaysTrue{}
	}
	return f
}

// newSpots reads the spots of a batch.
func newSpots(b arrow.RecordBatch) (func(i int) spot, error) {
	partition, err1 := column[*array.Int32](b, "kafka_partition")
	offset, err2 := column[*array.Int64](b, "kafka_offset")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return func(i int) spot { return spot{partition.Value(i), offset.Value(i)} }, nil
}

// spotsOf are the spots of the rows of main that a filter names.
func (c *Catalog) spotsOf(ctx context.Context, name string, filter iceberg.BooleanExpression) (spots, error) {
	out := spots{}
	err := c.ScanRows(ctx, name, ScanOptions{Columns: []string{"kafka_partition", "kafka_offset"}, Filter: filter}, func(b arrow.RecordBatch) error {
		at, err := newSpots(b)
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			out[at(i)] = true
		}
		return nil
	})
	return out, err
}

// madeBy finds the snapshot under main that a run has made, 0 if there is none.
func (c *Catalog) madeBy(ctx context.Context, name, key, run string) (int64, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return 0, err
	}
	return madeBy(t, key, run), nil
}

func madeBy(t *table.Table, key, run string) int64 {
	head := t.CurrentSnapshot()
	if head == nil {
		return 0
	}
	for _, s := range table.AncestorsOf(head.SnapshotID, t.SnapshotByID) {
		if s.Summary != nil && s.Summary.Properties[key] == run {
			return s.SnapshotID
		}
	}
	return 0
}

// rowCopy says which rows go from one table into another.
type rowCopy struct {
	from, to      string
	scan          ScanOptions
	keep          func(arrow.RecordBatch) (func(i int) bool, error) // nil: all
	add           map[string]func(n int) arrow.Array                // columns that only the other table has
	key, run      string                                            // of the snapshot
	before, after string                                            // failpoints
}

// copyRows appends rows of one table to another by one commit that carries the offsets there. Nothing is committed if there are none, or if the run has done it.
func (c *Catalog) copyRows(ctx context.Context, o rowCopy) (int64, error) {
	to, err := c.Load(ctx, o.to)
	if err != nil {
		return 0, err
	}
	sorted, err := unsorted(to)
	if err != nil {
		return 0, err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(to.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: to.Properties()})
	if err != nil {
		return 0, fmt.Errorf("arrow schema: %w", err)
	}
	rows := int64(0)
	var failed error
	batches := func(yield func(arrow.RecordBatch, error) bool) {
		failed = c.ScanRows(ctx, o.from, o.scan, func(b arrow.RecordBatch) error {
			picked, err := pick(ctx, b, o.keep)
			if err != nil || picked == nil {
				return err
			}
			defer picked.Release()
			fitted, err := fit(picked, sc, o.add)
			if err != nil {
				return err
			}
			rows += fitted.NumRows()
			if !yield(fitted, nil) {
				return errStopped
			}
			return nil
		})
		if failed != nil && !errors.Is(failed, errStopped) {
			yield(nil, failed)
		}
	}
	var files []iceberg.DataFile
	discard := func(err error) error {
		store, fsErr := writeStore(ctx, to)
		if fsErr != nil {
			return errors.Join(err, fsErr)
		}
		for _, f := range files {
			err = errors.Join(err, remove(store, f.FilePath()))
		}
		return err
	}
	for f, err := range table.WriteRecords(ctx, sorted, sc, batches, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(2), table.WithWriteUUID(uuid.New())) {
		if err != nil {
			return 0, discard(fmt.Errorf("writing: %w", err))
		}
		files = append(files, f)
	}
	if failed != nil {
		return 0, discard(failed)
	}
	if rows == 0 {
		return 0, discard(nil)
	}
	err = c.swap(ctx, o.to, func(t *table.Table) error {
		if madeBy(t, o.key, o.run) != 0 {
			return nil
		}
		tx := t.NewTransaction()
		if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
			return err
		}
		if err := tx.AddDataFiles(ctx, files, nil, table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping()); err != nil {
			return err
		}
		return c.commitCarried(ctx, o.to, t, tx, iceberg.Properties{o.key: o.run}, o.before, o.after)
	})
	return rows, err
}

// fit gives a batch the columns of a schema, in its order; what the batch lacks is null.
func fit(b arrow.RecordBatch, sc *arrow.Schema, add map[string]func(n int) arrow.Array) (arrow.RecordBatch, error) {
	n := int(b.NumRows())
	cols := make([]arrow.Array, sc.NumFields())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range sc.Fields() {
		switch at := b.Schema().FieldIndices(f.Name); {
		case add[f.Name] != nil:
			cols[i] = add[f.Name](n)
		case len(at) == 1:
			cols[i] = b.Column(at[0])
			cols[i].Retain()
		case f.Nullable:
			cols[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, n)
		default:
			return nil, fmt.Errorf("column %s is required and has no value", f.Name)
		}
		if !arrow.TypeEqual(cols[i].DataType(), f.Type) {
			return nil, fmt.Errorf("column %s is %s, not %s", f.Name, cols[i].DataType(), f.Type)
		}
	}
	return array.NewRecordBatch(sc, cols, int64(n)), nil
}

// pick gives the rows of a batch that are kept, nil if there are none. The caller owns it.
func pick(ctx context.Context, b arrow.RecordBatch, keep func(arrow.RecordBatch) (func(i int) bool, error)) (arrow.RecordBatch, error) {
	if keep == nil {
		b.Retain()
		return b, nil
	}
	wanted, err := keep(b)
	if err != nil {
		return nil, err
	}
	rows := array.NewUint32Builder(memory.DefaultAllocator)
	defer rows.Release()
	for i := range int(b.NumRows()) {
		if wanted(i) {
			rows.Append(uint32(i))
		}
	}
	switch rows.Len() {
	case 0:
		return nil, nil
	case int(b.NumRows()):
		b.Retain()
		return b, nil
	}
	at := rows.NewArray()
	defer at.Release()
	cols := make([]arrow.Array, b.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range cols {
		if cols[i], err = compute.TakeArrayOpts(ctx, b.Column(i), at, compute.TakeOptions{BoundsCheck: false}); err != nil {
			return nil, fmt.Errorf("column %s: %w", b.ColumnName(i), err)
		}
	}
	return array.NewRecordBatch(b.Schema(), cols, int64(at.Len())), nil
}

// removals is how often rows are looked for anew when others rewrite their files.
const removals = 10

// removeRows takes rows out of main of a table by writing the files that hold them anew, in one commit that carries the offsets. And narrows it to rows that a filter names. Deletes that
// other engines have committed are applied on the way: a row that they took away does not come back.
func (c *Catalog) removeRows(ctx context.Context, name, key, run string, gone spots, and iceberg.BooleanExpression, before, after string) (int64, error) {
	if len(gone) == 0 {
		return 0, nil
	}
	var last error
	for range removals {
		n, err := c.removeOnce(ctx, name, key, run, gone, and, before, after)
		if !errors.Is(err, ErrConflict) {
			return n, err
		}
		last = err
	}
	return 0, last
}

func (c *Catalog) removeOnce(ctx context.Context, name, key, run string, gone spots, and iceberg.BooleanExpression, before, after string) (int64, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return 0, err
	}
	if t.CurrentSnapshot() == nil || madeBy(t, key, run) != 0 && and == nil {
		return 0, nil
	}
	filter := gone.filter()
	if and != nil {
		filter = iceberg.NewAnd(and, filter)
	}
	tasks, err := t.Scan(table.WithRowFilter(filter)).PlanFiles(ctx)
	if err != nil {
		return 0, fmt.Errorf("planning: %w", err)
	}
	r := &remover{c: c, t: t, gone: gone}
	var old []iceberg.DataFile
	for _, task := range wholeFiles(tasks) {
		hit, err := r.file(ctx, task)
		if err != nil {
			return 0, r.discard(ctx, fmt.Errorf("file %s: %w", task.File.FilePath(), err))
		}
		if hit {
			old = append(old, task.File)
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	deletes := deleted(t.CurrentSnapshot())
	err = c.swap(ctx, name, func(t *table.Table) error {
		if deleted(t.CurrentSnapshot()) != deletes {
			return fmt.Errorf("%w: delete files were added", ErrConflict)
		}
		tx := t.NewTransaction()
		if err := tx.AssertRefSnapshotID(table.MainBranch); err != nil {
			return err
		}
		if err := tx.ReplaceDataFilesWithDataFiles(ctx, old, r.files, nil, table.WithoutAutoNameMapping()); err != nil {
			if strings.Contains(err.Error(), "do not belong to the table") {
				if madeBy(t, key, run) != 0 { // our own commit, whose reply was lost
					return nil
				}
				err = fmt.Errorf("%w: %w", ErrConflict, err)
			}
			return err
		}
		return c.commitCarried(ctx, name, t, tx, iceberg.Properties{key: run}, before, after)
	})
	if errors.Is(err, ErrConflict) {
		return 0, r.discard(ctx, err)
	}
	return r.count, err
}

// remover writes files anew without some rows.
type remover struct {
	c     *Catalog
	t     *table.Table
	gone  spots
	files []iceberg.DataFile
	count int64
}

// file writes one file anew if rows of it have to go. What was written is read back and compared.
func (r *remover) file(ctx context.Context, task table.FileScanTask) (bool, error) {
	hit := false
	err := readTask(ctx, r.t, task, []string{"kafka_partition", "kafka_offset"}, func(b arrow.RecordBatch) error {
		at, err := newSpots(b)
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			if r.gone[at(i)] {
				hit = true
				r.count++
			}
		}
		return nil
	})
	if err != nil || !hit {
		return hit, err
	}
	t, err := unsorted(r.t) // rows keep the order they have
	if err == nil {
		t, err = withBlooms(t, bloomBytes(task.File.Count()))
	}
	if err != nil {
		return false, err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()})
	if err != nil {
		return false, fmt.Errorf("arrow schema: %w", err)
	}
	var kept, back sum
	var failed error
	rows := func(yield func(arrow.RecordBatch, error) bool) {
		failed = readTask(ctx, r.t, task, nil, func(b arrow.RecordBatch) error {
			stay, err := pick(ctx, b, func(b arrow.RecordBatch) (func(i int) bool, error) {
				at, err := newSpots(b)
				return func(i int) bool { return !r.gone[at(i)] }, err
			})
			if err != nil || stay == nil {
				return err
			}
			if err := kept.add(stay); err != nil {
				stay.Release()
				return err
			}
			if !yield(stay, nil) {
				return errStopped
			}
			return nil
		})
		if failed != nil && !errors.Is(failed, errStopped) {
			yield(nil, failed)
		}
	}
	size := max(2*task.File.FileSizeBytes(), 1<<20) // one file in, one file out
	for f, err := range table.WriteRecords(ctx, t, sc, rows, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(2), table.WithTargetFileSize(size), table.WithWriteUUID(uuid.New())) {
		if err != nil {
			return false, fmt.Errorf("writing: %w", err)
		}
		r.files = append(r.files, f)
		if err := readTask(ctx, r.t, table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes()}, back.columns(r.t), func(b arrow.RecordBatch) error { return back.add(b) }); err != nil {
			return false, fmt.Errorf("reading back: %w", err)
		}
	}
	if failed != nil {
		return false, failed
	}
	if back.Checksum != kept.Checksum {
		return false, fmt.Errorf("rows read back have checksum %+v, not %+v", back.Checksum, kept.Checksum)
	}
	return true, nil
}

func (r *remover) discard(ctx context.Context, err error) error {
	store, fsErr := writeStore(ctx, r.t)
	if fsErr != nil {
		return errors.Join(err, fsErr)
	}
	for _, f := range r.files {
		err = errors.Join(err, remove(store, f.FilePath()))
	}
	return err
}

// wholeFiles makes of a plan's tasks one for each file, by path: a plan splits files above the split size into parts, with a filter that is left to be applied, but what
// is replaced is replaced as a whole.
func wholeFiles(tasks []table.FileScanTask) []table.FileScanTask {
	out := slices.Clone(tasks)
	slices.SortFunc(out, func(a, b table.FileScanTask) int { return strings.Compare(a.File.FilePath(), b.File.FilePath()) })
	out = slices.CompactFunc(out, func(a, b table.FileScanTask) bool { return a.File.FilePath() == b.File.FilePath() })
	for i := range out {
		out[i].Start, out[i].Length, out[i].Residual = 0, out[i].File.FileSizeBytes(), nil
	}
	return out
}
