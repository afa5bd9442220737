package lakehouse

import (
	"fmt"

	"millrace/event"
	"millrace/event/schema"
)

// row is what one row of a table is made of.
type row struct {
	event  *event.Event
	failed *event.Failed
	alert  *event.Alert
	cat    string
	from   Provenance

	promoted []schema.Promoted // values of promoted columns
}

// id is the row's own name.
func (r *row) id() string {
	switch {
	case r.failed != nil:
		return r.failed.ID
	case r.alert != nil:
		return r.alert.AlertID
	}
	return r.event.ID
}

// Provenance is where a row was read.
type Provenance struct {
	Topic     string
	Partition int32
	Offset    int64
}

// getters read the columns of one table from a row, by type. Columns of lists are not here: there are two, and the writer knows them.
type getters struct {
	text    map[string]func(*row) string
	ints    map[string]func(*row) int32
	longs   map[string]func(*row) int64
	optLong map[string]func(*row) *int64
	doubles map[string]func(*row) float64
	bools   map[string]func(*row) bool
}

var provenance = getters{
	text:  map[string]func(*row) string{"kafka_topic": func(r *row) string { return r.from.Topic }},
	ints:  map[string]func(*row) int32{"kafka_partition": func(r *row) int32 { return r.from.Partition }},
	longs: map[string]func(*row) int64{"kafka_offset": func(r *row) int64 { return r.from.Offset }},
}

