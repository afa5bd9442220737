package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"millrace/lakehouse/order"
	"millrace/lakehouse/pages"
)

// openInputs is how many files of a group are held open; more are copied into one first. So are files that are not on disk: each is then fetched once, and not by the column.
const openInputs = 256

// move rewrites the group by moving pages and values of columns instead of rows, which costs a third of the time. It says false, and has left nothing behind, where that cannot
// be: with deletes, with files of another schema than the table's or of other writers, and where a column does not fit into memory.
func (r *rewrite) move(ctx context.Context) (bool, error) {
	props := r.t.Properties()
	if r.deletes || r.t.Metadata().Version() != 2 || props.Get(table.ParquetCompressionKey, table.ParquetCompressionDefault) != "zstd" || props.Get(table.ParquetPageVersionKey, table.ParquetPageVersionDefault) != "2" {
		return false, nil
	}
	m := &moving{r: r}
	err := m.run(ctx)
	err = errors.Join(err, m.close())
	if errors.Is(err, pages.ErrUnfit) {
		err = r.drop()
		r.in, r.asked = sum{}, nil
		return false, err
	}
	return err == nil, err
}

// drop removes the files written so far.
func (r *rewrite) drop() error {
	var errs []error
	for _, path := range r.paths {
		errs = append(errs, remove(r.shelf.fs, path))
	}
	r.paths, r.files = nil, nil
	return errors.Join(errs...)
}

// moving is one attempt at move.
type moving struct {
	r       *rewrite
	arrow   *arrow.Schema
	inputs  []pages.Input
	closers []io.Closer
	scratch []*os.File
}

func (m *moving) close() error {
	var errs []error
	for _, c := range m.closers {
		errs = append(errs, c.Close())
	}
	for _, f := range m.scratch {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}
	return errors.Join(errs...)
}

func (m *moving) run(ctx context.Context) error {
	r := m.r
	p := r.plan.Policy
	want, err := m.schema()
	if err != nil {
		return err
	}
	if err := m.open(ctx); err != nil {
		return err
	}
	opt, err := m.options(ctx)
	if err != nil {
		return err
	}
	opt.Memory = p.MemoryBytes - 12*r.g.Rows // the order, and the places of rows of which a part is read
	g, err := pages.Open(m.inputs, want, opt)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer g.Close()
	if g.Rows() != r.g.Rows {
		return fmt.Errorf("files have %d rows, but manifests say %d", g.Rows(), r.g.Rows)
	}
	if g.Rows() == 0 {
		return pages.ErrUnfit
	}
	ordered := len(p.Sort)+len(p.ZOrder) > 0
	if ordered && (opt.Memory <= 0 || !g.Fits(maxPasses)) {
		return fmt.Errorf("%w: a column is many times larger than the memory that sorting may have", pages.ErrUnfit)
	}
	order, err := m.look(ctx, g)
	if err != nil {
		return err
	}
	if ordered {
		err = g.Reorder(ctx, order)
	} else {
		err = g.Copy(ctx)
	}
	if err != nil {
		return err //nolint:wrapcheck // it names the file, or says what was written
	}
	return m.describe(ctx)
}

// schema is that of the files which the table's writers write now.
func (m *moving) schema() (*schema.Schema, error) {
	t := m.r.t
	var err error
	if m.arrow, err = table.SchemaToArrowSchemaWithOptions(t.Schema(), table.ArrowSchemaOptions{IncludeFieldIDs: true, TableProperties: t.Properties()}); err != nil {
		return nil, fmt.Errorf("arrow schema: %w", err)
	}
	sc, err := pqarrow.ToParquet(m.arrow, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fmt.Errorf("parquet schema: %w", err)
	}
	return sc, nil
}

// open reads the footers of the group's files.
func (m *moving) open(ctx context.Context) error {
	var spool *os.File
	var at int64
	if len(m.r.tasks) > openInputs || !strings.HasPrefix(bare(m.r.t.Location()), "/") {
		var err error
		if spool, err = m.temp(); err != nil {
			return err
		}
	}
	for _, task := range m.r.tasks {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := task.File.FilePath()
		f, err := m.r.shelf.fs.Open(path)
		if err != nil {
			return fmt.Errorf("opening file %s: %w", path, err)
		}
		var in interface {
			io.ReaderAt
			io.ReadSeeker
		} = f
		if spool != nil {
			n, err := io.Copy(spool, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("fetching file %s: %w", path, err)
			}
			in = io.NewSectionReader(spool, at, n)
			at += n
			m.r.tell()
		} else {
			m.closers = append(m.closers, f)
		}
		pr, err := file.NewParquetReader(in)
		if err != nil {
			return fmt.Errorf("footer of file %s: %w", path, err)
		}
		m.inputs = append(m.inputs, pages.Input{Name: path, R: in, Meta: pr.MetaData()})
	}
	return nil
}

