package schema

import "millrace/event"

// Type is the logical type of a field, which every store maps to its own.
type Type uint8

// The logical types.
const (
	String     Type = iota
	Int             // 32 bit
	Long            // 64 bit
	Bool            //
	Timestamp       // µs UTC
	Amount          // micros in Go and Avro, Decimal(18,6) in stores
	Total           // 128-bit micros in Go and Avro, Decimal(38,6) in stores
	Blob            // bytes
	JSON            // JSON text
	StringList      // list of strings
	ItemList        // list of event.Item
	Double          // 64-bit floating point
)

// Layer says where a field comes from.
type Layer uint8

// The layers.
const (
	FromProducer Layer = iota // in raw.* and events.*
	FromHot                   // in events.* only: the enriched prefix
	FromSink                  // computed by a sink, in no topic
)

// Field is one field of a topic's value and one column of its table.
type Field struct {
	Name  string
	Type  Type
	Null  bool
	Layer Layer
	Doc   string
	Cats  []event.Category // nil: all
	Since int              // Avro version of the category's schemas that brought the field; 0 or 1: the first
	Zero  bool             // a count that a later version brought and that may not be absent: it is 0 in values of the versions before
}

func (f Field) in(c event.Category) bool {
	if f.Cats == nil {
		return true
	}
	for _, have := range f.Cats {
		if have == c {
			return true
		}
	}
	return false
}

var (
	withItems = []event.Category{event.Page, event.Cart, event.Purchase}
	pages     = []event.Category{event.Page}
	buying    = []event.Category{event.Cart, event.Purchase}
	purchases = []event.Category{event.Purchase}
	stock     = []event.Category{event.Inventory}
	exposures = []event.Category{event.Exposure}
	identity  = []event.Category{event.Identity}
)

