package lakehouse

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/failpoint"
	"millrace/internal/fault"
)

// FailMidWrite is hit with every record batch that goes to a file.
const FailMidWrite = "lakehouse.write.batch"

// Limits of a writer. A batch is what Arrow builders hold of one day before it goes to the day's file; with eight tables no more than 64 files are open.
const (
	batchRows  = 8192
	batchBytes = 8 << 20
	openFiles  = 8
	openDays   = 64
)

// Writer turns rows of one table into Parquet files, each of one day (of schema.Table.Day). What it wrote is visible only after Append. It belongs to one goroutine.
type Writer struct {
	tbl     *table.Table
	small   map[int]*table.Table // by bytes of a Bloom filter
	columns schema.Table
	layout  *layout
	cat     string // category of the table
	days    map[int32]*openDay
	streams int      // files being written
	spare   []*block // emptied blocks, for the next days
	files   []iceberg.DataFile
	tick    int
	rows    int64
	bytes   int64
	newest  int64

	row      row // at hand
	text     []string
	list     []string // values of its column of texts
	promoted []schema.Promotion
	extract  *schema.Extractor // nil: no promoted columns
}

type openDay struct {
	block  *block
	stream *stream // nil until there is a full batch
	used   int
}

// NewWriter makes a writer for a table at its present schema, which fills the columns of promoted properties that the table has (AddPromoted). After a schema change
// (Head.SchemaID) a new one is to be made.
func (c *Catalog) NewWriter(ctx context.Context, name string) (*Writer, error) {
	columns, err := schema.TableNamed(name)
	if err != nil {
		return nil, err
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	if t, err = unsorted(t); err != nil {
		return nil, err
	}
	sc, err := table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()})
	if err != nil {
		return nil, fmt.Errorf("arrow schema of table %s: %w", name, err)
	}
	promoted := promotedOf(t.Schema())
	l, err := newLayout(columns, t.Schema(), sc, promoted)
	if err != nil {
		return nil, fault.New("MR-ICE-002", fmt.Errorf("table %s: %w", name, err))
	}
	w := &Writer{tbl: t, small: map[int]*table.Table{}, columns: columns, layout: l, days: map[int32]*openDay{}, text: make([]string, len(l.texts))}
	if len(promoted) > 0 {
		w.promoted, w.extract = promoted, schema.NewExtractor(promoted)
	}
	for _, cat := range event.Categories() {
		if cat.Table() == name {
			w.cat = cat.String()
		}
	}
	first, err := newBlock(l) // finds wrong types now
	if err != nil {
		return nil, fault.New("MR-ICE-002", fmt.Errorf("table %s: %w", name, err))
	}
	w.spare = append(w.spare, first)
	return w, nil
}

// SchemaID is the Iceberg schema that the writer writes.
func (w *Writer) SchemaID() int { return w.tbl.Schema().ID }

// Rows is how many rows were taken since the last Finish or Discard.
func (w *Writer) Rows() int64 { return w.rows }

// Bytes is about how large these rows are, uncompressed.
func (w *Writer) Bytes() int64 { return w.bytes }

// Newest is the greatest ingested_at (detected_at of alerts) of these rows, in µs.
func (w *Writer) Newest() int64 { return w.newest }

// WriteEvent takes one row of an events_* table; e may be reused after the call. A RowError means that this row cannot be stored as it is and was not taken;
// after any other error the writer is to be discarded.
func (w *Writer) WriteEvent(ctx context.Context, e *event.Event, from Provenance) error {
	w.list = w.list[:0]
	if w.layout.list >= 0 {
		w.list = e.ProductIDs(w.list)
	}
	w.row = row{event: e, cat: w.cat, from: from}
	if w.extract != nil {
		w.row.promoted = w.extract.Values(e.Properties)
	}
	return w.write(ctx, &w.row, e.IngestedAt)
}

// Unfit gives, by column, how many values of promoted properties did not fit since the last call.
func (w *Writer) Unfit() map[string]int64 {
	var out map[string]int64
	for i, p := range w.promoted {
		if n := w.extract.Unfit[i]; n > 0 {
			if out == nil {
				out = map[string]int64{}
			}
			out[p.Name], w.extract.Unfit[i] = n, 0
		}
	}
	return out
}

// WriteFailed takes one row of failed_events, as WriteEvent does.
func (w *Writer) WriteFailed(ctx context.Context, f *event.Failed, from Provenance) error {
	w.list = w.list[:0]
	w.row = row{failed: f, from: from}
	return w.write(ctx, &w.row, f.IngestedAt)
}

