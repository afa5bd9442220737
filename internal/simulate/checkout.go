package simulate

import (
	"strconv"

	"millrace/event"
)

// worth is what a line costs, less its discount.
func (g *generator) worth(currency uint8, l line) int64 {
	p := g.catalogue[l.product].price[currency]
	if l.reduced {
		p -= discount(p, currency)
	}
	return p * int64(l.quantity)
}

// discount is a tenth, in whole coins.
func discount(price int64, currency uint8) int64 {
	coin := currencies[currency].coin
	return price / 10 / coin * coin
}

// total is the merchandise value of a shopper's cart.
func (g *generator) total(s *shopper) int64 {
	var sum int64
	for _, l := range s.cart[:s.lines] {
		sum += g.worth(s.currency, l)
	}
	return sum
}

// openCart begins an event about the whole cart.
func (g *generator) openCart(dst []byte, s *shopper, name int) []byte {
	dst = g.open(dst, s, name)
	dst = g.moneyOf(dst, s, "value", g.total(s))
	if s.coupon > 0 {
		dst = appendField(dst, "coupon", coupons[s.coupon-1])
	}
	return g.items(dst, s, s.cart[:s.lines], 0)
}

var payments = [...]struct{ method, kind string }{{"card", "credit_card"}, {"card", "debit_card"}, {"paypal", "paypal"}, {"pix", "bank_transfer"}, {"klarna", "invoice"}}

func (g *generator) pay(dst []byte, s *shopper) []byte {
	p := payments[mix(s.visitor+0x9a7)%uint64(len(payments))]
	dst = g.openCart(dst, s, addPaymentInfo)
	dst = g.address(dst, s)
	dst = appendField(dst, "payment_type", p.kind)
	dst = g.payment(dst, p.method, hash2(g.seed+streamCard, s.visitor))
	return g.closeAt(dst, s, "/checkout/payment")
}

