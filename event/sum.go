package event

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// Sum is an exact sum of amounts: a 128-bit two's-complement number of micros, big-endian, which is Avro's fixed(16) decimal(38,6). A sum of int64
// micros overflows after ten of the largest amounts; this one after 10^19 of them.
type Sum [16]byte

// SumOf makes a sum of one amount.
func SumOf(micros int64) Sum {
	var s Sum
	binary.BigEndian.PutUint64(s[:8], uint64(micros>>63))
	binary.BigEndian.PutUint64(s[8:], uint64(micros))
	return s
}

// Add adds two sums.
func (s Sum) Add(o Sum) Sum {
	lo, carry := bits.Add64(binary.BigEndian.Uint64(s[8:]), binary.BigEndian.Uint64(o[8:]), 0)
	hi, _ := bits.Add64(binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(o[:8]), carry)
	binary.BigEndian.PutUint64(s[:8], hi)
	binary.BigEndian.PutUint64(s[8:], lo)
	return s
}

// AddMicros adds one amount.
func (s Sum) AddMicros(micros int64) Sum { return s.Add(SumOf(micros)) }

// IsZero says whether the sum is zero.
func (s Sum) IsZero() bool { return s == Sum{} }

// Big is the sum as an integer number of micros.
func (s Sum) Big() *big.Int {
	b := new(big.Int).SetBytes(s[:])
	if s[0]&0x80 != 0 {
		b.Sub(b, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	return b
}

// Int64 is the sum in micros, and whether it fits.
func (s Sum) Int64() (int64, bool) {
	hi, lo := int64(binary.BigEndian.Uint64(s[:8])), int64(binary.BigEndian.Uint64(s[8:]))
	return lo, hi == lo>>63
}
