package order

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// BatchRows is how many rows a sorted batch has, and how many a run gives at a time when runs are merged.
const BatchRows = 16 << 10

// keyName is the column of sort keys in a run: no column of a table has such a name.
const keyName = "\x00key"

// Sorter puts rows into an order. Up to limit bytes are held; beyond that, sorted runs go to files in a folder of its own and are merged at the end (Knuth, TAOCP 3,
// 5.4). Rows whose keys are equal keep the order in which they came.
type Sorter struct {
	schema  *arrow.Schema
	keyed   *arrow.Schema // of runs: schema and the keys
	by      *Order
	learn   func(ctx context.Context) error // what a z-order must know of all rows, called before the first run is written
	limit   int64
	scratch string // where the folder is made
	dir     string // "" until there is a run
	runs    []string
	batches []arrow.RecordBatch
	bytes   int64
}

// NewSorter holds up to limit bytes of rows of a schema; runs go below scratch. learn shows a z-order a sample of all rows (ZOrder.Sample, Learn): it is called before the first run.
func NewSorter(sc *arrow.Schema, by *Order, limit int64, scratch string, learn func(ctx context.Context) error) *Sorter {
	fields := append(slices.Clone(sc.Fields()), arrow.Field{Name: keyName, Type: arrow.BinaryTypes.Binary})
	return &Sorter{schema: sc, keyed: arrow.NewSchema(fields, nil), by: by, limit: limit, scratch: scratch, learn: learn}
}

// Add takes a batch; the caller keeps its own reference.
func (s *Sorter) Add(ctx context.Context, b arrow.RecordBatch) error {
	b.Retain()
	s.batches = append(s.batches, b)
	for _, c := range b.Columns() {
		s.bytes += int64(c.Data().SizeInBytes())
	}
	if s.bytes < s.limit {
		return nil
	}
	return s.spill(ctx)
}

// Sorted gives all rows, in order; yield owns what it gets. The sorter is to be closed afterwards.
func (s *Sorter) Sorted(ctx context.Context, yield func(arrow.RecordBatch) error) error {
	if len(s.runs) == 0 {
		return s.held(ctx, false, yield)
	}
	if err := s.spill(ctx); err != nil {
		return err
	}
	return s.merge(ctx, yield)
}

// Close removes the runs.
func (s *Sorter) Close() error {
	s.drop()
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *Sorter) drop() {
	for _, b := range s.batches {
		b.Release()
	}
	s.batches, s.bytes = nil, 0
}

// held sorts what is held and gives it in batches; with the keys as their last column, if these are wanted.
func (s *Sorter) held(ctx context.Context, keyed bool, yield func(arrow.RecordBatch) error) error {
	if len(s.batches) == 0 {
		return nil
	}
	all, err := joined(s.batches[0].Schema(), s.batches)
	s.drop()
	if err != nil {
		return err
	}
	defer func() { all.Release() }()
	var keys *Keys
	if at := all.Schema().FieldIndices(keyName); len(at) == 1 { // of runs
		keys = keysOf(all.Column(at[0]).(*array.Binary))
		if !keyed {
			bare := array.NewRecordBatch(s.schema, all.Columns()[:at[0]], all.NumRows())
			all.Release()
			all = bare
		}
	} else {
		if keys, err = s.makeKeys(all); err != nil {
			return err
		}
		if keyed {
			withKeys := array.NewRecordBatch(s.keyed, append(slices.Clone(all.Columns()), keys.array()), all.NumRows())
			all.Release()
			all = withKeys
		}
	}
	order := keys.Sorted()
	for from := 0; from < len(order); from += BatchRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := take(ctx, all, order[from:min(from+BatchRows, len(order))])
		if err != nil {
			return err
		}
		if err := yield(b); err != nil {
			return err
		}
	}
	return nil
}

// makeKeys makes the keys of rows that are held. A z-order that fits into memory learns from them.
func (s *Sorter) makeKeys(all arrow.RecordBatch) (*Keys, error) {
	if z := s.by.z; z != nil && z.samples == nil {
		if err := z.Sample(s.by, all, 0, all.NumRows()); err != nil {
			return nil, err
		}
		z.Learn()
	}
	return s.by.Keys(all)
}

// keysOf reads the keys of a run.
func keysOf(col *array.Binary) *Keys {
	k := &Keys{ends: make([]uint32, col.Len()), bytes: col.ValueBytes()}
	offsets := col.ValueOffsets()
	for i := range k.ends {
		k.ends[i] = uint32(offsets[i+1] - offsets[0])
	}
	return k
}

