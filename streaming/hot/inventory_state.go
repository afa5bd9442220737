package hot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"millrace/features/demand"
)

// productState is what is known of one product apart from its forecast. It is a value: whoever changes a list makes a new one.
type productState struct {
	stock  []warehouse // by id
	sales  []soldHour  // by hour, of the last keptHours
	closed int64       // the last hour since the epoch that is over
	seen   int64       // event time of the last change, µs
	low    bool        // somebody was told that the stock is low
	timer  int64       // the next one that is set, µs; 0: none
}

// warehouse is the stock in one place.
type warehouse struct {
	id    string
	level int64
	at    int64 // event time of the last count, µs
}

type soldHour struct{ hour, units int64 }

const (
	keptHours     = 72 // more than from the end of what the nightly fit has read to its arrival
	maxWarehouses = 64
)

// total is the stock of all places; known is false before any change of stock.
func (p *productState) total() (units int64, known bool) {
	for _, w := range p.stock {
		units += w.level
	}
	return units, len(p.stock) > 0
}

// sold is how much was sold in an hour.
func (p *productState) sold(hour int64) int64 {
	i, ok := slices.BinarySearchFunc(p.sales, hour, func(s soldHour, h int64) int { return cmp.Compare(s.hour, h) })
	if !ok {
		return 0
	}
	return p.sales[i].units
}

// sell adds units to an hour and drops hours that are long over.
func (p *productState) sell(hour, units int64) {
	from := max(p.closed, hour) - keptHours
	out := make([]soldHour, 0, len(p.sales)+1)
	added := hour <= from
	for _, s := range p.sales {
		switch {
		case s.hour <= from:
			continue
		case s.hour == hour:
			s.units += units
			added = true
		case s.hour > hour && !added:
			out = append(out, soldHour{hour, units})
			added = true
		}
		out = append(out, s)
	}
	if !added {
		out = append(out, soldHour{hour, units})
	}
	p.sales = out
}

// move applies a change of stock and says whether it changed anything. A count holds if it is not older than the last one of its place; a change without a count is added.
func (p *productState) move(id string, delta, level *int64, at int64) bool {
	out := slices.Clone(p.stock)
	i, ok := slices.BinarySearchFunc(out, id, func(w warehouse, id string) int { return cmp.Compare(w.id, id) })
	if !ok {
		if len(out) >= maxWarehouses {
			return false
		}
		out = slices.Insert(out, i, warehouse{id: id, at: math.MinInt64})
	}
	switch {
	case level != nil && at >= out[i].at:
		out[i].level, out[i].at = bounded(*level), at
	case level == nil && delta != nil:
		out[i].level = bounded(out[i].level + bounded(*delta))
	default:
		return false
	}
	p.stock = out
	return true
}

// bounded keeps sums from overflowing, whatever somebody sends.
func bounded(units int64) int64 { return min(max(units, -maxStock), maxStock) }

const maxStock = 1_000_000_000_000

var errProduct = errors.New("not the state of a product")

// productCodec writes varints and strings.
type productCodec struct{}

// Append implements streaming.Codec.
func (productCodec) Append(dst []byte, p productState) []byte {
	low := int64(0)
	if p.low {
		low = 1
	}
	for _, v := range []int64{p.closed, p.seen, low, p.timer, int64(len(p.stock))} {
		dst = binary.AppendVarint(dst, v)
	}
	for _, w := range p.stock {
		dst = appendText(dst, w.id)
		dst = binary.AppendVarint(binary.AppendVarint(dst, w.level), w.at)
	}
	dst = binary.AppendVarint(dst, int64(len(p.sales)))
	for _, s := range p.sales {
		dst = binary.AppendVarint(binary.AppendVarint(dst, s.hour-p.closed), s.units)
	}
	return dst
}

// Decode implements streaming.Codec.
func (productCodec) Decode(src []byte) (productState, error) {
	r := varReader{src: src}
	p := productState{closed: r.int(), seen: r.int(), low: r.int() == 1, timer: r.int()}
	for range r.count(maxWarehouses) {
		p.stock = append(p.stock, warehouse{id: r.text(), level: r.int(), at: r.int()})
	}
	for range r.count(1 << 16) {
		p.sales = append(p.sales, soldHour{hour: r.int() + p.closed, units: r.int()})
	}
	if r.bad || len(r.src) != 0 {
		return productState{}, errProduct
	}
	return p, nil
}

// modelState is the forecast of a product as the stream carries it on.
type modelState struct {
	demand.Model
	version string // of the fit
}

// modelCodec writes floats as they are.
type modelCodec struct{}

// Append implements streaming.Codec.
func (modelCodec) Append(dst []byte, m modelState) []byte {
	dst = appendText(dst, m.version)
	dst = appendText(dst, string(m.Kind))
	dst = binary.AppendVarint(dst, m.Hour)
	for _, f := range m.floats() {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(*f))
	}
	dst = binary.AppendVarint(dst, int64(len(m.Season)))
	for _, s := range m.Season {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(s))
	}
	return dst
}

func (m *modelState) floats() []*float64 {
	return []*float64{&m.Alpha, &m.Beta, &m.Gamma, &m.Phi, &m.Level, &m.Trend, &m.P, &m.Dispersion}
}

// Decode implements streaming.Codec.
func (modelCodec) Decode(src []byte) (modelState, error) {
	r := varReader{src: src}
	var m modelState
	m.version, m.Kind, m.Hour = r.text(), demand.Kind(r.text()), r.int()
	for _, f := range m.floats() {
		*f = math.Float64frombits(uint64(r.fixed(8)))
	}
	if n := r.count(demand.Week); n > 0 {
		m.Season = make([]float32, n)
		for i := range m.Season {
			m.Season[i] = math.Float32frombits(uint32(r.fixed(4)))
		}
	}
	if r.bad || len(r.src) != 0 {
		return modelState{}, errProduct
	}
	return m, nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// varReader reads what the codecs of this package write; bad says that something was cut off.
type varReader struct {
	src []byte
	bad bool
}

func (r *varReader) int() int64 {
	v, n := binary.Varint(r.src)
	if n <= 0 {
		r.bad, r.src = true, nil
		return 0
	}
	r.src = r.src[n:]
	return v
}

// count reads a length, at most limit.
func (r *varReader) count(limit int64) int64 {
	n := r.int()
	if n < 0 || n > limit || n > int64(len(r.src)) {
		r.bad = true
		return 0
	}
	return n
}

func (r *varReader) text() string {
	n, k := binary.Uvarint(r.src)
	if k <= 0 || n > uint64(len(r.src)-k) {
		r.bad, r.src = true, nil
		return ""
	}
	s := string(r.src[k : k+int(n)])
	r.src = r.src[k+int(n):]
	return s
}

func (r *varReader) fixed(n int) (v int64) {
	if len(r.src) < n {
		r.bad, r.src = true, nil
		return 0
	}
	for i := n - 1; i >= 0; i-- {
		v = v<<8 | int64(r.src[i])
	}
	r.src = r.src[n:]
	return v
}
