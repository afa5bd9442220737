package wire

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-faster/jx"

	"millrace/event"
)

// translateSnowplow translates what Snowplow's trackers send: the events of a POST to /{vendor}/{version}, or the one event of a GET's query. A self-describing
// JSON in the place of an envelope, as webhooks post it, is an event too.
//
// A classic transaction comes as one event for the order (tr) and one for each of its items (ti). Those of one request are joined by order id to one purchase; an
// item without its order is an event of its own.
func translateSnowplow(in *Inbound, yield func(text []byte, f *Failure) bool) {
	body := clientJSON(in.Body)
	if len(body) == 0 {
		if len(in.Query) == 0 {
			return
		}
		body = queryJSON(in.Query)
	}
	events, fault := snowplowEvents(body)
	if fault != nil {
		yield(body, fault)
		return
	}
	s := &snowplow{keyed: keyedElsewhere(in), received: in.ReceivedAt, orders: ordersOf(events)}
	Split(events, func(text []byte) bool { return s.one(text, yield) })
}

// snowplow is the translation of one request.
type snowplow struct {
	b        builder
	keyed    bool // the write key is elsewhere, so the app id is only that
	received int64
	orders   map[string]*order
}

// order is a classic transaction of which both the order and items are in the request.
type order struct {
	whole bool // there is a tr
	taken bool // and it has been written
	items [][]byte
}

var dataMember = regexp.MustCompile(`"data"\s*:\s*\[`)

// snowplowEvents finds the events of a body: an array, or one event.
func snowplowEvents(body []byte) ([]byte, *Failure) {
	if body[0] == '[' {
		return body, nil
	}
	ms, ok := parse(body)
	if !ok {
		if at := dataMember.FindIndex(body); at != nil && body[0] == '{' { // of a damaged batch what is whole still counts
			return withoutBrace(body[at[1]-1:]), nil
		}
		return nil, unreadable(body)
	}
	schema := ms.peek("schema")
	if data := ms.find("data"); data != nil && data.raw[0] == '[' && (schema == "" || strings.Contains(schema, "payload_data")) {
		return data.raw, nil
	}
	return body, nil
}

// withoutBrace takes off the brace of the object that an array was the last member of.
func withoutBrace(events []byte) []byte {
	if rest, ok := bytes.CutSuffix(events, []byte("}")); ok && bytes.HasSuffix(bytes.TrimSpace(rest), []byte("]")) {
		return rest
	}
	return events
}

// snowplowKeys finds the write key of a request.
func snowplowKeys(in *Inbound) []string {
	key := in.Query.Get("aid")
	if key == "" {
		key = snowplowKey(in.Body)
	}
	if key == "" {
		return nil
	}
	return []string{key}
}

// snowplowKey is the write key of a body: the app id of its first event that has one.
func snowplowKey(body []byte) string {
	body = clientJSON(body)
	if len(body) == 0 {
		return ""
	}
	events, fault := snowplowEvents(body)
	if fault != nil {
		return ""
	}
	key := ""
	Split(events, func(text []byte) bool {
		if len(text) > MaxEventBytes {
			return true
		}
		if raw := scalarsOf(text, "aid"); raw != nil {
			key, _ = textOf(raw["aid"])
		}
		return key == ""
	})
	return key
}

// keyedElsewhere says whether a request has a write key in one of the places that count for all formats. Then the app id names an app; else it is the key and
// stays out of the events.
func keyedElsewhere(in *Inbound) bool {
	for _, h := range []string{"Authorization", "X-Write-Key"} {
		if in.Header.Get(h) != "" {
			return true
		}
	}
	return in.Query.Get("writeKey") != "" || in.Query.Get("write_key") != ""
}

// queryJSON writes a query as the object that a POST would have been. A name that comes again keeps its first value.
func queryJSON(query map[string][]string) []byte {
	var w jx.Writer
	w.RawStr("{")
	for i, key := range slices.Sorted(maps.Keys(query)) {
		if i > 0 {
			w.RawStr(",")
		}
		w.Str(validUTF8(key))
		w.RawStr(":")
		w.Str(validUTF8(strings.Join(query[key][:1], "")))
		for n, more := range query[key][1:] {
			w.RawStr(",")
			w.Str(validUTF8(key) + "#" + strconv.Itoa(n+2))
			w.RawStr(":")
			w.Str(validUTF8(more))
		}
	}
	w.RawStr("}")
	return clientJSON(w.Buf)
}

