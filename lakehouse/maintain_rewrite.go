package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse/order"
)

// FailRewrite is hit when the files of a group are written and the result is not noted.
const FailRewrite = "lakehouse.rewrite.write"

// ErrConflict says that the files of a plan are no longer those of the table, or not with the same deletes. Nothing was changed; a new plan is needed.
var ErrConflict = errors.New("the files of the plan are no longer those of the table")

// wideFile is the size from which files are read one at a time: a reader that waits for its turn holds a whole file, decoded.
const wideFile = 8 << 20

// GroupResult says what rewriting a group did. The files themselves are in a note outside the table's location.
type GroupResult struct {
	Plan     string         `json:"plan"`
	Group    int            `json:"group"`
	Note     string         `json:"note"` // name of the note
	Files    int64          `json:"files"`
	Bytes    int64          `json:"bytes"`
	Rows     int64          `json:"rows"`
	FilesIn  int64          `json:"files_in"`
	BytesIn  int64          `json:"bytes_in"`
	Deleted  int64          `json:"deleted"` // rows that deletes took away
	Checksum event.Checksum `json:"checksum"`

	// Files that readers open for the policy's queries, with values of the group's own rows, summed over all of them.
	ReadBefore int64 `json:"files_read_before"`
	ReadAfter  int64 `json:"files_read_after"`
}

// CompactGroup writes the rows of one group anew: without deleted ones, in the policy's order over the whole group, in files of the target size. Nothing becomes
// visible. It fails if the rows of the new files, read back, are not exactly those of the old ones. progress, if not nil, is called every few thousand rows
// with sums of what was read.
//
// Every attempt writes files of its own names, so that one that was given up, but still runs, can spoil nothing. A repeated call gives the result of the attempt that
// came to its end; an attempt that fails removes its files, and one that is killed leaves orphans. ErrConflict: the plan's snapshot has gone, or its files.
func (c *Catalog) CompactGroup(ctx context.Context, plan Plan, group int, progress func(rows, bytes int64)) (GroupResult, error) {
	if group < 0 || group >= len(plan.Groups) {
		return GroupResult{}, fmt.Errorf("plan %s has no group %d", plan.ID, group)
	}
	t, err := c.Load(ctx, plan.Table)
	if err != nil {
		return GroupResult{}, err
	}
	s, err := c.shelf(ctx, plan.Table, t)
	if err != nil {
		return GroupResult{}, err
	}
	r := &rewrite{c: c, t: t, shelf: s, plan: plan, g: plan.Groups[group], id: uuid.New(), progress: progress}
	res, err := r.earlier()
	if err == nil && res == nil {
		res, err = r.run(ctx)
	}
	if err != nil {
		return GroupResult{}, fmt.Errorf("rewriting group %d (%s) of table %s: %w", group, r.g.Partition, plan.Table, Damaged(ctx, t, r.tasks, err))
	}
	return *res, nil
}

// rewrite is one attempt to rewrite a group.
type rewrite struct {
	c        *Catalog
	t        *table.Table
	shelf    shelf
	plan     Plan
	g        Group
	id       uuid.UUID // in the names of its files
	progress func(rows, bytes int64)

	tasks   []table.FileScanTask
	deletes bool
	in      sum
	asked   *questions
	files   []iceberg.DataFile
	paths   []string // of files that were written by moving pages, complete or not
}

func (r *rewrite) run(ctx context.Context) (res *GroupResult, err error) {
	// Tells RemoveOrphans whose files these are, before there is one.
	if err := r.shelf.put(attemptName(r.plan.ID, r.g.ID)+r.id.String(), time.Now().UTC()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard())
		}
	}()
	if err := r.find(ctx); err != nil {
		return nil, err
	}
	moved, err := r.move(ctx)
	if err == nil && !moved {
		err = r.write(ctx)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // expired under our hands
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		return nil, err
	}
	if !r.deletes && r.in.Count != r.g.Rows {
		return nil, fmt.Errorf("read %d rows, but manifests say %d", r.in.Count, r.g.Rows)
	}
	var out sum
	if err := r.scan(ctx, r.written(), out.columns(r.t), 1, func(b arrow.RecordBatch) error { return out.add(b) }); err != nil {
		return nil, fmt.Errorf("reading back: %w", err)
	}
	if out.Checksum != r.in.Checksum {
		return nil, fmt.Errorf("rows read back have checksum %+v, not %+v", out.Checksum, r.in.Checksum)
	}
	if err := failpoint.Err(FailRewrite); err != nil {
		return nil, err
	}
	return r.note()
}

