// Package event says what an event is: its names and categories, its three times, its money, its identity and its key.
//
// Everything that flows through Millrace is an Event: the gateway makes one of what a producer sent, Kafka carries it in Avro
// (package event/schema), the hot topology enriches it, and the sinks store it. The package knows no transport and no store;
// it imports nothing of ours, and everything else may import it.
package event

import "time"

// Event is one thing that happened in a shop, in the flat form in which topics and tables hold it.
//
// The Avro schema of a category (event/schema) names the subset of fields that the category has. An absent optional string is
// "", an absent amount nil. Times are microseconds since the epoch, UTC; amounts are micros of their currency.
//
// An Event is reused by decoders: what must outlive the call that got it is to be copied with Clone.
type Event struct {
	Enriched

	ID              string `avro:"event_id"`
	Tenant          string `avro:"tenant"`
	Name            string `avro:"name"`
	VisitorID       string `avro:"visitor_id"`       // "" if the producer sent none
	UserID          string `avro:"user_id,omitzero"` // signed-in user
	OccurredAt      int64  `avro:"occurred_at"`      // event time, corrected by the client's clock skew
	ReceivedAt      int64  `avro:"received_at"`      // the gateway accepted it
	Source          string `avro:"source"`           // the write key's source
	Value           *int64 `avro:"value"`            // micros of Currency
	Currency        string `avro:"currency,omitzero"`
	OrderID         string `avro:"order_id,omitzero"` // transaction_id
	Country         string `avro:"country,omitzero"`  // ISO 3166-1 alpha-2
	DeviceType      string `avro:"device_type,omitzero"`
	Items           []Item `avro:"items"`
	ClientSessionID string `avro:"client_session_id,omitzero"` // the producer's own session id
	SchemaVersion   int32  `avro:"schema_version"`             // the producer's version of the event, 1 if not sent
	IP              string `avro:"ip,omitzero"`                // truncated: /24 or /48
	IPHash          string `avro:"ip_hash,omitzero"`
	PaymentMethod   string `avro:"payment_method,omitzero"`
	CardFingerprint string `avro:"card_fingerprint,omitzero"` // key id ‖ HMAC-SHA256/128 by tenant key
	CardBIN         string `avro:"card_bin,omitzero"`
	CardLast4       string `avro:"card_last4,omitzero"`
	PageURL         string `avro:"page_url,omitzero"`
	PagePath        string `avro:"page_path,omitzero"`
	PageTitle       string `avro:"page_title,omitzero"`
	PageReferrer    string `avro:"page_referrer,omitzero"`
	CampaignSource  string `avro:"campaign_source,omitzero"`
	CampaignMedium  string `avro:"campaign_medium,omitzero"`
	CampaignName    string `avro:"campaign_name,omitzero"`
	CampaignTerm    string `avro:"campaign_term,omitzero"`
	CampaignContent string `avro:"campaign_content,omitzero"`
	DeviceOS        string `avro:"device_os,omitzero"`
	DeviceBrowser   string `avro:"device_browser,omitzero"`
	UserAgent       string `avro:"user_agent,omitzero"`
	Region          string `avro:"region,omitzero"`
	City            string `avro:"city,omitzero"`
	Locale          string `avro:"locale,omitzero"`
	TimeZone        string `avro:"time_zone,omitzero"`
	Properties      string `avro:"properties"` // JSON object text; "" if there are none

	// page, cart, purchase
	ItemListID    string `avro:"item_list_id,omitzero"`
	ItemListName  string `avro:"item_list_name,omitzero"`
	PromotionID   string `avro:"promotion_id,omitzero"`
	PromotionName string `avro:"promotion_name,omitzero"`
	CreativeName  string `avro:"creative_name,omitzero"`
	CreativeSlot  string `avro:"creative_slot,omitzero"`
	SearchTerm    string `avro:"search_term,omitzero"`
	Coupon        string `avro:"coupon,omitzero"`
	ShippingTier  string `avro:"shipping_tier,omitzero"`
	PaymentType   string `avro:"payment_type,omitzero"`
	Affiliation   string `avro:"affiliation,omitzero"`
	Tax           *int64 `avro:"tax"`
	Shipping      *int64 `avro:"shipping"`

	// inventory
	ItemID        string `avro:"item_id,omitzero"`
	WarehouseID   string `avro:"warehouse_id,omitzero"`
	QuantityDelta *int64 `avro:"quantity_delta"`
	StockLevel    *int64 `avro:"stock_level"`
	ChangeReason  string `avro:"change_reason,omitzero"`

	// exposure
	ExperimentID  string `avro:"experiment_id,omitzero"`
	VariantID     string `avro:"variant_id,omitzero"`
	HashAttribute string `avro:"hash_attribute,omitzero"`

	// identity
	PreviousID string `avro:"previous_id,omitzero"`

	// purchase, from version 2 of its schemas on
	Discount *int64 `avro:"discount"` // of the whole order
	Total    *int64 `avro:"total"`    // what was paid, tax and shipping included
}

// Enriched is what the hot topology knows of an event beyond what the producer sent. In Avro these fields precede the
// producer's, so that an events.* value is this prefix followed by the raw value's bytes, unchanged.
type Enriched struct {
	IngestedAt   int64  `avro:"ingested_at"` // broker timestamp of the raw record: when the platform knew it
	SessionID    string `avro:"session_id,omitzero"`
	LaneCode     int32  `avro:"lane"`
	RawTopic     string `avro:"raw_topic"`
	RawPartition int32  `avro:"raw_partition"`
	RawOffset    int64  `avro:"raw_offset"`
	RowHash      int64  `avro:"row_hash"`
	OrderRank    int32  `avro:"order_rank"` // name purchase only: 1 for the first event of an order and for a purchase without order id, 2, 3, … for copies
}

// Item is one line of a cart, an order or a list.
type Item struct {
	ItemID       string `avro:"item_id"`
	ItemName     string `avro:"item_name,omitzero"`
	ItemCategory string `avro:"item_category,omitzero"`
	ItemBrand    string `avro:"item_brand,omitzero"`
	ItemVariant  string `avro:"item_variant,omitzero"`
	Price        *int64 `avro:"price"`    // micros of the event's currency, for one unit
	Quantity     int64  `avro:"quantity"` // 1 if not sent
	Discount     *int64 `avro:"discount"`
	Coupon       string `avro:"coupon,omitzero"`
	Position     *int64 `avro:"position"` // GA4's index
}

// Category is the event's category, by its name.
func (e *Event) Category() Category { return CategoryOf(e.Name) }

// Lane is the lane that the hot topology put the event on.
func (e *Event) Lane() Lane { return Lane(e.LaneCode) }

// ProductIDs lists the distinct item ids of the event in order of first appearance, or the one item of an inventory change.
// It appends to dst.
func (e *Event) ProductIDs(dst []string) []string {
	n := len(dst)
next:
	for i := range e.Items {
		id := e.Items[i].ItemID
		if id == "" {
			continue
		}
		for _, have := range dst[n:] {
			if have == id {
				continue next
			}
		}
		dst = append(dst, id)
	}
	if len(dst) == n && e.ItemID != "" {
		dst = append(dst, e.ItemID)
	}
	return dst
}

// Time makes a time of microseconds since the epoch.
func Time(us int64) time.Time { return time.UnixMicro(us).UTC() }
