package pages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	parquetfile "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSchema has a column of each kind that tables have, and of each way in which values repeat.
var testSchema = func() *arrow.Schema {
	id := int32(0)
	field := func(name string, t arrow.DataType, null bool) arrow.Field {
		id++
		return arrow.Field{Name: name, Type: t, Nullable: null, Metadata: arrow.MetadataFrom(map[string]string{"PARQUET:field_id": fmt.Sprint(id)})}
	}
	item := arrow.StructOf(field("sku", arrow.BinaryTypes.String, false), field("amount", arrow.PrimitiveTypes.Int64, true), field("price", &arrow.Decimal128Type{Precision: 18, Scale: 6}, true),
		field("tags", arrow.ListOfField(field("element", arrow.BinaryTypes.String, true)), true))
	return arrow.NewSchema([]arrow.Field{
		field("id", arrow.BinaryTypes.String, false),
		field("row_hash", arrow.PrimitiveTypes.Int64, false),
		field("few", arrow.BinaryTypes.String, true),
		field("many", arrow.BinaryTypes.String, true),
		field("at", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, false),
		field("later", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, true),
		field("count", arrow.PrimitiveTypes.Int32, true),
		field("day", arrow.FixedWidthTypes.Date32, true),
		field("flag", arrow.FixedWidthTypes.Boolean, true),
		field("ratio", arrow.PrimitiveTypes.Float64, true),
		field("share", arrow.PrimitiveTypes.Float32, true),
		field("price", &arrow.Decimal128Type{Precision: 12, Scale: 2}, true),
		field("wide", &arrow.Decimal128Type{Precision: 38, Scale: 9}, true),
		field("bytes", arrow.BinaryTypes.Binary, true),
		field("nothing", arrow.BinaryTypes.String, true),
		field("products", arrow.ListOfField(field("element", arrow.BinaryTypes.String, true)), true),
		field("items", arrow.ListOfField(field("element", item, true)), true),
	}, nil)
}()

// shape is how the values of a batch are spread.
type shape struct {
	r       *rand.Rand
	nulls   float64
	kinds   int // different values of columns that repeat
	next    int64
	longest int
}

func (s *shape) fill(b array.Builder, name string) {
	if _, ok := map[string]bool{"id": true, "row_hash": true, "at": true, "sku": true}[name]; !ok && (name == "nothing" || s.r.Float64() < s.nulls) {
		b.AppendNull()
		return
	}
	pick := s.r.IntN(s.kinds)
	switch b := b.(type) {
	case *array.StringBuilder:
		switch name {
		case "id", "many":
			s.next++
			b.Append(fmt.Sprintf("%08x-%d", s.r.Uint32(), s.next))
		default:
			b.Append(strings.Repeat("é", pick%7*s.r.IntN(2)) + strings.Repeat("x", pick%max(1, s.longest)) + fmt.Sprint(pick)[:min(pick, 1)])
		}
	case *array.BinaryBuilder:
		v := make([]byte, pick%40)
		for i := range v {
			v[i] = byte(pick * (i + 1))
		}
		b.Append(v)
	case *array.Int64Builder:
		if name == "row_hash" {
			b.Append(int64(s.r.Uint64()))
		} else {
			b.Append(int64(pick) - 5)
		}
	case *array.Int32Builder:
		b.Append([]int32{0, -1, math.MaxInt32, math.MinInt32, int32(pick)}[s.r.IntN(5)])
	case *array.Date32Builder:
		b.Append(arrow.Date32(pick - 100))
	case *array.TimestampBuilder:
		s.next += int64(s.r.IntN(2000))
		b.Append(arrow.Timestamp(1_700_000_000_000_000 + s.next - 300*int64(s.r.IntN(3))))
	case *array.BooleanBuilder:
		b.Append(pick%3 == 0)
	case *array.Float64Builder:
		b.Append([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), float64(pick) / 3}[s.r.IntN(5)])
	case *array.Float32Builder:
		b.Append(float32(pick) / 7)
	case *array.Decimal128Builder:
		b.Append(decimal128.FromI64(int64(pick-s.kinds/2) * 1_000_001))
	case *array.ListBuilder:
		b.Append(true)
		for range s.r.IntN(4) {
			s.fill(b.ValueBuilder(), "element")
		}
	case *array.StructBuilder:
		b.Append(true)
		for i, f := range b.Type().(*arrow.StructType).Fields() {
			s.fill(b.FieldBuilder(i), f.Name)
		}
	default:
		panic(fmt.Sprintf("%T", b))
	}
}

func (s *shape) batch(rows int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, testSchema)
	for range rows {
		for i, f := range testSchema.Fields() {
			s.fill(b.Field(i), f.Name)
		}
	}
	return b.NewRecordBatch()
}

