package kpi

import "millrace/event"

// Measure is one number that events add to.
type Measure uint8

// The measures. Their numbers are internal; their names are columns and a promise.
const (
	Events Measure = iota
	PageViews
	ItemViews
	Searches
	CartAdds
	Checkouts
	Orders
	Units
	Refunds
	numCounts = iota
)

// The measures that are no plain counts.
const (
	Revenue Measure = iota + numCounts
	RefundValue
	Visitors
	numTotals = int(Visitors - Revenue)
)

// The counts that came later: in the state form they are behind the totals.
const (
	StockOuts Measure = iota + Visitors + 1
	Carts
	AbandonedCarts
	numMeasures
	numLater = int(numMeasures - StockOuts)
)

// Kind is how an event adds to a measure.
type Kind uint8

// The kinds.
const (
	Count    Kind = iota // 1 for each event; in family items 1 for each event that has the product, or the category, at all
	Quantity             // the quantities of the event's lines
	Amount               // shop: the event's value; items: price × quantity of the line, negative for a refund
	Distinct             // the event's visitor_id, if there is one
	SoldOut              // 1 for an event that ReachesZero
	Followed             // by what happens after the event, or does not: the stream alone counts it (AddCart), and neither late nor replayed events change it
)

// definition is one row of the table below.
type definition struct {
	name  string
	kind  Kind
	on    string // the event name that adds to it; "" means every event
	items bool   // family items has it
	doc   string
}

// definitions is the table: every measure in the order of its columns is in Measures.
var definitions = [numMeasures]definition{
	Events:      {"events", Count, "", true, "events, copies of an order excepted; in family items those with lines"},
	PageViews:   {"page_views", Count, event.NamePageView, false, "page_view"},
	ItemViews:   {"item_views", Count, event.NameViewItem, true, "view_item"},
	Searches:    {"searches", Count, event.NameSearch, false, "search"},
	CartAdds:    {"cart_adds", Count, event.NameAddToCart, true, "add_to_cart"},
	Checkouts:   {"checkouts", Count, event.NameBeginCheckout, true, "begin_checkout"},
	Orders:      {"orders", Count, event.NamePurchase, true, "purchase with order_rank 1"},
	Units:       {"units", Quantity, event.NamePurchase, true, "quantities of the lines of orders"},
	Revenue:     {"revenue", Amount, event.NamePurchase, true, "value of orders; in family items price × quantity of their lines"},
	Refunds:     {"refunds", Count, event.NameRefund, true, "refund"},
	RefundValue: {"refund_value", Amount, event.NameRefund, true, "value of refunds, negative; in family items price × quantity of their lines, negative"},
	Visitors:    {"visitors", Distinct, "", true, "distinct visitor_id; adds up over partitions, not over windows and dimensions"},

	StockOuts:      {"stock_outs", SoldOut, event.NameInventoryChange, false, "inventory_change by which a product's stock in a warehouse reaches zero: stock_level is 0 or less, and was more by quantity_delta, if there is one"},
	Carts:          {"carts", Followed, event.NameAddToCart, false, "carts of visitors that were ordered or abandoned, counted when they were; not in late and replayed events"},
	AbandonedCarts: {"abandoned_carts", Followed, event.NameAddToCart, false, "carts with no purchase within hot.carts.abandoned_after (30 min) of the last add_to_cart, counted at the end of that time"},
}

// columnOrder is the order of event.KPIPartial.
var columnOrder = [numMeasures]Measure{Events, PageViews, ItemViews, Searches, CartAdds, Checkouts, Orders, Units, Revenue, Refunds, RefundValue, Visitors, StockOuts, Carts, AbandonedCarts}

// Measures lists all measures in the order of their columns.
func Measures() []Measure { return append([]Measure(nil), columnOrder[:]...) }

// String is the measure's name, which is its column.
func (m Measure) String() string { return definitions[m].name }

// Kind is how events add to it.
func (m Measure) Kind() Kind { return definitions[m].kind }

// On is the name of the events that add to it, "" for all.
func (m Measure) On() string { return definitions[m].on }

// Doc says in words what it counts.
func (m Measure) Doc() string { return definitions[m].doc }

// In says whether the family's rows have the measure; where not it is always 0.
func (m Measure) In(f Family) bool { return f == Shop || definitions[m].items }

// Additive says whether it adds up over windows and dimensions, and not only over partitions.
func (m Measure) Additive() bool { return definitions[m].kind != Distinct }

// SQL is the ClickHouse aggregate over rows of kpi_* tables of different partitions (and, if Additive, of different windows and dimensions).
func (m Measure) SQL() string { return "sum(" + m.String() + ")" }

// EventSQL is the ClickHouse aggregate that computes the measure of family shop from events: rows of events_* with order_rank ≤ 1, with a column items where a
// measure is of kind Quantity, and of events_inventory's columns where it is of kind SoldOut. It is what a check uses; AddShop is the same in Go. A measure of kind Followed
// has none: "".
func (m Measure) EventSQL() string {
	d := definitions[m]
	cond := "name = '" + d.on + "'"
	switch {
	case d.kind == Distinct:
		return "uniqExactIf(visitor_id, visitor_id != '')"
	case d.kind == Followed:
		return ""
	case d.kind == SoldOut:
		return "countIf(" + cond + " AND stock_level <= 0 AND (quantity_delta IS NULL OR stock_level > quantity_delta))"
	case d.kind == Quantity:
		return "sumIf(arraySum(items.quantity), " + cond + ")"
	case d.kind == Amount:
		return "sumIf(ifNull(value, 0), " + cond + ")"
	case d.on == "":
		return "count()"
	}
	return "countIf(" + cond + ")"
}

// counted gives the count that events of a name add 1 to besides Events.
func counted(name string) (Measure, bool) {
	switch name {
	case event.NamePageView:
		return PageViews, true
	case event.NameViewItem:
		return ItemViews, true
	case event.NameSearch:
		return Searches, true
	case event.NameAddToCart:
		return CartAdds, true
	case event.NameBeginCheckout:
		return Checkouts, true
	case event.NamePurchase:
		return Orders, true
	case event.NameRefund:
		return Refunds, true
	}
	return 0, false
}

// ReachesZero says whether an event is an inventory_change by which a product's stock in a warehouse becomes nothing: by a level of 0 or less that was above before the
// change. Of a level without a change it is not known what was before, so it counts each time it is told.
func ReachesZero(e *event.Event) bool {
	return e.Name == event.NameInventoryChange && e.StockLevel != nil && *e.StockLevel <= 0 && (e.QuantityDelta == nil || *e.StockLevel > *e.QuantityDelta)
}
