package simulate

import (
	"strconv"

	"millrace/event"
)

// What the shop sends. A name's number is its index here.
var names = [...]string{
	event.NamePageView, event.NameScreenView, event.NameViewItem, event.NameViewItemList, event.NameSelectItem, event.NameViewPromotion, event.NameSelectPromotion,
	event.NameSearch, event.NameAddToCart, event.NameRemoveFromCart, event.NameViewCart, event.NameAddToWishlist, event.NameBeginCheckout,
	event.NameAddShippingInfo, event.NameAddPaymentInfo, event.NamePurchase, event.NameRefund, event.NameInventoryChange, event.NameExperimentExposure, event.NameIdentify,
	"newsletter_signup", "video_play", "chat_opened", "Product Compared", "$scroll_depth",
}

// The numbers of names, in the order of names.
const (
	pageView = iota
	screenView
	viewItem
	viewItemList
	selectItem
	viewPromotion
	selectPromotion
	search
	addToCart
	removeFromCart
	viewCart
	addToWishlist
	beginCheckout
	addShippingInfo
	addPaymentInfo
	purchase
	refund
	inventoryChange
	experimentExposure
	identify
	firstCustom
)

// phase is where a shopper is in the funnel.
type phase uint8

const (
	gone phase = iota
	landing
	signing
	exposed
	browsing
	shipping
	paying
	ordering
)

// line is one product in a cart.
type line struct {
	product  uint16
	quantity uint8
	reduced  bool // a tenth off
}

const maxLines = 6

// shopper is one visitor in one session.
type shopper struct {
	visitor    uint64
	head       []byte // ,"visitor_id":…,"session_id":…
	context    []byte // the context object without its page and its opening brace
	referrer   string
	phase      phase
	currency   uint8
	numbers    bool
	registered bool
	signedIn   bool
	looking    bool // at a product
	product    uint16
	cart       [maxLines]line
	lines      int
	coupon     uint8 // 1 + index in coupons
}

// enter begins a new session in a slot: of a new visitor, or of one who was here before.
func (g *generator) enter(s *shopper) {
	visitor := g.visitors
	if g.visitors > 100 && g.r.chance(0.35) {
		recent := 1 - g.r.unit()*g.r.unit() // the last ones come back most
		visitor = uint64(recent * float64(g.visitors))
	} else {
		g.visitors++
	}
	g.sessions++
	s.attend(g.seed, visitor, g.sessions, &g.r)
	s.phase, s.looking, s.lines, s.coupon = landing, false, 0, 0
}

// shop lets one shopper do the next thing, and appends the event of it.
func (g *generator) shop(dst []byte) []byte {
	// The shop fills up little by little, so that a short run has purchases too.
	s := &g.shoppers[g.r.n(min(len(g.shoppers), 20+int(min(g.total0/10, maxShoppers))))]
	switch s.phase {
	case gone:
		g.enter(s)
		fallthrough
	case landing:
		s.phase = exposed
		if s.signedIn {
			s.phase = signing
		}
		if s.numbers && g.r.chance(0.3) {
			return g.screen(dst, s)
		}
		return g.page(dst, s, "/", "Millrace Shop")
	case signing:
		s.phase = exposed
		return g.identify(dst, s)
	case exposed:
		s.phase = browsing
		if g.r.chance(0.5) {
			return g.exposure(dst, s)
		}
		return g.browse(dst, s)
	case shipping:
		s.phase = paying
		if g.r.chance(0.12) {
			s.phase = gone
		}
		dst = g.openCart(dst, s, addShippingInfo)
		dst = appendField(dst, "shipping_tier", [...]string{"Ground", "Express", "Pickup"}[g.r.n(3)])
		return g.closeAt(dst, s, "/checkout/shipping")
	case paying:
		s.phase = ordering
		stays := 0.86
		if treated(g.seed, s.visitor, 0) {
			stays = 0.93 // the effect of the first experiment
		}
		if !g.r.chance(stays) {
			s.phase = gone
		}
		return g.pay(dst, s)
	case ordering:
		s.phase = gone
		return g.order(dst, s)
	default:
		return g.browse(dst, s)
	}
}

