package api

import (
	"cmp"
	"slices"
	"time"

	"millrace/event"
	"millrace/kpi"
	"millrace/olap"
)

// total holds the counts of all currencies together.
type total struct {
	Events          int64    `json:"events"`
	PageViews       int64    `json:"page_views"`
	ItemViews       int64    `json:"item_views"`
	Searches        int64    `json:"searches"`
	Visitors        int64    `json:"visitors"`
	CartAdds        int64    `json:"cart_adds"`
	Checkouts       int64    `json:"checkouts"`
	Orders          int64    `json:"orders"`
	Units           int64    `json:"units"`
	Refunds         int64    `json:"refunds"`
	Carts           int64    `json:"carts"`
	AbandonedCarts  int64    `json:"abandoned_carts"`
	StockOuts       int64    `json:"stock_outs"`
	Conversion      *float64 `json:"conversion"`
	CartRate        *float64 `json:"cart_rate"`
	CheckoutRate    *float64 `json:"checkout_rate"`
	Completion      *float64 `json:"completion"`
	RefundRate      *float64 `json:"refund_rate"`
	UnitsPerOrder   *float64 `json:"units_per_order"`
	PagesPerVisitor *float64 `json:"pages_per_visitor"`
	AbandonmentRate *float64 `json:"abandonment_rate"`
}

// moneyKPIs is what is only meaningful within one currency.
type moneyKPIs struct {
	Currency       string  `json:"currency"`
	Revenue        string  `json:"revenue"`
	Orders         int64   `json:"orders"`
	Units          int64   `json:"units"`
	AOV            *string `json:"aov"`
	RevenuePerUnit *string `json:"revenue_per_unit"`
	Refunds        int64   `json:"refunds"`
	RefundValue    string  `json:"refund_value"`
}

// kpiWindow is one window's KPIs.
type kpiWindow struct {
	From  stamp       `json:"from"`
	To    stamp       `json:"to"`
	Total total       `json:"total"`
	Money []moneyKPIs `json:"money"`
}

// sketchAt is the visitors of one row.
type sketchAt struct {
	at     int64 // begin of the row's window, unix seconds
	sketch []byte
}

// rows are KPI rows by window and currency, and the sketches beside them: what live answers are made of, from either store.
type rows struct {
	source   string
	kpis     []olap.KPIRow
	sketches []sketchAt
}

// newest is the begin of the newest window that has a row.
func (r rows) newest() int64 {
	var at int64
	for _, k := range r.kpis {
		at = max(at, k.At)
	}
	return at
}

// additive are the measures of rows that add up.
func additive() []kpi.Measure {
	return slices.DeleteFunc(kpi.Measures(), func(m kpi.Measure) bool { return !m.Additive() })
}

// ofPartials takes rows as Redis has them.
func ofPartials(partials []event.KPIPartial) rows {
	type key struct {
		at       int64
		currency string
	}
	by := map[key]*olap.KPIRow{}
	out := rows{source: "redis"}
	for i := range partials {
		p := &partials[i]
		k := key{p.WindowStart / 1e6, p.Currency}
		r := by[k]
		if r == nil {
			r = &olap.KPIRow{At: k.at, Currency: k.currency}
			by[k] = r
		}
		var v olap.KPIValues
		v.SetCount(kpi.Events, p.Events)
		v.SetCount(kpi.PageViews, p.PageViews)
		v.SetCount(kpi.ItemViews, p.ItemViews)
		v.SetCount(kpi.Searches, p.Searches)
		v.SetCount(kpi.CartAdds, p.CartAdds)
		v.SetCount(kpi.Checkouts, p.Checkouts)
		v.SetCount(kpi.Orders, p.Orders)
		v.SetCount(kpi.Units, p.Units)
		v.SetCount(kpi.Refunds, p.Refunds)
		v.SetCount(kpi.Carts, p.Carts)
		v.SetCount(kpi.AbandonedCarts, p.AbandonedCarts)
		v.SetCount(kpi.StockOuts, p.StockOuts)
		v.SetAmount(kpi.Revenue, ofSum(p.Revenue))
		v.SetAmount(kpi.RefundValue, ofSum(p.RefundValue))
		r.Add(&v)
		if len(p.VisitorsSketch) > 0 {
			out.sketches = append(out.sketches, sketchAt{k.at, p.VisitorsSketch})
		}
	}
	for _, r := range by {
		out.kpis = append(out.kpis, *r)
	}
	return out
}

