package kpi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"millrace/event"
)

// Values is one value of every measure: the contribution of some events to one row. Values add up (Merge) in any order and grouping to the same. The zero value
// is no events. It belongs to one goroutine.
type Values struct {
	counts   [numCounts]int64
	totals   [numTotals]event.Sum
	later    [numLater]int64
	visitors VisitorSet
}

// Count is a measure of any kind but Amount.
func (v *Values) Count(m Measure) int64 {
	switch {
	case m < numCounts:
		return v.counts[m]
	case m == Visitors:
		return v.visitors.Count()
	case m >= StockOuts:
		return v.later[m-StockOuts]
	}
	return 0
}

// Total is a measure of kind Amount.
func (v *Values) Total(m Measure) event.Sum {
	if m == Revenue || m == RefundValue {
		return v.totals[m-Revenue]
	}
	return event.Sum{}
}

// Visitors is the set of visitors, which is not to be changed.
func (v *Values) Visitors() *VisitorSet { return &v.visitors }

// AddShop adds an event to its row of family shop. Copies of an order (order_rank > 1) count in no KPI and must not be added.
func (v *Values) AddShop(e *event.Event) {
	v.counts[Events]++
	if e.VisitorID != "" {
		v.visitors.Add(e.VisitorID)
	}
	m, ok := counted(e.Name)
	if !ok {
		if ReachesZero(e) {
			v.later[0]++ // StockOuts
		}
		return
	}
	v.counts[m]++
	switch m {
	case Orders:
		for i := range e.Items {
			v.counts[Units] = addCount(v.counts[Units], e.Items[i].Quantity)
		}
		if e.Value != nil {
			v.addTotal(Revenue, event.SumOf(*e.Value))
		}
	case Refunds:
		if e.Value != nil {
			v.addTotal(RefundValue, event.SumOf(*e.Value))
		}
	}
}

// AddCart adds a cart that was ordered, or abandoned, to the row of its last add_to_cart.
func (v *Values) AddCart(abandoned bool) {
	v.later[Carts-StockOuts]++
	if abandoned {
		v.later[AbandonedCarts-StockOuts]++
	}
}

// HasLines says whether events of a name count in family items: what is done with products one by one, not lists of them that are shown.
func HasLines(name string) bool {
	m, ok := counted(name)
	return ok && definitions[m].items
}

// AddLine adds line i of an event to a row of family items. first says that no earlier line of the event was added to the same row: an order with two lines of a
// category is one order of it.
func (v *Values) AddLine(e *event.Event, i int, first bool) {
	m, ok := counted(e.Name)
	if !ok {
		return
	}
	if first {
		v.counts[Events]++
		v.counts[m]++
		if e.VisitorID != "" {
			v.visitors.Add(e.VisitorID)
		}
	}
	item := &e.Items[i]
	switch m {
	case Orders:
		v.counts[Units] = addCount(v.counts[Units], item.Quantity)
		if item.Price != nil {
			v.addTotal(Revenue, lineAmount(*item.Price, item.Quantity, false))
		}
	case Refunds:
		if item.Price != nil {
			v.addTotal(RefundValue, lineAmount(*item.Price, item.Quantity, true))
		}
	}
}

// Merge adds o, which is not changed and shares no memory with v afterwards.
func (v *Values) Merge(o *Values) error {
	for i, n := range o.counts {
		v.counts[i] = addCount(v.counts[i], n)
	}
	for i, t := range o.totals {
		if !t.IsZero() {
			v.totals[i] = addSum(v.totals[i], t)
		}
	}
	for i, n := range o.later {
		v.later[i] = addCount(v.later[i], n)
	}
	return v.visitors.Merge(&o.visitors)
}

// Clone is a copy that shares no memory with v.
func (v *Values) Clone() *Values {
	return &Values{counts: v.counts, totals: v.totals, later: v.later, visitors: v.visitors.Clone()}
}

func (v *Values) addTotal(m Measure, s event.Sum) {
	v.totals[m-Revenue] = addSum(v.totals[m-Revenue], s)
}

func (v *Values) float(m Measure) float64 {
	if m.Kind() != Amount {
		return float64(v.Count(m))
	}
	f, _ := new(big.Float).Quo(new(big.Float).SetInt(v.Total(m).Big()), big.NewFloat(event.MicrosPerUnit)).Float64()
	return f
}

// Fill sets the measures of p, which must have been zero or filled before; p.VisitorsSketch is reused.
func (v *Values) Fill(p *event.KPIPartial) (err error) {
	c := &v.counts
	p.Events, p.PageViews, p.ItemViews, p.Searches, p.CartAdds, p.Checkouts = c[Events], c[PageViews], c[ItemViews], c[Searches], c[CartAdds], c[Checkouts]
	p.Orders, p.Units, p.Refunds = c[Orders], c[Units], c[Refunds]
	p.Revenue, p.RefundValue = v.Total(Revenue), v.Total(RefundValue)
	p.StockOuts, p.Carts, p.AbandonedCarts = v.Count(StockOuts), v.Count(Carts), v.Count(AbandonedCarts)
	p.Visitors = v.visitors.Count()
	p.VisitorsSketch, err = v.visitors.AppendSketch(p.VisitorsSketch[:0])
	return err
}

