package simulate

import "strconv"

// Attacks are what detection is evaluated with: every event of one is labelled with its kind in its properties (fraud_label). Some begin with what the victim has done
// before, which is not labelled.

// The kinds of attack.
const (
	cardTesting      = "card_testing"      // stolen cards are tried, one after the other, with small amounts, from one browser
	manyVisitors     = "velocity_ip"       // the same with a fresh browser for each card, from one address
	impossibleTravel = "impossible_travel" // a user who just paid at home pays from another continent
	amountOutlier    = "amount_outlier"    // an order many times as large as the customer's others
	stolenAccount    = "stolen_account"    // somebody else, with another device in another country, orders in a customer's account
	instantCheckout  = "instant_checkout"  // a script that puts into the cart and orders at once
)

// script is how a kind of attack goes.
type script struct {
	label   string
	weight  uint32
	prelude int // events of the victim before it
	least   int // labelled events
	spread  int // up to so many more
}

var scripts = [...]script{
	{cardTesting, 3, 0, 21, 40},
	{manyVisitors, 3, 0, 21, 40},
	{impossibleTravel, 4, 3, 2, 1},
	{amountOutlier, 4, 6, 1, 1},
	{stolenAccount, 4, 4, 3, 1},
	{instantCheckout, 4, 0, 3, 1},
}

var scriptWeights = newWeights(len(scripts), func(i int) uint32 { return scripts[i].weight })

// FraudLabels lists the labels of attacks.
func FraudLabels() []string {
	var out []string
	for _, s := range scripts {
		out = append(out, s.label)
	}
	return out
}

// attack is the one under way.
type attack struct {
	script  *script
	shopper shopper // the victim, or whoever attacks alone
	thief   shopper
	step    int // events so far
	left    int // events to come, prelude included
	number  uint64
}

const (
	attackLength = 61  // labelled events of the longest attack
	attackDense  = 0.2 // share of an attack in the shop's events while it lasts
)

// attackMeans are the mean numbers of labelled events of an attack, and of all its events.
func attackMeans() (labelled, all float64) {
	sum := 0.0
	for _, s := range scripts {
		w, n := float64(s.weight), float64(s.least)+float64(s.spread-1)/2
		sum, labelled, all = sum+w, labelled+w*n, all+w*(n+float64(s.prelude))
	}
	return labelled / sum, all / sum
}

// goesOn says whether the next event is of an attack, such that the long-term share of labelled events is as given.
func (a *attack) goesOn(r *random, share float64) bool {
	if a.left > 0 {
		return r.chance(attackDense)
	}
	if share <= 0 {
		return false
	}
	labelled, all := attackMeans()
	if !r.chance(1 / (labelled/share - all/attackDense)) {
		return false
	}
	a.script = &scripts[scriptWeights.choose(r.next())]
	a.step, a.left = 0, a.script.prelude+a.script.least+r.n(a.script.spread)
	a.number++
	return true
}

// attacked is the next event of an attack.
func (g *generator) attacked(dst []byte) []byte {
	a := &g.attack
	s := &a.shopper
	if a.step == 0 {
		g.beginAttack()
	}
	step := a.step
	a.step++
	a.left--
	labelled := step >= a.script.prelude
	act := step - a.script.prelude
	switch a.script.label {
	case cardTesting:
		return g.tryCard(dst, s)
	case manyVisitors:
		if step > 0 { // another browser, which looks the same
			g.sessions++
			s.attend(g.seed, attacker+a.number<<8+uint64(step), g.sessions, &g.r)
			s.context = append(s.context[:0], a.thief.context...)
			s.currency, s.numbers = a.thief.currency, a.thief.numbers
		}
		return g.tryCard(dst, s)
	case impossibleTravel, stolenAccount:
		who := s
		if labelled {
			who = &a.thief
		}
		card := hash2(g.seed+streamCard, s.visitor)
		if labelled && a.script.label == stolenAccount {
			if act == 0 {
				return g.identified(dst, who)
			}
		}
		// the last two of an attack, and every second before it, are payments and orders
		if a.left%2 == 1 {
			return g.attackPayment(dst, who, addPaymentInfo, 1, card, labelled)
		}
		return g.attackPayment(dst, who, purchase, 1+g.r.n(2), card, labelled)
	case amountOutlier:
		quantity := 1 + g.r.n(2)
		if labelled {
			quantity = 80 + g.r.n(80)
		}
		return g.attackPayment(dst, s, purchase, quantity, hash2(g.seed+streamCard, s.visitor), labelled)
	default: // instantCheckout
		if act == 0 {
			dst = g.attackOpen(dst, s, addToCart, true)
			l := line{product: g.bestSeller(), quantity: 1}
			dst = g.moneyOf(dst, s, "value", g.worth(s.currency, l))
			dst = g.items(dst, s, []line{l}, 0)
			return g.attackClose(dst, s, true, "", "/cart")
		}
		if act == 1 {
			return g.attackPayment(dst, s, addPaymentInfo, 1, hash2(g.seed+streamCard, s.visitor), true)
		}
		return g.attackPayment(dst, s, purchase, 1, hash2(g.seed+streamCard, s.visitor), true)
	}
}

// attacker is the number from which on visitors are people of attacks.
const attacker = 1 << 62

