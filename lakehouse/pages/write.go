package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// pageValues bounds how many values a page has, however small they are.
const pageValues = 128 << 10

// chunkInfo is a column chunk that was written: what the footer says of it. Places count from the chunk's beginning.
type chunkInfo struct {
	at       int64 // in what it was written to
	data     int64 // the first data page
	size     int64
	inflated int64
	values   int64
	hasDict  bool
	encs     [16]int32 // data pages by encoding
	stats    stats
	bloom    metadata.BloomFilterBuilder
}

// chunkWriter writes the pages of a column chunk.
type chunkWriter struct {
	g    *Group
	leaf *leaf
	out  *counter
	chunkInfo
	head, packed, raw, bools []byte
}

// counter knows how much was written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err //nolint:wrapcheck // the caller says what it wrote
}

// Tell is for the writer of Bloom filters.
func (c *counter) Tell() int64 { return c.n }

func (g *Group) newChunk(l *leaf, out *counter) *chunkWriter {
	w := &chunkWriter{g: g, leaf: l, out: out}
	w.at = out.n
	w.stats = stats{order: l.order, width: l.width}
	if l.bloom > 0 {
		w.bloom = metadata.NewBloomFilter(uint32(l.bloom), uint32(l.bloom), memory.DefaultAllocator)
	}
	return w
}

// put writes one page.
func (w *chunkWriter) put(h header, levels, body []byte) error {
	w.head = h.append(w.head[:0])
	for _, b := range [...][]byte{w.head, levels, body} {
		if _, err := w.out.Write(b); err != nil {
			return fmt.Errorf("writing column %s: %w", w.leaf.path, err)
		}
	}
	w.inflated += int64(len(w.head)) + int64(h.size)
	if h.kind == pageDataV2 {
		w.values += int64(h.values)
		w.encs[h.encoding]++
	}
	return nil
}

// dictionary writes the dictionary page, before any other.
func (w *chunkWriter) dictionary(d *dictionary) error {
	w.hasDict = true
	w.packed = w.g.enc.EncodeAll(d.data, w.packed[:0])
	h := header{kind: pageDictionary, size: int32(len(d.data)), packed: int32(len(w.packed)), values: int32(d.n), encoding: encPlain}
	err := w.put(h, nil, w.packed)
	w.data = w.out.n - w.at
	return err
}

// hash puts values, as PLAIN writes them, into the Bloom filter, if there is one.
func (w *chunkWriter) hash(plain []byte) {
	if w.bloom == nil {
		return
	}
	h := w.bloom.Hasher()
	if w.leaf.width > 0 {
		for ; len(plain) >= w.leaf.width; plain = plain[w.leaf.width:] {
			w.bloom.InsertHash(h.Sum64(plain[:w.leaf.width]))
		}
		return
	}
	for len(plain) >= 4 {
		n := 4 + int(binary.LittleEndian.Uint32(plain))
		w.bloom.InsertHash(h.Sum64(plain[4:n]))
		plain = plain[n:]
	}
}

// pageOf gathers levels and values, and writes them as a page when there are enough.
type pageOf struct {
	w        *chunkWriter
	rep, def []uint8
	rows     int
	levels   int // also of columns that have none
	idx      []uint32
	dict     int // values in the dictionary
	plain    []byte
}

// full says whether it is time for flush.
func (p *pageOf) full() bool {
	return p.levels >= pageValues || len(p.plain) >= p.w.g.opt.PageBytes || len(p.idx)*4 >= p.w.g.opt.PageBytes
}

// flush writes what was gathered.
func (p *pageOf) flush() error {
	if p.levels == 0 {
		return nil
	}
	w := p.w
	l := w.leaf
	h := header{kind: pageDataV2, values: int32(p.levels), rows: int32(p.rows), encoding: encPlain}
	w.raw = w.raw[:0]
	if l.rep > 0 {
		w.raw = appendHybrid(w.raw, p.rep, widthOf(l.rep))
		h.rep = int32(len(w.raw))
	}
	if l.def > 0 {
		for _, d := range p.def {
			if int(d) < l.def {
				h.nulls++
			}
		}
		w.raw = appendHybrid(w.raw, p.def, widthOf(l.def))
		h.def = int32(len(w.raw)) - h.rep
	}
	levels := len(w.raw)
	values := p.plain
	switch {
	case w.hasDict && (len(p.idx) > 0 || h.nulls == h.values):
		h.encoding = encIndices
		width := max(1, widthOf(p.dict-1)) // some readers look for a run even where there are no bits
		w.raw = append(w.raw, byte(width))
		w.raw = appendHybrid(w.raw, p.idx, width)
		values = w.raw[levels:]
	case l.kind == parquet.Types.Boolean:
		w.bools = appendPacked(w.bools[:0], p.plain, 1)
		values = w.bools
	case l.kind == parquet.Types.Int64 && w.g.opt.Delta && deltaPays(p.plain):
		h.encoding = encDelta
		w.raw = appendDelta(w.raw, p.plain)
		values = w.raw[levels:]
	}
	h.size = int32(levels + len(values))
	w.packed = w.g.enc.EncodeAll(values, w.packed[:0])
	h.packed = int32(levels + len(w.packed))
	if err := w.put(h, w.raw[:levels], w.packed); err != nil {
		return err
	}
	p.rep, p.def, p.idx, p.plain = p.rep[:0], p.def[:0], p.idx[:0], p.plain[:0]
	p.rows, p.levels = 0, 0
	return nil
}

