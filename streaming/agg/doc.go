// Package agg is aggregates that merge: what the windows of package streaming hold, and anything else that adds up partial results.
//
// Each aggregate X has a type XAgg that makes, clones, merges and stores it, with the methods New, Clone, Merge, Append and Decode:
// the shape of streaming.Accumulator. Merge is commutative and associative, so events may be grouped in any way (slices of hopping
// windows, grains of a cascade, partitions) with the same result. Two state how far: the last bits of Mean depend on the grouping, as
// sums of floats do (Moments is exact), and TopK promises the same bounds, not the same entries, once it has left anything out.
//
// Stored bytes begin with a version. Decode reads what any version wrote, and refuses everything else with an error that wraps
// ErrEncoding: it never panics, and never allocates more than a small multiple of what it was given.
package agg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrEncoding is wrapped by every error of Decode.
var ErrEncoding = errors.New("not an aggregate")

const version = 1

// reader takes an encoding apart; the first failure stays.
type reader struct {
	b   []byte
	err error
}

func read(what string, src []byte) *reader {
	r := &reader{b: src}
	switch {
	case len(src) == 0:
		r.fail("%s: empty", what)
	case src[0] != version:
		r.fail("%s: version %d, want %d", what, src[0], version)
	default:
		r.b = src[1:]
	}
	return r
}

func (r *reader) fail(format string, a ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrEncoding}, a...)...)
	}
	r.b = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("cut off")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("cut off")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number that is at least 0.
func (r *reader) count() int64 {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail("a count of %d", v)
		return 0
	}
	return int64(v)
}

// length reads a number of things that take at least size bytes each.
func (r *reader) length(size int) int {
	v := r.uvarint()
	if v > uint64(len(r.b)/size) {
		r.fail("%d items in %d bytes", v, len(r.b))
		return 0
	}
	return int(v)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("cut off")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint64() uint64 {
	b := r.bytes(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// end tells what went wrong, or that something is left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

func appendFloat(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
}

// addCount adds counts, which are not negative; it stays at the largest rather than turn negative.
func addCount(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
