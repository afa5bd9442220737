package order

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"
)

// keysOfColumn are the keys of values, of which nil is null.
func keysOfColumn(t *rapid.T, b array.Builder, fill func(), last bool) [][]byte {
	defer b.Release()
	fill()
	col := b.NewArray()
	defer col.Release()
	f, err := KeyOf(col, true, last, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, col.Len())
	for i := range out {
		out[i] = f(nil, i)
	}
	return out
}

func wantSameOrder[T any](t *rapid.T, values []*T, keys [][]byte, compare func(a, b T) int) {
	for i, a := range values {
		for j, b := range values {
			want := 0
			switch {
			case a == nil && b == nil:
			case a == nil:
				want = -1
			case b == nil:
				want = 1
			default:
				want = compare(*a, *b)
			}
			if got := bytes.Compare(keys[i], keys[j]); got != want {
				t.Fatalf("values %d and %d compare as %d, their keys %x and %x as %d", i, j, want, keys[i], keys[j], got)
			}
		}
	}
}

func TestKeysHaveTheOrderOfTheirValuesAndNullsComeFirst(t *testing.T) {
	t.Parallel()
	mem := memory.DefaultAllocator
	t.Run("texts", rapid.MakeCheck(func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Ptr(rapid.StringOf(rapid.SampledFrom([]rune{0, 1, 'a', 'b', 0xff, 'ü'})), true)).Draw(t, "values")
		b := array.NewStringBuilder(mem)
		keys := keysOfColumn(t, b, func() {
			for _, v := range values {
				if v == nil {
					b.AppendNull()
				} else {
					b.Append(*v)
				}
			}
		}, rapid.Bool().Draw(t, "last"))
		wantSameOrder(t, values, keys, strings.Compare)
	}))
	t.Run("numbers", rapid.MakeCheck(func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Ptr(rapid.Int64(), true)).Draw(t, "values")
		b := array.NewInt64Builder(mem)
		keys := keysOfColumn(t, b, func() {
			for _, v := range values {
				if v == nil {
					b.AppendNull()
				} else {
					b.Append(*v)
				}
			}
		}, false)
		wantSameOrder(t, values, keys, cmp.Compare[int64])
	}))
	t.Run("fractions", rapid.MakeCheck(func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Ptr(rapid.Float64(), true)).Draw(t, "values")
		b := array.NewFloat64Builder(mem)
		keys := keysOfColumn(t, b, func() {
			for i, v := range values {
				switch {
				case v == nil:
					b.AppendNull()
				case *v == 0: // -0 and 0 are equal, their bits are not
					*values[i] = 0
					b.Append(0)
				default:
					b.Append(*v)
				}
			}
		}, false)
		wantSameOrder(t, values, keys, cmp.Compare[float64])
	}))
	t.Run("amounts", rapid.MakeCheck(func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Ptr(rapid.Int64(), true)).Draw(t, "values")
		b := array.NewDecimal128Builder(mem, &arrow.Decimal128Type{Precision: 18, Scale: 6})
		keys := keysOfColumn(t, b, func() {
			for _, v := range values {
				if v == nil {
					b.AppendNull()
				} else {
					b.Append(decimal128.FromI64(*v))
				}
			}
		}, false)
		wantSameOrder(t, values, keys, cmp.Compare[int64])
	}))
}

