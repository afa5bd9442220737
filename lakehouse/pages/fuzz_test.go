package pages

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"pgregory.net/rapid"
)

func FuzzPageHeader(f *testing.F) {
	f.Add(header{kind: pageDataV2, size: 1000, packed: 400, values: 20, nulls: 3, rows: 17, encoding: encIndices, def: 5, rep: 2}.append(nil))
	f.Add(header{kind: pageDictionary, size: 1, packed: 300, values: 1 << 20}.append(nil))
	f.Add([]byte{0x15, 0x06, 0x5c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x00})
	f.Add([]byte{0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parseHeader(b)
		if err != nil {
			return
		}
		if n <= 0 || n > len(b) || h.size < 0 || h.packed < 0 {
			t.Fatalf("%+v of %d bytes", h, n)
		}
		if h.kind == pageDataV1 {
			return
		}
		again, m, err := parseHeader(h.append(nil))
		if h.kind == pageDictionary {
			h.nulls, h.rows, h.def, h.rep, h.plain = again.nulls, again.rows, again.def, again.rep, again.plain
		}
		if err != nil || again != h || m != len(h.append(nil)) {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzHybrid(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 4, 5, 6, 7, 8}, 5, 8)
	f.Add([]byte{0x10, 1}, 1, 8)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1}, 32, 100)
	f.Fuzz(func(t *testing.T, b []byte, width, n int) {
		if width < 0 || width > 32 || n < 0 || n > 1<<16 {
			return
		}
		got := make([]uint32, n)
		if decodeHybrid(got, b, width) != nil {
			return
		}
		again := make([]uint32, n)
		if err := decodeHybrid(again, appendHybrid(nil, got, width), width); err != nil || !slices.Equal(got, again) {
			t.Fatalf("%v became %v, %v", got, again, err)
		}
		if width <= 8 {
			small := make([]uint8, n)
			if err := decodeHybrid(small, b, width); err != nil {
				t.Fatal(err)
			}
			for i, v := range small {
				if uint32(v) != got[i] {
					t.Fatalf("value %d is %d, and %d in a byte", i, got[i], v)
				}
			}
		}
	})
}

func FuzzDelta(f *testing.F) {
	f.Add(appendDelta(nil, binary.LittleEndian.AppendUint64(nil, 5)), 1)
	f.Add(appendDelta(nil, make([]byte, 8*300)), 300)
	f.Add([]byte{0x80, 1, 4, 2, 0, 0, 64, 0, 0, 0}, 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > 1<<14 {
			return
		}
		got, err := decodeDelta(nil, b, n)
		if err != nil {
			return
		}
		again, err := decodeDelta(nil, appendDelta(nil, got), n)
		if err != nil || len(got) != 8*n || !bytes.Equal(got, again) {
			t.Fatalf("%x became %x, %v", got, again, err)
		}
	})
}

func TestNumbersComeBackFromTheirDifferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		for _, v := range rapid.SliceOfN(rapid.Int64(), 0, 700).Draw(t, "numbers") {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
		got, err := decodeDelta(nil, appendDelta(nil, b), len(b)/8)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%x became %x, %v", b, got, err)
		}
	})
}

// broken rewrites files, some bytes of which are not what they were, in both ways. It must come to an end, with an error that names the file or with files.
func broken(t *testing.T, data []byte, folder string) (failed int) {
	in, err := input("the broken one", data)
	if err != nil {
		return 2
	}
	for _, reorder := range []bool{false, true} {
		var out []*sink
		g, err := Open([]Input{in}, wanted(t), options(&out, folder))
		if err == nil {
			if reorder {
				order := make([]uint32, g.Rows())
				for i := range order {
					order[i] = uint32(len(order) - 1 - i)
				}
				err = g.Reorder(context.Background(), order)
			} else {
				err = g.Copy(context.Background())
			}
			g.Close()
		}
		if err != nil {
			failed++
			if !strings.Contains(err.Error(), "the broken one") {
				t.Errorf("the error does not name the file: %v", err)
			}
		}
	}
	return failed
}

func TestABrokenFileIsAnErrorThatNamesIt(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	s := &shape{r: r, nulls: 0.1, kinds: 40, longest: 20}
	data := written(t, s.batch(300), parquet.WithMaxRowGroupLength(200))
	good, err := input("good", data)
	if err != nil {
		t.Fatal(err)
	}
	last, err := good.Meta.RowGroup(1).ColumnChunk(good.Meta.Schema.NumColumns() - 1)
	if err != nil {
		t.Fatal(err)
	}
	end := int(last.DataPageOffset() + last.TotalCompressedSize()) // the footer is the general reader's matter
	failed := 0
	const times = 200
	for range times {
		b := slices.Clone(data)
		for range 1 + r.IntN(3) {
			b[4+r.IntN(end-4)] ^= 1 << r.IntN(8)
		}
		failed += broken(t, b, t.TempDir())
	}
	if failed < times { // zstd has a checksum; headers, levels and indices are checked
		t.Errorf("%d of %d rewrites of broken files failed", failed, 2*times)
	}
	if n := broken(t, data, t.TempDir()); n != 0 {
		t.Errorf("%d rewrites of a whole file failed", n)
	}
}

func TestFilesOfAnotherKindAreUnfitAndNotWrong(t *testing.T) {
	s := &shape{r: rand.New(rand.NewPCG(9, 1)), nulls: 0.1, kinds: 40, longest: 20}
	b := s.batch(50)
	for name, props := range map[string][]parquet.WriterProperty{
		"data pages of version 1": {parquet.WithDataPageVersion(parquet.DataPageV1)},
		"another compression":     {parquet.WithCompression(compress.Codecs.Snappy)},
		"another encoding":        {parquet.WithDictionaryDefault(false), parquet.WithEncodingFor("id", parquet.Encodings.DeltaLengthByteArray)},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := input(name, written(t, b, props...))
			if err != nil {
				t.Fatal(err)
			}
			var out []*sink
			g, err := Open([]Input{in}, wanted(t), options(&out, t.TempDir()))
			if err == nil {
				err = g.Copy(context.Background())
				g.Close()
			}
			if !errors.Is(err, ErrUnfit) {
				t.Error(err)
			}
		})
	}
}

func TestARewriteStopsWhenItsContextEnds(t *testing.T) {
	s := &shape{r: rand.New(rand.NewPCG(9, 1)), kinds: 40}
	in, err := input("one", written(t, s.batch(50)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var out []*sink
	opt := options(&out, t.TempDir())
	opt.Tell = func(float64) { stop() }
	g, err := Open([]Input{in}, wanted(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Copy(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
