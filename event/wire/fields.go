package wire

import (
	"slices"

	"millrace/event"
)

// kind is how a member's value is read.
type kind uint8

const (
	kindText      kind = iota // string; a number is taken by its digits
	kindID                    // the same, at most event.MaxIDBytes and without control characters
	kindAmount                // exact money, from digits
	kindInteger               // whole number
	kindName                  // the event's name
	kindCurrency              // ISO 4217, in any case
	kindTime                  // RFC 3339, or a number of milliseconds since the epoch
	kindVersion               // schema_version
	kindObject                // one of ours
	kindItems                 // array of items
	kindAny                   // the properties: an object kept as it is
	kindDevice                // device type
	kindCountry               // ISO 3166-1 alpha-2
	kindCard                  // card number
	kindCardPrint             // a fingerprint of a card that the producer made
	kindBIN                   // first digits of a card
	kindLast4                 // last digits of a card
	kindIP                    // address
	kindQuantity              // whole number, 0 or more
	kindSum                   // exact money if it is that, else a property: fields that came later refuse nothing that used to be accepted
)

// target is what a member is written to.
type target struct {
	e    *event.Event
	item *event.Item
	// Members that are no field of an event by themselves.
	sentAt   int64
	occurred bool
	sent     bool
	ip       string
	suffix   string // of the source
}

// field is one member of one of our objects.
type field struct {
	name string
	kind kind
	cats []event.Category // nil: all
	text func(*target) *string
	num  func(*target) **int64
	sub  *object
}

func (f *field) in(c event.Category) bool { return f.cats == nil || slices.Contains(f.cats, c) }

// object is one of our JSON objects: what its members mean. Members it does not know go to properties under prefix + name.
type object struct {
	prefix string // "context.page."
	index  int    // in Decoder.members
	depth  int    // braces and brackets around its members
	fields map[string]*field

	// The same by a hash of a few bytes, which takes a fifth of the time of the map: seed is such that no two names share a slot.
	slots [256]*field
	seed  uint32
}

// find gives the field with a name, nil if there is none.
func (o *object) find(name []byte) *field {
	if len(name) == 0 {
		return nil
	}
	if f := o.slots[slotOf(name, o.seed)]; f != nil && f.name == string(name) {
		return f
	}
	return nil
}

func slotOf(name []byte, seed uint32) uint8 {
	n := len(name)
	return uint8((uint32(name[0]) | uint32(name[n/2])<<8 | uint32(name[n-1])<<16 | uint32(n)<<24) * seed >> 24)
}

// arrange fills slots.
func (o *object) arrange() {
	for o.seed = 1; o.seed < 1<<20; o.seed += 2 {
		o.slots = [256]*field{}
		free := true
		for name, f := range o.fields {
			at := slotOf([]byte(name), o.seed)
			if free = o.slots[at] == nil; !free {
				break
			}
			o.slots[at] = f
		}
		if free {
			return
		}
	}
	panic("names of " + o.prefix + " fields that no hash tells apart") // a mistake in the tables below
}

// layout is the shape of native events.
type layout struct {
	top, item *object
	objects   int
}

var (
	onPages  = []event.Category{event.Page}
	onCarts  = []event.Category{event.Cart, event.Purchase}
	onOrders = []event.Category{event.Purchase}
	onItems  = []event.Category{event.Page, event.Cart, event.Purchase}
	onStock  = []event.Category{event.Inventory}
	onTests  = []event.Category{event.Exposure}
	onPeople = []event.Category{event.Identity}
)

// native is GA4's shape with our additions. It is never written to.
var native = newLayout()

