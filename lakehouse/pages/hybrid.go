package pages

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

var errHybrid = errors.New("run-length encoding is broken")

// unpack reads values that lie width bits apart, the lowest bits first. src has at least the bytes of all of dst.
func unpack[T uint8 | uint32](dst []T, src []byte, width int) {
	mask := uint64(1)<<width - 1
	bit := 0
	n := 0
	for ; n < len(dst) && bit>>3+8 <= len(src); n++ { // width + 7 bits fit into 64
		dst[n] = T(binary.LittleEndian.Uint64(src[bit>>3:]) >> (bit & 7) & mask)
		bit += width
	}
	for ; n < len(dst); n++ {
		var tail [8]byte
		copy(tail[:], src[bit>>3:])
		dst[n] = T(binary.LittleEndian.Uint64(tail[:]) >> (bit & 7) & mask)
		bit += width
	}
}

// decodeHybrid reads len(dst) values of Parquet's RLE/bit-packing hybrid, width bits each, at most 32.
func decodeHybrid[T uint8 | uint32](dst []T, src []byte, width int) error {
	if width == 0 {
		clear(dst)
		return nil
	}
	for len(dst) > 0 {
		head, n := binary.Uvarint(src)
		if n <= 0 || head>>1 == 0 {
			return errHybrid
		}
		src = src[n:]
		if head&1 == 0 {
			if len(src) < (width+7)/8 {
				return errHybrid
			}
			var b [8]byte
			copy(b[:], src[:(width+7)/8])
			v := binary.LittleEndian.Uint64(b[:])
			if v>>width != 0 {
				return errHybrid
			}
			run := dst[:min(uint64(len(dst)), head>>1)]
			for i := range run {
				run[i] = T(v)
			}
			src, dst = src[(width+7)/8:], dst[len(run):]
			continue
		}
		if head>>1 > uint64(len(src))/uint64(width) { // the last group may be cut short by writers that know the count
			groups := (uint64(len(dst)) + 7) / 8
			if head>>1 < groups || uint64(len(src)) < (uint64(len(dst))*uint64(width)+7)/8 {
				return errHybrid
			}
			head = groups<<1 | 1
		}
		run := dst[:min(uint64(len(dst)), head>>1*8)]
		unpack(run, src, width)
		src, dst = src[min(len(src), int(head>>1)*width):], dst[len(run):]
	}
	return nil
}

// appendHybrid writes values in Parquet's RLE/bit-packing hybrid: runs of eight and more equal ones by their length, others packed in groups of eight.
func appendHybrid[T uint8 | uint32](dst []byte, values []T, width int) []byte {
	if width == 0 {
		return dst
	}
	from := 0 // of values that are to be packed
	flush := func(to int) {
		if from < to {
			dst = binary.AppendUvarint(dst, uint64((to-from+7)/8)<<1|1)
			dst = appendPacked(dst, values[from:to], width)
		}
	}
	for i := 0; i < len(values); {
		v, n := values[i], 1
		for i+n < len(values) && values[i+n] == v {
			n++
		}
		if n < 8 {
			i += 8
			continue
		}
		flush(i)
		dst = binary.AppendUvarint(dst, uint64(n)<<1)
		for b := 0; b < width; b += 8 {
			dst = append(dst, byte(uint64(v)>>b))
		}
		i += n
		from = i
	}
	flush(len(values))
	return dst
}

// appendPacked writes values width bits apart; the last group of eight is filled with zeros.
func appendPacked[T uint8 | uint32](dst []byte, values []T, width int) []byte {
	var acc uint64
	have := 0
	for _, v := range values {
		acc |= uint64(v) << have
		if have += width; have >= 32 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(acc))
			acc >>= 32
			have -= 32
		}
	}
	for n := (8 - len(values)%8) % 8; n > 0; n-- {
		if have += width; have >= 32 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(acc))
			acc >>= 32
			have -= 32
		}
	}
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// widthOf is how many bits values up to most have.
func widthOf(most int) int { return bits.Len(uint(most)) }
