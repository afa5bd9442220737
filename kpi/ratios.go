package kpi

// Ratio is a number computed on read: a quotient of two measures. It is never stored, because ratios do not add up.
type Ratio struct {
	Name        string
	Numerator   Measure
	Denominator Measure
	PerCurrency bool // the numerator is money: only rows of one currency may be added up
	Doc         string
}

// Ratios lists all ratios.
func Ratios() []Ratio {
	return []Ratio{
		{"aov", Revenue, Orders, true, "average order value"},
		{"conversion", Orders, Visitors, false, "orders per visitor"},
		{"units_per_order", Units, Orders, false, "units per order"},
		{"revenue_per_unit", Revenue, Units, true, "average price of what was sold"},
		{"cart_rate", CartAdds, ItemViews, false, "carts per item view"},
		{"checkout_rate", Checkouts, CartAdds, false, "checkouts begun per cart add"},
		{"completion", Orders, Checkouts, false, "orders per checkout begun"},
		{"refund_rate", Refunds, Orders, false, "refunds per order"},
		{"abandonment_rate", AbandonedCarts, Carts, false, "share of carts that were abandoned"},
		{"pages_per_visitor", PageViews, Visitors, false, "page views per visitor"},
	}
}

// RatioNamed finds a ratio.
func RatioNamed(name string) (Ratio, bool) {
	for _, r := range Ratios() {
		if r.Name == name {
			return r, true
		}
	}
	return Ratio{}, false
}

// SQL is the ratio as a ClickHouse expression over aggregated rows of a kpi_* table: Float64, NULL where the denominator is 0. A ratio per visitor is exact only if
// each group holds one window and one set of dimensions; over more the sum of distinct visitors counts a visitor more than once, and the sketches are to be
// merged instead (MergeSketches, Of).
func (r Ratio) SQL() string {
	return "toFloat64(" + r.Numerator.SQL() + ") / nullIf(" + r.Denominator.SQL() + ", 0)"
}

// Of computes the ratio of v; ok is false where the denominator is 0. Amounts are in units of the currency.
func (r Ratio) Of(v *Values) (ratio float64, ok bool) {
	d := v.float(r.Denominator)
	if d == 0 {
		return 0, false
	}
	return v.float(r.Numerator) / d, true
}
