package pages

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/klauspost/compress/zstd"
)

// ErrUnfit says that files are not of the kind that this package moves. They may be fine otherwise.
var ErrUnfit = errors.New("the files are not of the kind whose pages can be moved")

// Input is a file to read.
type Input struct {
	Name string
	R    io.ReaderAt
	Meta *metadata.FileMetaData
}

// Options say how files are written.
type Options struct {
	Level         int            // of zstd
	PageBytes     int            // of a page's values, about
	DictBytes     int            // of a dictionary, at most
	RowGroupBytes int64          // of a row group, as it is stored, about
	RowGroupRows  int64          // at most
	FileBytes     int64          // from which a file takes no further row group
	Blooms        map[string]int // bytes of a column's Bloom filter, by path; 0: none
	Delta         bool           // DELTA_BINARY_PACKED may be written
	Memory        int64          // that the values of a column may take while rows are put into an order: larger ones are read several times; 0: any

	Create func(n int) (io.WriteCloser, error) // makes the n-th file
	Spool  func() (*os.File, error)            // makes a file for what waits to be written, which the caller removes
	Tell   func(done float64)                  // is told that work goes on, and which part of it is done; may be nil
}

// Group is files that are rewritten together. It belongs to one goroutine.
type Group struct {
	opt    Options
	inputs []Input
	schema *schema.Schema
	kv     metadata.KeyValueMetadata
	leaves []leaf
	parts  []part
	rows   int64
	bytes  int64 // of all column chunks, as they are stored

	dec    *zstd.Decoder
	enc    *zstd.Encoder
	dictID map[string]uint32
}

// part is a row group of an input.
type part struct {
	input, group int
	rows         int64
	bytes        int64
}

// leaf is a column that has values.
type leaf struct {
	path     string
	index    int
	kind     parquet.Type
	width    int // bytes of a value; 0: byte arrays
	def, rep int // greatest levels
	order    order
	bloom    int
}

// maxRows bounds a group: rows are numbered by 32 bits.
const maxRows = math.MaxInt32

// Open prepares files for being moved. Their schema must be want, down to the ids of fields.
func Open(inputs []Input, want *schema.Schema, opt Options) (*Group, error) {
	g := &Group{opt: opt, inputs: inputs, schema: want, dictID: map[string]uint32{}}
	for i := range want.NumColumns() {
		l, err := leafOf(want.Column(i), i)
		if err != nil {
			return nil, err
		}
		if l.bloom = opt.Blooms[l.path]; l.kind == parquet.Types.Boolean {
			l.bloom = 0
		}
		g.leaves = append(g.leaves, l)
	}
	for i, in := range inputs {
		if !sameSchema(in.Meta.Schema.Root(), want.Root()) {
			return nil, fmt.Errorf("%w: %s has another schema", ErrUnfit, in.Name)
		}
		if i == 0 {
			g.kv = in.Meta.KeyValueMetadata()
		}
		for n := range in.Meta.GetRowGroups() {
			rg := in.Meta.RowGroup(n)
			if rg.NumRows() < 0 || rg.NumColumns() != len(g.leaves) {
				return nil, fmt.Errorf("file %s: row group %d is broken", in.Name, n)
			}
			if rg.NumRows() == 0 {
				continue
			}
			p := part{input: i, group: n, rows: rg.NumRows()}
			for c := range g.leaves {
				m, err := rg.ColumnChunk(c)
				if err != nil {
					return nil, fmt.Errorf("file %s: row group %d, column %s: %w", in.Name, n, g.leaves[c].path, err)
				}
				if m.Compression() != compress.Codecs.Zstd {
					return nil, fmt.Errorf("%w: %s is compressed with %s", ErrUnfit, in.Name, m.Compression())
				}
				if m.TotalCompressedSize() < 0 || m.TotalUncompressedSize() < 0 || m.NumValues() < p.rows || m.NumValues() > maxRows {
					return nil, fmt.Errorf("file %s: row group %d, column %s: sizes are broken", in.Name, n, g.leaves[c].path)
				}
				p.bytes += m.TotalCompressedSize()
			}
			g.parts = append(g.parts, p)
			g.rows += p.rows
			g.bytes += p.bytes
		}
	}
	if g.rows > maxRows {
		return nil, fmt.Errorf("%w: %d rows", ErrUnfit, g.rows)
	}
	var err error
	if g.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage)); err != nil {
		return nil, fmt.Errorf("making a decompressor: %w", err)
	}
	g.enc, err = zstd.NewWriter(nil, zstd.WithZeroFrames(true), zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(opt.Level)), zstd.WithEncoderConcurrency(1), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, fmt.Errorf("making a compressor: %w", err)
	}
	return g, nil
}