// batchOf has a text and a number a row.
func batchOf(texts []string, numbers []int64) arrow.RecordBatch {
	sc := arrow.NewSchema([]arrow.Field{{Name: "text", Type: arrow.BinaryTypes.String}, {Name: "number", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	b.Field(0).(*array.StringBuilder).AppendValues(texts, nil)
	b.Field(1).(*array.Int64Builder).AppendValues(numbers, nil)
	return b.NewRecordBatch()
}

type pair struct {
	text   string
	number int64
}

// columns are those of an order or of a z-order.
type columns struct{ sort, zorder []string }

// sortedPairs sorts rows that come in batches of each, in memory or with runs on disk.
func sortedPairs(t *testing.T, o columns, rows []pair, each int, limit int64) ([]pair, int) {
	t.Helper()
	var batches []arrow.RecordBatch
	for part := range slices.Chunk(rows, each) {
		var texts []string
		var numbers []int64
		for _, r := range part {
			texts, numbers = append(texts, r.text), append(numbers, r.number)
		}
		b := batchOf(texts, numbers)
		defer b.Release()
		batches = append(batches, b)
	}
	by, err := New(o.sort, o.zorder, batches[0].Schema())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := NewSorter(batches[0].Schema(), by, limit, dir, func(context.Context) error {
		var from int64
		for _, b := range batches {
			if err := by.Z().Sample(by, b, from, int64(len(rows))); err != nil {
				return err
			}
			from += b.NumRows()
		}
		by.Z().Learn()
		return nil
	})
	for _, b := range batches {
		if err := s.Add(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	runs := len(s.runs)
	var out []pair
	err = s.Sorted(t.Context(), func(b arrow.RecordBatch) error {
		defer b.Release()
		if b.NumCols() != 2 {
			return fmt.Errorf("a batch has columns %s", b.Schema())
		}
		for i := range int(b.NumRows()) {
			out = append(out, pair{b.Column(0).(*array.String).Value(i), b.Column(1).(*array.Int64).Value(i)})
		}
		return nil
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("sorting left %v %v", left, err)
	}
	return out, runs
}

func TestRunsOnDiskGiveTheSameOrderAsMemory(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	rows := make([]pair, 30_000)
	for i := range rows {
		rows[i] = pair{fmt.Sprintf("visitor-with-a-long-name-%d", r.IntN(2000)), r.Int64N(5000) - 2500}
	}
	for name, p := range map[string]columns{
		"text, then number": {sort: []string{"text", "number"}}, "number, then text": {sort: []string{"number", "text"}}, "number": {sort: []string{"number"}},
		"z-order": {zorder: []string{"text", "number"}},
	} {
		t.Run(name, func(t *testing.T) {
			held, runs := sortedPairs(t, p, rows, 1000, 1<<30)
			if runs != 0 {
				t.Fatal("rows that fit into memory went to disk")
			}
			spilled, runs := sortedPairs(t, p, rows, 1000, 200<<10)
			if runs < 3 {
				t.Fatalf("%d runs", runs)
			}
			if !slices.Equal(held, spilled) {
				t.Error("memory and disk give other orders")
			}
			if p.sort != nil {
				want := slices.Clone(rows)
				slices.SortStableFunc(want, func(a, b pair) int {
					byText, byNumber := strings.Compare(a.text, b.text), cmp.Compare(a.number, b.number)
					if p.sort[0] == "text" {
						return cmp.Or(byText, byNumber)
					}
					if len(p.sort) == 1 {
						return byNumber
					}
					return cmp.Or(byNumber, byText)
				})
				if !slices.Equal(held, want) {
					t.Error("the order is another")
				}
			}
			slices.SortFunc(held, func(a, b pair) int { return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.number, b.number)) })
			all := slices.Clone(rows)
			slices.SortFunc(all, func(a, b pair) int { return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.number, b.number)) })
			if !slices.Equal(held, all) {
				t.Error("rows were lost or doubled")
			}
		})
	}
}

// blocks is how many of n equal blocks of rows may hold rows of a question, by the least and greatest values of a block: files that a reader opens.
func blocks(rows []pair, n int, may func(least, greatest pair) bool) int {
	out := 0
	for part := range slices.Chunk(rows, len(rows)/n) {
		lo, hi := part[0], part[0]
		for _, r := range part {
			lo, hi = pair{min(lo.text, r.text), min(lo.number, r.number)}, pair{max(hi.text, r.text), max(hi.number, r.number)}
		}
		if may(lo, hi) {
			out++
		}
	}
	return out
}

func TestAZOrderPrunesByEachOfItsColumnsWhateverTheirSkew(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	rows := make([]pair, 64_000)
	zipf := rand.NewZipf(r, 1.3, 4, 1<<30)
	for i := range rows { // identifiers that begin alike, and numbers of which half are the same and some are huge
		n := int64(zipf.Uint64())
		if i%2 == 0 {
			n = 7
		}
		rows[i] = pair{fmt.Sprintf("identifier-%06d", r.IntN(100_000)), n}
	}
	const files = 64
	sorted, _ := sortedPairs(t, columns{sort: []string{"text", "number"}}, rows, 4000, 1<<30)
	z, _ := sortedPairs(t, columns{zorder: []string{"text", "number"}}, rows, 4000, 1<<30)
	byText := func(lo, hi pair) bool { return lo.text <= "identifier-050200" && hi.text >= "identifier-050000" }
	byNumber := func(lo, hi pair) bool { return lo.number <= 3 && hi.number >= 3 }
	if n := blocks(z, files, byText); n > files/4 {
		t.Errorf("a range of texts is in %d of %d files", n, files)
	}
	n, s := blocks(z, files, byNumber), blocks(sorted, files, byNumber)
	if n > files/3 || s < files*9/10 {
		t.Errorf("a range of numbers is in %d of %d files, and in %d when sorted by text", n, files, s)
	}
}
