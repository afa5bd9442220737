package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"millrace/event"
	"millrace/lakehouse/order"
)

// Failpoints of an erasure.
const (
	FailEraseBefore = "lakehouse.erase.commit.before" // files without the rows are written, nothing is committed
	FailEraseAfter  = "lakehouse.erase.commit.after"  // committed, but the caller does not know
)

// The bounds of an erasure.
const (
	eraseGroupBytes = 256 << 20 // data files that one commit replaces
	eraseRounds     = 20        // heads that are looked at before giving up: something else rewrites the same files all the time
	eraseLease      = 6 * time.Hour
)

// EraseResult says what an erasure has done to main, over all rounds of one call.
type EraseResult struct {
	Rows     int64 `json:"rows"`  // erased
	Files    int64 `json:"files"` // rewritten
	Removed  int64 `json:"removed"`
	Scanned  int64 `json:"scanned"` // files looked into
	Commits  int64 `json:"commits"`
	Snapshot int64 `json:"snapshot"` // no row was left in it; 0 for a table without snapshots
	Sequence int64 `json:"sequence"` // its sequence number: what follows it on main has no row either
}

// EraseRows takes the rows that the ledger names out of main: each file with such a row is written anew without it, in the order that it has, with the deletes applied
// that other engines have committed. Files are looked into by the few columns that matter and rewritten a batch at a time. A commit replaces up to 256 MB of files and
// carries the offsets of the head it is made on. A call that ends early has kept what it committed, and another goes on with the files that are left.
//
// Earlier snapshots and the refs that name them still have the rows: see DropErasedRefs and PurgeErased. It fails with ErrConflict if others rewrite the same files
// all the time. progress, if not nil, is called for every file.
func (c *Catalog) EraseRows(ctx context.Context, name, run string, erased *event.Erased, progress func(rows, files int64)) (EraseResult, error) {
	e := &erasing{c: c, name: name, req: run, erased: erased, progress: progress, clean: map[uint64]bool{}}
	var last error
	for range eraseRounds {
		done, err := e.round(ctx)
		if err == nil && done {
			return e.res, nil
		}
		if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNoSnapshot) {
			return e.res, fmt.Errorf("erasing rows of table %s: %w", name, err)
		}
		last = err
	}
	return e.res, fmt.Errorf("erasing rows of table %s: %d rounds did not do it: %w", name, eraseRounds, errors.Join(last, ErrConflict))
}

// erasing is one call of EraseRows.
type erasing struct {
	c         *Catalog
	name, req string
	erased    *event.Erased
	progress  func(rows, files int64)
	clean     map[uint64]bool // files without such rows, by the hash of their path
	res       EraseResult
}

// round looks at one head and rewrites what has to be. It says whether the head had nothing left.
func (e *erasing) round(ctx context.Context) (done bool, err error) {
	t, err := e.c.Load(ctx, e.name)
	if err != nil {
		return false, err
	}
	snap := t.CurrentSnapshot()
	if snap == nil || len(eraseColumns(t)) == 0 || e.erased.Len() == 0 {
		if snap != nil {
			e.res.Snapshot, e.res.Sequence = snap.SnapshotID, snap.SequenceNumber
		}
		return true, nil
	}
	// Its files stay while they are read, whatever is expired.
	release, err := e.c.Lease(ctx, e.name, "erase", e.req, snap.SnapshotID, eraseLease)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release(context.WithoutCancel(ctx))) }()
	r := &eraseRound{erasing: e, t: t, snap: snap, names: partitionNames{t: t, known: map[string]*livePartition{}}}
	if r.shelf, err = e.c.shelf(ctx, e.name, t); err != nil {
		return false, err
	}
	if err := r.run(ctx); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		return false, err
	}
	if r.dirty > 0 {
		return false, nil
	}
	e.res.Snapshot, e.res.Sequence = snap.SnapshotID, snap.SequenceNumber
	return true, nil
}

// eraseRound is the work on one head.
type eraseRound struct {
	*erasing
	t       *table.Table
	snap    *table.Snapshot
	shelf   shelf
	names   partitionNames
	deletes []iceberg.ManifestEntry
	known   map[string]bool // paths of deletes
	group   []table.FileScanTask
	bytes   int64
	dirty   int
}

