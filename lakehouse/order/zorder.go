package order

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// MaxZColumns bounds a z-order: with more columns each prunes next to nothing.
const MaxZColumns = 5

// Each column has zBits bits in a z-order: the place of its value among zSamples quantiles of the group.
const (
	zBits    = 12
	zSamples = 1<<zBits - 1
)

// ZOrder puts rows into Morton order (Morton 1966): the bits of the columns' places, interleaved, most significant first, so that rows that are near each other in
// all columns are mostly in one file.
//
// The place of a value is its quantile in a sample of the group, not its own bits. With the bits of values, as other engines interleave them, a column of small
// numbers beside one of timestamps in µs decides nothing, identifiers that begin alike ("v-1234…") are all one, and a few frequent values leave most of the
// curve unused. With quantiles every bit halves the rows of the group, whatever the type and skew: a value that half of the rows have takes half of the places.
type ZOrder struct {
	spread  [1 << zBits]uint64 // bits of a place, columns apart
	columns int
	samples [][][]byte // by column: sorted keys; nil until learned
	found   [][][]byte // by column: keys, as they came
}

func newZOrder(columns int) *ZOrder {
	z := &ZOrder{columns: columns, found: make([][][]byte, columns)}
	for v := range z.spread {
		for bit := range zBits {
			z.spread[v] |= uint64(v>>bit&1) << (bit * columns)
		}
	}
	return z
}

// Sample takes rows of a batch at equal distances. Its first row has number from, of rows in all.
func (z *ZOrder) Sample(o *Order, b arrow.RecordBatch, from, rows int64) error {
	stride := max(1, rows/zSamples)
	cols, err := o.keyFuncs(b)
	if err != nil {
		return err
	}
	first := (stride - from%stride) % stride
	for i := first; i < b.NumRows(); i += stride {
		for j, c := range cols {
			z.found[j] = append(z.found[j], c(nil, int(i)))
		}
	}
	return nil
}

// Learn ends sampling.
func (z *ZOrder) Learn() {
	z.samples = make([][][]byte, z.columns)
	for j, keys := range z.found {
		slices.SortFunc(keys, bytes.Compare)
		if len(keys) > zSamples {
			thin := make([][]byte, zSamples)
			for i := range thin {
				thin[i] = keys[i*len(keys)/zSamples]
			}
			keys = thin
		}
		z.samples[j] = keys
	}
	z.found = nil
}

// keys makes the keys of a batch: eight bytes each.
func (z *ZOrder) keys(o *Order, b arrow.RecordBatch) (*Keys, error) {
	cols, err := o.keyFuncs(b)
	if err != nil {
		return nil, err
	}
	rows := int(b.NumRows())
	codes := make([]uint64, rows)
	var key []byte
	for j, c := range cols {
		shift := z.columns - 1 - j
		places := z.samples[j]
		scale := 0 // places of fewer samples are spread over all bits
		for n := len(places); n > 0 && n<<(scale+1) <= zSamples; {
			scale++
		}
		for i := range rows {
			key = c(key[:0], i)
			codes[i] |= z.spread[place(places, key)<<scale] << shift
		}
	}
	out := &Keys{ends: make([]uint32, rows), bytes: make([]byte, 0, 8*rows)}
	for i, c := range codes {
		out.bytes = binary.BigEndian.AppendUint64(out.bytes, c)
		out.ends[i] = uint32(len(out.bytes))
	}
	return out, nil
}

// place is how many samples are below a key.
func place(samples [][]byte, key []byte) int {
	lo, hi := 0, len(samples)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(samples[mid], key) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
