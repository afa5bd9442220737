package pages

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// order is how the values of a column compare, for statistics.
type order int

const (
	orderUnsigned order = iota // bytes
	orderSigned                // big-endian two's complement of one width, as decimals are
	orderInt32
	orderInt64
	orderFloat
	orderDouble
)

func (o order) compare(a, b []byte) int {
	switch o {
	case orderInt32:
		return cmp.Compare(int32(binary.LittleEndian.Uint32(a)), int32(binary.LittleEndian.Uint32(b)))
	case orderInt64:
		return cmp.Compare(int64(binary.LittleEndian.Uint64(a)), int64(binary.LittleEndian.Uint64(b)))
	case orderFloat:
		return cmp.Compare(math.Float32frombits(binary.LittleEndian.Uint32(a)), math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case orderDouble:
		return cmp.Compare(math.Float64frombits(binary.LittleEndian.Uint64(a)), math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case orderSigned:
		if c := cmp.Compare(int8(a[0]), int8(b[0])); c != 0 {
			return c
		}
	}
	return bytes.Compare(a, b)
}

func (o order) nan(v []byte) bool {
	switch o {
	case orderFloat:
		return math.IsNaN(float64(math.Float32frombits(binary.LittleEndian.Uint32(v))))
	case orderDouble:
		return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(v)))
	}
	return false
}

// maxStat is how long a least or greatest value may be that is kept: a cut one would be taken for a value.
const maxStat = 4096

// stats are the statistics of a column chunk.
type stats struct {
	order    order
	width    int
	min, max []byte // nil: none
	unknown  bool   // there are values that are not counted in
	nulls    int64
}

// fit says whether bytes of a footer can be a value of the column.
func (s *stats) fit(v []byte) bool { return s.width == 0 || len(v) == s.width }

// see takes a value. NaN is no bound of anything.
func (s *stats) see(v []byte) {
	if s.order.nan(v) {
		return
	}
	if s.min == nil {
		s.min, s.max = append([]byte{}, v...), append([]byte{}, v...)
		return
	}
	if s.order.compare(v, s.min) < 0 {
		s.min = append(s.min[:0], v...)
	} else if s.order.compare(v, s.max) > 0 {
		s.max = append(s.max[:0], v...)
	}
}

// longs takes 64-bit numbers, the most frequent kind.
func (s *stats) longs(b []byte) {
	if len(b) == 0 {
		return
	}
	least := int64(binary.LittleEndian.Uint64(b))
	most := least
	for ; len(b) >= 8; b = b[8:] {
		v := int64(binary.LittleEndian.Uint64(b))
		least, most = min(least, v), max(most, v)
	}
	s.see(binary.LittleEndian.AppendUint64(nil, uint64(least)))
	s.see(binary.LittleEndian.AppendUint64(nil, uint64(most)))
}

// plain takes values as PLAIN writes them, booleans a byte each.
func (s *stats) plain(b []byte) {
	switch {
	case s.width == 0:
		for len(b) >= 4 {
			n := 4 + int(binary.LittleEndian.Uint32(b))
			s.see(b[4:n])
			b = b[n:]
		}
	case s.order == orderInt64:
		s.longs(b)
	default:
		for ; len(b) >= s.width; b = b[s.width:] {
			s.see(b[:s.width])
		}
	}
}

// merge takes those of an input's chunk. Without bounds of its own there are none of the whole.
func (s *stats) merge(m *metadata.ColumnChunkMetaData) {
	if ok, err := m.StatsSet(); err != nil || !ok {
		s.unknown = true
		return
	}
	ts, err := m.Statistics()
	if err != nil || ts == nil || !ts.HasNullCount() {
		s.unknown = true
		return
	}
	if ts.NullCount() == m.NumValues() {
		return
	}
	if !ts.HasMinMax() {
		s.unknown = true
		return
	}
	lo, hi := ts.EncodeMin(), ts.EncodeMax()
	if !s.fit(lo) || !s.fit(hi) || s.order.compare(lo, hi) > 0 {
		s.unknown = true
		return
	}
	s.see(lo)
	s.see(hi)
}

// encoded is the form of a footer.
func (s *stats) encoded() metadata.EncodedStatistics {
	e := metadata.EncodedStatistics{Signed: s.order != orderUnsigned}
	e.SetNullCount(s.nulls)
	if s.min == nil || s.unknown || len(s.min) > maxStat || len(s.max) > maxStat {
		return e
	}
	lo, hi := s.min, s.max
	switch s.order { // the sign of a zero is not ordered: the bounds hold both
	case orderFloat:
		if math.Float32frombits(binary.LittleEndian.Uint32(lo)) == 0 {
			lo = []byte{0, 0, 0, 0x80}
		}
		if math.Float32frombits(binary.LittleEndian.Uint32(hi)) == 0 {
			hi = make([]byte, 4)
		}
	case orderDouble:
		if math.Float64frombits(binary.LittleEndian.Uint64(lo)) == 0 {
			lo = []byte{0, 0, 0, 0, 0, 0, 0, 0x80}
		}
		if math.Float64frombits(binary.LittleEndian.Uint64(hi)) == 0 {
			hi = make([]byte, 8)
		}
	}
	e.SetMin(lo)
	e.SetMax(hi)
	return e
}
