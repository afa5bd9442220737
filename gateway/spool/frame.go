package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// A frame is: magic, length of the payload u32, CRC-32C of the payload u32, payload; little-endian. The magic lets a reader find the next frame behind a
// damaged one; the checksum decides.
var magic = [4]byte{0xF7, 'M', 'R', '1'}

const (
	frameHeader = 12
	maxFrame    = 8 << 20 // far above a record's bound: a length above it is damage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errFrame = errors.New("damaged frame")

// appendFrame writes a record.
func appendFrame(dst []byte, r *Record, at time.Time) []byte {
	start := len(dst)
	dst = append(dst, magic[:]...)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at.UnixMicro()))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Partition))
	dst = appendBytes(dst, []byte(r.Topic))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = appendBytes(dst, []byte(h.Key))
		dst = appendBytes(dst, h.Value)
	}
	payload := dst[start+frameHeader:]
	binary.LittleEndian.PutUint32(dst[start+4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(dst[start+8:], crc32.Checksum(payload, castagnoli))
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// frameState is what a look at a frame found.
type frameState uint8

const (
	whole   frameState = iota
	short              // the data ends within the frame
	damaged            // this is no frame
)

// readFrame reads the frame at the start of b, whose bytes the record shares.
func readFrame(b []byte) (r Record, size int, state frameState) {
	if len(b) < frameHeader {
		if !bytes.HasPrefix(magic[:], b[:min(len(b), 4)]) && !bytes.HasPrefix(b, magic[:]) {
			return r, 0, damaged
		}
		return r, 0, short
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if !bytes.HasPrefix(b, magic[:]) || n > maxFrame {
		return r, 0, damaged
	}
	if len(b) < frameHeader+n {
		return r, frameHeader + n, short
	}
	payload := b[frameHeader : frameHeader+n]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return r, 0, damaged
	}
	r, err := readPayload(payload)
	if err != nil {
		return r, 0, damaged
	}
	return r, frameHeader + n, whole
}

func readPayload(b []byte) (r Record, err error) {
	if len(b) < 12 {
		return r, errFrame
	}
	r.SpooledAt = time.UnixMicro(int64(binary.LittleEndian.Uint64(b)))
	r.Partition = int32(binary.LittleEndian.Uint32(b[8:]))
	b = b[12:]
	next := func() []byte {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			err, b = errFrame, nil
			return nil
		}
		out := b[used : used+int(n)]
		b = b[used+int(n):]
		return out
	}
	r.Topic = string(next())
	r.Key, r.Value = next(), next()
	n, used := binary.Uvarint(b)
	if err != nil || used <= 0 || n > uint64(len(b)) {
		return r, errFrame
	}
	b = b[used:]
	for range n {
		h := Header{Key: string(next())}
		h.Value = next()
		r.Headers = append(r.Headers, h)
	}
	return r, err
}
