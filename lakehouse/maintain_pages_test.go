package lakehouse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/table"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// attempt is a rewrite of the first group of a plan, ready to be written.
func attempt(t testing.TB, c *Catalog, plan Plan) *rewrite {
	t.Helper()
	tbl, err := c.Load(t.Context(), plan.Table)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.shelf(t.Context(), plan.Table, tbl)
	if err != nil {
		t.Fatal(err)
	}
	r := &rewrite{c: c, t: tbl, shelf: s, plan: plan, g: plan.Groups[0], id: uuid.New()}
	if err := r.find(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// rowsOfRewrite are all rows that a rewrite has written, in their order.
func rowsOfRewrite(t testing.TB, r *rewrite) arrow.RecordBatch {
	t.Helper()
	var batches []arrow.RecordBatch
	if err := r.scan(t.Context(), r.written(), nil, 1, func(b arrow.RecordBatch) error {
		b.Retain()
		batches = append(batches, b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cols := make([]arrow.Array, batches[0].NumCols())
	rows := int64(0)
	for i := range cols {
		var parts []arrow.Array
		for _, b := range batches {
			parts = append(parts, b.Column(i))
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			t.Fatal(err)
		}
		rows = int64(cols[i].Len())
	}
	return array.NewRecordBatch(batches[0].Schema(), cols, rows)
}

func TestMovingPagesWritesWhatMovingRowsWrites(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 6, 700)
	for name, p := range map[string]Policy{
		"as they come": PolicyOf(purchases).Ordered(nil, nil), "sorted": PolicyOf(purchases), "in z-order": PolicyOf(purchases).Ordered(nil, []string{"visitor_id", "occurred_at"}),
		"sorted by a number and a text that may be null": PolicyOf(purchases).Ordered([]string{"value", "currency"}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := c.PlanCompaction(t.Context(), purchases, p.All())
			if err != nil || len(plan.Groups) != 1 {
				t.Fatalf("%+v %v", plan, err)
			}
			pages, rows := attempt(t, c, plan), attempt(t, c, plan)
			if moved, err := pages.move(t.Context()); err != nil || !moved {
				t.Fatal(moved, err)
			}
			if err := rows.write(t.Context()); err != nil {
				t.Fatal(err)
			}
			if pages.in != rows.in || !cmp.Equal(pages.asked.asked, rows.asked.asked, cmp.AllowUnexported(bound{})) {
				t.Errorf("rows read: %+v, %+v", pages.in, rows.in)
			}
			got, want := rowsOfRewrite(t, pages), rowsOfRewrite(t, rows)
			for i, f := range want.Schema().Fields() {
				if !array.Equal(got.Column(i), want.Column(i)) {
					t.Errorf("column %s differs", f.Name)
				}
			}
			if len(pages.files) != 1 || len(rows.files) != 1 {
				t.Fatalf("%d and %d files", len(pages.files), len(rows.files))
			}
			a, b := pages.files[0], rows.files[0]
			if diff := cmp.Diff(b.ValueCounts(), a.ValueCounts()); diff != "" {
				t.Errorf("values: %s", diff)
			}
			if diff := cmp.Diff(b.NullValueCounts(), a.NullValueCounts()); diff != "" {
				t.Errorf("nulls: %s", diff)
			}
			if a.Count() != b.Count() || !cmp.Equal(a.Partition(), b.Partition()) || a.SpecID() != b.SpecID() || len(a.SplitOffsets()) != len(b.SplitOffsets()) || !cmp.Equal(a.SortOrderID(), b.SortOrderID()) {
				t.Errorf("%v\n%v", a, b)
			}
			lower, upper := a.LowerBoundValues(), a.UpperBoundValues()
			for id, v := range b.LowerBoundValues() {
				if !cmp.Equal(lower[id], v) {
					t.Errorf("lower bound of %d: %x, not %x", id, lower[id], v)
				}
			}
			for id, v := range b.UpperBoundValues() {
				if !cmp.Equal(upper[id], v) {
					t.Errorf("upper bound of %d: %x, not %x", id, upper[id], v)
				}
			}
			if filepath.Dir(a.FilePath()) != filepath.Dir(b.FilePath()) || !strings.Contains(a.FilePath(), pages.id.String()) {
				t.Errorf("files %s and %s", a.FilePath(), b.FilePath())
			}
			if err := errors.Join(pages.discard(), rows.discard()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(bare(a.FilePath())); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is left: %v", err)
			}
		})
	}
}

func TestPagesAreMovedIntoFilesOfTheTargetSize(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 5, 3000)
	p := PolicyOf(purchases)
	p.TargetFileBytes = 64 << 10
	p.MaxGroupBytes = 1 << 30
	plan, err := c.PlanCompaction(t.Context(), purchases, p.All())
	if err != nil || len(plan.Groups) != 1 {
		t.Fatalf("%+v %v", plan, err)
	}
	r := attempt(t, c, plan)
	if moved, err := r.move(t.Context()); err != nil || !moved {
		t.Fatal(moved, err)
	}
	if n := len(r.files); n < 2 || n > int(plan.Bytes/p.TargetFileBytes)+2 {
		t.Errorf("%d bytes became %d files", plan.Bytes, n)
	}
	b := rowsOfRewrite(t, r)
	if b.NumRows() != 15000 {
		t.Errorf("%d rows", b.NumRows())
	}
	if err := r.discard(); err != nil {
		t.Fatal(err)
	}
	compact(t, c, p.All())
	wantRows(t, c, 15000)
	inOrder(t, c)
}

func TestRowsAreMovedWherePagesCannotBe(t *testing.T) {
	t.Parallel()
	t.Run("with deletes", func(t *testing.T) {
		c := ensureTest(t)
		appendMany(t, c, 0, 3, 100)
		deleteIDs(t, c, table.WriteModeMergeOnRead, "e-000007")
		plan, err := c.PlanCompaction(t.Context(), purchases, small().All())
		if err != nil {
			t.Fatal(err)
		}
		if moved, err := attempt(t, c, plan).move(t.Context()); err != nil || moved {
			t.Error(moved, err)
		}
	})
	t.Run("without the memory", func(t *testing.T) {
		c := ensureTest(t)
		appendMany(t, c, 0, 4, 1000)
		plan, err := c.PlanCompaction(t.Context(), purchases, small().All())
		if err != nil {
			t.Fatal(err)
		}
		r := attempt(t, c, plan)
		r.plan.Policy.MemoryBytes = 40_000 // not enough for the order
		if moved, err := r.move(t.Context()); err != nil || moved || len(r.paths)+len(r.files) > 0 {
			t.Error(moved, err, r.paths)
		}
	})
}

func TestColumnsAndKeysLargerThanTheMemoryAreMovedInParts(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 4, 2500)
	for name, p := range map[string]Policy{"sorted": small().All(), "in z-order": small().All().Ordered(nil, []string{"visitor_id", "occurred_at"})} {
		t.Run(name, func(t *testing.T) {
			p.TargetFileBytes = 100 << 10 // several row groups
			plan, err := c.PlanCompaction(t.Context(), purchases, p)
			if err != nil || len(plan.Groups) != 1 {
				t.Fatalf("%+v %v", plan, err)
			}
			some, all := attempt(t, c, plan), attempt(t, c, plan)
			some.plan.Policy.MemoryBytes, all.plan.Policy.MemoryBytes = 330_000, 1<<30
			for _, r := range []*rewrite{some, all} {
				if moved, err := r.move(t.Context()); err != nil || !moved {
					t.Fatal(moved, err)
				}
			}
			if some.in != all.in {
				t.Errorf("rows read: %+v, %+v", some.in, all.in)
			}
			got, want := rowsOfRewrite(t, some), rowsOfRewrite(t, all)
			for i, f := range want.Schema().Fields() {
				if !array.Equal(got.Column(i), want.Column(i)) {
					t.Errorf("column %s differs", f.Name)
				}
			}
			if err := errors.Join(some.discard(), all.discard()); err != nil {
				t.Fatal(err)
			}
			left, err := filepath.Glob(filepath.Join(bare(c.cfg.Warehouse), "_maintenance", "*", "*", "scratch", "*"))
			if err != nil || len(left) > 0 {
				t.Errorf("sorting left %v %v", left, err)
			}
		})
	}
}

func TestABrokenDataFileFailsItsRewriteAndIsNamed(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]Policy{"sorted": PolicyOf(purchases), "as they come": PolicyOf(purchases).Ordered(nil, nil)} {
		t.Run(name, func(t *testing.T) {
			c := ensureTest(t)
			appendMany(t, c, 0, 3, 500)
			path := dataFiles(t, c)[1]
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 2000; i < 2064; i++ {
				data[i] ^= 0x55
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			before := len(dataFiles(t, c))
			plan, err := c.PlanCompaction(t.Context(), purchases, p.All())
			if err != nil {
				t.Fatal(err)
			}
			if _, err = c.CompactGroup(t.Context(), plan, 0, nil); err == nil || !strings.Contains(err.Error(), filepath.Base(path)) {
				t.Errorf("the error does not name %s: %v", path, err)
			}
			if got := len(dataFiles(t, c)); got != before {
				t.Errorf("%d files were left", got-before)
			}
		})
	}
}

// BenchmarkMove is a rewrite without its commit, by pages and by rows.
func BenchmarkMove(b *testing.B) {
	c := ensureTest(b)
	w, err := c.NewWriter(b.Context(), purchases)
	if err != nil {
		b.Fatal(err)
	}
	const files, each = 20, 5000
	for i := range files {
		for j := range each {
			if err := w.WriteEvent(b.Context(), shopper(i*each+j), Provenance{"events.purchase", 0, int64(i*each + j)}); err != nil {
				b.Fatal(err)
			}
		}
		out, err := w.Finish(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Append(b.Context(), purchases, out, at(0, i*each), at(0, (i+1)*each)); err != nil {
			b.Fatal(err)
		}
	}
	for _, order := range []string{"sorted", "as they come"} {
		for _, way := range []string{"pages", "rows"} {
			b.Run(fmt.Sprintf("%s by %s", order, way), func(b *testing.B) {
				p := PolicyOf(purchases)
				p.MemoryBytes = 2 << 30
				if order != "sorted" {
					p.Sort = nil
				}
				plan, err := c.PlanCompaction(b.Context(), purchases, p.All())
				if err != nil {
					b.Fatal(err)
				}
				n, start := 0, cpu()
				for b.Loop() {
					r := attempt(b, c, plan)
					if way == "pages" {
						_, err = r.move(b.Context())
					} else {
						err = r.write(b.Context())
					}
					if err = errors.Join(err, r.discard()); err != nil {
						b.Fatal(err)
					}
					n++
				}
				b.ReportMetric(float64(n)*float64(plan.Bytes)/1e6/(cpu()-start).Seconds(), "MB/cpu-s")
			})
		}
	}
}