// array is the keys as a column. It shares their memory.
func (k *Keys) array() arrow.Array {
	offsets := make([]int32, len(k.ends)+1)
	for i, e := range k.ends {
		offsets[i+1] = int32(e)
	}
	data := array.NewData(arrow.BinaryTypes.Binary, len(k.ends), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(k.bytes)}, nil, 0, 0)
	defer data.Release()
	return array.NewBinaryData(data)
}

// rowKey orders a row: the first 16 bytes of its key.
type rowKey struct {
	a, b uint64
	row  uint32
}

// Sorted gives the rows in the order of their keys; of equal ones, as they came.
func (k *Keys) Sorted() []uint32 {
	heads := make([]rowKey, len(k.ends))
	whole := true // the heads tell all keys apart
	for i := range heads {
		key := k.key(i)
		var head [16]byte
		copy(head[:], key)
		whole = whole && len(key) <= len(head) && len(key) == len(k.key(0))
		heads[i] = rowKey{binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:]), uint32(i)}
	}
	heads = radix(heads)
	tied := func(x, y rowKey) int { // of equal a
		if x.b != y.b {
			return cmp.Compare(x.b, y.b)
		}
		if !whole {
			if c := bytes.Compare(k.key(int(x.row)), k.key(int(y.row))); c != 0 {
				return c
			}
		}
		return cmp.Compare(x.row, y.row)
	}
	for from := 0; from < len(heads); {
		to := from + 1
		for to < len(heads) && heads[to].a == heads[from].a {
			to++
		}
		if to-from > 1 {
			slices.SortFunc(heads[from:to], tied)
		}
		from = to
	}
	out := make([]uint32, len(heads))
	for i := range heads {
		out[i] = heads[i].row
	}
	return out
}

// radix sorts by a, byte by byte from the last, without changing the order of equals (Knuth, TAOCP 3, 5.2.5). Bytes that are the same in all keys cost nothing.
func radix(keys []rowKey) []rowKey {
	if len(keys) < 256 {
		slices.SortStableFunc(keys, func(x, y rowKey) int { return cmp.Compare(x.a, y.a) })
		return keys
	}
	var counts [8][256]int
	for i := range keys {
		a := keys[i].a
		for d := range counts {
			counts[d][byte(a>>(8*d))]++
		}
	}
	to := make([]rowKey, len(keys))
	for d := range counts {
		c := &counts[d]
		if c[byte(keys[0].a>>(8*d))] == len(keys) {
			continue
		}
		at := 0
		for i, n := range c {
			c[i], at = at, at+n
		}
		for i := range keys {
			b := byte(keys[i].a >> (8 * d))
			to[c[b]] = keys[i]
			c[b]++
		}
		keys, to = to, keys
	}
	return keys
}

