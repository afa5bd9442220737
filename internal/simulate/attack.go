package simulate

import "strconv"

// Card testing: somebody tries stolen cards, one after the other, with small amounts, from one browser, until some are accepted. Every event of an attack is
// labelled in its properties, so that detection can be evaluated.

// attack is the one under way.
type attack struct {
	shopper shopper
	left    int
	number  uint64
}

const (
	attackLength = 40  // events of an attack, on average
	attackDense  = 0.2 // share of an attack in the shop's events while it lasts
)

// goesOn says whether the next event is of an attack, such that the long-term share is as given.
func (a *attack) goesOn(r *random, share float64) bool {
	if a.left > 0 {
		return r.chance(attackDense)
	}
	if share <= 0 || !r.chance(1/(attackLength*(1/share-1/attackDense))) {
		return false
	}
	a.left = attackLength/2 + r.n(attackLength) + 1
	a.number++
	return true
}

// attacked is the next event of an attack, which begins if there is none.
func (g *generator) attacked(dst []byte) []byte {
	a := &g.attack
	s := &a.shopper
	if s.visitor != 1<<62+a.number {
		g.sessions++
		s.attend(g.seed, 1<<62+a.number, g.sessions, &g.r)
		s.head = append(s.head, `,"ip":"203.0.113.`...)
		s.head = append(strconv.AppendUint(s.head, a.number%254+1, 10), '"')
	}
	a.left--
	name := addPaymentInfo
	accepted := g.r.chance(0.15)
	if accepted {
		name = purchase
	}
	coin := currencies[s.currency].coin
	value := currencies[s.currency].rate * int64(50+g.r.n(350)) / 100 / coin * coin
	dst = g.open(dst, s, name)
	g.last.fraud = true
	dst = g.moneyOf(dst, s, "value", value)
	if accepted {
		g.last.value, g.last.currency = value, uint16(s.currency)
		dst = append(dst, `,"transaction_id":"o-`...)
		dst = append(strconv.AppendUint(dst, hash2(g.seed+streamOrder, g.last.seq), 36), '"')
	}
	dst = append(dst, `,"payment_type":"credit_card"`...)
	dst = g.payment(dst, "card", g.r.next())
	dst = append(dst, `,"properties":{"fraud_label":"card_testing","declined":`...)
	dst = strconv.AppendBool(dst, !accepted)
	dst = append(dst, `,"attempt":`...)
	dst = append(strconv.AppendInt(dst, int64(a.left), 10), '}')
	return g.closeAt(dst, s, "/checkout/payment")
}
