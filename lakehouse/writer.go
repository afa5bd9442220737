package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
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

// Times that every reader can show: years 1 to 9999.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()
)

// maxAmount bounds what Decimal(18,6) holds, in micros, exclusive.
const maxAmount = 1_000_000_000_000_000_000

// Writer turns rows of one table into Parquet files, each of one day of ingested_at. What it wrote is visible only after Append. It belongs to one goroutine.
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
	products []string
}

type openDay struct {
	block  *block
	stream *stream // nil until there is a full batch
	used   int
}

// NewWriter makes a writer for a table at its present schema. After a schema change (Head.SchemaID) a new one is to be made.
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
	l, err := newLayout(columns, t.Schema(), sc)
	if err != nil {
		return nil, fault.New("MR-ICE-002", fmt.Errorf("table %s: %w", name, err))
	}
	w := &Writer{tbl: t, small: map[int]*table.Table{}, columns: columns, layout: l, days: map[int32]*openDay{}, text: make([]string, len(l.texts))}
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

// unsorted is t as a writer of the stream is to see it: without a sort order, since iceberg-go would sort every batch by it, which compaction does for whole files.
func unsorted(t *table.Table) (*table.Table, error) {
	b, err := table.MetadataBuilderFromBase(t.Metadata(), t.MetadataLocation())
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	none := table.UnsortedSortOrder
	if err := b.AddSortOrder(&none); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	if err := b.SetDefaultSortOrderID(table.UnsortedSortOrderID); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	meta, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", t.Identifier(), err)
	}
	return table.New(t.Identifier(), meta, t.MetadataLocation(), t.FS, nil), nil
}

// sized is the table with Bloom filters for a file of so many rows: iceberg-go makes each as large as the table's bound allows, 1 MiB, which a file of a few
// hundred rows would carry twice. Ten bits a value give 1 % false positives (Bloom 1970).
func (w *Writer) sized(rows int) (*table.Table, error) {
	size := 1024
	for size < rows*10/8 {
		size *= 2
	}
	if size >= table.ParquetBloomFilterMaxBytesDefault {
		return w.tbl, nil
	}
	if t := w.small[size]; t != nil {
		return t, nil
	}
	b, err := table.MetadataBuilderFromBase(w.tbl.Metadata(), w.tbl.MetadataLocation())
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", w.tbl.Identifier(), err)
	}
	if err := b.SetProperties(iceberg.Properties{table.ParquetBloomFilterMaxBytesKey: strconv.Itoa(size)}); err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", w.tbl.Identifier(), err)
	}
	meta, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("metadata of table %v: %w", w.tbl.Identifier(), err)
	}
	w.small[size] = table.New(w.tbl.Identifier(), meta, w.tbl.MetadataLocation(), w.tbl.FS, nil)
	return w.small[size], nil
}

// SchemaID is the Iceberg schema that the writer writes.
func (w *Writer) SchemaID() int { return w.tbl.Schema().ID }

// Rows is how many rows were taken since the last Finish or Discard.
func (w *Writer) Rows() int64 { return w.rows }

// Bytes is about how large these rows are, uncompressed.
func (w *Writer) Bytes() int64 { return w.bytes }

// Newest is the greatest ingested_at of these rows, in µs.
func (w *Writer) Newest() int64 { return w.newest }

// WriteEvent takes one row of an events_* table; e may be reused after the call. A RowError means that this row cannot be stored as it is and was not taken;
// after any other error the writer is to be discarded.
func (w *Writer) WriteEvent(ctx context.Context, e *event.Event, from Provenance) error {
	w.products = w.products[:0]
	if w.layout.products >= 0 {
		w.products = e.ProductIDs(w.products)
	}
	w.row = row{event: e, cat: w.cat, from: from}
	return w.write(ctx, &w.row, e.IngestedAt)
}

// WriteFailed takes one row of failed_events, as WriteEvent does.
func (w *Writer) WriteFailed(ctx context.Context, f *event.Failed, from Provenance) error {
	w.row = row{failed: f, from: from}
	return w.write(ctx, &w.row, f.IngestedAt)
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
	d.block.add(r, w.text, w.products, bytes)
	w.rows++
	w.bytes += int64(bytes)
	w.newest = max(w.newest, ingested)
	if d.block.rows >= batchRows || d.block.bytes >= batchBytes {
		return w.flush(ctx, d, false)
	}
	return nil
}