// beginAttack chooses who takes part.
func (g *generator) beginAttack() {
	a := &g.attack
	s := &a.shopper
	visitor := attacker + a.number<<8
	g.sessions++
	s.attend(g.seed, visitor, g.sessions, &g.r)
	s.numbers = false
	switch a.script.label {
	case cardTesting, manyVisitors:
		g.sessions++
		a.thief.attend(g.seed, visitor, g.sessions, &g.r)
		a.thief.numbers = false
	case impossibleTravel, amountOutlier, stolenAccount:
		s.sign(g.seed, visitor)
		for i := uint64(1); i < 200; i++ { // the first of them who is far away, with something else in the hand
			if farApart(g.seed, visitor, visitor+i) {
				g.sessions++
				a.thief.attend(g.seed, visitor+i, g.sessions, &g.r)
				break
			}
		}
		a.thief.numbers = false
		a.thief.sign(g.seed, visitor)
	}
}

// sign adds a user to what a shopper's events carry.
func (s *shopper) sign(seed, visitor uint64) {
	s.head = append(s.head, `,"user_id":"`...)
	s.head = append(appendUser(s.head, seed, visitor), '"')
}

// continent of each market.
var continents = [len(markets)]uint8{0, 1, 1, 1, 1, 2, 3, 0}

// farApart says whether two visitors are on different continents with different devices.
func farApart(seed, a, b uint64) bool {
	place := func(v uint64) (uint8, int) {
		h := hash2(seed^0x71517, v) // as attend chooses
		return continents[marketWeights.choose(mix(h+1))], deviceWeights.choose(mix(h + 2))
	}
	ca, da := place(a)
	cb, db := place(b)
	return ca != cb && da != db
}

// tryCard is one attempt with a stolen card.
func (g *generator) tryCard(dst []byte, s *shopper) []byte {
	a := &g.attack
	accepted := g.r.chance(0.15)
	name := addPaymentInfo
	if accepted {
		name = purchase
	}
	coin := currencies[s.currency].coin
	value := currencies[s.currency].rate * int64(50+g.r.n(350)) / 100 / coin * coin
	dst = g.attackOpen(dst, s, name, true)
	dst = g.moneyOf(dst, s, "value", value)
	if accepted {
		dst = g.ordered(dst, s, value)
	}
	dst = append(dst, `,"ip":"203.0.113.`...)
	dst = append(strconv.AppendUint(dst, a.number%254+1, 10), '"')
	dst = append(dst, `,"payment_type":"credit_card"`...)
	dst = g.payment(dst, "card", g.r.next())
	extra := `,"declined":` + strconv.FormatBool(!accepted) + `,"attempt":` + strconv.Itoa(a.left)
	return g.attackClose(dst, s, true, extra, "/checkout/payment")
}

// attackPayment is a payment or an order of some of one product, which is the attack's.
func (g *generator) attackPayment(dst []byte, s *shopper, name, quantity int, card uint64, labelled bool) []byte {
	l := line{product: uint16(mix(g.attack.number) % uint64(len(g.catalogue))), quantity: uint8(quantity)}
	value := g.worth(s.currency, l)
	dst = g.attackOpen(dst, s, name, labelled)
	dst = g.moneyOf(dst, s, "value", value)
	if name == purchase {
		dst = g.ordered(dst, s, value)
	}
	dst = g.address(dst, s)
	dst = append(dst, `,"payment_type":"credit_card"`...)
	dst = g.payment(dst, "card", card)
	dst = g.items(dst, s, []line{l}, 0)
	return g.attackClose(dst, s, labelled, "", "/checkout/payment")
}

// identified is the thief who signs in.
func (g *generator) identified(dst []byte, s *shopper) []byte {
	dst = g.attackOpen(dst, s, identify, true)
	return g.attackClose(dst, s, true, "", "/login")
}

func (g *generator) attackOpen(dst []byte, s *shopper, name int, labelled bool) []byte {
	dst = g.open(dst, s, name)
	g.last.fraud = labelled
	return dst
}

// ordered notes an order.
func (g *generator) ordered(dst []byte, s *shopper, value int64) []byte {
	g.last.value, g.last.currency = value, uint16(s.currency)
	dst = append(dst, `,"transaction_id":"o-`...)
	return append(strconv.AppendUint(dst, hash2(g.seed+streamOrder, g.last.seq), 36), '"')
}

func (g *generator) attackClose(dst []byte, s *shopper, labelled bool, extra, path string) []byte {
	if labelled {
		dst = append(dst, `,"properties":{"fraud_label":"`...)
		dst = append(dst, g.attack.script.label...)
		dst = append(append(append(dst, '"'), extra...), '}')
	}
	return g.closeAt(dst, s, path)
}

// address is where a shopper pays from: most have one of their own, some share one with a few others.
func (g *generator) address(dst []byte, s *shopper) []byte {
	h := hash2(g.seed+streamAddress, s.visitor)
	if h%8 == 0 {
		h = hash2(g.seed+streamAddress, s.visitor>>1)
	}
	dst = append(dst, `,"ip":"`...)
	for i, b := range [...]uint64{11 + h>>8%80, h >> 16 & 255, h >> 24 & 255, h>>32%254 + 1} {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, b, 10)
	}
	return append(dst, '"')
}
