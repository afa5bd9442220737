package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// session is what a shopper does in a shop, before any SDK has put it into its words.
type session struct {
	visitor, user, company string
	steps                  []step
}

// kind is what happens in a step.
type kind string

const (
	pageView      kind = "page_view"
	viewItem      kind = "view_item"
	addToCart     kind = "add_to_cart"
	beginCheckout kind = "begin_checkout"
	purchase      kind = "purchase"
	refund        kind = "refund"
	identify      kind = "identify"
	group         kind = "group"
	alias         kind = "alias"
	custom        kind = "gift_wrapped"
	structured    kind = "structured" // Snowplow's category, action, label, property, value
)

type step struct {
	kind                        kind
	at                          time.Time
	currency                    string
	value, tax, shipping, total string // decimal literals
	order                       string
	items                       []item
}

type item struct{ id, name, price, quantity string }

// note is a text that badly made software spoils: accents in both forms, other scripts, a joined emoji, a right-to-left mark, a line separator, quotes and slashes.
const note = "naïve e\u0301 — 日本語 \U0001F469\u200D\U0001F469\u200D\U0001F467 \u200Fעברית\u2028 \"quoted\" \\ </script> 100 %"

const (
	pageURL   = "https://shop.example.com/deals?utm_source=ads&q=%C3%A9"
	pageTitle = "Deals — Angebote"
)

// newSession makes the session of a seed. Every step has a time of its own to the millisecond, some of it hours ago, none in the future.
func newSession(seed uint64, now time.Time) session {
	r := rand.New(rand.NewPCG(seed, 0x6d696c6c72616365))
	id := func(prefix string) string { return fmt.Sprintf("%s-%08x", prefix, r.Uint32()) }
	s := session{visitor: id("visitor"), user: id("user"), company: id("company")}
	at := now.Add(-3 * time.Hour).Truncate(time.Second)
	add := func(st step) {
		at = at.Add(time.Duration(60+r.IntN(600)) * time.Second)
		st.at = at.Add(time.Duration(1+r.IntN(998)) * time.Millisecond)
		s.steps = append(s.steps, st)
	}
	mug := item{id: id("sku"), name: "Mug „Größe L“", price: "19.99", quantity: "1"}
	button := item{id: id("sku"), name: "Button", price: "0.10", quantity: "1"}
	lamp := item{id: id("sku"), name: "ランプ", price: "2469", quantity: "5"}
	yacht := item{id: id("sku"), name: "Yacht", price: "1234567.89", quantity: "1"}
	first := id("order")
	add(step{kind: pageView})
	add(step{kind: viewItem, currency: "USD", value: "19.99", items: []item{mug}})
	add(step{kind: addToCart, currency: "EUR", value: "0.10", items: []item{button}})
	add(step{kind: beginCheckout, currency: "USD", value: "19.99", items: []item{mug}})
	add(step{kind: purchase, order: first, currency: "USD", value: "19.99", tax: "1.60", shipping: "4.95", total: "26.54", items: []item{mug}})
	add(step{kind: purchase, order: id("order"), currency: "EUR", value: "0.10", items: []item{button}})
	add(step{kind: purchase, order: id("order"), currency: "JPY", value: "12345", items: []item{lamp}})
	add(step{kind: purchase, order: id("order"), currency: "USD", value: "1234567.89", items: []item{yacht}})
	add(step{kind: refund, order: first, currency: "USD", value: "19.99", items: []item{mug}})
	add(step{kind: identify})
	add(step{kind: group})
	add(step{kind: alias})
	add(step{kind: structured, value: "7"})
	add(step{kind: custom})
	return s
}

type object = map[string]any

// num is a number as its literal: 0.10 stays 0.10 in the file that the driver reads.
func num(literal string) json.RawMessage { return json.RawMessage(literal) }

// stamp is a time as the drivers read it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func products(items []item, id, name string) []object {
	out := []object{}
	for _, it := range items {
		out = append(out, object{id: it.id, name: it.name, "price": num(it.price), "quantity": num(it.quantity)})
	}
	return out
}

// sale is what Segment's e-commerce specification says of a step.
func (st step) sale() object {
	o := object{}
	put := func(key, literal string) {
		if literal != "" {
			o[key] = num(literal)
		}
	}
	if st.currency != "" {
		o["currency"] = st.currency
	}
	switch st.kind {
	case purchase:
		o["order_id"], o["products"] = st.order, products(st.items, "product_id", "name")
		put("revenue", st.value)
		put("tax", st.tax)
		put("shipping", st.shipping)
		put("total", st.total)
	case refund:
		o["order_id"], o["products"] = st.order, products(st.items, "product_id", "name")
		put("total", st.value)
	case beginCheckout:
		o["products"] = products(st.items, "product_id", "name")
		put("value", st.value)
	case viewItem, addToCart:
		for k, v := range products(st.items, "product_id", "name")[0] {
			o[k] = v
		}
		put("value", st.value)
	case custom:
		o["note"] = note
	}
	return o
}