// check validates a row before any of it is taken: iceberg-go and Parquet would store what readers then refuse, or read back as something else. It leaves
// the text values in w.text and gives the row's size.
func (w *Writer) check(r *row) (int, error) {
	bytes := 8 * (len(w.layout.ints) + len(w.layout.longs) + len(w.layout.optLongs))
	for i := range w.layout.texts {
		s := &w.layout.texts[i]
		v := s.text(r)
		if v != "" {
			if !utf8.ValidString(v) {
				return 0, &RowError{s.column.Name, errors.New("is not UTF-8")}
			}
			bytes += len(v)
		}
		w.text[i] = v
	}
	for i := range w.layout.longs {
		if s := &w.layout.longs[i]; s.column.Type == schema.Timestamp {
			if v := s.long(r); v < minTime || v > maxTime {
				return 0, &RowError{s.column.Name, fmt.Errorf("%d µs is not in the years 1 to 9999", v)}
			}
		}
	}
	for i := range w.layout.optLongs {
		s := &w.layout.optLongs[i]
		v := s.optLong(r)
		if v == nil {
			if s.required {
				return 0, &RowError{s.column.Name, errors.New("is required, but null")}
			}
			continue
		}
		if err := amountOK(s.column.Type, *v); err != nil {
			return 0, &RowError{s.column.Name, err}
		}
	}
	if r.event == nil {
		if r.failed.ID == "" {
			return 0, &RowError{"failed_id", errors.New("is required, but empty")}
		}
		return bytes, nil
	}
	if r.event.ID == "" {
		return 0, &RowError{"event_id", errors.New("is required, but empty")}
	}
	if w.layout.items >= 0 {
		for i := range r.event.Items {
			n, err := w.checkItem(&r.event.Items[i])
			if err != nil {
				return 0, err
			}
			bytes += n
		}
	}
	for _, p := range w.products {
		if !utf8.ValidString(p) {
			return 0, &RowError{"product_ids", errors.New("is not UTF-8")}
		}
		bytes += len(p)
	}
	return bytes, nil
}

func (w *Writer) checkItem(it *event.Item) (int, error) {
	bytes := 8 * len(w.layout.itemLong)
	for i := range w.layout.itemText {
		s := &w.layout.itemText[i]
		v := s.text(it)
		if !utf8.ValidString(v) {
			return 0, &RowError{"items." + s.name, errors.New("is not UTF-8")}
		}
		bytes += len(v)
	}
	for i := range w.layout.itemLong {
		s := &w.layout.itemLong[i]
		if v := s.long(it); v != nil {
			if err := amountOK(s.kind, *v); err != nil {
				return 0, &RowError{"items." + s.name, err}
			}
		}
	}
	return bytes, nil
}

func amountOK(t schema.Type, v int64) error {
	if t == schema.Amount && (v <= -maxAmount || v >= maxAmount) {
		return fmt.Errorf("%d micros is 10^12 units or more", v)
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

// stream is one file being written (a few if it grows beyond the target size), by a goroutine of its own that close or abort waits for.
type stream struct {
	batches chan arrow.RecordBatch
	cancel  context.CancelFunc
	done    chan struct{}
	files   []iceberg.DataFile
	err     error
}

func (w *Writer) open(ctx context.Context, t *table.Table) *stream {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the stream outlives the call
	s := &stream{batches: make(chan arrow.RecordBatch, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		input := func(yield func(arrow.RecordBatch, error) bool) {
			for {
				select {
				case b, ok := <-s.batches:
					if !ok || !yield(b, nil) {
						return
					}
				case <-ctx.Done():
					yield(nil, ctx.Err())
					return
				}
			}
		}
		for f, err := range table.WriteRecords(ctx, t, w.layout.arrow, input, table.WithClusteredWrite(), table.WithRecordBatchBufferSize(1)) {
			if err != nil {
				s.err = err
				return
			}
			s.files = append(s.files, f)
		}
	}()
	return s
}

func (s *stream) send(b arrow.RecordBatch) error {
	select {
	case s.batches <- b:
		return nil
	case <-s.done:
		b.Release()
		return fmt.Errorf("writing a batch: %w", s.err)
	}
}

func (s *stream) close() ([]iceberg.DataFile, error) {
	close(s.batches)
	<-s.done
	s.cancel()
	return s.files, s.err
}

// abort gives the files that were complete; the one being written is removed by its writer.
func (s *stream) abort() []iceberg.DataFile {
	s.cancel()
	<-s.done
	for {
		select {
		case b := <-s.batches:
			b.Release()
		default:
			return s.files
		}
	}
}