// window adds up the rows of windows that begin in [from, to). Money is restricted to a currency if one is given.
func (r rows) window(from, to time.Time, currency string) (kpiWindow, error) {
	var all olap.KPIValues
	by := map[string]*olap.KPIValues{}
	lo, hi := from.Unix(), to.Unix()
	for i := range r.kpis {
		k := &r.kpis[i]
		if k.At < lo || k.At >= hi {
			continue
		}
		if by[k.Currency] == nil {
			by[k.Currency] = &olap.KPIValues{}
		}
		all.AddCounts(&k.KPIValues)
		by[k.Currency].Add(&k.KPIValues)
	}
	var sketches [][]byte
	for _, s := range r.sketches {
		if s.at >= lo && s.at < hi {
			sketches = append(sketches, s.sketch)
		}
	}
	visitors, err := kpi.MergeSketches(sketches...)
	if err != nil {
		return kpiWindow{}, defectError{err}
	}
	w := kpiWindow{From: stamp(from), To: stamp(to), Money: []moneyKPIs{}, Total: total{
		Events: all.Count(kpi.Events), PageViews: all.Count(kpi.PageViews), ItemViews: all.Count(kpi.ItemViews), Searches: all.Count(kpi.Searches), Visitors: visitors,
		CartAdds: all.Count(kpi.CartAdds), Checkouts: all.Count(kpi.Checkouts), Orders: all.Count(kpi.Orders), Units: all.Count(kpi.Units), Refunds: all.Count(kpi.Refunds),
		Carts: all.Count(kpi.Carts), AbandonedCarts: all.Count(kpi.AbandonedCarts), StockOuts: all.Count(kpi.StockOuts),
	}}
	all.SetCount(kpi.Visitors, visitors)
	for name, into := range map[string]**float64{
		"conversion": &w.Total.Conversion, "cart_rate": &w.Total.CartRate, "checkout_rate": &w.Total.CheckoutRate, "completion": &w.Total.Completion,
		"refund_rate": &w.Total.RefundRate, "units_per_order": &w.Total.UnitsPerOrder, "pages_per_visitor": &w.Total.PagesPerVisitor,
		"abandonment_rate": &w.Total.AbandonmentRate,
	} {
		d, _ := kpi.RatioNamed(name) // a test holds that all of them exist
		*into = ratio(all.Count(d.Numerator), all.Count(d.Denominator))
	}
	for c, one := range by {
		// A row of money: carts have a currency too, but tell nothing here.
		if c == "" || currency != "" && c != currency || one.Count(kpi.Orders) == 0 && one.Count(kpi.Refunds) == 0 {
			continue
		}
		revenue := one.Amount(kpi.Revenue)
		w.Money = append(w.Money, moneyKPIs{
			Currency: c, Revenue: money(revenue), Orders: one.Count(kpi.Orders), Units: one.Count(kpi.Units), Refunds: one.Count(kpi.Refunds),
			RefundValue: money(one.Amount(kpi.RefundValue)), AOV: per(revenue, one.Count(kpi.Orders)), RevenuePerUnit: per(revenue, one.Count(kpi.Units)),
		})
	}
	slices.SortFunc(w.Money, func(a, b moneyKPIs) int {
		return cmp.Or(cmp.Compare(b.Orders, a.Orders), cmp.Compare(a.Currency, b.Currency))
	})
	return w, nil
}