// eventFields is the table: in Avro the FromHot fields come first, then the FromProducer ones, both in this order. New fields go to the end, nullable.
var eventFields = []Field{
	{Name: "ingested_at", Type: Timestamp, Layer: FromHot, Doc: "broker timestamp of the raw record: when the platform knew the event"},
	{Name: "session_id", Type: String, Null: true, Layer: FromHot, Doc: "our session, given on arrival, never rewritten"},
	{Name: "lane", Type: Int, Layer: FromHot, Doc: "0 live, 1 replay"},
	{Name: "raw_topic", Type: String, Layer: FromHot, Doc: "provenance: topic the gateway wrote"},
	{Name: "raw_partition", Type: Int, Layer: FromHot, Doc: "provenance: its partition"},
	{Name: "raw_offset", Type: Long, Layer: FromHot, Doc: "provenance: its offset"},
	{Name: "row_hash", Type: Long, Layer: FromHot, Doc: "bits of XXH64 over tenant, event_id, name, occurred_at, value, currency, order_id"},
	{Name: "order_rank", Type: Int, Layer: FromHot, Cats: purchases, Doc: "1 for the first event of an order and for a purchase without order id, 2, 3, ... for copies; 0 for a refund"},

	{Name: "event_id", Type: String, Doc: "the producer's id as sent; unique with tenant and source within the dedup window"},
	{Name: "tenant", Type: String, Doc: "tenant of the write key"},
	{Name: "name", Type: String, Doc: "event name"},
	{Name: "visitor_id", Type: String, Doc: "'' if the producer sent none"},
	{Name: "user_id", Type: String, Null: true, Doc: "signed-in user"},
	{Name: "occurred_at", Type: Timestamp, Doc: "event time, corrected by the client's clock skew"},
	{Name: "received_at", Type: Timestamp, Doc: "the gateway accepted it"},
	{Name: "source", Type: String, Doc: "source of the write key"},
	{Name: "value", Type: Amount, Null: true, Doc: "for purchase merchandise revenue without tax and shipping; negative for refund"},
	{Name: "currency", Type: String, Null: true, Doc: "ISO 4217"},
	{Name: "order_id", Type: String, Null: true, Doc: "transaction_id"},
	{Name: "country", Type: String, Null: true, Doc: "ISO 3166-1 alpha-2"},
	{Name: "device_type", Type: String, Null: true, Doc: "desktop, mobile, tablet, tv, bot, other"},
	{Name: "items", Type: ItemList, Cats: withItems, Doc: "lines of the cart, order or list"},
	{Name: "client_session_id", Type: String, Null: true, Doc: "the producer's own session id"},
	{Name: "schema_version", Type: Int, Doc: "the producer's version of the event"},
	{Name: "ip", Type: String, Null: true, Doc: "truncated to /24 or /48"},
	{Name: "ip_hash", Type: String, Null: true, Doc: "HMAC of the full address by tenant key"},
	{Name: "payment_method", Type: String, Null: true, Doc: "card, paypal, ..."},
	{Name: "card_fingerprint", Type: String, Null: true, Doc: "key id and HMAC-SHA256/128 of the card by tenant key"},
	{Name: "card_bin", Type: String, Null: true, Doc: "first six digits"},
	{Name: "card_last4", Type: String, Null: true, Doc: "last four digits"},
	{Name: "page_url", Type: String, Null: true, Doc: "page"},
	{Name: "page_path", Type: String, Null: true, Doc: "page"},
	{Name: "page_title", Type: String, Null: true, Doc: "page"},
	{Name: "page_referrer", Type: String, Null: true, Doc: "page"},
	{Name: "campaign_source", Type: String, Null: true, Doc: "utm_source"},
	{Name: "campaign_medium", Type: String, Null: true, Doc: "utm_medium"},
	{Name: "campaign_name", Type: String, Null: true, Doc: "utm_campaign"},
	{Name: "campaign_term", Type: String, Null: true, Doc: "utm_term"},
	{Name: "campaign_content", Type: String, Null: true, Doc: "utm_content"},
	{Name: "device_os", Type: String, Null: true, Doc: "operating system"},
	{Name: "device_browser", Type: String, Null: true, Doc: "browser"},
	{Name: "user_agent", Type: String, Null: true, Doc: "user agent"},
	{Name: "region", Type: String, Null: true, Doc: "region"},
	{Name: "city", Type: String, Null: true, Doc: "city"},
	{Name: "locale", Type: String, Null: true, Doc: "BCP 47"},
	{Name: "time_zone", Type: String, Null: true, Doc: "IANA"},
	{Name: "properties", Type: JSON, Doc: "everything else that was sent, as a JSON object; '' if nothing"},
	{Name: "item_list_id", Type: String, Null: true, Cats: pages, Doc: "list"},
	{Name: "item_list_name", Type: String, Null: true, Cats: pages, Doc: "list"},
	{Name: "promotion_id", Type: String, Null: true, Cats: pages, Doc: "promotion"},
	{Name: "promotion_name", Type: String, Null: true, Cats: pages, Doc: "promotion"},
	{Name: "creative_name", Type: String, Null: true, Cats: pages, Doc: "promotion"},
	{Name: "creative_slot", Type: String, Null: true, Cats: pages, Doc: "promotion"},
	{Name: "search_term", Type: String, Null: true, Cats: pages, Doc: "search"},
	{Name: "coupon", Type: String, Null: true, Cats: buying, Doc: "coupon of the whole cart or order"},
	{Name: "shipping_tier", Type: String, Null: true, Cats: buying, Doc: "shipping"},
	{Name: "payment_type", Type: String, Null: true, Cats: buying, Doc: "GA4's payment_type"},
	{Name: "affiliation", Type: String, Null: true, Cats: purchases, Doc: "store or affiliate"},
	{Name: "tax", Type: Amount, Null: true, Cats: purchases, Doc: "tax"},
	{Name: "shipping", Type: Amount, Null: true, Cats: purchases, Doc: "shipping cost"},
	{Name: "item_id", Type: String, Null: true, Cats: stock, Doc: "item whose stock changed"},
	{Name: "warehouse_id", Type: String, Null: true, Cats: stock, Doc: "warehouse"},
	{Name: "quantity_delta", Type: Long, Null: true, Cats: stock, Doc: "change of stock"},
	{Name: "stock_level", Type: Long, Null: true, Cats: stock, Doc: "stock after the change"},
	{Name: "change_reason", Type: String, Null: true, Cats: stock, Doc: "sale, restock, correction, ..."},
	{Name: "experiment_id", Type: String, Null: true, Cats: exposures, Doc: "experiment"},
	{Name: "variant_id", Type: String, Null: true, Cats: exposures, Doc: "variant shown"},
	{Name: "hash_attribute", Type: String, Null: true, Cats: exposures, Doc: "attribute that assignment went by"},
	{Name: "previous_id", Type: String, Null: true, Cats: identity, Doc: "id the visitor was known by before"},

	{Name: "discount", Type: Amount, Null: true, Cats: purchases, Since: 2, Doc: "discount of the whole order; negative for refund"},
	{Name: "total", Type: Amount, Null: true, Cats: purchases, Since: 2, Doc: "what was paid, tax and shipping included; negative for refund"},
}

