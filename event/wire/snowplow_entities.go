package wire

import (
	"encoding/base64"
	"strings"

	"github.com/go-faster/jx"

	"millrace/event"
)

// Vendors of Snowplow's own schemas.
const (
	snowplowVendor  = "com.snowplowanalytics.snowplow"
	ecommerceVendor = "com.snowplowanalytics.snowplow.ecommerce"
)

// ecommerceNames are GA4's names of the types of a snowplow_ecommerce_action. Those of a checkout's steps depend on the step, and a type that is not here names a
// custom event.
var ecommerceNames = map[string]string{
	"product_view": event.NameViewItem, "list_view": event.NameViewItemList, "list_click": event.NameSelectItem, "add_to_cart": event.NameAddToCart,
	"remove_from_cart": event.NameRemoveFromCart, "transaction": event.NamePurchase, "refund": event.NameRefund, "promo_view": event.NameViewPromotion,
	"promo_click": event.NameSelectPromotion, "checkout_step": event.NameBeginCheckout,
}

// entity is a self-describing JSON that an event carries along.
type entity struct {
	vendor, name string
	raw          []byte
	data         members
	taken        bool
}

// entities are what an event carries along. What no field takes of them is kept as they came, in the property "contexts".
type entities struct {
	list   []*entity
	screen string // the name of the screen that a self-describing event is about
}

// entitiesOf takes the entities of an event, which come as JSON text (co) or the same in base64 (cx). What is none stays with the event.
func entitiesOf(ms members) *entities {
	es := &entities{}
	for _, key := range []string{"co", "cx"} {
		m := ms.find(key)
		if m == nil {
			continue
		}
		outer, ok := parse(embedded(m))
		if !ok {
			continue
		}
		list, ok := elements(outer.take("data"))
		if !ok {
			continue
		}
		m.used = true
		for _, raw := range list {
			es.add(raw)
		}
	}
	return es
}

func (es *entities) add(raw []byte) {
	e := &entity{raw: raw}
	if ms, ok := parse(raw); ok {
		e.vendor, e.name = schemaName(ms.peek("schema"))
		e.data, _ = parse(ms.take("data"))
	}
	es.list = append(es.list, e)
}

// named gives the first entity of a schema that has not been taken; nil if there is none.
func (es *entities) named(vendor, name string) *entity {
	for _, e := range es.list {
		if !e.taken && e.vendor == vendor && e.name == name {
			return e
		}
	}
	return nil
}

// take is named, of which the members are then the caller's to keep.
func (es *entities) take(name string) members {
	if e := es.named(ecommerceVendor, name); e != nil && e.data != nil {
		e.taken = true
		return e.data
	}
	return nil
}

// rest keeps the entities that were not taken.
func (es *entities) rest(b *builder) {
	var w jx.Writer
	for _, e := range es.list {
		if !e.taken {
			w.RawStr(",")
			w.Raw(e.raw)
		}
	}
	if len(w.Buf) > 0 {
		w.RawStr("]")
		w.Buf[0] = '['
		b.prop("contexts", w.Buf)
	}
}

// embedded gives the JSON that a member holds as such, as text or as base64; nil if it holds none. Trackers write URL-safe base64 without padding; other kinds are
// read as well.
func embedded(m *member) []byte {
	if m.raw[0] != '"' {
		return m.raw
	}
	text, _ := textOf(m.raw)
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") {
		text = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_", " ", "-").Replace(text), "=")
		plain, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil
		}
		text = string(plain)
	}
	raw := clientJSON([]byte(text))
	if !jx.Valid(raw) {
		return nil
	}
	return raw
}

// describedIn takes what a self-describing event is about: schema and data. Without it, it names the member that should have it.
func describedIn(ms members) (members, string) {
	for _, key := range []string{"ue_px", "ue_pr"} {
		m := ms.find(key)
		if m == nil {
			continue
		}
		outer, ok := parse(embedded(m))
		if !ok || outer.find("schema") == nil {
			return nil, key
		}
		if _, name := schemaName(outer.peek("schema")); name == "unstruct_event" {
			if outer, ok = parse(outer.take("data")); !ok || outer.find("schema") == nil {
				return nil, key
			}
		}
		m.used = true
		return outer, key
	}
	return nil, "ue_pr"
}

// schemaName gives vendor and name of "iglu:vendor/name/jsonschema/1-0-0".
func schemaName(schema string) (vendor, name string) {
	parts := strings.SplitN(strings.TrimPrefix(schema, "iglu:"), "/", 3)
	if len(parts) < 2 {
		return "", parts[0]
	}
	return parts[0], parts[1]
}