// WriteAlert takes one row of alerts, as WriteEvent does.
func (w *Writer) WriteAlert(ctx context.Context, a *event.Alert, from Provenance) error {
	w.list = append(w.list[:0], a.Reasons...)
	w.row = row{alert: a, from: from}
	return w.write(ctx, &w.row, a.DetectedAt)
}

func (w *Writer) write(ctx context.Context, r *row, ingested int64) error {
	bytes, err := w.check(r)
	if err != nil {
		return err
	}
	d, err := w.day(ctx, int32(floorDiv(ingested, 24*3600*1_000_000)))
	if err != nil {
		return err
	}
	d.block.add(r, w.text, w.list, bytes)
	w.rows++
	w.bytes += int64(bytes)
	w.newest = max(w.newest, ingested)
	if d.block.rows >= batchRows || d.block.bytes >= batchBytes {
		return w.flush(ctx, d, false)
	}
	return nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// day finds the open day, opening it if need be; beyond openDays the one that was used longest ago is closed.
func (w *Writer) day(ctx context.Context, day int32) (*openDay, error) {
	w.tick++
	if d := w.days[day]; d != nil {
		d.used = w.tick
		return d, nil
	}
	if len(w.days) >= openDays {
		if err := w.closeDay(ctx, w.oldest(func(*openDay) bool { return true })); err != nil {
			return nil, err
		}
	}
	d := &openDay{used: w.tick}
	if n := len(w.spare); n > 0 {
		d.block, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		b, err := newBlock(w.layout)
		if err != nil {
			return nil, err
		}
		d.block = b
	}
	w.days[day] = d
	return d, nil
}

// oldest is the day that was used longest ago among those that fit; there is one.
func (w *Writer) oldest(fits func(*openDay) bool) int32 {
	var best int32
	used := 0
	for day, d := range w.days {
		if fits(d) && (used == 0 || d.used < used) {
			best, used = day, d.used
		}
	}
	return best
}

// flush sends the day's batch to its file. The last batch of a day that has no file yet is all of its file.
func (w *Writer) flush(ctx context.Context, d *openDay, last bool) error {
	if d.block.rows == 0 {
		return nil
	}
	if d.stream == nil {
		if w.streams >= openFiles {
			if err := w.closeFile(w.days[w.oldest(func(o *openDay) bool { return o.stream != nil })]); err != nil {
				return err
			}
		}
		t := w.tbl
		if last {
			var err error
			if t, err = w.sized(d.block.rows); err != nil {
				return err
			}
		}
		d.stream = w.open(ctx, t)
		w.streams++
	}
	failpoint.Hit(FailMidWrite)
	return d.stream.send(d.block.batch())
}

func (w *Writer) closeFile(d *openDay) error {
	if d.stream == nil {
		return nil
	}
	files, err := d.stream.close()
	d.stream = nil
	w.streams--
	w.files = append(w.files, files...)
	return err
}

func (w *Writer) closeDay(ctx context.Context, day int32) error {
	d := w.days[day]
	if err := w.flush(ctx, d, true); err != nil {
		return err
	}
	delete(w.days, day)
	if len(w.spare) < 2 { // idle builders are not kept for days that do not come
		w.spare = append(w.spare, d.block)
	}
	return w.closeFile(d)
}

// Finish closes all files and gives them, ready for Append. The writer is empty afterwards, also after an error, which has removed the files.
func (w *Writer) Finish(ctx context.Context) ([]iceberg.DataFile, error) {
	for day := range w.days {
		if err := w.closeDay(ctx, day); err != nil {
			return nil, errors.Join(fmt.Errorf("writing files of table %s: %w", w.columns.Name, err), w.Discard(ctx))
		}
	}
	files := w.files
	w.reset()
	return files, nil
}

// Discard drops what was taken since the last Finish and removes its files.
func (w *Writer) Discard(ctx context.Context) error {
	for _, d := range w.days {
		if d.stream != nil {
			w.files = append(w.files, d.stream.abort()...)
		}
		d.block.rb.Release()
	}
	w.days, w.streams = map[int32]*openDay{}, 0
	files := w.files
	w.reset()
	return w.remove(context.WithoutCancel(ctx), files)
}

func (w *Writer) reset() {
	w.files, w.rows, w.bytes, w.newest = nil, 0, 0, 0
}

func (w *Writer) remove(ctx context.Context, files []iceberg.DataFile) error {
	if len(files) == 0 {
		return nil
	}
	fs, err := w.tbl.FS(ctx)
	if err != nil {
		return fmt.Errorf("removing files of table %s: %w", w.columns.Name, err)
	}
	var errs []error
	for _, f := range files {
		if err := fs.Remove(f.FilePath()); err != nil {
			errs = append(errs, fmt.Errorf("removing file %s: %w", f.FilePath(), err))
		}
	}
	return errors.Join(errs...)
}