// spill writes what is held to a run.
func (s *Sorter) spill(ctx context.Context) (err error) {
	if len(s.batches) == 0 {
		return nil
	}
	if s.dir == "" {
		if err := os.MkdirAll(s.scratch, 0o755); err != nil {
			return fmt.Errorf("folder for sorting: %w", err)
		}
		if s.dir, err = os.MkdirTemp(s.scratch, "sort-"); err != nil {
			return fmt.Errorf("folder for sorting: %w", err)
		}
	}
	if z := s.by.z; z != nil && z.samples == nil {
		if err := s.learn(ctx); err != nil {
			return fmt.Errorf("sampling the columns of a z-order: %w", err)
		}
	}
	f, err := os.CreateTemp(s.dir, "run-")
	if err != nil {
		return fmt.Errorf("file for sorting: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := ipc.NewWriter(f, ipc.WithSchema(s.keyed), ipc.WithLZ4())
	err = s.held(ctx, true, func(b arrow.RecordBatch) error {
		defer b.Release()
		return w.Write(b)
	})
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	s.runs = append(s.runs, f.Name())
	return nil
}

// run is one sorted file being merged: rest is what was read and not given.
type run struct {
	f    *os.File
	r    *ipc.Reader
	rest arrow.RecordBatch // nil at the end
}

func (r *run) next() error {
	if r.rest != nil {
		r.rest.Release()
		r.rest = nil
	}
	if r.r.Next() {
		r.rest = r.r.RecordBatch()
		r.rest.Retain()
	}
	if err := r.r.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", r.f.Name(), err)
	}
	return nil
}

// merge gives the rows of all runs in order. In each round it takes from every run the rows that are not behind the nearest end of a batch in memory: no row
// to come can be before them. So rows are compared and copied by the batch, not one by one.
func (s *Sorter) merge(ctx context.Context, yield func(arrow.RecordBatch) error) (err error) {
	runs := make([]*run, 0, len(s.runs))
	defer func() {
		for _, r := range runs {
			if r.rest != nil {
				r.rest.Release()
			}
			if r.r != nil {
				r.r.Release()
			}
			err = errors.Join(err, r.f.Close())
		}
	}()
	for _, name := range s.runs {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("file for sorting: %w", err)
		}
		r := &run{f: f}
		runs = append(runs, r)
		if r.r, err = ipc.NewReader(f, ipc.WithSchema(s.keyed)); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err := r.next(); err != nil {
			return err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var bound []byte
		for _, r := range runs {
			if r.rest == nil {
				continue
			}
			if last := r.key(int(r.rest.NumRows()) - 1); bound == nil || bytes.Compare(last, bound) < 0 {
				bound = append([]byte{}, last...)
			}
		}
		if bound == nil {
			return nil
		}
		var ready []arrow.RecordBatch
		for _, r := range runs {
			if r.rest == nil {
				continue
			}
			rows := int(r.rest.NumRows())
			n := sort.Search(rows, func(i int) bool { return bytes.Compare(r.key(i), bound) > 0 })
			if n == 0 {
				continue
			}
			ready = append(ready, r.rest.NewSlice(0, int64(n)))
			if n == rows {
				if err := r.next(); err != nil {
					return err
				}
				continue
			}
			rest := r.rest.NewSlice(int64(n), int64(rows))
			r.rest.Release()
			r.rest = rest
		}
		s.batches = ready
		if err := s.held(ctx, false, yield); err != nil {
			return err
		}
	}
}

// key is that of one row of what was read and not given.
func (r *run) key(i int) []byte {
	return r.rest.Column(int(r.rest.NumCols()) - 1).(*array.Binary).Value(i)
}

// joined is one batch of all the rows of several.
func joined(sc *arrow.Schema, batches []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(batches) == 1 {
		batches[0].Retain()
		return batches[0], nil
	}
	rows := int64(0)
	for _, b := range batches {
		rows += b.NumRows()
	}
	cols := make([]arrow.Array, sc.NumFields())
	defer release(cols)
	parts := make([]arrow.Array, len(batches))
	for i := range cols {
		for j, b := range batches {
			parts[j] = b.Column(i)
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("joining column %s: %w", sc.Field(i).Name, err)
		}
	}
	return array.NewRecordBatch(sc, cols, rows), nil
}

// take gives some rows of a batch.
func take(ctx context.Context, b arrow.RecordBatch, rows []uint32) (arrow.RecordBatch, error) {
	index := array.NewUint32Builder(memory.DefaultAllocator)
	defer index.Release()
	index.AppendValues(rows, nil)
	at := index.NewArray()
	defer at.Release()
	cols := make([]arrow.Array, b.NumCols())
	defer release(cols)
	for i := range cols {
		if text, ok := b.Column(i).(*array.String); ok {
			cols[i] = takeText(text, rows)
			continue
		}
		var err error
		if cols[i], err = compute.TakeArrayOpts(ctx, b.Column(i), at, compute.TakeOptions{BoundsCheck: false}); err != nil {
			return nil, fmt.Errorf("Order column %s: %w", b.ColumnName(i), err)
		}
	}
	return array.NewRecordBatch(b.Schema(), cols, int64(len(rows))), nil
}

// takeText gives some rows of a text column. Rows that were sorted are all over memory: places and lengths are looked up first, for all rows, and then the bytes copied,
// so that the processor waits for many of them at a time. That halves the time of Arrow's kernel, which goes row by row.
func takeText(col *array.String, rows []uint32) arrow.Array {
	from, text := col.ValueOffsets(), col.ValueBytes()
	base := int32(0)
	if len(from) > 0 {
		base = from[0]
	}
	starts, offsets := make([]int32, len(rows)), make([]int32, len(rows)+1)
	for i, r := range rows {
		starts[i] = from[r] - base
		offsets[i+1] = from[r+1] - from[r]
	}
	for i := range rows {
		offsets[i+1] += offsets[i]
	}
	out := make([]byte, offsets[len(rows)])
	for i, s := range starts {
		to := out[offsets[i]:offsets[i+1]]
		copy(to, text[s:int(s)+len(to)])
	}
	var valid *memory.Buffer
	nulls := 0
	if col.NullN() > 0 {
		bits := make([]byte, bitutil.BytesForBits(int64(len(rows))))
		for i, r := range rows {
			if col.IsNull(int(r)) {
				nulls++
			} else {
				bitutil.SetBit(bits, i)
			}
		}
		valid = memory.NewBufferBytes(bits)
	}
	data := array.NewData(col.DataType(), len(rows), []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(out)}, nil, nulls, 0)
	defer data.Release()
	return array.NewStringData(data)
}

func release(cols []arrow.Array) {
	for _, c := range cols {
		if c != nil {
			c.Release()
		}
	}
}
