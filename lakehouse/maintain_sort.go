package lakehouse

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// sortRows is how many rows a sorted batch has, and how many a run gives at a time when runs are merged.
const sortRows = 16 << 10

// sorter puts rows into the order day(occurred_at), visitor_id, occurred_at. Up to limit bytes are held; beyond that, sorted runs go to files in a folder of its
// own and are merged at the end (Knuth, TAOCP 3, 5.4). Rows that are equal in this keep the order in which they came.
type sorter struct {
	schema  *arrow.Schema
	at      int // column of occurred_at
	visitor int // column of visitor_id
	limit   int64
	scratch string // where the folder is made
	dir     string // "" until there is a run
	runs    []string
	batches []arrow.RecordBatch
	bytes   int64
}

func newSorter(sc *arrow.Schema, limit int64, scratch string) (*sorter, error) {
	s := &sorter{schema: sc, limit: limit, scratch: scratch}
	for name, col := range map[string]*int{"occurred_at": &s.at, "visitor_id": &s.visitor} {
		i := sc.FieldIndices(name)
		if len(i) != 1 {
			return nil, fmt.Errorf("sorting: no column %s", name)
		}
		*col = i[0]
	}
	return s, nil
}

// add takes a batch; the caller keeps its own reference.
func (s *sorter) add(ctx context.Context, b arrow.RecordBatch) error {
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

// sorted gives all rows, in order; yield owns what it gets. The sorter is to be closed afterwards.
func (s *sorter) sorted(ctx context.Context, yield func(arrow.RecordBatch) error) error {
	if len(s.runs) == 0 {
		return s.held(ctx, yield)
	}
	if err := s.spill(ctx); err != nil {
		return err
	}
	return s.merge(ctx, yield)
}

func (s *sorter) close() error {
	s.drop()
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *sorter) drop() {
	for _, b := range s.batches {
		b.Release()
	}
	s.batches, s.bytes = nil, 0
}

// rowKey orders a row, up to rows whose visitor ids share the first eight bytes.
type rowKey struct {
	day     int64
	visitor uint64
	at      int64
	row     uint32
}

// held sorts what is held and gives it in batches.
func (s *sorter) held(ctx context.Context, yield func(arrow.RecordBatch) error) error {
	if len(s.batches) == 0 {
		return nil
	}
	all, err := joined(s.schema, s.batches)
	s.drop()
	if err != nil {
		return err
	}
	defer all.Release()
	order, err := s.order(all)
	if err != nil {
		return err
	}
	for from := 0; from < len(order); from += sortRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := take(ctx, all, order[from:min(from+sortRows, len(order))])
		if err != nil {
			return err
		}
		if err := yield(b); err != nil {
			return err
		}
	}
	return nil
}

// order gives the rows of a batch in their order.
func (s *sorter) order(b arrow.RecordBatch) ([]uint32, error) {
	at, ok1 := b.Column(s.at).(*array.Timestamp)
	visitor, ok2 := b.Column(s.visitor).(*array.String)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("sorting: occurred_at is %s and visitor_id %s", b.Column(s.at).DataType(), b.Column(s.visitor).DataType())
	}
	keys := make([]rowKey, b.NumRows())
	for i := range keys {
		k := &keys[i]
		k.row, k.at = uint32(i), int64(at.Value(i))
		k.day = floorDiv(k.at, 24*3600*1_000_000)
		var prefix [8]byte
		copy(prefix[:], visitor.Value(i)) // "" for null, which comes first
		k.visitor = binary.BigEndian.Uint64(prefix[:])
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		if c := cmp.Compare(a.day, b.day); c != 0 {
			return c
		}
		if a.visitor != b.visitor {
			return cmp.Compare(a.visitor, b.visitor)
		}
		if c := cmp.Compare(visitor.Value(int(a.row)), visitor.Value(int(b.row))); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.row, b.row))
	})
	out := make([]uint32, len(keys))
	for i := range keys {
		out[i] = keys[i].row
	}
	return out, nil
}

// spill writes what is held to a run.
func (s *sorter) spill(ctx context.Context) (err error) {
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
	f, err := os.CreateTemp(s.dir, "run-")
	if err != nil {
		return fmt.Errorf("file for sorting: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := ipc.NewWriter(f, ipc.WithSchema(s.schema), ipc.WithLZ4())
	err = s.held(ctx, func(b arrow.RecordBatch) error {
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
func (s *sorter) merge(ctx context.Context, yield func(arrow.RecordBatch) error) (err error) {
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
		if r.r, err = ipc.NewReader(f, ipc.WithSchema(s.schema)); err != nil {
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
		var bound key
		found := false
		for _, r := range runs {
			if r.rest == nil {
				continue
			}
			if last := s.key(r.rest, int(r.rest.NumRows())-1); !found || last.compare(bound) < 0 {
				bound, found = last, true
				bound.visitor = strings.Clone(last.visitor)
			}
		}
		if !found {
			return nil
		}
		var ready []arrow.RecordBatch
		for _, r := range runs {
			if r.rest == nil {
				continue
			}
			rows := int(r.rest.NumRows())
			n := sort.Search(rows, func(i int) bool { return s.key(r.rest, i).compare(bound) > 0 })
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
		if err := s.held(ctx, yield); err != nil {
			return err
		}
	}
}

// key is the sort key of one row.
type key struct {
	day     int64
	visitor string
	at      int64
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.day, o.day), cmp.Compare(k.visitor, o.visitor), cmp.Compare(k.at, o.at))
}

// key reads the key of a row of a run, whose types order has checked. Its text is the batch's.
func (s *sorter) key(b arrow.RecordBatch, i int) key {
	at := int64(b.Column(s.at).(*array.Timestamp).Value(i))
	return key{floorDiv(at, 24*3600*1_000_000), b.Column(s.visitor).(*array.String).Value(i), at}
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
		var err error
		if cols[i], err = compute.TakeArrayOpts(ctx, b.Column(i), at, compute.TakeOptions{BoundsCheck: false}); err != nil {
			return nil, fmt.Errorf("ordering column %s: %w", b.ColumnName(i), err)
		}
	}
	return array.NewRecordBatch(b.Schema(), cols, int64(len(rows))), nil
}

func release(cols []arrow.Array) {
	for _, c := range cols {
		if c != nil {
			c.Release()
		}
	}
}
