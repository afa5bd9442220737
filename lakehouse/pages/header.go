package pages

import (
	"errors"
	"fmt"
	"math"
)

// Kinds of pages, and encodings, by their numbers in parquet.thrift.
const (
	pageDataV1     = 0
	pageDictionary = 2
	pageDataV2     = 3

	encPlain     = 0
	encPlainDict = 2 // as old writers name the dictionary's own encoding, and its indices
	encRLE       = 3
	encDelta     = 5 // DELTA_BINARY_PACKED
	encIndices   = 8 // RLE_DICTIONARY
)

// header is a PageHeader of parquet.thrift: what of it is needed here.
type header struct {
	kind     int32
	size     int32 // of the page without its header, uncompressed
	packed   int32 // and as it is stored
	values   int32 // with nulls
	nulls    int32
	rows     int32
	encoding int32
	def, rep int32 // bytes of levels
	plain    bool  // the values are not compressed
}

var errHeader = errors.New("page header is broken")

// Types of Thrift's compact protocol.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
)

// thrift reads the compact protocol. After an error it stays where it is and gives zeros.
type thrift struct {
	b   []byte
	at  int
	bad bool
}

func (t *thrift) byte() byte {
	if t.bad || t.at >= len(t.b) {
		t.bad = true
		return 0
	}
	t.at++
	return t.b[t.at-1]
}

func (t *thrift) uvarint() uint64 {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		b := t.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	t.bad = true
	return 0
}

func (t *thrift) int() int64 {
	v := t.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (t *thrift) i32() int32 {
	v := t.int()
	if v < math.MinInt32 || v > math.MaxInt32 {
		t.bad = true
		return 0
	}
	return int32(v)
}

// field reads the head of a struct's next field; ok is false at the end of the struct.
func (t *thrift) field(last int) (id int, kind byte, ok bool) {
	b := t.byte()
	if t.bad || b == 0 {
		return 0, 0, false
	}
	kind = b & 0x0f
	if id = last + int(b>>4); b>>4 == 0 {
		id = int(t.int())
	}
	return id, kind, true
}

// skip passes over a value.
func (t *thrift) skip(kind byte, depth int) {
	if depth > 8 {
		t.bad = true
	}
	if t.bad {
		return
	}
	switch kind {
	case thriftTrue, thriftFalse:
	case thriftByte:
		t.byte()
	case thriftI16, thriftI32, thriftI64:
		t.uvarint()
	case thriftDouble:
		t.pass(8)
	case thriftBinary:
		t.pass(t.uvarint())
	case thriftStruct:
		last := 0
		for {
			id, k, ok := t.field(last)
			if !ok {
				return
			}
			t.skip(k, depth+1)
			last = id
		}
	case thriftList, thriftSet:
		b := t.byte()
		n := uint64(b >> 4)
		if n == 15 {
			n = t.uvarint()
		}
		for range n {
			if t.bad {
				return
			}
			if k := b & 0x0f; k == thriftTrue || k == thriftFalse { // a byte each in a list
				t.byte()
			} else {
				t.skip(k, depth+1)
			}
		}
	default: // maps, which no page header has, and what is not known
		t.bad = true
	}
}

func (t *thrift) pass(n uint64) {
	if n > uint64(len(t.b)-t.at) {
		t.bad = true
		return
	}
	t.at += int(n)
}

// parseHeader reads a page header and gives its length.
func parseHeader(b []byte) (header, int, error) {
	t := thrift{b: b}
	h := header{kind: -1, size: -1, packed: -1, values: -1, encoding: -1, rows: -1}
	last := 0
	for {
		id, kind, ok := t.field(last)
		if !ok {
			break
		}
		switch {
		case id == 1 && kind == thriftI32:
			h.kind = t.i32()
		case id == 2 && kind == thriftI32:
			h.size = t.i32()
		case id == 3 && kind == thriftI32:
			h.packed = t.i32()
		case (id == 5 || id == 7 || id == 8) && kind == thriftStruct:
			t.page(&h, id)
		default:
			t.skip(kind, 0)
		}
		last = id
	}
	if t.bad || h.size < 0 || h.packed < 0 {
		return header{}, 0, errHeader
	}
	switch h.kind {
	case pageDataV2:
		if h.values < 0 || h.nulls < 0 || h.nulls > h.values || h.rows < 0 || h.rows > h.values || h.def < 0 || h.rep < 0 ||
			int64(h.def)+int64(h.rep) > int64(min(h.size, h.packed)) || h.encoding < 0 {
			return header{}, 0, errHeader
		}
	case pageDictionary:
		if h.values < 0 || h.encoding < 0 {
			return header{}, 0, errHeader
		}
	case pageDataV1:
	default:
		return header{}, 0, fmt.Errorf("%w: page of kind %d", ErrUnfit, h.kind)
	}
	return h, t.at, nil
}

// page reads the part of a header that is of one kind of page.
func (t *thrift) page(h *header, of int) {
	last := 0
	for {
		id, kind, ok := t.field(last)
		if !ok {
			return
		}
		last = id
		if kind != thriftI32 {
			if of == 8 && id == 7 && kind == thriftFalse {
				h.plain = true
			}
			t.skip(kind, 1)
			continue
		}
		v := t.i32()
		switch {
		case id == 1:
			h.values = v
		case id == 2 && of != 8:
			h.encoding = v
		case of != 8:
		case id == 2:
			h.nulls = v
		case id == 3:
			h.rows = v
		case id == 4:
			h.encoding = v
		case id == 5:
			h.def = v
		case id == 6:
			h.rep = v
		}
	}
}

// append writes a page header.
func (h header) append(b []byte) []byte {
	i32 := func(delta byte, v int32) {
		b = append(b, delta<<4|thriftI32)
		z := uint32(v)<<1 ^ uint32(v>>31)
		for z >= 0x80 {
			b = append(b, byte(z)|0x80)
			z >>= 7
		}
		b = append(b, byte(z))
	}
	i32(1, h.kind)
	i32(1, h.size)
	i32(1, h.packed)
	if h.kind == pageDictionary {
		b = append(b, 4<<4|thriftStruct)
		i32(1, h.values)
		i32(1, h.encoding)
		return append(b, 0, 0)
	}
	b = append(b, 5<<4|thriftStruct)
	i32(1, h.values)
	i32(1, h.nulls)
	i32(1, h.rows)
	i32(1, h.encoding)
	i32(1, h.def)
	i32(1, h.rep)
	if h.plain {
		b = append(b, 1<<4|thriftFalse)
	}
	return append(b, 0, 0)
}
