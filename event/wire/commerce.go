package wire

import (
	"strings"

	"millrace/event"
)

// The calls of Segment's e-commerce specification, which RudderStack shares and PostHog's users follow, and what GA4 calls them. Calls that only look similar
// (filtering a list, removing from a wish list) keep their names: they would count twice, or for something else.
var commerceNames = map[string]string{
	"products searched":                event.NameSearch,
	"product list viewed":              event.NameViewItemList,
	"viewed product category":          event.NameViewItemList,
	"promotion viewed":                 event.NameViewPromotion,
	"viewed promotion":                 event.NameViewPromotion,
	"promotion clicked":                event.NameSelectPromotion,
	"clicked promotion":                event.NameSelectPromotion,
	"product clicked":                  event.NameSelectItem,
	"clicked product":                  event.NameSelectItem,
	"product viewed":                   event.NameViewItem,
	"viewed product":                   event.NameViewItem,
	"product added":                    event.NameAddToCart,
	"added product":                    event.NameAddToCart,
	"wishlist product added to cart":   event.NameAddToCart,
	"product removed":                  event.NameRemoveFromCart,
	"removed product":                  event.NameRemoveFromCart,
	"cart viewed":                      event.NameViewCart,
	"viewed cart":                      event.NameViewCart,
	"product added to wishlist":        event.NameAddToWishlist,
	"added product to wishlist":        event.NameAddToWishlist,
	"checkout started":                 event.NameBeginCheckout,
	"started checkout":                 event.NameBeginCheckout,
	"shipping info entered":            event.NameAddShippingInfo,
	"payment info entered":             event.NameAddPaymentInfo,
	"order completed":                  event.NamePurchase,
	"completed order":                  event.NamePurchase,
	"order refunded":                   event.NameRefund,
	"refunded order":                   event.NameRefund,
	"experiment viewed":                event.NameExperimentExposure,
	"viewed experiment":                event.NameExperimentExposure,
	"experimentviewed":                 event.NameExperimentExposure,
	"checkout step viewed":             checkoutStep,
	"checkout step completed":          checkoutStep,
	"viewed checkout step":             checkoutStep,
	"completed checkout step":          checkoutStep,
	"checkout payment info entered":    event.NameAddPaymentInfo,
	"checkout shipping info entered":   event.NameAddShippingInfo,
	"checkout shipping method entered": event.NameAddShippingInfo,
}

// checkoutStep stands for a step of a checkout, which is what its properties say: payment, shipping, or a step that only the shop knows.
const checkoutStep = "checkout_step"

// commerceName gives GA4's name of a call, or the name it was sent with. Shops write these names in any case, with spaces or underscores.
func commerceName(sent string, props members) string {
	key := sent
	if strings.ContainsAny(key, "_-") {
		key = strings.NewReplacer("_", " ", "-", " ").Replace(key)
	}
	name := commerceNames[strings.ToLower(strings.TrimSpace(key))]
	switch {
	case name == "":
		return sent
	case name != checkoutStep:
		return name
	case props.find("payment_method", "payment_type") != nil:
		return event.NameAddPaymentInfo
	case props.find("shipping_method", "shipping_tier") != nil:
		return event.NameAddShippingInfo
	}
	return sent
}

// commerce writes what the properties of a call say about a sale: money, items, order, list, promotion, search, experiment. It takes what it wrote from props.
// currency is what amounts without one are in; "" if the format does not say.
func commerce(b *builder, name string, props members, currency string) {
	cat := event.CategoryOf(name)
	items(b, name, cat, props)
	money(b, name, props, currency)
	b.str("transaction_id", props.text("order_id", "orderId", "transaction_id", "transactionId"))
	switch cat {
	case event.Purchase:
		b.num("tax", props.text("tax"))
		b.num("shipping", props.text("shipping"))
		b.num("discount", props.text("discount"))
		b.num("total", props.text("total"))
		b.str("affiliation", props.text("affiliation"))
		checkout(b, props)
	case event.Cart:
		checkout(b, props)
	case event.Page:
		page(b, name, props)
	case event.Exposure:
		b.str("experiment_id", props.text("experiment_id", "experimentId", "$feature_flag"))
		b.str("variant_id", props.text("variation_id", "variationId", "variant_id", "variantId", "$feature_flag_response"))
	}
}

// checkout is what carts and orders have in common.
func checkout(b *builder, props members) {
	b.str("coupon", props.text("coupon"))
	b.str("shipping_tier", props.text("shipping_method", "shipping_tier"))
	if method := props.text("payment_method", "payment_type"); method != "" {
		b.str("payment_type", method)
		b.obj("payment", func() { b.str("method", method) })
	}
}