// itemFields are the fields of an item, in Avro's order.
var itemFields = []Field{
	{Name: "item_id", Type: String, Doc: "item"},
	{Name: "item_name", Type: String, Null: true, Doc: "name"},
	{Name: "item_category", Type: String, Null: true, Doc: "category"},
	{Name: "item_brand", Type: String, Null: true, Doc: "brand"},
	{Name: "item_variant", Type: String, Null: true, Doc: "variant"},
	{Name: "price", Type: Amount, Null: true, Doc: "one unit, in the event's currency"},
	{Name: "quantity", Type: Long, Doc: "1 if not sent"},
	{Name: "discount", Type: Amount, Null: true, Doc: "for one unit"},
	{Name: "coupon", Type: String, Null: true, Doc: "coupon of the item"},
	{Name: "position", Type: Long, Null: true, Doc: "GA4's index"},
}

// ItemFields lists the fields of an item.
func ItemFields() []Field { return itemFields }

// failedFields: the first four are added by the hot topology.
var failedFields = []Field{
	{Name: "ingested_at", Type: Timestamp, Layer: FromHot, Doc: "broker timestamp of the raw record"},
	{Name: "raw_topic", Type: String, Layer: FromHot, Doc: "provenance"},
	{Name: "raw_partition", Type: Int, Layer: FromHot, Doc: "provenance"},
	{Name: "raw_offset", Type: Long, Layer: FromHot, Doc: "provenance"},
	{Name: "failed_id", Type: String, Doc: "xxh128 of tenant, source, reason and payload"},
	{Name: "event_id", Type: String, Null: true, Doc: "if one could be read"},
	{Name: "failed_at", Type: Timestamp, Doc: "when it was found to be wrong"},
	{Name: "received_at", Type: Timestamp, Doc: "the gateway took it"},
	{Name: "tenant", Type: String, Doc: "'' if the write key is unknown"},
	{Name: "reason", Type: String, Doc: "kind of failure"},
	{Name: "error", Type: String, Doc: "what is wrong, in words"},
	{Name: "error_path", Type: String, Doc: "JSON path of what is wrong"},
	{Name: "payload", Type: String, Doc: "as received, after masking, cut at 256 KiB"},
	{Name: "source", Type: String, Doc: "source of the write key"},
	{Name: "payload_bytes", Type: Long, Doc: "full length"},
	{Name: "payload_digest", Type: String, Doc: "xxh128 of the full payload if it was cut"},
	{Name: "content_type", Type: String, Doc: "as sent"},
}

var ledgerFields = []Field{
	{Name: "raw_topic", Type: String},
	{Name: "raw_partition", Type: Int},
	{Name: "raw_from", Type: Long},
	{Name: "raw_to", Type: Long},
	{Name: "out_topic", Type: String},
	{Name: "count", Type: Long},
	{Name: "hash_lo", Type: Long},
	{Name: "hash_hi", Type: Long},
	{Name: "duplicates", Type: Long},
	{Name: "failed", Type: Long},
	{Name: "erased", Type: Long},
	{Name: "ingested_from", Type: Timestamp},
	{Name: "ingested_to", Type: Timestamp},
}