// selfDescribing writes the event that schema and data describe.
func selfDescribing(b *builder, about members, es *entities) {
	schema := about.text("schema")
	vendor, name := schemaName(schema)
	data := about.sub("data")
	switch {
	case vendor == ecommerceVendor && name == "snowplow_ecommerce_action":
		action(b, data, es)
	case vendor == snowplowVendor && (name == event.NameAddToCart || name == event.NameRemoveFromCart):
		b.name(name)
		b.str("currency", data.text("currency"))
		b.arr("items", func() {
			b.elem(func() {
				b.str("item_id", data.text("sku"))
				b.str("item_name", data.text("name"))
				b.str("item_category", data.text("category"))
				b.num("price", data.text("unitPrice"))
				b.num("quantity", data.text("quantity"))
			})
		})
	case name == "site_search":
		b.typed(event.NameSearch, name)
		b.str("search_term", terms(data))
	case name == event.NameScreenView:
		b.name(name)
		es.screen = data.text("name")
	default:
		known := commerceName(name, data)
		b.typed(wellFormed(known), name)
		commerce(b, known, data, "")
	}
	b.propStr("schema", schema)
	data.rest(b, "")
	about.rest(b, "") // data that is no object
}

// terms takes the words of a site search.
func terms(data members) string {
	m := data.find("terms")
	if m == nil {
		return ""
	}
	list, ok := elements(m.raw)
	if !ok {
		return data.text("terms")
	}
	words := make([]string, 0, len(list))
	for _, raw := range list {
		word, ok := textOf(raw)
		if !ok {
			return ""
		}
		words = append(words, word)
	}
	m.used = true
	return strings.Join(words, " ")
}

// action writes an event of Snowplow's e-commerce plugin, of which nearly everything is in the entities.
func action(b *builder, data members, es *entities) {
	sent := data.text("type")
	name := ecommerceNames[sent]
	if name == "" {
		name = sent
	}
	cart, step, order, refund, promo, user, page := es.take("cart"), members(nil), members(nil), members(nil), members(nil), es.take("user"), es.take("page")
	switch name {
	case event.NamePurchase:
		order = es.take("transaction")
	case event.NameRefund:
		refund = es.take("refund")
	case event.NameBeginCheckout:
		step = es.take("checkout_step")
		if step.peek("payment_method") != "" {
			name = event.NameAddPaymentInfo
		}
	case event.NameViewPromotion, event.NameSelectPromotion:
		promo = es.take("promotion")
	default:
		order = es.take("transaction")
	}
	b.typed(wellFormed(name), sent)
	if event.CategoryOf(name) == event.Page {
		b.str("item_list_name", data.text("name"))
	}
	orderID := order.text("transaction_id")
	if orderID == "" {
		orderID = refund.text("transaction_id")
	}
	b.str("transaction_id", orderID)
	if name == event.NamePurchase {
		b.num("value", order.text("revenue"))
		b.num("tax", order.text("tax"))
		b.num("shipping", order.text("shipping"))
		b.str("coupon", order.text("discount_code"))
		b.num("discount", order.text("discount_amount"))
	}
	b.num("value", refund.text("refund_amount"))
	method := order.text("payment_method")
	if method == "" {
		method = step.text("payment_method")
	}
	if method != "" {
		b.str("payment_type", method)
		b.obj("payment", func() { b.str("method", method) })
	}
	b.str("shipping_tier", step.text("delivery_method"))
	b.str("coupon", step.text("coupon_code"))
	b.str("promotion_id", promo.text("id"))
	b.str("promotion_name", promo.text("name"))
	b.str("creative_name", promo.text("creative_id"))
	b.str("creative_slot", promo.text("slot"))
	if !b.has["user_id"] {
		b.str("user_id", user.text("id"))
	}
	currency := products(b, name, es, order, refund, cart)
	b.str("currency", currency)
	for _, left := range []struct {
		prefix string
		ms     members
	}{{"cart.", cart}, {"checkout_step.", step}, {"transaction.", order}, {"refund.", refund}, {"promotion.", promo}, {"user.", user}, {"page.", page}} {
		left.ms.rest(b, left.prefix)
	}
}

// products writes the product entities as items and gives the event's currency, which is that of its amounts. Whatever is in another says so itself.
func products(b *builder, name string, es *entities, amounts ...members) string {
	currency := ""
	for _, ms := range amounts {
		if own := ms.peek("currency"); currency == "" || own == currency {
			currency = ms.text("currency")
		}
	}
	if event.CategoryOf(name) == event.Custom {
		return currency
	}
	b.arr("items", func() {
		for _, e := range es.list {
			ms := e.data
			if e.taken || e.vendor != ecommerceVendor || e.name != "product" || ms == nil {
				continue
			}
			e.taken = true
			if own := ms.peek("currency"); currency == "" || own == currency {
				currency = ms.text("currency")
			}
			b.elem(func() { item(b, ms) })
		}
	})
	return currency
}
