package simulate

import (
	"bytes"
	"strconv"

	"millrace/event"
)

// flaw is one way in which an event can be wrong, and the reason with which it must fail. All but those that break the text are valid JSON, so that they
// harm no sibling in an array. Every malformed event holds an id of its own, so that no two are the same failure.
type flaw struct {
	name       string
	reason     string
	breaksText bool
	write      func(g *generator, dst []byte) []byte
}

// with makes an event of a page that ends with the given members.
func with(name, tail string) func(*generator, []byte) []byte {
	return func(g *generator, dst []byte) []byte {
		dst = g.envelope(dst, name, g.now())
		dst = append(dst, `,"visitor_id":"`...)
		dst = append(appendVisitor(dst, g.seed, g.bad%997), '"')
		return append(append(dst, tail...), '}')
	}
}

// when makes an event with the given time.
func when(occurred string) func(*generator, []byte) []byte {
	return func(g *generator, dst []byte) []byte {
		dst = append(dst, `{"event_id":"`...)
		dst = append(dst, g.id...)
		dst = append(dst, `","name":"page_view","visitor_id":"v-clock","occurred_at":`...)
		return append(append(dst, occurred...), '}')
	}
}

// flaws is the table of all of them.
var flaws = [...]flaw{
	{"no name", event.ReasonSchema, false, func(g *generator, dst []byte) []byte {
		dst = append(dst, `{"event_id":"`...)
		dst = append(dst, g.id...)
		dst = append(dst, `","visitor_id":"v-anon","occurred_at":"`...)
		return append(appendTime(dst, g.now()), `"}`...)
	}},
	{"name is a list", event.ReasonSchema, false, func(g *generator, dst []byte) []byte {
		dst = append(dst, `{"event_id":"`...)
		dst = append(dst, g.id...)
		return append(dst, `","name":["page_view"],"visitor_id":"v-anon"}`...)
	}},
	{"items is a string", event.ReasonSchema, false, with(event.NameAddToCart, `,"items":"three"`)},
	{"quantity is a word", event.ReasonSchema, false, with(event.NameAddToCart, `,"items":[{"item_id":"sku-0001","quantity":"two"}]`)},
	{"context is an array", event.ReasonSchema, false, with(event.NamePageView, `,"context":["page"]`)},
	{"user is an object", event.ReasonSchema, false, with(event.NamePageView, `,"user_id":{"id":7}`)},
	{"not an object", event.ReasonMalformed, false, func(g *generator, dst []byte) []byte {
		dst = append(dst, `"event `...)
		return append(append(dst, g.id...), '"')
	}},
	{"bad name", event.ReasonBadName, false, with("1st, visit!", "")},
	{"long name", event.ReasonBadName, false, with(string(bytes.Repeat([]byte("n"), event.MaxNameBytes+1)), "")},
	{"seven decimals", event.ReasonBadAmount, false, with(event.NamePurchase, `,"currency":"USD","value":"12.3456789"`)},
	{"too much", event.ReasonBadAmount, false, with(event.NamePurchase, `,"currency":"USD","value":1000000000000`)},
	{"decimal comma", event.ReasonBadAmount, false, with(event.NamePurchase, `,"currency":"EUR","value":"12,50"`)},
	{"not a number", event.ReasonBadAmount, false, with(event.NamePurchase, `,"currency":"USD","value":"NaN"`)},
	{"bad item price", event.ReasonBadAmount, false, with(event.NameViewItem, `,"currency":"USD","items":[{"item_id":"sku-0001","price":"free"}]`)},
	{"negative", event.ReasonBadAmount, false, with(event.NamePurchase, `,"currency":"USD","value":"-5.00"`)},
	{"no currency", event.ReasonSchema, false, with(event.NamePurchase, `,"value":"19.90"`)},
	{"time in words", event.ReasonSchema, false, when(`"yesterday"`)},
	{"1970", event.ReasonBadTime, false, when(`"1970-01-01T00:00:00Z"`)},
	{"2100", event.ReasonBadTime, false, when(`"2100-01-01T00:00:00Z"`)},
	{"nested too deep", event.ReasonDepth, false, func(g *generator, dst []byte) []byte {
		const depth = 80
		dst = g.envelope(dst, event.NamePageView, g.now())
		dst = append(dst, `,"properties":{"a":`...)
		dst = append(dst, bytes.Repeat([]byte{'['}, depth)...)
		dst = strconv.AppendUint(dst, g.bad, 10)
		dst = append(dst, bytes.Repeat([]byte{']'}, depth)...)
		return append(dst, `}}`...)
	}},
	{"cut off", event.ReasonMalformed, true, func(g *generator, dst []byte) []byte {
		dst = g.envelope(dst, event.NamePageView, g.now())
		return append(dst, `,"visitor_id":"v-cut","context":{"page":{"url":"https://shop.exa`...)
	}},
	{"unquoted", event.ReasonMalformed, true, func(g *generator, dst []byte) []byte {
		dst = g.envelope(dst, event.NamePageView, g.now())
		return append(dst, `,"visitor_id":v-unquoted}`...)
	}},
}

func (g *generator) now() int64 { return g.start + int64(g.pace.at/1000) }

// flawed is a malformed event.
func (g *generator) flawed(dst []byte) []byte {
	g.id = appendUUID(g.id[:0], g.seed, streamBad, g.bad)
	i := g.r.n(len(g.flaws))
	g.last = record{class: malformed, name: uint32(i)}
	dst = g.flaws[i].write(g, dst)
	g.bad++
	return dst
}