func (r *eraseRound) run(ctx context.Context) error {
	manifests, err := r.snap.Manifests(r.shelf.fs)
	if err != nil {
		return fmt.Errorf("manifests of snapshot %d: %w", r.snap.SnapshotID, err)
	}
	if r.deletes, r.known, err = eraseDeletes(ctx, r.shelf, manifests); err != nil {
		return err
	}
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData {
			continue
		}
		if err := entries(ctx, r.shelf.fs, m, func(e iceberg.ManifestEntry) error { return r.look(ctx, e) }); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// look looks into one data file.
func (r *eraseRound) look(ctx context.Context, e iceberg.ManifestEntry) error {
	f, seq := e.DataFile(), e.SequenceNum()
	id := xxhash.Sum64String(f.FilePath())
	if r.clean[id] {
		return nil
	}
	task := table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes(), DataSequenceNumber: &seq}
	found, err := countErased(ctx, r.t, task, r.erased) // also what a delete file hides: it is there
	if err != nil {
		return fmt.Errorf("file %s: %w", f.FilePath(), err)
	}
	r.res.Scanned++
	if r.progress != nil {
		r.progress(r.res.Rows, r.res.Scanned)
	}
	if found == 0 {
		r.clean[id] = true
		return nil
	}
	if err := r.applies(&task); err != nil {
		return err
	}
	r.dirty++
	r.group = append(r.group, task)
	r.bytes += f.FileSizeBytes()
	if r.bytes >= eraseGroupBytes {
		return r.flush(ctx)
	}
	return nil
}

// applies gives a task the delete files that apply to its file.
func (r *eraseRound) applies(task *table.FileScanTask) error {
	if len(r.deletes) == 0 {
		return nil
	}
	own, err := r.names.of(task.File)
	if err != nil {
		return err
	}
	for _, d := range r.deletes {
		f, seq := d.DataFile(), d.SequenceNum()
		part, err := r.names.of(f)
		if err != nil {
			return err
		}
		if part.old {
			return errOldDeletes
		}
		switch {
		case part != own:
		case f.ContentType() == iceberg.EntryContentEqDeletes:
			if seq > *task.DataSequenceNumber {
				task.EqualityDeleteFiles = append(task.EqualityDeleteFiles, f)
			}
		case seq < *task.DataSequenceNumber:
		case table.IsDeletionVector(f):
			if ref := f.ReferencedDataFile(); ref != nil && *ref == task.File.FilePath() {
				task.DeletionVectorFiles = append(task.DeletionVectorFiles, f)
			}
		default:
			task.DeleteFiles = append(task.DeleteFiles, f)
		}
	}
	return nil
}

// eraseDeletes lists the delete files of a snapshot.
func eraseDeletes(ctx context.Context, s shelf, manifests []iceberg.ManifestFile) ([]iceberg.ManifestEntry, map[string]bool, error) {
	var out []iceberg.ManifestEntry
	paths := map[string]bool{}
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentDeletes {
			continue
		}
		if err := entries(ctx, s.fs, m, func(e iceberg.ManifestEntry) error {
			out = append(out, e)
			paths[e.DataFile().FilePath()] = true
			return nil
		}); err != nil {
			return nil, nil, err
		}
	}
	return out, paths, nil
}

// flush rewrites the files of the group and commits that.
func (r *eraseRound) flush(ctx context.Context) error {
	if len(r.group) == 0 {
		return nil
	}
	group := r.group
	r.group, r.bytes = nil, 0
	w := &eraseWriter{eraseRound: r, id: uuid.New()}
	var old []iceberg.DataFile
	for _, task := range group {
		if err := w.rewrite(ctx, task); err != nil {
			return errors.Join(fmt.Errorf("file %s: %w", task.File.FilePath(), err), w.discard()) // nothing has tried to commit them
		}
		old = append(old, task.File)
	}
	// From here on files are never removed: the outcome of a commit may be unknown. What nobody names is an orphan, without the erased rows.
	if err := r.commit(ctx, old, w.files); err != nil {
		return err
	}
	for _, f := range w.files {
		r.clean[xxhash.Sum64String(f.FilePath())] = true
	}
	r.res.Rows += w.dropped
	r.res.Files += int64(len(w.files))
	r.res.Removed += int64(len(old))
	r.res.Commits++
	if r.progress != nil {
		r.progress(r.res.Rows, r.res.Scanned)
	}
	return nil
}