// written writes a batch as a file of one of our writers.
func written(t interface{ Fatal(...any) }, b arrow.RecordBatch, props ...parquet.WriterProperty) []byte {
	var out bytes.Buffer
	all := append([]parquet.WriterProperty{parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(3), parquet.WithDataPageVersion(parquet.DataPageV2)}, props...)
	w, err := pqarrow.NewFileWriter(testSchema, &out, parquet.NewWriterProperties(all...), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(b), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func input(name string, b []byte) (Input, error) {
	r, err := parquetfile.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		return Input{}, err
	}
	return Input{Name: name, R: bytes.NewReader(b), Meta: r.MetaData()}, nil
}

func wanted(t interface{ Fatal(...any) }) *schema.Schema {
	sc, err := pqarrow.ToParquet(testSchema, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

type sink struct{ bytes.Buffer }

func (*sink) Close() error { return nil }

// options write into memory.
func options(files *[]*sink, folder string) Options {
	return Options{
		Level: 3, PageBytes: 1 << 20, DictBytes: 2 << 20, RowGroupBytes: 128 << 20, RowGroupRows: 1 << 20, FileBytes: 1 << 30, Delta: true,
		Create: func(int) (io.WriteCloser, error) {
			*files = append(*files, &sink{})
			return (*files)[len(*files)-1], nil
		},
		Spool: func() (*os.File, error) { return os.CreateTemp(folder, "spool") },
	}
}

// readAll is all rows of files, as another reader reads them, and their footers.
func readAll(t interface{ Fatal(...any) }, files []*sink) (arrow.RecordBatch, []*metadata.FileMetaData) {
	var batches []arrow.RecordBatch
	var metas []*metadata.FileMetaData
	for _, f := range files {
		r, err := parquetfile.NewParquetReader(bytes.NewReader(f.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		metas = append(metas, r.MetaData())
		ar, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: 1000}, memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := ar.GetRecordReader(context.Background(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			b := rows.RecordBatch()
			b.Retain()
			batches = append(batches, b)
		}
		if err := rows.Err(); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	return joined(t, batches), metas
}

func joined(t interface{ Fatal(...any) }, batches []arrow.RecordBatch) arrow.RecordBatch {
	cols := make([]arrow.Array, testSchema.NumFields())
	rows := int64(0)
	for _, b := range batches {
		rows += b.NumRows()
	}
	for i := range cols {
		var parts []arrow.Array
		for _, b := range batches {
			parts = append(parts, b.Column(i))
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			t.Fatal(err)
		}
	}
	return array.NewRecordBatch(testSchema, cols, rows)
}

func taken(t interface{ Fatal(...any) }, b arrow.RecordBatch, order []uint32) arrow.RecordBatch {
	index := array.NewUint32Builder(memory.DefaultAllocator)
	index.AppendValues(order, nil)
	at := index.NewArray()
	cols := make([]arrow.Array, b.NumCols())
	for i := range cols {
		var err error
		if cols[i], err = compute.TakeArrayOpts(context.Background(), b.Column(i), at, compute.TakeOptions{BoundsCheck: true}); err != nil {
			t.Fatal(err)
		}
	}
	return array.NewRecordBatch(b.Schema(), cols, int64(len(order)))
}

func same(t *rapid.T, what string, got, want arrow.RecordBatch) {
	if got.NumRows() != want.NumRows() {
		t.Fatalf("%s: %d rows of %d", what, got.NumRows(), want.NumRows())
	}
	for i, f := range testSchema.Fields() {
		if !array.ApproxEqual(got.Column(i), want.Column(i), array.WithNaNsEqual(true), array.WithAbsTolerance(0)) {
			t.Fatalf("%s: column %s differs:\n%.2000s\n%.2000s", what, f.Name, got.Column(i), want.Column(i))
		}
	}
}

// checkFooter compares statistics with those that the general writer makes of the same rows.
func checkFooter(t *rapid.T, what string, metas []*metadata.FileMetaData, rows arrow.RecordBatch) {
	from := int64(0)
	for _, m := range metas {
		for n := range m.NumRowGroups() {
			rg := m.RowGroup(n)
			some := make([]uint32, rg.NumRows())
			for i := range some {
				some[i] = uint32(from) + uint32(i)
			}
			in, err := input("peer", written(t, taken(t, rows, some))) // of a slice of nested values it loses bounds
			if err != nil {
				t.Fatal(err)
			}
			from += rg.NumRows()
			for c := range m.Schema.NumColumns() {
				mine, err := rg.ColumnChunk(c)
				if err != nil {
					t.Fatal(err)
				}
				peer, err := in.Meta.RowGroup(0).ColumnChunk(c)
				if err != nil {
					t.Fatal(err)
				}
				a, errA := mine.Statistics()
				b, errB := peer.Statistics()
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				path := mine.PathInSchema().String()
				if mine.NumValues() != peer.NumValues() || a.NullCount() != b.NullCount() {
					t.Fatalf("%s: column %s: %d values and %d nulls, of the general writer %d and %d", what, path, mine.NumValues(), a.NullCount(), peer.NumValues(), b.NullCount())
				}
				if a.NullCount() == mine.NumValues() {
					if a.HasMinMax() {
						t.Fatalf("%s: column %s: bounds of nothing", what, path)
					}
					continue // the general writer gives bounds that are none
				}
				if a.HasMinMax() && !b.HasMinMax() {
					continue // the general writer gives none where there are empty texts, and for some lists
				}
				if a.HasMinMax() != b.HasMinMax() || a.HasMinMax() && (!bytes.Equal(a.EncodeMin(), b.EncodeMin()) || !bytes.Equal(a.EncodeMax(), b.EncodeMax())) {
					t.Fatalf("%s: column %s: bounds %v %x %x, of the general writer %v %x %x", what, path, a.HasMinMax(), a.EncodeMin(), a.EncodeMax(), b.HasMinMax(), b.EncodeMin(), b.EncodeMax())
				}
			}
		}
	}
}

func TestRowsAreTheSameWhetherPagesOrRowsAreMoved(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := &shape{
			r: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), nulls: rapid.SampledFrom([]float64{0, 0.1, 0.9, 1}).Draw(t, "nulls"),
			kinds: rapid.SampledFrom([]int{1, 3, 40, 3000}).Draw(t, "kinds"), longest: rapid.SampledFrom([]int{1, 20, 5000}).Draw(t, "longest"),
		}
		var inputs []Input
		var batches []arrow.RecordBatch
		files := rapid.IntRange(1, 4).Draw(t, "files")
		for i := range files {
			b := s.batch(rapid.SampledFrom([]int{1, 7, 100, 400}).Draw(t, "rows"))
			data := written(t, b,
				parquet.WithMaxRowGroupLength(rapid.SampledFrom([]int64{80, 300, 1 << 20}).Draw(t, "row group")),
				parquet.WithDataPageSize(rapid.SampledFrom([]int64{200, 5000, 1 << 20}).Draw(t, "page")),
				parquet.WithBatchSize(rapid.SampledFrom([]int64{64, 1024}).Draw(t, "batch")),
				parquet.WithDictionaryPageSizeLimit(rapid.SampledFrom([]int64{100, 3000, 2 << 20}).Draw(t, "dictionary")),
				parquet.WithDictionaryDefault(rapid.Bool().Draw(t, "dictionaries")))
			in, err := input(fmt.Sprintf("file %d", i), data)
			if err != nil {
				t.Fatal(err)
			}
			inputs, batches = append(inputs, in), append(batches, b)
		}
		all := joined(t, batches)
		opt := func(files *[]*sink) Options {
			o := options(files, folder)
			o.PageBytes = rapid.SampledFrom([]int{100, 4000, 1 << 20}).Draw(t, "page out")
			o.DictBytes = rapid.SampledFrom([]int{0, 500, 2 << 20}).Draw(t, "dictionary out")
			o.RowGroupRows = rapid.SampledFrom([]int64{1, 500, 1 << 20}).Draw(t, "row group out")
			o.RowGroupRows = max(o.RowGroupRows, all.NumRows()/3)
			o.FileBytes = rapid.SampledFrom([]int64{1, 50_000, 1 << 30}).Draw(t, "file out")
			o.Memory = rapid.SampledFrom([]int64{0, 2000, 40_000}).Draw(t, "memory")
			o.Blooms = map[string]int{"id": 1024, "few": 1024}
			return o
		}
		var out []*sink
		g, err := Open(inputs, wanted(t), opt(&out))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := g.Copy(context.Background()); err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(t, out)
		same(t, "copied", got, all)

		order := make([]uint32, all.NumRows())
		for i, v := range s.r.Perm(len(order)) {
			order[i] = uint32(v)
		}
		var moved []*sink
		h, err := Open(inputs, wanted(t), opt(&moved))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Reorder(context.Background(), order); err != nil {
			t.Fatal(err)
		}
		got, metas := readAll(t, moved)
		in := taken(t, all, order)
		same(t, "reordered", got, in)
		checkFooter(t, "reordered", metas, in)

		// What was written can be read again, as it will be when it is compacted once more.
		var second []Input
		for i, f := range append(moved, out...) {
			in, err := input(fmt.Sprintf("second %d", i), f.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			second = append(second, in)
		}
		var again []*sink
		k, err := Open(second, wanted(t), opt(&again))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.Copy(context.Background()); err != nil {
			t.Fatal(err)
		}
		got, _ = readAll(t, again)
		same(t, "copied again", got, joined(t, []arrow.RecordBatch{in, all}))
	})
}