// payment says how was paid: a card is told by what a payment provider's token shows of it.
func (g *generator) payment(dst []byte, method string, card uint64) []byte {
	dst = append(dst, `,"payment":{"method":"`...)
	dst = append(append(dst, method...), '"')
	if method == "card" {
		dst = append(dst, `,"card_fingerprint":"`...)
		dst = appendHex(dst, card, 16)
		dst = append(dst, `","bin":"4`...)
		dst = appendPadded(dst, int(card%40), 5)
		dst = append(dst, `","last4":"`...)
		dst = appendPadded(dst, int(card>>32%10_000), 4)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// order is the purchase of the cart.
func (g *generator) order(dst []byte, s *shopper) []byte {
	value := g.total(s)
	coin := currencies[s.currency].coin
	p := payments[mix(s.visitor+0x9a7)%uint64(len(payments))]
	order := hash2(g.seed+streamOrder, g.seq)

	dst = g.open(dst, s, purchase)
	g.last.value, g.last.currency = value, uint16(s.currency)
	dst = g.moneyOf(dst, s, "value", value)
	dst = append(dst, `,"transaction_id":"o-`...)
	dst = append(strconv.AppendUint(dst, order, 36), '"')
	if s.coupon > 0 {
		dst = appendField(dst, "coupon", coupons[s.coupon-1])
	}
	dst = g.money(dst, s, "tax", value/5/coin*coin)
	if value < currencies[s.currency].rate*50 {
		dst = g.money(dst, s, "shipping", max(currencies[s.currency].rate*5/coin*coin, coin))
	} else {
		dst = g.money(dst, s, "shipping", 0)
	}
	dst = g.address(dst, s)
	dst = appendField(dst, "affiliation", "Millrace Online Store")
	dst = appendField(dst, "payment_type", p.kind)
	dst = g.payment(dst, p.method, hash2(g.seed+streamCard, s.visitor))
	dst = g.items(dst, s, s.cart[:s.lines], 0)
	for _, l := range s.cart[:s.lines] {
		g.sold.push(l)
	}
	if g.r.chance(refundShare) {
		r := returned{due: g.total0 + 500 + uint64(g.r.n(5000)), visitor: s.visitor, order: order, currency: s.currency, lines: s.lines, cart: s.cart}
		if g.r.chance(0.4) {
			r.lines = 1 // a part of it
		}
		g.returns.push(r)
	}
	return g.closeShopper(dst, s, "/checkout/thanks", "Thank you")
}

// refundShare is how many orders are sent back, in part or whole.
const refundShare = 0.06

// returned is an order, or the first line of it, that is to be refunded.
type returned struct {
	due      uint64 // number of the event not before which it is
	visitor  uint64
	order    uint64
	currency uint8
	lines    int
	cart     [maxLines]line
}

// giveBack is the refund of the oldest order on the list. The shop's back office sends it, so it has no context.
func (g *generator) giveBack(dst []byte) []byte {
	r, _ := g.returns.pop()
	var value int64
	for _, l := range r.cart[:r.lines] {
		value += g.worth(r.currency, l)
	}
	dst = g.begin(dst, refund)
	dst = append(dst, `,"visitor_id":"`...)
	dst = append(appendVisitor(dst, g.seed, r.visitor), '"')
	s := &shopper{currency: r.currency}
	dst = g.moneyOf(dst, s, "value", value) // the platform makes it negative
	dst = append(dst, `,"transaction_id":"o-`...)
	dst = append(strconv.AppendUint(dst, r.order, 36), '"')
	dst = g.items(dst, s, r.cart[:r.lines], 0)
	return append(dst, `,"properties":{"channel":"returns_desk"}}`...)
}

// stock is a change of stock: of something sold, or a delivery.
func (g *generator) stockChange(dst []byte) []byte {
	l, sold := g.sold.pop()
	delta, reason := -int64(l.quantity), "sale"
	if !sold {
		l.product = g.bestSeller()
		delta, reason = int64(20+g.r.n(200)), "restock"
	}
	g.stock[l.product] += delta
	dst = g.begin(dst, inventoryChange)
	dst = appendField(dst, "item_id", g.catalogue[l.product].id)
	dst = appendField(dst, "warehouse_id", [...]string{"ams-1", "reno-2", "osaka-1"}[int(l.product)%3])
	dst = strconv.AppendInt(appendKey(dst, "quantity_delta"), delta, 10)
	dst = strconv.AppendInt(appendKey(dst, "stock_level"), g.stock[l.product], 10)
	dst = appendField(dst, "change_reason", reason)
	return append(dst, '}')
}

// begin writes the fields that every event has.
func (g *generator) begin(dst []byte, name int) []byte {
	g.id = appendUUID(g.id[:0], g.seed, streamEvent, g.seq)
	g.last = record{seq: g.seq, name: uint32(name)}
	g.seq++
	return g.envelope(dst, names[name], g.occurred())
}

func (g *generator) envelope(dst []byte, name string, occurred int64) []byte {
	dst = append(dst, `{"event_id":"`...)
	dst = append(dst, g.id...)
	dst = append(dst, `","name":"`...)
	dst = append(dst, name...)
	dst = append(dst, `","occurred_at":"`...)
	return append(appendTime(dst, occurred), '"')
}

// open begins an event of a shopper.
func (g *generator) open(dst []byte, s *shopper, name int) []byte {
	return append(g.begin(dst, name), s.head...)
}

// closeShopper ends it with where the shopper is.
func (g *generator) closeShopper(dst []byte, s *shopper, path, title string) []byte {
	dst = append(dst, `,"context":{`...)
	if path != "" {
		dst = append(dst, `"page":{"url":"https://shop.example`...)
		dst = append(dst, path...)
		dst = append(dst, `","path":"`...)
		dst = append(append(dst, path...), '"')
		if title != "" {
			dst = appendField(dst, "title", title)
		}
		if s.referrer != "" {
			dst = appendField(dst, "referrer", s.referrer)
			s.referrer = "" // the shop's own pages follow
		}
		dst = append(dst, '}', ',')
	}
	dst = append(dst, s.context...)
	return append(dst, '}')
}

func (g *generator) closeAt(dst []byte, s *shopper, path string) []byte {
	return g.closeShopper(dst, s, path, "")
}

// money writes an amount the way the shopper's device does.
func (g *generator) money(dst []byte, s *shopper, key string, micros int64) []byte {
	dst = appendKey(dst, key)
	if s.numbers {
		return event.AppendAmount(dst, micros)
	}
	dst = append(dst, '"')
	dst = appendPrice(dst, micros, s.currency)
	return append(dst, '"')
}

// moneyOf writes an amount and its currency.
func (g *generator) moneyOf(dst []byte, s *shopper, key string, micros int64) []byte {
	return g.money(appendField(dst, "currency", currencies[s.currency].code), s, key, micros)
}

// appendPrice writes an amount with as many decimals as its currency has.
func appendPrice(dst []byte, micros int64, currency uint8) []byte {
	dst = strconv.AppendInt(dst, micros/event.MicrosPerUnit, 10)
	if currencies[currency].coin == event.MicrosPerUnit {
		return dst
	}
	return appendPadded(append(dst, '.'), int(micros%event.MicrosPerUnit/10_000), 2)
}

// items writes lines; index is the place of the first of them in a list, 0 if they are in none.
func (g *generator) items(dst []byte, s *shopper, lines []line, index int) []byte {
	dst = append(dst, `,"items":[`...)
	for i, l := range lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		p := &g.catalogue[l.product]
		dst = append(append(dst, '{'), p.fields...)
		dst = g.money(dst, s, "price", p.price[s.currency])
		dst = strconv.AppendInt(appendKey(dst, "quantity"), int64(l.quantity), 10)
		if l.reduced {
			dst = g.money(dst, s, "discount", discount(p.price[s.currency], s.currency))
		}
		if index > 0 {
			dst = strconv.AppendInt(appendKey(dst, "index"), int64(index+i), 10)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// queue is a bounded first-in, first-out list; what does not fit is not taken.
type queue[T any] struct {
	ring []T
	head int
	n    int
}

func newQueue[T any](size int) queue[T] { return queue[T]{ring: make([]T, size)} }

func (q *queue[T]) push(v T) {
	if q.n < len(q.ring) {
		q.ring[(q.head+q.n)%len(q.ring)] = v
		q.n++
	}
}

func (q *queue[T]) peek() *T {
	if q.n == 0 {
		return nil
	}
	return &q.ring[q.head]
}

func (q *queue[T]) pop() (v T, ok bool) {
	if q.n == 0 {
		return v, false
	}
	v = q.ring[q.head]
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return v, true
}