var eventColumns = getters{
	text: map[string]func(*row) string{
		"event_id":          func(r *row) string { return r.event.ID },
		"tenant":            func(r *row) string { return r.event.Tenant },
		"name":              func(r *row) string { return r.event.Name },
		"category":          func(r *row) string { return r.cat },
		"visitor_id":        func(r *row) string { return r.event.VisitorID },
		"user_id":           func(r *row) string { return r.event.UserID },
		"session_id":        func(r *row) string { return r.event.SessionID },
		"source":            func(r *row) string { return r.event.Source },
		"currency":          func(r *row) string { return r.event.Currency },
		"order_id":          func(r *row) string { return r.event.OrderID },
		"properties":        func(r *row) string { return r.event.Properties },
		"raw_topic":         func(r *row) string { return r.event.RawTopic },
		"country":           func(r *row) string { return r.event.Country },
		"device_type":       func(r *row) string { return r.event.DeviceType },
		"client_session_id": func(r *row) string { return r.event.ClientSessionID },
		"ip":                func(r *row) string { return r.event.IP },
		"ip_hash":           func(r *row) string { return r.event.IPHash },
		"payment_method":    func(r *row) string { return r.event.PaymentMethod },
		"card_fingerprint":  func(r *row) string { return r.event.CardFingerprint },
		"card_bin":          func(r *row) string { return r.event.CardBIN },
		"card_last4":        func(r *row) string { return r.event.CardLast4 },
		"page_url":          func(r *row) string { return r.event.PageURL },
		"page_path":         func(r *row) string { return r.event.PagePath },
		"page_title":        func(r *row) string { return r.event.PageTitle },
		"page_referrer":     func(r *row) string { return r.event.PageReferrer },
		"campaign_source":   func(r *row) string { return r.event.CampaignSource },
		"campaign_medium":   func(r *row) string { return r.event.CampaignMedium },
		"campaign_name":     func(r *row) string { return r.event.CampaignName },
		"campaign_term":     func(r *row) string { return r.event.CampaignTerm },
		"campaign_content":  func(r *row) string { return r.event.CampaignContent },
		"device_os":         func(r *row) string { return r.event.DeviceOS },
		"device_browser":    func(r *row) string { return r.event.DeviceBrowser },
		"user_agent":        func(r *row) string { return r.event.UserAgent },
		"region":            func(r *row) string { return r.event.Region },
		"city":              func(r *row) string { return r.event.City },
		"locale":            func(r *row) string { return r.event.Locale },
		"time_zone":         func(r *row) string { return r.event.TimeZone },
		"item_list_id":      func(r *row) string { return r.event.ItemListID },
		"item_list_name":    func(r *row) string { return r.event.ItemListName },
		"promotion_id":      func(r *row) string { return r.event.PromotionID },
		"promotion_name":    func(r *row) string { return r.event.PromotionName },
		"creative_name":     func(r *row) string { return r.event.CreativeName },
		"creative_slot":     func(r *row) string { return r.event.CreativeSlot },
		"search_term":       func(r *row) string { return r.event.SearchTerm },
		"coupon":            func(r *row) string { return r.event.Coupon },
		"shipping_tier":     func(r *row) string { return r.event.ShippingTier },
		"payment_type":      func(r *row) string { return r.event.PaymentType },
		"affiliation":       func(r *row) string { return r.event.Affiliation },
		"item_id":           func(r *row) string { return r.event.ItemID },
		"warehouse_id":      func(r *row) string { return r.event.WarehouseID },
		"change_reason":     func(r *row) string { return r.event.ChangeReason },
		"experiment_id":     func(r *row) string { return r.event.ExperimentID },
		"variant_id":        func(r *row) string { return r.event.VariantID },
		"hash_attribute":    func(r *row) string { return r.event.HashAttribute },
		"previous_id":       func(r *row) string { return r.event.PreviousID },
	},
	ints: map[string]func(*row) int32{
		"raw_partition":  func(r *row) int32 { return r.event.RawPartition },
		"lane":           func(r *row) int32 { return r.event.LaneCode },
		"order_rank":     func(r *row) int32 { return r.event.OrderRank },
		"schema_version": func(r *row) int32 { return r.event.SchemaVersion },
	},
	longs: map[string]func(*row) int64{
		"occurred_at": func(r *row) int64 { return r.event.OccurredAt },
		"received_at": func(r *row) int64 { return r.event.ReceivedAt },
		"ingested_at": func(r *row) int64 { return r.event.IngestedAt },
		"raw_offset":  func(r *row) int64 { return r.event.RawOffset },
		"row_hash":    func(r *row) int64 { return r.event.RowHash },
	},
	optLong: map[string]func(*row) *int64{
		"value":          func(r *row) *int64 { return r.event.Value },
		"tax":            func(r *row) *int64 { return r.event.Tax },
		"shipping":       func(r *row) *int64 { return r.event.Shipping },
		"discount":       func(r *row) *int64 { return r.event.Discount },
		"total":          func(r *row) *int64 { return r.event.Total },
		"quantity_delta": func(r *row) *int64 { return r.event.QuantityDelta },
		"stock_level":    func(r *row) *int64 { return r.event.StockLevel },
	},
}

var failedColumns = getters{
	text: map[string]func(*row) string{
		"failed_id":      func(r *row) string { return r.failed.ID },
		"event_id":       func(r *row) string { return r.failed.EventID },
		"tenant":         func(r *row) string { return r.failed.Tenant },
		"reason":         func(r *row) string { return r.failed.Reason },
		"error":          func(r *row) string { return r.failed.Error },
		"error_path":     func(r *row) string { return r.failed.ErrorPath },
		"payload":        func(r *row) string { return r.failed.Payload },
		"source":         func(r *row) string { return r.failed.Source },
		"payload_digest": func(r *row) string { return r.failed.PayloadDigest },
		"content_type":   func(r *row) string { return r.failed.ContentType },
		"raw_topic":      func(r *row) string { return r.failed.RawTopic },
	},
	ints: map[string]func(*row) int32{"raw_partition": func(r *row) int32 { return r.failed.RawPartition }},
	longs: map[string]func(*row) int64{
		"failed_at":     func(r *row) int64 { return r.failed.FailedAt },
		"received_at":   func(r *row) int64 { return r.failed.ReceivedAt },
		"ingested_at":   func(r *row) int64 { return r.failed.IngestedAt },
		"raw_offset":    func(r *row) int64 { return r.failed.RawOffset },
		"payload_bytes": func(r *row) int64 { return r.failed.PayloadBytes },
	},
}

