package main

import "strings"

func snake(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "_") }

// ecommerce is the vendor of Snowplow's e-commerce entities.
const ecommerce = "iglu:com.snowplowanalytics.snowplow.ecommerce/"

// snowplow is the session in events of Snowplow's trackers. The server-side ones are given events and entities, as their users write them; the browser's plugin
// makes them of its own arguments.
func (s session) snowplow() object {
	events := []object{}
	for _, st := range s.steps {
		e := object{"at": stamp(st.at), "kind": "self_describing"}
		goods := []object{}
		for _, it := range st.items {
			goods = append(goods, object{"id": it.id, "name": it.name, "category": "Deals", "price": num(it.price), "quantity": num(it.quantity), "currency": st.currency})
		}
		action := func(typ string, args object, own ...object) {
			e["schema"], e["data"] = ecommerce+"snowplow_ecommerce_action/jsonschema/1-0-2", object{"type": typ}
			for _, g := range goods {
				own = append(own, object{"schema": ecommerce + "product/jsonschema/1-0-0", "data": g})
			}
			e["entities"], e["plugin"], e["arguments"] = own, typ, args
		}
		switch st.kind {
		case pageView:
			e["kind"], e["url"], e["title"] = "page_view", pageURL, pageTitle
		case viewItem:
			action("product_view", goods[0])
		case addToCart:
			cart := object{"total_value": num(st.value), "currency": st.currency}
			args := clone(cart)
			args["products"] = goods
			action("add_to_cart", args, object{"schema": ecommerce + "cart/jsonschema/1-0-0", "data": cart})
		case beginCheckout:
			at := object{"step": 1, "account_type": "guest"}
			goods = nil
			action("checkout_step", at, object{"schema": ecommerce + "checkout_step/jsonschema/1-0-0", "data": at})
		case purchase:
			t := object{"transaction_id": st.order, "revenue": num(st.value), "currency": st.currency, "payment_method": "card", "total_quantity": num(st.items[0].quantity)}
			if st.tax != "" {
				t["tax"], t["shipping"] = num(st.tax), num(st.shipping)
			}
			args := clone(t)
			args["products"] = goods
			action("transaction", args, object{"schema": ecommerce + "transaction/jsonschema/1-0-0", "data": t})
		case refund:
			back := object{"transaction_id": st.order, "refund_amount": num(st.value), "currency": st.currency}
			args := clone(back)
			args["products"] = goods
			action("refund", args, object{"schema": ecommerce + "refund/jsonschema/1-0-0", "data": back})
		case custom:
			e["schema"], e["data"] = "iglu:com.example/gift_wrapped/jsonschema/1-0-0", object{"note": note}
		case structured:
			e["kind"], e["category"], e["action"], e["label"], e["property"], e["value"] = "struct", "deals", "open_drawer", "left", note, num(st.value)
		default: // trackers have no call for people and groups
			continue
		}
		events = append(events, e)
	}
	return object{"visitor": s.visitor, "user": s.user, "events": events}
}

func clone(o object) object {
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	return out
}