// addCount adds counts; absurd quantities stop at the largest number in place of turning negative.
func addCount(a, b int64) int64 {
	s := a + b
	if (s > a) != (b > 0) && b != 0 {
		if b > 0 {
			return math.MaxInt64
		}
		return math.MinInt64
	}
	return s
}

// maxHi, maxLo are 10^38 - 1, the largest number of micros that Decimal(38,6) holds.
const (
	maxHi = 5421010862427522170
	maxLo = 687399551400673279
	minLo = 1<<64 - maxLo // of the negative bound, in two's complement
)

// addSum adds totals and stops at the bounds of Decimal(38,6): reaching them takes 10^20 of the largest amounts, or a few lines of an absurd quantity.
func addSum(a, b event.Sum) event.Sum {
	s := a.Add(b)
	if a[0]>>7 == b[0]>>7 && s[0]>>7 != a[0]>>7 { // two of a sign have a sum of the other one
		return boundSum(a[0]>>7 == 1)
	}
	return clampSum(s)
}

func clampSum(s event.Sum) event.Sum {
	hi, lo := int64(binary.BigEndian.Uint64(s[:8])), binary.BigEndian.Uint64(s[8:])
	switch {
	case hi > maxHi || hi == maxHi && lo > maxLo:
		return boundSum(false)
	case hi < -maxHi-1 || hi == -maxHi-1 && lo < minLo:
		return boundSum(true)
	}
	return s
}

func boundSum(negative bool) event.Sum {
	return sum128(maxHi, maxLo, negative)
}

// sum128 makes a sum of a magnitude and a sign.
func sum128(hi, lo uint64, negative bool) event.Sum {
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	var s event.Sum
	binary.BigEndian.PutUint64(s[:8], hi)
	binary.BigEndian.PutUint64(s[8:], lo)
	return s
}

// lineAmount is price × quantity, exact: 63 bits times 63 bits.
func lineAmount(price, quantity int64, negate bool) event.Sum {
	hi, lo := bits.Mul64(magnitude(price), magnitude(quantity))
	return clampSum(sum128(hi, lo, (price < 0) != (quantity < 0) != negate && hi|lo != 0))
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// The state form of Values: uvarint of a bit set of the counts, totals and later counts that are not 0, those counts as varints, those totals as 16 bytes, those later counts
// as varints, the visitors. What is added goes behind: state of an older version reads as what it was.

// Append writes v in the form that DecodeValues reads.
func (v *Values) Append(dst []byte) []byte {
	var present uint64
	for i, n := range v.counts {
		if n != 0 {
			present |= 1 << i
		}
	}
	for i, t := range v.totals {
		if !t.IsZero() {
			present |= 1 << (numCounts + i)
		}
	}
	for i, n := range v.later {
		if n != 0 {
			present |= 1 << (numCounts + numTotals + i)
		}
	}
	dst = binary.AppendUvarint(dst, present)
	for _, n := range v.counts {
		if n != 0 {
			dst = binary.AppendVarint(dst, n)
		}
	}
	for _, t := range v.totals {
		if !t.IsZero() {
			dst = append(dst, t[:]...)
		}
	}
	for _, n := range v.later {
		if n != 0 {
			dst = binary.AppendVarint(dst, n)
		}
	}
	return v.visitors.append(dst)
}

var errValues = errors.New("not KPI values")

// DecodeValues reads what Append wrote.
func DecodeValues(src []byte) (*Values, error) {
	present, n := binary.Uvarint(src)
	if n <= 0 || present >= 1<<(numCounts+numTotals+numLater) {
		return nil, errValues
	}
	src = src[n:]
	v := &Values{}
	for i := range v.counts {
		if present>>i&1 == 0 {
			continue
		}
		if v.counts[i], n = binary.Varint(src); n <= 0 {
			return nil, errValues
		}
		src = src[n:]
	}
	for i := range v.totals {
		if present>>(numCounts+i)&1 == 0 {
			continue
		}
		if len(src) < len(v.totals[i]) {
			return nil, errValues
		}
		src = src[copy(v.totals[i][:], src):]
	}
	for i := range v.later {
		if present>>(numCounts+numTotals+i)&1 == 0 {
			continue
		}
		if v.later[i], n = binary.Varint(src); n <= 0 {
			return nil, errValues
		}
		src = src[n:]
	}
	if err := v.visitors.decode(src); err != nil {
		return nil, fmt.Errorf("%w: %w", errValues, err)
	}
	return v, nil
}