var alertColumns = getters{
	text: map[string]func(*row) string{
		"alert_id":         func(r *row) string { return r.alert.AlertID },
		"kind":             func(r *row) string { return r.alert.Kind },
		"rule":             func(r *row) string { return r.alert.Rule },
		"tenant":           func(r *row) string { return r.alert.Tenant },
		"entity":           func(r *row) string { return r.alert.Entity },
		"key":              func(r *row) string { return r.alert.Key },
		"severity":         func(r *row) string { return r.alert.Severity },
		"trigger_event_id": func(r *row) string { return r.alert.TriggerEventID },
		"details":          func(r *row) string { return r.alert.Details },
	},
	ints: map[string]func(*row) int32{"rule_version": func(r *row) int32 { return r.alert.RuleVersion }},
	longs: map[string]func(*row) int64{
		"occurred_at": func(r *row) int64 { return r.alert.OccurredAt },
		"detected_at": func(r *row) int64 { return r.alert.DetectedAt },
	},
	doubles: map[string]func(*row) float64{"score": func(r *row) float64 { return r.alert.Score }},
	bools:   map[string]func(*row) bool{"confirmed": func(r *row) bool { return r.alert.Confirmed }},
}

// columnsOf are the getters of a table.
func columnsOf(table string) *getters {
	switch table {
	case FailedTable:
		return &failedColumns
	case AlertsTable:
		return &alertColumns
	}
	return &eventColumns
}

// The item fields, by type.
var (
	itemText = map[string]func(*event.Item) string{
		"item_id":       func(i *event.Item) string { return i.ItemID },
		"item_name":     func(i *event.Item) string { return i.ItemName },
		"item_category": func(i *event.Item) string { return i.ItemCategory },
		"item_brand":    func(i *event.Item) string { return i.ItemBrand },
		"item_variant":  func(i *event.Item) string { return i.ItemVariant },
		"coupon":        func(i *event.Item) string { return i.Coupon },
	}
	itemLong = map[string]func(*event.Item) *int64{
		"price":    func(i *event.Item) *int64 { return i.Price },
		"quantity": func(i *event.Item) *int64 { return &i.Quantity },
		"discount": func(i *event.Item) *int64 { return i.Discount },
		"position": func(i *event.Item) *int64 { return i.Position },
	}
)

// binding is how one column of a table is filled. At most one of the functions is set; none for lists and for columns that this release does not know.
type binding struct {
	column   schema.Column
	required bool
	text     func(*row) string
	int      func(*row) int32
	long     func(*row) int64
	optLong  func(*row) *int64
	double   func(*row) float64
	bool     func(*row) bool
}

// bind finds the getter of a column of table t.
func bind(t schema.Table, col schema.Column) (binding, error) {
	b := binding{column: col, required: !col.Null}
	if col.Type == schema.StringList || col.Type == schema.ItemList {
		return b, nil
	}
	for _, g := range []*getters{&provenance, columnsOf(t.Name)} {
		if f, ok := g.text[col.Name]; ok {
			b.text = f
			return b, nil
		}
		if f, ok := g.ints[col.Name]; ok {
			b.int = f
			return b, nil
		}
		if f, ok := g.longs[col.Name]; ok {
			b.long = f
			return b, nil
		}
		if f, ok := g.optLong[col.Name]; ok {
			b.optLong = f
			return b, nil
		}
		if f, ok := g.doubles[col.Name]; ok {
			b.double = f
			return b, nil
		}
		if f, ok := g.bools[col.Name]; ok {
			b.bool = f
			return b, nil
		}
	}
	return b, fmt.Errorf("table %s: no value for column %s", t.Name, col.Name)
}
