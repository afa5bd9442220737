package schema

import (
	"encoding/binary"
	"errors"

	"millrace/event"
)

//go:generate go run ./gen

// The primitives of Avro's binary encoding (Avro 1.11 specification, "Binary Encoding"); codec_gen.go is written in terms of them.

var errShort = errors.New("truncated or corrupt Avro value")

func appendLong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

func appendNullString(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, 0)
	}
	return appendString(append(dst, 2), s)
}

func appendNullLong(dst []byte, v *int64) []byte {
	if v == nil {
		return append(dst, 0)
	}
	return appendLong(append(dst, 2), *v)
}

func appendItems(dst []byte, items []event.Item) []byte {
	if len(items) > 0 {
		dst = appendLong(dst, int64(len(items)))
		for i := range items {
			dst = appendItem(dst, &items[i])
		}
	}
	return append(dst, 0)
}

// reader decodes one value. All strings of an event share one allocation: src.
type reader struct {
	src  string
	err  error
	slab []int64 // the next amounts live here: one allocation for many
}

func (r *reader) fail() {
	r.err = errShort
	r.src = ""
}

func (r *reader) long() int64 {
	var u uint64
	for i, shift := 0, 0; i < len(r.src) && i < binary.MaxVarintLen64; i, shift = i+1, shift+7 {
		c := r.src[i]
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			r.src = r.src[i+1:]
			return int64(u>>1) ^ -int64(u&1)
		}
	}
	r.fail()
	return 0
}

func (r *reader) int() int32 {
	v := r.long()
	if int64(int32(v)) != v {
		r.fail()
	}
	return int32(v)
}

func (r *reader) string() string {
	n := r.long()
	if n < 0 || n > int64(len(r.src)) {
		r.fail()
		return ""
	}
	s := r.src[:n]
	r.src = r.src[n:]
	return s
}

// branch reads the index of a ["null", T] union.
func (r *reader) branch() bool {
	if r.src == "" {
		r.fail()
		return false
	}
	c := r.src[0]
	r.src = r.src[1:]
	if c > 2 || c == 1 {
		r.fail()
	}
	return c == 2 && r.err == nil
}

func (r *reader) nullString() string {
	if !r.branch() {
		return ""
	}
	return r.string()
}

func (r *reader) nullLong() *int64 {
	if !r.branch() {
		return nil
	}
	if len(r.slab) == 0 {
		r.slab = make([]int64, 128)
	}
	p := &r.slab[0]
	r.slab = r.slab[1:]
	*p = r.long()
	return p
}

func (r *reader) items(dst []event.Item) []event.Item {
	dst = dst[:0]
	for r.err == nil {
		n := r.long()
		if n == 0 {
			break
		}
		if n < 0 { // a block with its size
			n = -n
			r.long()
		}
		if n < 0 || n > int64(len(r.src)) {
			r.fail()
			break
		}
		for range n {
			dst = append(dst, event.Item{})
			r.readItem(&dst[len(dst)-1])
			if r.err != nil {
				break
			}
		}
	}
	return dst
}
