package pages

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// DELTA_BINARY_PACKED (Parquet's Encodings.md; Lemire and Boytsov 2012): blocks of 128 differences, each block's less its least, packed in four parts by as many bits as the
// largest of the part needs. For times and numbers it is smaller than what zstd makes of eight bytes a value, at a tenth of the work.
const (
	deltaBlock = 128
	deltaParts = 4
	deltaPart  = deltaBlock / deltaParts
)

var errDelta = errors.New("delta encoding is broken")

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// appendDelta encodes 64-bit numbers, eight bytes each, little-endian.
func appendDelta(dst, values []byte) []byte {
	n := len(values) / 8
	dst = binary.AppendUvarint(dst, deltaBlock)
	dst = binary.AppendUvarint(dst, deltaParts)
	dst = binary.AppendUvarint(dst, uint64(n))
	if n == 0 {
		return binary.AppendUvarint(dst, 0)
	}
	last := binary.LittleEndian.Uint64(values)
	dst = binary.AppendUvarint(dst, zigzag(int64(last)))
	var block [deltaBlock]uint64
	for at := 1; at < n; {
		count := min(deltaBlock, n-at)
		least := int64(1<<63 - 1)
		for i := range count {
			v := binary.LittleEndian.Uint64(values[8*(at+i):])
			block[i] = v - last
			least = min(least, int64(block[i]))
			last = v
		}
		at += count
		dst = binary.AppendUvarint(dst, zigzag(least))
		widths := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		for p := 0; p*deltaPart < count; p++ {
			part := block[p*deltaPart : (p+1)*deltaPart]
			var all uint64
			for i := range part {
				if p*deltaPart+i < count {
					part[i] -= uint64(least)
					all |= part[i]
				} else {
					part[i] = 0
				}
			}
			w := bits.Len64(all)
			dst[widths+p] = byte(w)
			dst = appendWide(dst, part, w)
		}
	}
	return dst
}

// appendWide packs 32 values of up to 64 bits.
func appendWide(dst []byte, values []uint64, width int) []byte {
	var acc uint64
	have := 0
	for _, v := range values {
		acc |= v << have
		if have += width; have >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			have -= 64
			acc = 0
			if have > 0 {
				acc = v >> (width - have)
			}
		}
	}
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// decodeDelta appends count 64-bit numbers, eight bytes each.
func decodeDelta(dst, src []byte, count int) ([]byte, error) {
	next := func() uint64 {
		v, n := binary.Uvarint(src)
		if n <= 0 {
			src = nil
			return 0
		}
		src = src[n:]
		return v
	}
	block, parts, n := next(), next(), next()
	if block == 0 || block > 1<<16 || block%128 != 0 || parts == 0 || parts > 512 || block%parts != 0 || block/parts%32 != 0 || n != uint64(count) {
		return dst, errDelta
	}
	first, used := binary.Uvarint(src)
	if used <= 0 {
		return dst, errDelta
	}
	src = src[used:]
	if count == 0 {
		return dst, nil
	}
	v := uint64(unzigzag(first))
	dst = binary.LittleEndian.AppendUint64(dst, v)
	part := int(block / parts)
	for left := count - 1; left > 0; {
		least, used := binary.Uvarint(src)
		if used <= 0 || len(src)-used < int(parts) {
			return dst, errDelta
		}
		widths := src[used : used+int(parts)]
		src = src[used+int(parts):]
		for _, w := range widths {
			if left == 0 { // widths of parts that are not there may be anything
				break
			}
			if w > 64 || len(src) < part*int(w)/8 {
				return dst, errDelta
			}
			take := min(part, left)
			at := 0
			for range take {
				v += uint64(unzigzag(least)) + bitsAt(src, at, int(w))
				dst = binary.LittleEndian.AppendUint64(dst, v)
				at += int(w)
			}
			src = src[part*int(w)/8:]
			left -= take
		}
	}
	return dst, nil
}

// bitsAt reads width bits, up to 64, that begin at a bit.
func bitsAt(src []byte, bit, width int) uint64 {
	from := src[bit>>3:]
	if len(from) >= 9 {
		v := binary.LittleEndian.Uint64(from) >> (bit & 7)
		if bit&7 > 0 {
			v |= uint64(from[8]) << (64 - bit&7)
		}
		if width == 64 {
			return v
		}
		return v & (1<<width - 1)
	}
	var b [16]byte
	copy(b[:], from)
	v := binary.LittleEndian.Uint64(b[:]) >> (bit & 7)
	if bit&7 > 0 {
		v |= uint64(b[8]) << (64 - bit&7)
	}
	if width == 64 {
		return v
	}
	return v & (1<<width - 1)
}

// deltaPays says whether numbers, judged by the first few hundred, become much smaller as differences. Hashes do not.
func deltaPays(values []byte) bool {
	n := min(len(values)/8, 4*deltaPart+1)
	if n < 2 {
		return false
	}
	least, most := int64(1<<63-1), int64(-1<<63)
	for i := 1; i < n; i++ {
		d := int64(binary.LittleEndian.Uint64(values[8*i:]) - binary.LittleEndian.Uint64(values[8*i-8:]))
		least, most = min(least, d), max(most, d)
	}
	return bits.Len64(uint64(most)-uint64(least)) <= 48
}