// temp makes a file of this attempt.
func (m *moving) temp() (*os.File, error) {
	if err := os.MkdirAll(m.r.scratch(), 0o755); err != nil {
		return nil, fmt.Errorf("folder for sorting: %w", err)
	}
	f, err := os.CreateTemp(m.r.scratch(), "move-")
	if err != nil {
		return nil, fmt.Errorf("file for sorting: %w", err)
	}
	m.scratch = append(m.scratch, f)
	return f, nil
}

// options are the table's properties.
func (m *moving) options(ctx context.Context) (pages.Options, error) {
	r := m.r
	props := r.t.Properties()
	target := r.plan.Policy.TargetFileBytes
	files := max(1, r.g.Bytes/target)
	o := pages.Options{
		Level:         props.GetInt(table.ParquetCompressionLevelKey, table.ParquetCompressionLevelDefault),
		PageBytes:     props.GetInt(table.ParquetPageSizeBytesKey, table.ParquetPageSizeBytesDefault),
		DictBytes:     props.GetInt(table.ParquetDictSizeBytesKey, table.ParquetDictSizeBytesDefault),
		RowGroupBytes: min(props.GetInt64(table.ParquetRowGroupSizeBytesKey, table.ParquetRowGroupSizeBytesDefault), max(1, target/2)), // a file ends with a row group
		RowGroupRows:  props.GetInt64(table.ParquetRowGroupLimitKey, table.ParquetRowGroupLimitDefault),
		FileBytes:     target,
		Blooms:        map[string]int{},
		Delta:         true,
		Spool:         m.temp,
		Tell: func(done float64) {
			if r.progress != nil {
				r.progress(r.in.Count, int64(float64(r.g.Bytes)*min(1, done)))
			}
		},
	}
	if o.Level < 0 { // as the writers understand "the default"
		o.Level = 3
	}
	if o.PageBytes <= 0 || o.DictBytes < 0 || o.RowGroupBytes <= 0 || o.RowGroupRows <= 0 {
		return o, fmt.Errorf("%w: the table's properties of pages", pages.ErrUnfit)
	}
	for key, value := range props {
		if path, ok := strings.CutPrefix(key, table.ParquetBloomFilterColumnEnabledKeyPrefix+"."); ok && strings.EqualFold(value, "true") {
			o.Blooms[path] = bloomBytes(r.g.Rows / files)
		}
	}
	where, err := r.t.LocationProvider()
	if err != nil {
		return o, fmt.Errorf("location: %w", err)
	}
	if r.g.Partition != "" {
		props := maps.Clone(props)
		props[table.WriteDataPathKey] = strings.TrimRight(r.t.Location(), "/") + "/data/" + r.g.Partition
		if where, err = table.LoadLocationProvider(r.t.Location(), props); err != nil {
			return o, fmt.Errorf("location: %w", err)
		}
	}
	store, ok := r.shelf.fs.(iceio.WriteFileIO)
	if !ok {
		return o, fmt.Errorf("store: %T cannot be written", r.shelf.fs)
	}
	o.Create = func(n int) (io.WriteCloser, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := where.NewDataLocation(fmt.Sprintf("%05d-%d-%s-%05d.parquet", 0, r.g.ID, r.id, n+1))
		r.paths = append(r.paths, path)
		f, err := store.Create(path)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", path, err)
		}
		return f, nil
	}
	return o, nil
}

// maxPasses is how often a column is read at most, each time for a part of the rows: then rows that go to disk once are cheaper.
const maxPasses = 8

// sortBytes is what a row costs while rows are sorted: two heads of 24 bytes, its place, and a key of usual length, twice while it grows.
const sortBytes = 128

// look reads what is needed of the rows: their checksum, values for the questions, and the keys of the order.
func (m *moving) look(ctx context.Context, g *pages.Group) (_ []uint32, err error) {
	r := m.r
	p := r.plan.Policy
	r.asked = newQuestions(p.Queries, r.g.Rows)
	var s sum
	names := s.columns(r.t)
	for _, q := range p.Queries {
		for _, w := range q.Where {
			names = append(names, w.Column)
		}
	}
	var by *order.Order
	if len(p.Sort)+len(p.ZOrder) > 0 {
		terms, err := p.order(m.arrow)
		if err != nil {
			return nil, err
		}
		names = append(names, terms.Columns()...)
	}
	var fields []arrow.Field
	var leaves []int
	for i, f := range m.arrow.Fields() {
		if leaf := g.Leaf(f.Name); leaf >= 0 && slices.Contains(names, f.Name) {
			fields, leaves = append(fields, m.arrow.Field(i)), append(leaves, leaf)
		}
	}
	sc := arrow.NewSchema(fields, nil)
	if len(p.Sort)+len(p.ZOrder) > 0 {
		if by, err = p.order(sc); err != nil {
			return nil, err
		}
	}
	keys := &order.Keys{}
	var held []arrow.RecordBatch
	var out *onDisk
	if by != nil && sortBytes*g.Rows() > p.MemoryBytes {
		out = m.newOnDisk(by, sc)
		defer func() { err = errors.Join(err, out.s.Close()) }()
	}
	for part := range g.Parts() {
		b, err := partBatch(ctx, g, part, sc, leaves)
		if err != nil {
			return nil, err
		}
		if err := r.in.add(b); err != nil {
			return nil, err
		}
		r.asked.look(b, r.t.Schema())
		r.tell()
		switch {
		case by == nil:
		case out != nil:
			if err := out.add(ctx, b); err != nil {
				return nil, err
			}
		case by.Z() != nil:
			if err := by.Z().Sample(by, b, r.in.Count-b.NumRows(), r.g.Rows); err != nil {
				return nil, err
			}
			held = append(held, b)
		default:
			if err := addKeys(keys, by, b); err != nil {
				return nil, err
			}
		}
	}
	if by == nil {
		return nil, nil
	}
	if out != nil {
		return out.order(ctx, g.Rows(), r.tell)
	}
	if by.Z() != nil {
		by.Z().Learn()
		for i, b := range held {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := addKeys(keys, by, b); err != nil {
				return nil, err
			}
			held[i] = nil
		}
	}
	r.tell()
	return keys.Sorted(), nil
}

