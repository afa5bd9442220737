package event

// Rekeyed is what jobs behind a change of keys see of an event: on rekey.card, rekey.ip and rekey.user, keyed by that entity, with as much of the event as detection and
// counting need. Absent texts are "".
type Rekeyed struct {
	Entity          string `avro:"entity"` // one of the Entity kinds
	Key             string `avro:"key"`    // of it
	Tenant          string `avro:"tenant"`
	EventID         string `avro:"event_id"`
	Name            string `avro:"name"`
	At              int64  `avro:"at"` // event time of streams: the least of the three times below
	OccurredAt      int64  `avro:"occurred_at"`
	ReceivedAt      int64  `avro:"received_at"`
	IngestedAt      int64  `avro:"ingested_at"`
	VisitorID       string `avro:"visitor_id"`
	UserID          string `avro:"user_id"`
	SessionID       string `avro:"session_id"`
	OrderID         string `avro:"order_id"`
	Source          string `avro:"source"`
	Value           int64  `avro:"value"` // micros of Currency, 0 without
	Currency        string `avro:"currency"`
	Units           int64  `avro:"units"` // of its items
	Country         string `avro:"country"`
	Region          string `avro:"region"`
	City            string `avro:"city"`
	Device          string `avro:"device"` // hash of what the browser says of itself
	DeviceType      string `avro:"device_type"`
	DeviceOS        string `avro:"device_os"`
	DeviceBrowser   string `avro:"device_browser"`
	IPHash          string `avro:"ip_hash"`
	CardFingerprint string `avro:"card_fingerprint"`
	CardBIN         string `avro:"card_bin"`
	PaymentMethod   string `avro:"payment_method"`
	Declined        bool   `avro:"declined"` // the producer said so in its properties
}

// AppendKey writes the record key: tenant 0x1F kind 0x1F id.
func (r *Rekeyed) AppendKey(dst []byte) []byte {
	dst = append(dst, r.Tenant...)
	dst = append(dst, Sep, EntityKind(r.Entity), Sep)
	return append(dst, r.Key...)
}

// EntityKind is the letter of an entity in keys, 0 of what is none.
func EntityKind(entity string) byte {
	switch entity {
	case EntityVisitor:
		return KindVisitor
	case EntityUser:
		return KindUser
	case EntityCard:
		return 'c'
	case EntityIP:
		return 'a'
	case EntityDevice:
		return 'd'
	}
	return 0
}