// commit replaces files on whatever head there is, if they are live there and no delete has come since they were read.
func (r *eraseRound) commit(ctx context.Context, old, made []iceberg.DataFile) error {
	return r.c.swap(ctx, r.name, func(t *table.Table) error {
		snap := t.CurrentSnapshot()
		if snap == nil {
			return fmt.Errorf("%w: the table is empty", ErrConflict)
		}
		manifests, err := snap.Manifests(r.shelf.fs)
		if err != nil {
			return fmt.Errorf("manifests of snapshot %d: %w", snap.SnapshotID, err)
		}
		_, deletes, err := eraseDeletes(ctx, r.shelf, manifests)
		if err != nil {
			return err
		}
		for path := range deletes {
			if !r.known[path] {
				return fmt.Errorf("%w: delete file %s is new", ErrConflict, path)
			}
		}
		tx := t.NewTransaction()
		if err := tx.ReplaceDataFilesWithDataFiles(ctx, old, made, nil, table.WithoutAutoNameMapping()); err != nil {
			if strings.Contains(err.Error(), "do not belong to the table") {
				err = fmt.Errorf("%w: %w", ErrConflict, err)
			}
			return err
		}
		return r.c.commitCarried(ctx, r.name, t, tx, iceberg.Properties{EraseKey: r.req}, FailEraseBefore, FailEraseAfter)
	})
}

// eraseWriter writes the files of one commit.
type eraseWriter struct {
	*eraseRound
	id      uuid.UUID
	files   []iceberg.DataFile
	dropped int64
}

// rewrite writes one file anew; nothing, if no row is left. What it wrote is read back and compared.
func (w *eraseWriter) rewrite(ctx context.Context, task table.FileScanTask) error {
	t, err := unsorted(w.t) // rows keep the order they have
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
	var kept, back sum
	var failed error
	rows := func(yield func(arrow.RecordBatch, error) bool) {
		failed = readTask(ctx, w.t, task, nil, func(b arrow.RecordBatch) error {
			keep, err := w.keep(ctx, b)
			if err != nil || keep == nil {
				return err
			}
			if err := kept.add(keep); err != nil {
				keep.Release()
				return err
			}
			if !yield(keep, nil) {
				return errStopped
			}
			return nil
		})
		if failed != nil && !errors.Is(failed, errStopped) {
			yield(nil, failed)
		}
	}
	var made []iceberg.DataFile
	size := max(2*task.File.FileSizeBytes(), 1<<20) // one file in, one file out
	for f, err := range table.WriteRecords(ctx, t, sc, rows, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(2), table.WithTargetFileSize(size), table.WithWriteUUID(uuid.New())) {
		if err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		made = append(made, f)
		w.files = append(w.files, f)
	}
	if failed != nil {
		return failed
	}
	for _, f := range made {
		if err := readTask(ctx, w.t, table.FileScanTask{File: f, Start: 0, Length: f.FileSizeBytes()}, back.columns(w.t), func(b arrow.RecordBatch) error { return back.add(b) }); err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
	}
	if back.Checksum != kept.Checksum {
		return fmt.Errorf("rows read back have checksum %+v, not %+v", back.Checksum, kept.Checksum)
	}
	return nil
}

// keep gives the rows of a batch that are not erased, nil if there are none. The caller owns it.
func (w *eraseWriter) keep(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	m, err := newEraseMatch(b, w.erased)
	if err != nil {
		return nil, err
	}
	rows := make([]uint32, 0, b.NumRows())
	for i := range int(b.NumRows()) {
		if !m.drops(i) {
			rows = append(rows, uint32(i))
		}
	}
	w.dropped += b.NumRows() - int64(len(rows))
	switch len(rows) {
	case 0:
		return nil, nil
	case int(b.NumRows()):
		b.Retain()
		return b, nil
	}
	index := array.NewUint32Builder(memory.DefaultAllocator)
	defer index.Release()
	index.AppendValues(rows, nil)
	at := index.NewArray()
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
	return array.NewRecordBatch(b.Schema(), cols, int64(len(rows))), nil
}

func (w *eraseWriter) discard() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, remove(w.shelf.fs, f.FilePath()))
	}
	return errors.Join(errs...)
}

// readTask reads one file; columns nil means all. each must not keep the batch.
func readTask(ctx context.Context, t *table.Table, task table.FileScanTask, columns []string, each func(arrow.RecordBatch) error) error {
	opts := []table.ScanOption{table.WithMaxConcurrency(1), table.WithArrowBatchSize(order.BatchRows)}
	if len(columns) > 0 {
		opts = append(opts, table.WithSelectedFields(columns...))
	}
	scan := t.Scan(opts...)
	defer func() { _ = scan.Close() }() // planned by us: there is nothing to give back
	_, batches, err := scan.ReadTasks(ctx, []table.FileScanTask{task})
	if err != nil {
		return Damaged(ctx, t, []table.FileScanTask{task}, err)
	}
	for b, err := range batches {
		if err != nil {
			return Damaged(ctx, t, []table.FileScanTask{task}, err)
		}
		err := each(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