// scalarsOf reads a few members of an object without taking the rest apart; nil if it is none.
func scalarsOf(text []byte, keys ...string) map[string][]byte {
	var d jx.Decoder
	d.ResetBytes(text)
	if d.Next() != jx.Object {
		return nil
	}
	out := make(map[string][]byte, len(keys))
	err := d.ObjBytes(func(d *jx.Decoder, key []byte) error {
		if !slices.Contains(keys, string(key)) {
			return d.Skip()
		}
		name := string(key) // key is gone once the value is read
		raw, err := d.Raw()
		if out[name] == nil && string(raw) != "null" {
			out[name] = raw
		}
		return err
	})
	if err != nil {
		return nil
	}
	return out
}

// ordersOf finds the classic transactions of which order and items are among the events; nil if there are none, as in all but very old trackers.
func ordersOf(events []byte) map[string]*order {
	if !bytes.Contains(events, []byte(`"tr_id"`)) || !bytes.Contains(events, []byte(`"ti_id"`)) {
		return nil
	}
	orders := map[string]*order{}
	Split(events, func(text []byte) bool {
		if len(text) > MaxEventBytes {
			return true
		}
		raw := scalarsOf(text, "e", "tr_id", "ti_id")
		e, _ := textOf(raw["e"])
		id, _ := textOf(raw[e+"_id"])
		if id == "" || e != "tr" && e != "ti" {
			return true
		}
		o := orders[id]
		if o == nil {
			o = &order{}
			orders[id] = o
		}
		if e == "tr" {
			_, readable := parse(text)
			o.whole = o.whole || readable
		} else {
			o.items = append(o.items, text)
		}
		return true
	})
	return orders
}

// one translates one event.
func (s *snowplow) one(text []byte, yield func(text []byte, f *Failure) bool) bool {
	if len(text) > MaxEventBytes {
		return yield(text, &Failure{Reason: event.ReasonSize, Message: "event of " + strconv.Itoa(len(text)) + " bytes is larger than 1 MiB"})
	}
	ms, ok := parse(text)
	if !ok {
		return yield(text, unreadable(text))
	}
	b := &s.b
	b.reset()
	es := entitiesOf(ms)
	e, eid := ms.text("e"), clipped(ms.peek("eid"))
	ids(b, ms, es)
	switch {
	case e == "pv":
		b.typed(event.NamePageView, e)
	case e == "pp":
		b.typed("page_ping", e)
	case e == "se":
		b.typed("structured_event", e)
	case e == "ue":
		about, key := describedIn(ms)
		if about == nil {
			return yield(text, &Failure{Reason: event.ReasonSchema, Path: key, Message: "a self-describing event is expected", EventID: eid})
		}
		selfDescribing(b, about, es)
	case e == "" && ms.find("schema") != nil && ms.find("data") != nil:
		selfDescribing(b, members{*ms.find("schema"), *ms.find("data")}, es)
		ms.take("schema")
		ms.take("data")
	case e == "tr":
		s.transaction(ms)
	case e == "ti":
		if o := s.orders[ms.peek("ti_id")]; o != nil && o.whole {
			return true // it is written with its order
		}
		b.typed("transaction_item", e)
		b.str("order_id", ms.text("ti_id"))
		b.str("currency", ms.text("ti_cu"))
		b.arr("items", func() { b.elem(func() { classicItem(b, ms) }) })
	default:
		b.name(e)
	}
	s.common(ms, es)
	return yield(b.done(), nil)
}

