package kpi

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"millrace/event"
)

// Family is a set of dimensions.
type Family uint8

// The families.
const (
	Shop Family = iota
	Items
)

// Families lists all families.
func Families() []Family { return []Family{Shop, Items} }

// String is the family's name on kpi.partial.
func (f Family) String() string {
	if f == Items {
		return "items"
	}
	return "shop"
}

// ParseFamily finds a family by its name.
func ParseFamily(s string) (Family, bool) {
	for _, f := range Families() {
		if f.String() == s {
			return f, true
		}
	}
	return 0, false
}

// Dimensions lists the columns by which the family's rows of one window are told apart, besides kafka_partition.
func (f Family) Dimensions() []string {
	if f == Items {
		return []string{"tenant", "currency", "product_id", "item_category"}
	}
	return []string{"tenant", "currency", "country", "device"}
}

// Columns lists the family's columns of measures, in order, without visitors_sketch.
func (f Family) Columns() []string {
	var out []string
	for _, m := range columnOrder {
		if m.In(f) {
			out = append(out, m.String())
		}
	}
	return out
}

// Table is the table of the family's rows of a grain: kpi_1m, kpi_items_1d.
func (f Family) Table(g Grain) string {
	if f == Items {
		return "kpi_items_" + g.Name
	}
	return "kpi_" + g.Name
}

// Grain is a size of windows.
type Grain struct {
	Name string
	Size time.Duration // 0 for the day, which lasts 23 to 25 hours in most time zones
	From int           // index of the finer grain that it is folded from: a day from minutes, because its midnight need not be on a UTC hour
}

// Grains lists all grains, finest first.
func Grains() []Grain {
	return []Grain{{Name: "1s", Size: time.Second}, {Name: "1m", Size: time.Minute}, {Name: "1h", Size: time.Hour, From: 1}, {Name: "1d", From: 1}}
}

// ShopKey is one row of family shop within a window.
type ShopKey struct{ Tenant, Currency, Country, Device string }

// ItemsKey is one row of family items within a window. ProductID is "" in the row of a category as a whole.
type ItemsKey struct{ Tenant, Currency, ProductID, ItemCategory string }

// ShopKeyOf is the row that e is counted in: its currency as sent, "" if it has none. Its strings are e's.
func ShopKeyOf(e *event.Event) ShopKey {
	return ShopKey{e.Tenant, e.Currency, e.Country, e.DeviceType}
}

// Append writes k in the form that DecodeShopKey reads.
func (k ShopKey) Append(dst []byte) []byte {
	return appendStrings(dst, k.Tenant, k.Currency, k.Country, k.Device)
}

// DecodeShopKey reads a key.
func DecodeShopKey(src []byte) (k ShopKey, err error) {
	return k, decodeStrings(src, &k.Tenant, &k.Currency, &k.Country, &k.Device)
}

// Append writes k in the form that DecodeItemsKey reads.
func (k ItemsKey) Append(dst []byte) []byte {
	return appendStrings(dst, k.Tenant, k.Currency, k.ProductID, k.ItemCategory)
}

// DecodeItemsKey reads a key.
func DecodeItemsKey(src []byte) (k ItemsKey, err error) {
	return k, decodeStrings(src, &k.Tenant, &k.Currency, &k.ProductID, &k.ItemCategory)
}

func appendStrings(dst []byte, ss ...string) []byte {
	n := 0
	for _, s := range ss {
		n += len(s) + 2
	}
	dst = slices.Grow(dst, n)
	for _, s := range ss {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

var errKey = errors.New("not a KPI key")

func decodeStrings(src []byte, into ...*string) error {
	for _, p := range into {
		n, k := binary.Uvarint(src)
		if k <= 0 || n > uint64(len(src)-k) {
			return errKey
		}
		*p = string(src[k : k+int(n)])
		src = src[k+int(n):]
	}
	if len(src) != 0 {
		return errKey
	}
	return nil
}

// AppendRecordKey writes the record key of p on kpi.partial: everything that identifies a row, so that compaction keeps the latest of each.
func AppendRecordKey(dst []byte, p *event.KPIPartial) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.KafkaPartition))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.WindowStart))
	return appendStrings(dst, p.Family, p.Grain, p.Tenant, p.Currency, p.Country, p.Device, p.ProductID, p.ItemCategory)
}