var lateFields = []Field{
	{Name: "tenant", Type: String},
	{Name: "event_id", Type: String},
	{Name: "source", Type: String},
	{Name: "name", Type: String},
	{Name: "occurred_at", Type: Timestamp},
	{Name: "ingested_at", Type: Timestamp},
	{Name: "watermark", Type: Timestamp},
	{Name: "raw_topic", Type: String},
	{Name: "raw_partition", Type: Int},
	{Name: "raw_offset", Type: Long},
}

var partialFields = []Field{
	{Name: "family", Type: String, Doc: "shop or items"},
	{Name: "grain", Type: String, Doc: "1s, 1m, 1h, 1d"},
	{Name: "tenant", Type: String},
	{Name: "window_start", Type: Timestamp},
	{Name: "currency", Type: String, Doc: "'' without money"},
	{Name: "country", Type: String},
	{Name: "device", Type: String},
	{Name: "product_id", Type: String},
	{Name: "item_category", Type: String},
	{Name: "kafka_partition", Type: Int, Doc: "source partition; -1: recomputed"},
	{Name: "final", Type: Bool, Doc: "the watermark has passed the window's end"},
	{Name: "events", Type: Long},
	{Name: "page_views", Type: Long},
	{Name: "item_views", Type: Long},
	{Name: "searches", Type: Long},
	{Name: "cart_adds", Type: Long},
	{Name: "checkouts", Type: Long},
	{Name: "orders", Type: Long},
	{Name: "units", Type: Long},
	{Name: "revenue", Type: Total},
	{Name: "refunds", Type: Long},
	{Name: "refund_value", Type: Total},
	{Name: "visitors", Type: Long},
	{Name: "visitors_sketch", Type: Blob},
	{Name: "stock_outs", Type: Long, Zero: true, Since: 2},
	{Name: "carts", Type: Long, Zero: true, Since: 2, Doc: "ordered or abandoned in the window"},
	{Name: "abandoned_carts", Type: Long, Zero: true, Since: 2, Doc: "of them, those that were abandoned"},
}

var erasureFields = []Field{
	{Name: "request_id", Type: String, Doc: "request of the erasure"},
	{Name: "part", Type: Int, Doc: "0, 1, ... of a request with many subjects"},
	{Name: "requested_at", Type: Timestamp},
	{Name: "cut", Type: String, Doc: "JSON: end offsets of each raw topic, by partition; rows below them are erased"},
	{Name: "key", Type: String, Doc: "id of the key of the digests"},
	{Name: "subjects", Type: StringList, Doc: "digests of tenant, kind and id under a secret key, hex"},
}

var liveFields = []Field{
	{Name: "tenant", Type: String},
	{Name: "key", Type: String, Doc: "of Redis"},
	{Name: "field", Type: String, Doc: "of its hash"},
	{Name: "value", Type: Blob},
	{Name: "expires_at", Type: Timestamp, Doc: "when the key goes, unless it is written again"},
}

var productFields = []Field{
	{Name: "tenant", Type: String},
	{Name: "item_id", Type: String},
	{Name: "kind", Type: String, Doc: "sale, stock or forecast"},
	{Name: "event_id", Type: String, Doc: "of what it was made from"},
	{Name: "occurred_at", Type: Timestamp},
	{Name: "quantity", Type: Long, Doc: "of a sale"},
	{Name: "warehouse_id", Type: String, Doc: "of a change of stock"},
	{Name: "delta", Type: Long, Null: true, Doc: "by how much the stock changed"},
	{Name: "level", Type: Long, Null: true, Doc: "what it is now"},
	{Name: "body", Type: Blob, Doc: "of a forecast: JSON"},
}

var alertFields = []Field{
	{Name: "alert_id", Type: String, Doc: "xxh128 of rule, version, key and trigger, hex"},
	{Name: "kind", Type: String, Doc: "fraud, anomaly, stock or engine"},
	{Name: "rule", Type: String},
	{Name: "rule_version", Type: Int},
	{Name: "tenant", Type: String},
	{Name: "entity", Type: String, Doc: "what key names: visitor, user, card, ip, product or kpi"},
	{Name: "key", Type: String},
	{Name: "severity", Type: String, Doc: "info, warn or critical"},
	{Name: "score", Type: Double},
	{Name: "reasons", Type: StringList},
	{Name: "trigger_event_id", Type: String, Doc: "event that raised it"},
	{Name: "occurred_at", Type: Timestamp, Doc: "event time of the trigger"},
	{Name: "detected_at", Type: Timestamp, Doc: "processing time"},
	{Name: "confirmed", Type: Bool, Doc: "false on arrival, true once the watermark has passed"},
	{Name: "details", Type: JSON, Doc: "'' if there are none"},
}