// transaction writes a classic order with those of its items that are in the request.
func (s *snowplow) transaction(ms members) {
	b := &s.b
	id, currency := ms.text("tr_id"), ms.text("tr_cu")
	b.typed(event.NamePurchase, "tr")
	b.str("transaction_id", id)
	if o := s.orders[id]; o != nil && !o.taken {
		o.taken = true
		seen, said := map[string]bool{}, make(map[string][]byte, len(ms))
		for i := range ms {
			said[ms[i].key] = ms[i].raw
		}
		b.arr("items", func() {
			for _, raw := range o.items {
				one, ok := parse(raw)
				if !ok {
					continue // it fails by itself
				}
				eid := one.text("eid")
				if eid != "" && seen[eid] {
					continue
				}
				seen[eid] = true
				if cu := one.peek("ti_cu"); currency == "" || cu == currency {
					currency = one.text("ti_cu")
				}
				b.elem(func() { joinedItem(b, one, eid, said) })
			}
		})
	}
	if total := ms.text("tr_tt"); total != "" { // there is no amount for the goods alone
		b.num("value", total)
		b.num("total", total)
	}
	b.num("tax", ms.text("tr_tx"))
	b.num("shipping", ms.text("tr_sh"))
	b.str("affiliation", ms.text("tr_af"))
	b.str("currency", currency)
}

// joinedItem writes an item with its order. What the order says, too, is left to the order.
func joinedItem(b *builder, one members, eid string, said map[string][]byte) {
	classicItem(b, one)
	b.str("eid", eid)
	for i := range one {
		m := &one[i]
		switch m.key {
		case "e", "ti_id", "dtm", "stm", "ttm", "aid":
			continue
		}
		if !m.used && !bytes.Equal(said[m.key], m.raw) {
			b.raw(m.key, m.raw)
		}
	}
}

// classicItem writes the item of a classic transaction.
func classicItem(b *builder, ms members) {
	b.str("item_id", ms.text("ti_sk"))
	b.str("item_name", ms.text("ti_nm"))
	b.str("item_category", ms.text("ti_ca"))
	b.num("price", ms.text("ti_pr"))
	b.num("quantity", ms.text("ti_qu"))
}

// ids writes who and which.
func ids(b *builder, ms members, es *entities) {
	b.str("event_id", ms.text("eid"))
	b.str("visitor_id", ms.text("duid"))
	b.str("user_id", ms.text("uid"))
	b.str("session_id", ms.text("sid"))
	if session := es.named(snowplowVendor, "client_session"); session != nil {
		if !b.has["visitor_id"] {
			b.str("visitor_id", session.data.peek("userId"))
		}
		if !b.has["session_id"] {
			b.str("session_id", session.data.peek("sessionId"))
		}
	}
	if !b.has["visitor_id"] {
		b.str("visitor_id", ms.text("nuid", "tnuid"))
	}
}

// common writes what else every event can have: times, page, device. What is left are properties under Snowplow's names.
func (s *snowplow) common(ms members, es *entities) {
	b := &s.b
	if at := ms.text("ttm"); at != "" { // somebody's word, not a clock's
		b.num("occurred_at", at)
	} else {
		dtm, stm := ms.text("dtm"), ms.text("stm")
		b.num("occurred_at", dtm)
		b.num("sent_at", s.sent(dtm, stm))
	}
	if !s.keyed {
		ms.take("aid")
	}
	b.obj("context", func() {
		b.obj("page", func() {
			b.str("url", ms.text("url"))
			title := ms.text("page")
			if title == "" {
				title = es.screen
			}
			b.str("title", title)
			b.str("referrer", ms.text("refr"))
		})
		b.str("user_agent", ms.text("ua"))
		b.str("locale", ms.text("lang"))
		b.str("time_zone", ms.text("tz"))
		b.str("ip", ms.text("ip"))
	})
	es.rest(b)
	ms.rest(b, "")
}

// sent is when an event was sent by the device's clock. Some trackers cut it to whole seconds, which would pass for a clock that is up to a second slow: of the
// times it may have been, it is the one closest to when the event was received, and none before the event itself.
func (s *snowplow) sent(dtm, stm string) string {
	at, err := strconv.ParseInt(stm, 10, 64)
	if err != nil || at%1000 != 0 {
		return stm
	}
	last := at + 999
	if made, err := strconv.ParseInt(dtm, 10, 64); err == nil && made > at && made <= last {
		at = made
	}
	return strconv.FormatInt(min(max(s.received/1000, at), last), 10)
}
