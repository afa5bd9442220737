package event

import (
	"encoding/binary"
	"errors"
)

// LiveUpdate is one value that a job keeps in Redis: a field of a hash. It travels on live.updates; the newest record of a (key, field) is the value. All records of a
// (key, field) come from one task. A value that lives longer than a day is written again each day, so that the topic's last days hold all that Redis does.
type LiveUpdate struct {
	Tenant    string `avro:"tenant"`
	Key       string `avro:"key"`   // of Redis, with a {hash tag}
	Field     string `avro:"field"` // of its hash
	Value     []byte `avro:"value"`
	ExpiresAt int64  `avro:"expires_at"` // µs: when the whole key goes, unless it is written again
}

// AppendKey writes the record key.
func (u *LiveUpdate) AppendKey(dst []byte) []byte {
	dst = append(dst, u.Key...)
	dst = append(dst, Sep)
	return append(dst, u.Field...)
}

// The kinds of ProductChange.
const (
	ProductSale     = "sale"     // a line of an order
	ProductStock    = "stock"    // a change of stock, or a count
	ProductForecast = "forecast" // a fitted model, by ForecastDemand
)

// ProductChange is what the tasks of products see, on rekey.product. It is keyed as changes of stock are, by tenant and item.
type ProductChange struct {
	Tenant      string `avro:"tenant"`
	ItemID      string `avro:"item_id"`
	Kind        string `avro:"kind"`
	EventID     string `avro:"event_id"` // of what it was made from
	OccurredAt  int64  `avro:"occurred_at"`
	Quantity    int64  `avro:"quantity"`     // of a sale
	WarehouseID string `avro:"warehouse_id"` // of a change of stock
	Delta       *int64 `avro:"delta"`        // by how much the stock changed
	Level       *int64 `avro:"level"`        // what it is now: this counts, if it is given
	Body        []byte `avro:"body"`         // of a forecast: JSON
}

// AppendKey writes the record key.
func (p *ProductChange) AppendKey(dst []byte) []byte {
	dst = append(dst, p.Tenant...)
	dst = append(dst, Sep, KindItem, Sep)
	return append(dst, p.ItemID...)
}

// ProductLiveKey is the key under which Redis holds what is known of a product.
func ProductLiveKey(tenant, product string) string { return "inv:{" + tenant + "|" + product + "}" }

// Fields of that key.
const (
	ProductLiveStock    = "stock"    // ProductLive
	ProductLiveForecast = "forecast" // model and its version
)

// ProductLive is the stock of a product and what was sold of it in the last hours.
type ProductLive struct {
	Stock     []WarehouseStock `json:"stock,omitempty"`
	Sales     []HourSales      `json:"sales,omitempty"`
	Closed    int64            `json:"closed"` // the last hour since the epoch that is over
	Low       bool             `json:"low,omitempty"`
	LeadHours int              `json:"lead_hours"` // that Low is about
}

// WarehouseStock is the stock in one place.
type WarehouseStock struct {
	Warehouse string `json:"warehouse"`
	Level     int64  `json:"level"`
	At        int64  `json:"at"` // µs, of the last count
}

// HourSales is what was sold in one hour since the epoch.
type HourSales struct {
	Hour  int64 `json:"hour"`
	Units int64 `json:"units"`
}

// TogetherLiveKey is the key of what goes with an item. Its fields are TogetherViews and TogetherOrders, each with the number of a partition behind it.
func TogetherLiveKey(tenant, item string) string { return "rl:{" + tenant + "|" + item + "}" }

// Beginnings of the fields of that key.
const (
	TogetherViews  = "views:"
	TogetherOrders = "orders:"
)

// PopularLiveKey is the key of the most popular items: kind is all, category or country. Its fields are numbers of partitions.
func PopularLiveKey(tenant, kind, name string) string {
	return "rp:{" + tenant + "|" + kind + "|" + name + "}"
}

// RecentLiveKey is the key of what a visitor has looked at last.
func RecentLiveKey(tenant, visitor string) string { return "rv:{" + tenant + "|" + visitor + "}" }

// RecentLiveItems is its field.
const RecentLiveItems = "items"

// RecentItem is an item that a visitor has looked at.
type RecentItem struct {
	Item   string
	Weight int64 // 1 a look, 3 the cart
	At     int64 // µs
}

// AppendRecent writes items, the last looked at first.
func AppendRecent(dst []byte, items []RecentItem) []byte {
	for _, x := range items {
		dst = append(binary.AppendUvarint(dst, uint64(len(x.Item))), x.Item...)
		dst = binary.AppendVarint(binary.AppendVarint(dst, x.Weight), x.At)
	}
	return dst
}

var errRecent = errors.New("these bytes are no items of a session")

// DecodeRecent reads what AppendRecent has written.
func DecodeRecent(src []byte) ([]RecentItem, error) {
	var out []RecentItem
	for len(src) > 0 {
		n, k := binary.Uvarint(src)
		if k <= 0 || n > uint64(len(src)-k) {
			return nil, errRecent
		}
		x := RecentItem{Item: string(src[k : k+int(n)])}
		src = src[k+int(n):]
		for _, v := range []*int64{&x.Weight, &x.At} {
			if *v, k = binary.Varint(src); k <= 0 {
				return nil, errRecent
			}
			src = src[k:]
		}
		out = append(out, x)
	}
	return out, nil
}