// rekeyedFields are encoded by hand: see rekeyed.go, which has them in this order.
var rekeyedFields = []Field{
	{Name: "entity", Type: String, Doc: "card, ip or user"},
	{Name: "key", Type: String, Doc: "of it"},
	{Name: "tenant", Type: String},
	{Name: "event_id", Type: String},
	{Name: "name", Type: String},
	{Name: "at", Type: Timestamp, Doc: "least of the three times"},
	{Name: "occurred_at", Type: Timestamp},
	{Name: "received_at", Type: Timestamp},
	{Name: "ingested_at", Type: Timestamp},
	{Name: "visitor_id", Type: String},
	{Name: "user_id", Type: String},
	{Name: "session_id", Type: String},
	{Name: "order_id", Type: String},
	{Name: "source", Type: String},
	{Name: "value", Type: Amount},
	{Name: "currency", Type: String},
	{Name: "units", Type: Long},
	{Name: "country", Type: String},
	{Name: "region", Type: String},
	{Name: "city", Type: String},
	{Name: "device", Type: String, Doc: "hash of what the browser says of itself"},
	{Name: "device_type", Type: String},
	{Name: "device_os", Type: String},
	{Name: "device_browser", Type: String},
	{Name: "ip_hash", Type: String},
	{Name: "card_fingerprint", Type: String},
	{Name: "card_bin", Type: String},
	{Name: "payment_method", Type: String},
	{Name: "declined", Type: Bool},
}

// Subject is one topic's value schema.
type Subject struct {
	Topic  string
	Record string // Avro record name
	Fields []Field
}

// Name is the subject's name in the registry.
func (s Subject) Name() string { return s.Topic + "-value" }

// Subjects lists the current value schema of every topic.
func Subjects() []Subject {
	var out []Subject
	for _, c := range event.Categories() {
		out = append(out, Subject{c.RawTopic(), "raw_" + c.String(), pick(eventFields, c, FromProducer)})
		out = append(out, Subject{c.EventsTopic(), "events_" + c.String(), append(pick(eventFields, c, FromHot), pick(eventFields, c, FromProducer)...)})
	}
	return append(out,
		Subject{event.TopicRawFailed, "raw_failed", pick(failedFields, event.Custom, FromProducer)},
		Subject{event.TopicEventsFailed, "events_failed", failedFields},
		Subject{event.TopicLedger, "event_ledger", ledgerFields},
		Subject{event.TopicKPILate, "kpi_late", lateFields},
		Subject{event.TopicKPIPartial, "kpi_partial", partialFields},
		Subject{event.TopicErasures, "erasures", erasureFields},
		Subject{event.TopicAlerts, "alert", alertFields},
		Subject{event.TopicAlertsFast, "alert_fast", alertFields},
		Subject{event.TopicLiveUpdates, "live_update", liveFields},
		Subject{event.TopicRekeyProduct, "product_change", productFields},
		Subject{event.TopicRekeyCard, "rekeyed", rekeyedFields},
		Subject{event.TopicRekeyIP, "rekeyed", rekeyedFields},
		Subject{event.TopicRekeyUser, "rekeyed", rekeyedFields},
		Subject{event.TopicRekeyKPI, "kpi_partial", partialFields},
	)
}

func pick(fs []Field, c event.Category, l Layer) []Field {
	var out []Field
	for _, f := range fs {
		if f.Layer == l && f.in(c) {
			out = append(out, f)
		}
	}
	return out
}

// EventFields lists the fields of a category's events that come from one layer, in Avro's order.
func EventFields(c event.Category, l Layer) []Field { return pick(eventFields, c, l) }