func newLayout() *layout {
	l := &layout{}
	obj := func(prefix string, depth int, fields ...field) *object {
		o := &object{prefix: prefix, depth: depth, index: l.objects, fields: make(map[string]*field, len(fields))}
		l.objects++
		for i := range fields {
			o.fields[fields[i].name] = &fields[i]
		}
		o.arrange()
		return o
	}
	str := func(name string, k kind, to func(*target) *string, cats ...event.Category) field {
		return field{name: name, kind: k, text: to, cats: cats}
	}
	num := func(name string, k kind, to func(*target) **int64, cats ...event.Category) field {
		return field{name: name, kind: k, num: to, cats: cats}
	}
	userAgent := func(t *target) *string { return &t.e.UserAgent }
	referrer := func(t *target) *string { return &t.e.PageReferrer }

	page := obj("context.page.", 3,
		str("url", kindText, func(t *target) *string { return &t.e.PageURL }),
		str("path", kindText, func(t *target) *string { return &t.e.PagePath }),
		str("title", kindText, func(t *target) *string { return &t.e.PageTitle }),
		str("referrer", kindText, referrer),
	)
	campaign := obj("context.campaign.", 3,
		str("source", kindText, func(t *target) *string { return &t.e.CampaignSource }),
		str("medium", kindText, func(t *target) *string { return &t.e.CampaignMedium }),
		str("name", kindText, func(t *target) *string { return &t.e.CampaignName }),
		str("term", kindText, func(t *target) *string { return &t.e.CampaignTerm }),
		str("content", kindText, func(t *target) *string { return &t.e.CampaignContent }),
	)
	device := obj("context.device.", 3,
		str("type", kindDevice, func(t *target) *string { return &t.e.DeviceType }),
		str("os", kindText, func(t *target) *string { return &t.e.DeviceOS }),
		str("browser", kindText, func(t *target) *string { return &t.e.DeviceBrowser }),
		str("user_agent", kindText, userAgent),
	)
	context := obj("context.", 2,
		field{name: "page", kind: kindObject, sub: page},
		field{name: "campaign", kind: kindObject, sub: campaign},
		field{name: "device", kind: kindObject, sub: device},
		str("referrer", kindText, referrer),
		str("user_agent", kindText, userAgent),
		str("country", kindCountry, func(t *target) *string { return &t.e.Country }),
		str("region", kindText, func(t *target) *string { return &t.e.Region }),
		str("city", kindText, func(t *target) *string { return &t.e.City }),
		str("locale", kindText, func(t *target) *string { return &t.e.Locale }),
		str("time_zone", kindText, func(t *target) *string { return &t.e.TimeZone }),
		str("ip", kindIP, func(t *target) *string { return &t.ip }),
	)
	payment := obj("payment.", 2,
		str("method", kindText, func(t *target) *string { return &t.e.PaymentMethod }),
		str("pan", kindCard, nil),
		str("card_number", kindCard, nil),
		str("card_fingerprint", kindCardPrint, nil),
		str("bin", kindBIN, func(t *target) *string { return &t.e.CardBIN }),
		str("last4", kindLast4, func(t *target) *string { return &t.e.CardLast4 }),
	)
	l.item = obj("items[].", 3,
		str("item_id", kindID, func(t *target) *string { return &t.item.ItemID }),
		str("item_name", kindText, func(t *target) *string { return &t.item.ItemName }),
		str("item_category", kindText, func(t *target) *string { return &t.item.ItemCategory }),
		str("item_brand", kindText, func(t *target) *string { return &t.item.ItemBrand }),
		str("item_variant", kindText, func(t *target) *string { return &t.item.ItemVariant }),
		num("price", kindAmount, func(t *target) **int64 { return &t.item.Price }),
		field{name: "quantity", kind: kindQuantity},
		num("discount", kindAmount, func(t *target) **int64 { return &t.item.Discount }),
		str("coupon", kindText, func(t *target) *string { return &t.item.Coupon }),
		num("index", kindInteger, func(t *target) **int64 { return &t.item.Position }),
		num("position", kindInteger, func(t *target) **int64 { return &t.item.Position }),
	)
	l.top = obj("", 1,
		field{name: "name", kind: kindName},
		field{name: "schema_version", kind: kindVersion},
		str("event_id", kindID, func(t *target) *string { return &t.e.ID }),
		str("visitor_id", kindID, func(t *target) *string { return &t.e.VisitorID }),
		str("user_id", kindID, func(t *target) *string { return &t.e.UserID }),
		str("session_id", kindID, func(t *target) *string { return &t.e.ClientSessionID }),
		str("client_session_id", kindID, func(t *target) *string { return &t.e.ClientSessionID }),
		str("transaction_id", kindID, func(t *target) *string { return &t.e.OrderID }),
		str("order_id", kindID, func(t *target) *string { return &t.e.OrderID }),
		field{name: "occurred_at", kind: kindTime},
		field{name: "sent_at", kind: kindTime},
		str("currency", kindCurrency, func(t *target) *string { return &t.e.Currency }),
		num("value", kindAmount, func(t *target) **int64 { return &t.e.Value }),
		str("ip", kindIP, func(t *target) *string { return &t.ip }),
		str("source_suffix", kindText, func(t *target) *string { return &t.suffix }), // within which event ids are unique, if that is less than the source
		field{name: "context", kind: kindObject, sub: context},
		field{name: "payment", kind: kindObject, sub: payment},
		field{name: "properties", kind: kindAny},
		field{name: "items", kind: kindItems, cats: onItems},

		str("item_list_id", kindID, func(t *target) *string { return &t.e.ItemListID }, onPages...),
		str("item_list_name", kindText, func(t *target) *string { return &t.e.ItemListName }, onPages...),
		str("promotion_id", kindID, func(t *target) *string { return &t.e.PromotionID }, onPages...),
		str("promotion_name", kindText, func(t *target) *string { return &t.e.PromotionName }, onPages...),
		str("creative_name", kindText, func(t *target) *string { return &t.e.CreativeName }, onPages...),
		str("creative_slot", kindText, func(t *target) *string { return &t.e.CreativeSlot }, onPages...),
		str("search_term", kindText, func(t *target) *string { return &t.e.SearchTerm }, onPages...),
		str("coupon", kindText, func(t *target) *string { return &t.e.Coupon }, onCarts...),
		str("shipping_tier", kindText, func(t *target) *string { return &t.e.ShippingTier }, onCarts...),
		str("payment_type", kindText, func(t *target) *string { return &t.e.PaymentType }, onCarts...),
		str("affiliation", kindText, func(t *target) *string { return &t.e.Affiliation }, onOrders...),
		num("tax", kindAmount, func(t *target) **int64 { return &t.e.Tax }, onOrders...),
		num("shipping", kindAmount, func(t *target) **int64 { return &t.e.Shipping }, onOrders...),
		num("discount", kindSum, func(t *target) **int64 { return &t.e.Discount }, onOrders...),
		num("total", kindSum, func(t *target) **int64 { return &t.e.Total }, onOrders...),
		str("item_id", kindID, func(t *target) *string { return &t.e.ItemID }, onStock...),
		str("warehouse_id", kindID, func(t *target) *string { return &t.e.WarehouseID }, onStock...),
		num("quantity_delta", kindInteger, func(t *target) **int64 { return &t.e.QuantityDelta }, onStock...),
		num("stock_level", kindInteger, func(t *target) **int64 { return &t.e.StockLevel }, onStock...),
		str("reason", kindText, func(t *target) *string { return &t.e.ChangeReason }, onStock...),
		str("change_reason", kindText, func(t *target) *string { return &t.e.ChangeReason }, onStock...),
		str("experiment_id", kindID, func(t *target) *string { return &t.e.ExperimentID }, onTests...),
		str("variant_id", kindID, func(t *target) *string { return &t.e.VariantID }, onTests...),
		str("hash_attribute", kindText, func(t *target) *string { return &t.e.HashAttribute }, onTests...),
		str("previous_id", kindID, func(t *target) *string { return &t.e.PreviousID }, onPeople...),
	)
	return l
}