// page is what views of lists, promotions and search results have.
func page(b *builder, name string, props members) {
	switch name {
	case event.NameSearch:
		b.str("search_term", props.text("query", "search_term", "search_query"))
	case event.NameViewPromotion, event.NameSelectPromotion:
		b.str("promotion_id", props.text("promotion_id"))
		b.str("promotion_name", props.text("name", "promotion_name"))
		b.str("creative_name", props.text("creative", "creative_name"))
		b.str("creative_slot", props.text("position", "creative_slot"))
	case event.NameViewItemList:
		b.str("item_list_id", props.text("list_id", "item_list_id"))
		b.str("item_list_name", props.text("list_name", "list", "item_list_name", "category"))
	case event.NameSelectItem, event.NameViewItem:
		b.str("item_list_id", props.text("list_id", "item_list_id"))
		b.str("item_list_name", props.text("list_name", "list", "item_list_name"))
	}
}

// money writes value and currency: the merchandise revenue without tax and shipping, which is the total if nothing else was sent.
//
// Only an order fails for its amount. With any other event a "value" that is no amount, or is in no currency, is a property like others: custom events use these
// words for anything.
func money(b *builder, name string, props members, currency string) {
	order := event.CategoryOf(name) == event.Purchase
	keys := []string{"revenue", "value"}
	if order {
		keys = []string{"revenue", "subtotal", "value", "total"}
	}
	sent := props.peek("currency", "currencyCode", "currency_code")
	switch {
	case sent == "":
	case order || wellFormedCurrency(sent):
		b.str("currency", strings.TrimSpace(props.text("currency", "currencyCode", "currency_code")))
		currency = sent
	default: // points, perhaps
		currency = ""
	}
	for _, key := range keys {
		literal := props.peek(key)
		if literal == "" {
			continue
		}
		if !order {
			if v, err := event.ParseAmount(literal); err != nil || v < 0 || currency == "" {
				continue
			}
		}
		if key != "total" { // a total that stands in for the value is still the total
			props.take(key)
		}
		b.num("value", literal)
		if sent == "" {
			b.str("currency", currency)
		}
		return
	}
}

func wellFormedCurrency(s string) bool {
	return event.WellFormedCurrency(strings.ToUpper(strings.TrimSpace(s)))
}

// items writes the products of a call: its list, or the one product that a call is about, whose members are then the call's own properties.
func items(b *builder, name string, cat event.Category, props members) {
	if cat != event.Page && cat != event.Cart && cat != event.Purchase {
		return
	}
	for _, key := range []string{"products", "items"} {
		m := props.find(key)
		if m == nil {
			continue
		}
		list, ok := elements(m.raw)
		if !ok {
			continue
		}
		m.used = true
		if len(list) > MaxItems { // which the native decoder refuses
			b.raw("items", m.raw)
			return
		}
		b.arr("items", func() {
			for _, raw := range list {
				one, ok := parse(raw)
				if !ok {
					one = members{{key: "product_id", raw: raw}} // a list of ids; the native decoder says what is wrong with anything else
				}
				b.elem(func() { item(b, one) })
			}
		})
		return
	}
	switch name {
	case event.NameViewItem, event.NameSelectItem, event.NameAddToCart, event.NameRemoveFromCart, event.NameAddToWishlist:
	default:
		return
	}
	if props.find("product_id", "productId", "sku", "item_id", "name", "item_name") == nil {
		return
	}
	one := members{}
	for i := range props {
		if m := &props[i]; !m.used && ofProduct[m.key] {
			one = append(one, *m)
			m.used = true
		}
	}
	b.arr("items", func() { b.elem(func() { item(b, one) }) })
}

// ofProduct are the properties that belong to the product of a call about one product.
var ofProduct = map[string]bool{
	"product_id": true, "productId": true, "sku": true, "name": true, "category": true, "brand": true, "variant": true, "price": true, "quantity": true,
	"coupon": true, "position": true, "image_url": true, "imageUrl": true, "discount": true, "index": true, "item_id": true, "item_name": true,
	"item_category": true, "item_brand": true, "item_variant": true,
}

// item writes one product. Members that no field takes keep their names.
func item(b *builder, ms members) {
	b.str("item_id", ms.text("item_id", "product_id", "productId", "id", "sku"))
	b.str("item_name", ms.text("item_name", "name", "title"))
	b.str("item_category", ms.text("item_category", "category"))
	b.str("item_brand", ms.text("item_brand", "brand"))
	b.str("item_variant", ms.text("item_variant", "variant"))
	b.num("price", ms.text("price"))
	b.num("quantity", ms.text("quantity"))
	b.num("discount", ms.text("discount"))
	b.str("coupon", ms.text("coupon"))
	b.num("position", ms.text("position", "index"))
	for i := range ms {
		if m := &ms[i]; !m.used {
			b.raw(m.key, m.raw)
		}
	}
}