// browse is one step among the shop's pages.
func (g *generator) browse(dst []byte, s *shopper) []byte {
	d := g.r.n(1000)
	if s.lines > 0 && d >= 840 { // a cart changes what is next
		switch {
		case d < 880:
			dst = g.openCart(dst, s, viewCart)
			return g.closeAt(dst, s, "/cart")
		case d < 895:
			return g.remove(dst, s)
		default:
			if g.r.chance(0.12) {
				s.coupon = uint8(1 + g.r.n(len(coupons)))
			}
			s.phase = shipping
			dst = g.openCart(dst, s, beginCheckout)
			return g.closeAt(dst, s, "/checkout")
		}
	}
	switch {
	case d < 190:
		return g.list(dst, s)
	case d < 330:
		s.product, s.looking = g.choose(s), true
		dst = g.open(dst, s, selectItem)
		dst = append(dst, `,"item_list_id":"`...)
		dst = append(dst, departments[g.catalogue[s.product].category].list...)
		dst = append(dst, '"')
		dst = g.items(dst, s, []line{{s.product, 1, false}}, 1+g.r.n(24))
		return g.closeAt(dst, s, "/c")
	case d < 560:
		return g.view(dst, s)
	case d < 640:
		term := searchTerms[g.r.n(len(searchTerms))]
		dst = g.open(dst, s, search)
		dst = appendQuoted(appendKey(dst, "search_term"), term)
		dst = append(dst, `,"properties":{"results":`...)
		dst = append(strconv.AppendInt(dst, int64(g.r.n(80)), 10), '}')
		return g.closeAt(dst, s, "/search")
	case d < 690:
		p := &promotions[g.r.n(len(promotions))]
		name := viewPromotion
		if d >= 675 {
			name = selectPromotion
		}
		dst = g.open(dst, s, name)
		dst = appendField(dst, "promotion_id", p.id)
		dst = appendField(dst, "promotion_name", p.name)
		dst = appendField(dst, "creative_name", p.creative)
		dst = appendField(dst, "creative_slot", p.slot)
		return g.closeAt(dst, s, "/")
	case d < 780:
		if s.looking && s.lines < maxLines {
			return g.add(dst, s)
		}
		return g.view(dst, s)
	case d < 800:
		if !s.looking {
			return g.view(dst, s)
		}
		dst = g.open(dst, s, addToWishlist)
		dst = g.moneyOf(dst, s, "value", g.catalogue[s.product].price[s.currency])
		dst = g.items(dst, s, []line{{s.product, 1, false}}, 0)
		return g.closeAt(dst, s, g.catalogue[s.product].path)
	case d < 825:
		return g.custom(dst, s)
	case d < 910:
		return g.page(dst, s, "/about", "About us")
	default:
		s.phase = gone
		return g.page(dst, s, "/bye", "See you soon")
	}
}

// bestSeller chooses a product; the first of the catalogue sell much more often than the last.
func (g *generator) bestSeller() uint16 {
	u := g.r.unit()
	return uint16(u * u * u * float64(len(g.catalogue)))
}

// setSize is how many products of the catalogue, one after the other, go together: who likes one of a set likes the others.
const setSize = 4

// choose is the next product that a shopper looks at: often one of the set of the last one looked at or put into the cart, so that recommendations have something to
// find.
func (g *generator) choose(s *shopper) uint16 {
	last := s.product
	if !s.looking {
		if s.lines == 0 {
			return g.bestSeller()
		}
		last = s.cart[s.lines-1].product
	}
	if !g.r.chance(0.45) {
		return g.bestSeller()
	}
	return min(last/setSize*setSize+uint16(g.r.n(setSize)), uint16(len(g.catalogue)-1))
}

func (g *generator) page(dst []byte, s *shopper, path, title string) []byte {
	dst = g.open(dst, s, pageView)
	return g.closeShopper(dst, s, path, title)
}

