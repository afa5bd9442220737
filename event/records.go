package event

// LedgerEntry is the control total of one range of one raw partition for one output: what Reconcile compares the stores with. For every range
// Σ count + duplicates + failed + erased over its entries = the records read in [RawFrom, RawTo).
type LedgerEntry struct {
	RawTopic     string `avro:"raw_topic"`
	RawPartition int32  `avro:"raw_partition"`
	RawFrom      int64  `avro:"raw_from"` // first offset of the range
	RawTo        int64  `avro:"raw_to"`   // one past the last offset read
	OutTopic     string `avro:"out_topic"`
	Count        int64  `avro:"count"` // rows written to OutTopic
	HashLo       int64  `avro:"hash_lo"`
	HashHi       int64  `avro:"hash_hi"`
	Duplicates   int64  `avro:"duplicates"`
	Failed       int64  `avro:"failed"`
	Erased       int64  `avro:"erased"`
	IngestedFrom int64  `avro:"ingested_from"` // least and greatest ingested_at of the range, µs
	IngestedTo   int64  `avro:"ingested_to"`
}

// KPILate names an event that came after kpi.lateness: it is stored, but counted only when RecomputeKPIs takes it up.
type KPILate struct {
	Tenant       string `avro:"tenant"`
	EventID      string `avro:"event_id"`
	Source       string `avro:"source"`
	Name         string `avro:"name"`
	OccurredAt   int64  `avro:"occurred_at"`
	IngestedAt   int64  `avro:"ingested_at"`
	Watermark    int64  `avro:"watermark"` // of the task when the event came
	RawTopic     string `avro:"raw_topic"`
	RawPartition int32  `avro:"raw_partition"`
	RawOffset    int64  `avro:"raw_offset"`
}

// KPIPartial is the contribution of one source partition to one KPI row: the latest of a (family, grain, tenant, window, dimensions, partition) replaces the
// earlier ones; partials of different partitions add up. Partition -1 holds what RecomputeKPIs computed.
type KPIPartial struct {
	Family         string `avro:"family"` // "shop" or "items"
	Grain          string `avro:"grain"`  // "1s", "1m", "1h", "1d"
	Tenant         string `avro:"tenant"`
	WindowStart    int64  `avro:"window_start"`
	Currency       string `avro:"currency"` // "" without money
	Country        string `avro:"country"`
	Device         string `avro:"device"`
	ProductID      string `avro:"product_id"`    // family items: "" in a row of the whole category
	ItemCategory   string `avro:"item_category"` // family items
	KafkaPartition int32  `avro:"kafka_partition"`
	Final          bool   `avro:"final"` // the watermark has passed the window's end
	Events         int64  `avro:"events"`
	PageViews      int64  `avro:"page_views"`
	ItemViews      int64  `avro:"item_views"`
	Searches       int64  `avro:"searches"`
	CartAdds       int64  `avro:"cart_adds"`
	Checkouts      int64  `avro:"checkouts"`
	Orders         int64  `avro:"orders"`
	Units          int64  `avro:"units"`
	Revenue        Sum    `avro:"revenue"` // Decimal(38,6)
	Refunds        int64  `avro:"refunds"`
	RefundValue    Sum    `avro:"refund_value"` // negative
	Visitors       int64  `avro:"visitors"`     // distinct; adds up over partitions, not over windows
	VisitorsSketch []byte `avro:"visitors_sketch"`
	StockOuts      int64  `avro:"stock_outs"` // since version 2, as the two below: 0 before
	Carts          int64  `avro:"carts"`
	AbandonedCarts int64  `avro:"abandoned_carts"`
}