// Close gives back what the group holds; its inputs stay the caller's.
func (g *Group) Close() {
	g.dec.Close()
	_ = g.enc.Close() // it has no stream
}

// Rows is how many there are.
func (g *Group) Rows() int64 { return g.rows }

// Parts is how many row groups there are that have rows.
func (g *Group) Parts() int { return len(g.parts) }

// Leaf finds a column that has values by its path; -1 if there is none.
func (g *Group) Leaf(path string) int {
	for i := range g.leaves {
		if g.leaves[i].path == path {
			return i
		}
	}
	return -1
}

func leafOf(c *schema.Column, index int) (leaf, error) {
	l := leaf{path: c.Path(), index: index, kind: c.PhysicalType(), def: int(c.MaxDefinitionLevel()), rep: int(c.MaxRepetitionLevel())}
	switch l.kind {
	case parquet.Types.Boolean:
		l.width, l.order = 1, orderUnsigned
	case parquet.Types.Int32:
		l.width, l.order = 4, orderInt32
	case parquet.Types.Int64:
		l.width, l.order = 8, orderInt64
	case parquet.Types.Float:
		l.width, l.order = 4, orderFloat
	case parquet.Types.Double:
		l.width, l.order = 8, orderDouble
	case parquet.Types.ByteArray:
		l.order = orderUnsigned
	case parquet.Types.FixedLenByteArray:
		l.width, l.order = c.TypeLength(), orderUnsigned
		if c.SortOrder() == schema.SortSIGNED {
			l.order = orderSigned
		}
	default:
		return l, fmt.Errorf("%w: column %s is %s", ErrUnfit, l.path, l.kind)
	}
	signed := c.SortOrder() == schema.SortSIGNED
	switch l.order {
	case orderInt32, orderInt64, orderFloat, orderDouble:
		if !signed {
			return l, fmt.Errorf("%w: column %s has the order of unsigned numbers", ErrUnfit, l.path)
		}
	case orderUnsigned:
		if l.kind == parquet.Types.ByteArray && c.SortOrder() != schema.SortUNSIGNED {
			return l, fmt.Errorf("%w: column %s has no order of bytes", ErrUnfit, l.path)
		}
	}
	if l.width < 0 || l.kind == parquet.Types.FixedLenByteArray && (l.width == 0 || l.width > 1<<10) || l.def > 200 || l.rep > 200 {
		return l, fmt.Errorf("%w: column %s is too deep or too wide", ErrUnfit, l.path)
	}
	return l, nil
}

// sameSchema compares two nodes with all that is below them. What a root is called and how often it is there differs between writers and means nothing.
func sameSchema(a, b schema.Node) bool {
	if a.Parent() != nil && (a.Name() != b.Name() || a.RepetitionType() != b.RepetitionType() || a.FieldID() != b.FieldID() || !sameLogical(a.LogicalType(), b.LogicalType())) {
		return false
	}
	switch x := a.(type) {
	case *schema.PrimitiveNode:
		y, ok := b.(*schema.PrimitiveNode)
		return ok && x.PhysicalType() == y.PhysicalType() && (x.PhysicalType() != parquet.Types.FixedLenByteArray || x.TypeLength() == y.TypeLength())
	case *schema.GroupNode:
		y, ok := b.(*schema.GroupNode)
		if !ok || x.NumFields() != y.NumFields() {
			return false
		}
		for i := range x.NumFields() {
			if !sameSchema(x.Field(i), y.Field(i)) {
				return false
			}
		}
	}
	return true
}

func sameLogical(a, b schema.LogicalType) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, ok := timestamp(a)
	y, also := timestamp(b)
	if ok && also { // flags of how an old reader is told are no part of the type
		return x.IsAdjustedToUTC() == y.IsAdjustedToUTC() && x.TimeUnit() == y.TimeUnit()
	}
	return a.Equals(b)
}

func timestamp(t schema.LogicalType) (schema.TimestampLogicalType, bool) {
	switch t := t.(type) {
	case schema.TimestampLogicalType:
		return t, true
	case *schema.TimestampLogicalType:
		return *t, true
	}
	return schema.TimestampLogicalType{}, false
}

func (g *Group) tell(done float64) {
	if g.opt.Tell != nil {
		g.opt.Tell(done)
	}
}