func (g *generator) screen(dst []byte, s *shopper) []byte {
	dst = g.open(dst, s, screenView)
	dst = append(dst, `,"properties":{"screen_name":"home","app_version":"4.12.0"}`...)
	return g.closeShopper(dst, s, "", "")
}

func (g *generator) list(dst []byte, s *shopper) []byte {
	dep := &departments[g.r.n(len(departments))]
	dst = g.open(dst, s, viewItemList)
	dst = appendField(dst, "item_list_id", dep.list)
	dst = appendQuoted(appendKey(dst, "item_list_name"), dep.name)
	var shown [4]line
	for i := range shown {
		shown[i] = line{g.bestSeller(), 1, false}
	}
	dst = g.items(dst, s, shown[:], 1)
	return g.closeAt(dst, s, "/c")
}

func (g *generator) view(dst []byte, s *shopper) []byte {
	if !s.looking || g.r.chance(0.6) {
		s.product, s.looking = g.choose(s), true
	}
	p := &g.catalogue[s.product]
	dst = g.open(dst, s, viewItem)
	dst = g.moneyOf(dst, s, "value", p.price[s.currency])
	dst = g.items(dst, s, []line{{s.product, 1, false}}, 0)
	return g.closeAt(dst, s, p.path)
}

func (g *generator) add(dst []byte, s *shopper) []byte {
	l := line{product: s.product, quantity: 1, reduced: g.r.chance(0.15)}
	for l.quantity < 4 && g.r.chance(0.18) {
		l.quantity++
	}
	s.cart[s.lines] = l
	s.lines++
	s.looking = false
	return g.cartLine(dst, s, addToCart, l)
}

func (g *generator) remove(dst []byte, s *shopper) []byte {
	i := g.r.n(s.lines)
	l := s.cart[i]
	s.lines--
	s.cart[i] = s.cart[s.lines]
	return g.cartLine(dst, s, removeFromCart, l)
}

func (g *generator) cartLine(dst []byte, s *shopper, name int, l line) []byte {
	dst = g.open(dst, s, name)
	dst = g.moneyOf(dst, s, "value", g.worth(s.currency, l))
	dst = g.items(dst, s, []line{l}, 0)
	return g.closeAt(dst, s, g.catalogue[l.product].path)
}

// custom is an event with a name that only this shop knows.
func (g *generator) custom(dst []byte, s *shopper) []byte {
	name := firstCustom + g.r.n(len(names)-firstCustom)
	dst = g.open(dst, s, name)
	dst = append(dst, `,"properties":{"percent":`...)
	dst = strconv.AppendInt(dst, int64(25*(1+g.r.n(4))), 10)
	dst = append(dst, `,"position":"footer","tags":["a","b"],"nested":{"deep":true,"ratio":0.5,"none":null}}`...)
	return g.closeAt(dst, s, "/")
}

func (g *generator) identify(dst []byte, s *shopper) []byte {
	// From here on the visitor's events carry the user.
	s.head = append(s.head, `,"user_id":"`...)
	s.head = append(appendUser(s.head, g.seed, s.visitor), '"')
	dst = g.open(dst, s, identify)
	dst = append(dst, `,"previous_id":"`...)
	dst = append(appendVisitor(dst, g.seed, s.visitor), '"')
	dst = append(dst, `,"properties":{"plan":"`...)
	dst = append(dst, [...]string{"none", "silver", "gold"}[mix(s.visitor)%3]...)
	dst = append(dst, `"}`...)
	return g.closeAt(dst, s, "/login")
}

func (g *generator) exposure(dst []byte, s *shopper) []byte {
	i := g.r.n(len(experiments))
	variant := experiments[i].control
	if treated(g.seed, s.visitor, i) {
		variant = experiments[i].treatment
	}
	dst = g.open(dst, s, experimentExposure)
	dst = appendField(dst, "experiment_id", experiments[i].id)
	dst = appendField(dst, "variant_id", variant)
	dst = appendField(dst, "hash_attribute", "visitor_id")
	return g.closeAt(dst, s, "/")
}