// find makes the tasks that read the group's files with the deletes that apply to them.
func (r *rewrite) find(ctx context.Context) error {
	snap := r.t.SnapshotByID(r.plan.SnapshotID)
	if snap == nil {
		return fmt.Errorf("%w: snapshot %d has expired", ErrConflict, r.plan.SnapshotID)
	}
	manifests, err := snap.Manifests(r.shelf.fs)
	if err != nil {
		return fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
	}
	files, deletes, from := set(r.g.Files), set(r.g.Deletes), set(r.g.Manifests)
	var gone []iceberg.ManifestEntry
	tasks := map[string]table.FileScanTask{}
	for _, m := range manifests {
		data := m.ManifestContent() == iceberg.ManifestContentData
		if data && !from[m.FilePath()] || !data && len(deletes) == 0 {
			continue
		}
		err := entries(ctx, r.shelf.fs, m, func(e iceberg.ManifestEntry) error {
			f := e.DataFile()
			switch {
			case data && files[f.FilePath()]:
				seq := e.SequenceNum()
				tasks[f.FilePath()] = table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes(), DataSequenceNumber: &seq}
			case !data && deletes[f.FilePath()]:
				gone = append(gone, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, path := range r.g.Files { // in the plan's order
		task, ok := tasks[path]
		if !ok {
			return fmt.Errorf("%w: file %s is not in snapshot %d", ErrConflict, path, snap.SnapshotID)
		}
		for _, d := range gone {
			f, seq := d.DataFile(), d.SequenceNum()
			switch {
			case f.ContentType() == iceberg.EntryContentEqDeletes:
				if seq > *task.DataSequenceNumber {
					task.EqualityDeleteFiles = append(task.EqualityDeleteFiles, f)
				}
			case seq < *task.DataSequenceNumber:
			case table.IsDeletionVector(f):
				if ref := f.ReferencedDataFile(); ref != nil && *ref == path {
					task.DeletionVectorFiles = append(task.DeletionVectorFiles, f)
				}
			default:
				task.DeleteFiles = append(task.DeleteFiles, f)
			}
		}
		r.deletes = r.deletes || len(task.DeleteFiles)+len(task.EqualityDeleteFiles)+len(task.DeletionVectorFiles) > 0
		r.tasks = append(r.tasks, task)
	}
	return nil
}

// write reads, sorts and writes.
func (r *rewrite) write(ctx context.Context) error {
	t, err := unsorted(r.t) // iceberg-go would sort every batch by itself
	if err != nil {
		return err
	}
	files := max(1, r.g.Bytes/r.plan.Policy.TargetFileBytes)
	if t, err = withBlooms(t, bloomBytes(r.g.Rows/files)); err != nil {
		return err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()})
	if err != nil {
		return fmt.Errorf("arrow schema: %w", err)
	}
	var ordered error
	all := func(yield func(arrow.RecordBatch, error) bool) {
		ordered = r.ordered(ctx, func(b arrow.RecordBatch) error {
			if !yield(b, nil) {
				return errStopped
			}
			return nil
		})
		if ordered != nil && !errors.Is(ordered, errStopped) {
			yield(nil, ordered)
		}
	}
	next, stop := iter.Pull2(all)
	defer stop()
	first, err, ok := next() // tells which columns have next to no value twice
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if !ok { // every row was deleted
		return ordered
	}
	if t, err = withoutDictionaries(t, distinct(first)); err != nil {
		first.Release()
		return err
	}
	rows := func(yield func(arrow.RecordBatch, error) bool) {
		if !yield(first, nil) {
			return
		}
		for {
			b, err, ok := next()
			if !ok || !yield(b, err) {
				return
			}
		}
	}
	opts := []table.WriteRecordOption{table.WithClusteredWrite(), table.WithRecordBatchBufferSize(2), table.WithTargetFileSize(r.plan.Policy.TargetFileBytes), table.WithWriteUUID(r.id)}
	if n := r.rowsOf(r.plan.Policy.TargetFileBytes / 2); n < table.ParquetRowGroupLimitDefault { // a file ends with a row group
		opts = append(opts, table.WithParquetRowGroupLimit(int(n)))
	}
	for f, err := range table.WriteRecords(ctx, t, sc, rows, opts...) {
		if err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		r.files = append(r.files, f)
	}
	return nil
}

// rowsOf is about how many rows of the group have so many bytes in a file.
func (r *rewrite) rowsOf(bytes int64) int64 {
	return max(1000, int64(float64(bytes)*float64(r.g.Rows)/float64(max(1, r.g.Bytes))))
}

var errStopped = errors.New("the writer takes no more")

// ordered gives the rows of the group in the policy's order, and adds them up. yield owns what it gets.
func (r *rewrite) ordered(ctx context.Context, yield func(arrow.RecordBatch) error) (err error) {
	readers := 2
	if slices.ContainsFunc(r.tasks, func(t table.FileScanTask) bool { return t.File.FileSizeBytes() > wideFile }) {
		readers = 1
	}
	var s *order.Sorter
	p := r.plan.Policy
	r.asked = newQuestions(p.Queries, r.g.Rows)
	each := func(b arrow.RecordBatch) error {
		if err := r.in.add(b); err != nil {
			return err
		}
		r.tell()
		r.asked.look(b, r.t.Schema())
		if len(p.Sort)+len(p.ZOrder) == 0 {
			b.Retain()
			return yield(b)
		}
		if s == nil {
			by, err := p.order(b.Schema())
			if err != nil {
				return err
			}
			s = order.NewSorter(b.Schema(), by, p.MemoryBytes/3, r.scratch(), func(ctx context.Context) error { return r.learn(ctx, by.Columns(), by.Z()) }) // sorting copies once
		}
		return s.Add(ctx, b)
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := r.scan(ctx, r.tasks, nil, readers, each); err != nil || s == nil {
		return err
	}
	return s.Sorted(ctx, func(b arrow.RecordBatch) error {
		r.tell() // that we live
		return yield(b)
	})
}

// learn shows a z-order a sample of the whole group, by reading its columns: the rows that are held when they do not fit into memory are no sample of it.
func (r *rewrite) learn(ctx context.Context, columns []string, z *order.ZOrder) error {
	var by *order.Order
	var from int64
	err := r.scan(ctx, r.tasks, columns, 1, func(b arrow.RecordBatch) error {
		if by == nil {
			var err error
			if by, err = (Policy{ZOrder: columns}).order(b.Schema()); err != nil {
				return err
			}
		}
		r.tell() // that we live
		err := z.Sample(by, b, from, r.g.Rows)
		from += b.NumRows()
		return err
	})
	z.Learn()
	return err
}

// tell reports how far reading has got; bytes by the share of rows, as files are read in parallel.
func (r *rewrite) tell() {
	if r.progress != nil {
		r.progress(r.in.Count, int64(float64(r.g.Bytes)*min(1, float64(r.in.Count)/float64(max(1, r.g.Rows)))))
	}
}

// scratch is where what does not fit into memory goes: beside a warehouse on disk.
func (r *rewrite) scratch() string {
	if root := bare(r.shelf.root); root != r.shelf.root {
		return root + "/scratch"
	}
	return os.TempDir()
}

// scan reads tasks at the table's present schema.
func (r *rewrite) scan(ctx context.Context, tasks []table.FileScanTask, columns []string, readers int, each func(arrow.RecordBatch) error) error {
	opts := []table.ScanOption{table.WithMaxConcurrency(readers), table.WithArrowBatchSize(order.BatchRows)}
	if len(columns) > 0 {
		opts = append(opts, table.WithSelectedFields(columns...))
	}
	scan := r.t.Scan(opts...)
	defer func() { _ = scan.Close() }() // planned by us: there is nothing to give back
	_, batches, err := scan.ReadTasks(ctx, tasks)
	if err != nil {
		return err
	}
	for b, err := range batches {
		if err != nil {
			return err
		}
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *rewrite) written() []table.FileScanTask {
	out := make([]table.FileScanTask, 0, len(r.files))
	for _, f := range r.files {
		out = append(out, table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes()})
	}
	return out
}

// discard removes what this attempt has written.
func (r *rewrite) discard() error {
	var errs []error
	for _, f := range r.files {
		if !slices.Contains(r.paths, f.FilePath()) {
			errs = append(errs, remove(r.shelf.fs, f.FilePath()))
		}
	}
	errs = append(errs, r.drop())
	errs = append(errs, remove(r.shelf.fs, r.shelf.root+"/"+attemptName(r.plan.ID, r.g.ID)+r.id.String()))
	return errors.Join(errs...)
}