// onDisk sorts the keys of rows, with their numbers, where they do not fit into memory.
type onDisk struct {
	s    *order.Sorter
	sc   *arrow.Schema
	rows int64
}

// rowName is the column of row numbers: no column of a table has such a name.
const rowName = "\x00row"

func (m *moving) newOnDisk(by *order.Order, sc *arrow.Schema) *onDisk {
	fields := append(slices.Clone(sc.Fields()), arrow.Field{Name: rowName, Type: arrow.PrimitiveTypes.Int64})
	o := &onDisk{sc: arrow.NewSchema(fields, nil)}
	o.s = order.NewSorter(o.sc, by, m.r.plan.Policy.MemoryBytes/3, m.r.scratch(), func(ctx context.Context) error { return m.r.learn(ctx, by.Columns(), by.Z()) }) // sorting copies once
	return o
}

func (o *onDisk) add(ctx context.Context, b arrow.RecordBatch) error {
	numbers := array.NewInt64Builder(memory.DefaultAllocator)
	defer numbers.Release()
	numbers.Reserve(int(b.NumRows()))
	for i := range b.NumRows() {
		numbers.UnsafeAppend(o.rows + i)
	}
	o.rows += b.NumRows()
	col := numbers.NewArray()
	defer col.Release()
	all := array.NewRecordBatch(o.sc, append(slices.Clone(b.Columns()), col), b.NumRows())
	defer all.Release()
	return o.s.Add(ctx, all)
}

// order gives the numbers of all rows in order.
func (o *onDisk) order(ctx context.Context, rows int64, tell func()) ([]uint32, error) {
	out := make([]uint32, 0, rows)
	err := o.s.Sorted(ctx, func(b arrow.RecordBatch) error {
		defer b.Release()
		tell()
		numbers, ok := b.Column(int(b.NumCols()) - 1).(*array.Int64)
		if !ok {
			return fmt.Errorf("row numbers are %s", b.Column(int(b.NumCols())-1).DataType())
		}
		for _, n := range numbers.Int64Values() {
			out = append(out, uint32(n))
		}
		return nil
	})
	return out, err
}

// addKeys appends the keys of a batch; where they are too large for the way of pages, rows are written.
func addKeys(keys *order.Keys, by *order.Order, b arrow.RecordBatch) error {
	err := keys.Add(by, b)
	if errors.Is(err, order.ErrTooLarge) {
		return fmt.Errorf("%w: %w", pages.ErrUnfit, err)
	}
	return err //nolint:wrapcheck // it names the column
}

// partBatch reads columns of one row group of an input.
func partBatch(ctx context.Context, g *pages.Group, part int, sc *arrow.Schema, leaves []int) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, len(leaves))
	rows := 0
	for i, leaf := range leaves {
		c, err := g.Column(ctx, leaf, part)
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the file
		}
		if cols[i], err = arrayOf(c, sc.Field(i).Type); err != nil {
			return nil, fmt.Errorf("column %s: %w", sc.Field(i).Name, err)
		}
		rows = c.Rows
	}
	return array.NewRecordBatch(sc, cols, int64(rows)), nil
}

// describe makes the entries of the files that were written, from their footers.
func (m *moving) describe(ctx context.Context) error {
	r := m.r
	partition := r.tasks[0].File.Partition()
	for _, path := range r.paths {
		f, err := table.FileToDataFile(ctx, r.shelf.fs, path, r.t.Schema(), r.t.Spec(), 0, r.t.Properties())
		if err != nil {
			return fmt.Errorf("statistics of file %s: %w", path, err)
		}
		if !reflect.DeepEqual(f.Partition(), partition) {
			return fmt.Errorf("file %s was written for partition %v and is of %v", path, partition, f.Partition())
		}
		r.files = append(r.files, f)
	}
	return nil
}