// tracked are the names of Segment's e-commerce specification.
var tracked = map[kind]string{
	viewItem: "Product Viewed", addToCart: "Product Added", beginCheckout: "Checkout Started", purchase: "Order Completed", refund: "Order Refunded", custom: "Gift Wrapped",
}

// segment is the session in calls of Segment and RudderStack.
func (s session) segment() object {
	calls := []object{}
	for _, st := range s.steps {
		call := object{"at": stamp(st.at), "userId": s.user, "anonymousId": s.visitor}
		switch st.kind {
		case structured:
			continue
		case pageView:
			call["call"], call["properties"] = "page", object{"url": pageURL, "path": "/deals", "title": pageTitle}
		case identify:
			call["call"], call["traits"] = "identify", object{"plan": "gold", "note": note}
		case group:
			call["call"], call["groupId"], call["traits"] = "group", s.company, object{"name": "Acme"}
		case alias:
			delete(call, "anonymousId")
			call["call"], call["previousId"] = "alias", s.visitor
		default:
			call["call"], call["event"], call["properties"] = "track", tracked[st.kind], st.sale()
		}
		calls = append(calls, call)
	}
	return object{"visitor": s.visitor, "user": s.user, "calls": calls}
}

// posthog is the session in calls of PostHog.
func (s session) posthog(browser bool) object {
	calls := []object{}
	for _, st := range s.steps {
		call := object{"at": stamp(st.at), "distinctId": s.user}
		switch st.kind {
		case structured:
			continue
		case pageView:
			call["call"], call["event"], call["properties"] = "capture", "$pageview", object{"$current_url": pageURL, "title": pageTitle}
		case identify:
			call["call"], call["properties"] = "identify", object{"plan": "gold", "note": note}
		case group:
			call["call"], call["groupType"], call["groupKey"], call["properties"] = "groupIdentify", "company", s.company, object{"name": "Acme"}
		case alias:
			call["call"], call["alias"] = "alias", s.visitor
			if browser { // there the visitor is the person's device already: the alias is a name that the shop gives
				call["alias"] = "alias-of-" + s.user
			}
		default:
			call["call"], call["event"], call["properties"] = "capture", tracked[st.kind], st.sale()
		}
		calls = append(calls, call)
	}
	return object{"visitor": s.visitor, "user": s.user, "calls": calls}
}

// ga4 is what GA4 says of a step.
func (st step) ga4() object {
	o := object{}
	if st.currency != "" {
		o["currency"], o["value"], o["items"] = st.currency, num(st.value), products(st.items, "item_id", "item_name")
	}
	if st.order != "" {
		o["transaction_id"] = st.order
	}
	if st.tax != "" {
		o["tax"], o["shipping"] = num(st.tax), num(st.shipping)
	}
	switch st.kind {
	case pageView:
		o["page_location"], o["page_title"] = pageURL, pageTitle
	case custom:
		o["note"] = note
	}
	return o
}

// measurement is the session in events of GA4's Measurement Protocol, which knows nothing of people and groups.
func (s session) measurement() object {
	events := []object{}
	for _, st := range s.steps {
		switch st.kind {
		case identify, group, alias, structured:
		default:
			events = append(events, object{"name": st.kind, "at": stamp(st.at), "params": st.ga4()})
		}
	}
	return object{"visitor": s.visitor, "user": s.user, "events": events}
}

// cloudevents is the session in CloudEvents. The data of one client has GA4's names, that of the other Segment's.
func (s session) cloudevents(ga4 bool) object {
	events := []object{}
	for i, st := range s.steps {
		e := object{"id": fmt.Sprintf("%s-%d", s.visitor, i), "at": stamp(st.at), "subject": s.user}
		switch st.kind {
		case identify, group, alias, structured:
			continue
		case pageView:
			e["type"], e["data"] = "com.example.shop.page_view", object{"page_location": pageURL, "page_title": pageTitle}
		default:
			if ga4 {
				e["type"], e["data"] = "com.example.shop."+string(st.kind), st.ga4()
			} else {
				e["type"], e["data"] = "com.example.shop."+snake(tracked[st.kind]), st.sale()
			}
		}
		events = append(events, e)
	}
	return object{"visitor": s.visitor, "user": s.user, "events": events}
}