// finish ends the chunk.
func (w *chunkWriter) finish() chunkInfo {
	w.size = w.out.n - w.at
	return w.chunkInfo
}

// rowGroup is the chunks of a row group, in the order of columns.
type rowGroup struct {
	rows   int64
	chunks []chunkInfo
}

// file is one Parquet file being written.
type file struct {
	g     *Group
	close io.Closer
	out   *counter
	meta  *metadata.FileMetaDataBuilder
	bloom metadata.FileBloomFilterBuilder
	n     int16 // row groups
}

var magic = []byte("PAR1")

func (g *Group) newFile(n int) (*file, error) {
	w, err := g.opt.Create(n)
	if err != nil {
		return nil, fmt.Errorf("making a file: %w", err)
	}
	f := &file{g: g, close: w, out: &counter{w: w}}
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(g.opt.Level), parquet.WithDataPageVersion(parquet.DataPageV2))
	f.meta = metadata.NewFileMetadataBuilder(g.schema, props, g.kv)
	f.bloom.Schema = g.schema
	if _, err := f.out.Write(magic); err != nil {
		return nil, errors.Join(fmt.Errorf("writing a file: %w", err), w.Close())
	}
	return f, nil
}

// add notes a row group whose chunks are in the file.
func (f *file) add(r *rowGroup) error {
	b := f.meta.AppendRowGroup()
	b.SetNumRows(int(r.rows))
	blooms := map[string]metadata.BloomFilterBuilder{}
	for i := range r.chunks {
		c := &r.chunks[i]
		l := &f.g.leaves[i]
		if c.bloom != nil {
			blooms[l.path] = c.bloom
		}
		col := b.NextColumnChunk()
		info := metadata.ChunkMetaInfo{NumValues: c.values, IndexPageOffset: -1, DataPageOffset: c.at + c.data, CompressedSize: c.size, UncompressedSize: c.inflated}
		stat := metadata.EncodingStats{DataEncodingStats: map[parquet.Encoding]int32{}}
		if c.hasDict {
			info.DictPageOffset = c.at
			stat.DictEncodingStats = map[parquet.Encoding]int32{parquet.Encodings.Plain: 1}
		}
		for e, n := range c.encs {
			if n > 0 {
				stat.DataEncodingStats[parquet.Encoding(e)] = n
			}
		}
		col.SetStats(c.stats.encoded())
		if err := col.Finish(info, c.hasDict, false, stat); err != nil {
			return fmt.Errorf("metadata of column %s: %w", l.path, err)
		}
		encs := col.Contents().MetaData.Encodings[:0]
		encs = append(encs, encRLE) // levels
		if c.hasDict || c.encs[encPlain] > 0 {
			encs = append(encs, encPlain)
		}
		if c.encs[encIndices] > 0 {
			encs = append(encs, encIndices)
		}
		if c.encs[encDelta] > 0 {
			encs = append(encs, encDelta)
		}
		col.Contents().MetaData.Encodings = encs
	}
	if err := b.Finish(0, f.n); err != nil {
		return fmt.Errorf("metadata of a row group: %w", err)
	}
	f.bloom.AppendRowGroup(b, blooms)
	f.n++
	return nil
}

// finish writes the footer and closes the file.
func (f *file) finish() (err error) {
	defer func() {
		if f.close != nil {
			err = errors.Join(err, f.close.Close())
		}
	}()
	if err := f.bloom.WriteTo(f.out); err != nil {
		return fmt.Errorf("writing Bloom filters: %w", err)
	}
	meta, err := f.meta.Finish()
	if err != nil {
		return fmt.Errorf("metadata of a file: %w", err)
	}
	n, err := meta.WriteTo(f.out, nil)
	if err != nil {
		return fmt.Errorf("writing the metadata of a file: %w", err)
	}
	if _, err := f.out.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), magic...)); err != nil {
		return fmt.Errorf("writing the metadata of a file: %w", err)
	}
	c := f.close
	f.close = nil
	if err := c.Close(); err != nil {
		return fmt.Errorf("closing a file: %w", err)
	}
	return nil
}
