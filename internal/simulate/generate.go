package simulate

import "time"

// class is what an event was made as.
type class uint8

const (
	valid class = iota
	malformed
)

// record is what the books need to know of one event of a batch.
type record struct {
	seq      uint64 // valid: number of the id, dense from 0; a copy has its original's
	value    int64  // purchase: micros
	name     uint32 // valid: index in the book's names; malformed: index in flaws
	currency uint16 // of a purchase: index in the book's currencies
	class    class
	late     bool
	shuffled bool // out of order
	fraud    bool
}

// held is a copy of an event that may be sent again.
type held struct {
	text []byte
	id   []byte
	rec  record
}

// generator makes the shop's events, one after the other. It is a pure function of its options.
type generator struct {
	seed      uint64
	start     int64 // µs
	shares    Shares
	maxLate   float64 // s
	lines     bool    // events go on lines of their own, so that a broken one harms no other
	r         random
	pace      pace
	catalogue []product
	stock     []int64
	shoppers  []shopper
	visitors  uint64
	sessions  uint64
	seq       uint64 // valid events so far
	bad       uint64 // malformed events so far
	total0    uint64 // all events so far
	sold      queue[line]
	returns   queue[returned]
	attack    attack
	memory    [256]held // the last events that may be sent again
	held      uint64
	flaws     []flaw

	id   []byte // of the last event
	last record
}

// inventoryShare is how many of the shop's events are changes of stock.
const inventoryShare = 0.015

// holdEvery is how many events there are between two that may be sent again, so that copies follow their originals by up to holdEvery × len(memory) events.
const holdEvery = 32

func newGenerator(o Options) *generator {
	g := &generator{
		seed: mix(o.Seed + golden), start: o.Start.UnixMicro(), shares: o.Shares, maxLate: o.MaxLate.Seconds(), lines: o.Format == FormatNDJSON,
		r: random{hash2(o.Seed, 0x5ee0)}, pace: newPace(o), shoppers: make([]shopper, o.Shoppers),
		sold: newQueue[line](4096), returns: newQueue[returned](4096), visitors: 1,
	}
	g.catalogue = newCatalogue(g.seed)
	g.stock = make([]int64, len(g.catalogue))
	for i := range g.stock {
		g.stock[i] = int64(500 + g.r.n(1500))
	}
	for i := range flaws {
		if !flaws[i].breaksText || g.lines {
			g.flaws = append(g.flaws, flaws[i])
		}
	}
	return g
}

// due is when the next event happens, since the start of the run.
func (g *generator) due() time.Duration { return time.Duration(g.pace.at) }

// next appends the next event to dst; g.last and g.id say what it is.
func (g *generator) next(dst []byte) []byte {
	from := len(dst)
	u := g.r.unit()
	sh := &g.shares
	copied := false
	switch {
	case u < sh.Duplicates && g.held > 0:
		dst, copied = g.again(dst), true
	case u < sh.Duplicates+sh.Malformed && u >= sh.Duplicates:
		dst = g.flawed(dst)
	case g.attack.goesOn(&g.r, sh.Fraud):
		dst = g.attacked(dst)
	case g.returns.n > 0 && g.returns.peek().due <= g.total0:
		dst = g.giveBack(dst)
	case g.r.chance(inventoryShare):
		dst = g.stockChange(dst)
	default:
		dst = g.shop(dst)
	}
	if !copied && g.last.class == valid && g.seq%holdEvery == 0 {
		g.hold(dst[from:])
	}
	g.total0++
	g.pace.tick()
	return dst
}

// occurred is when the event at hand happened: now, or, for a share of events, up to hours before; it also notes which.
func (g *generator) occurred() int64 {
	us := g.start + int64(g.pace.at/1000)
	switch u := g.r.unit(); {
	case u < g.shares.Late:
		g.last.late = true
		us -= int64(g.r.between(60, g.maxLate) * 1e6)
	case u < g.shares.Late+g.shares.OutOfOrder:
		g.last.shuffled = true
		us -= int64(g.r.between(0.2, 10) * 1e6)
	}
	return us
}

// hold keeps a copy of an event to send it again.
func (g *generator) hold(text []byte) {
	h := &g.memory[g.held%uint64(len(g.memory))]
	h.text = append(h.text[:0], text...)
	h.id = append(h.id[:0], g.id...)
	h.rec = g.last
	g.held++
}

// again sends an earlier event once more, byte for byte: mostly one of the last.
func (g *generator) again(dst []byte) []byte {
	n := min(g.held, uint64(len(g.memory)))
	back := uint64(g.r.unit() * g.r.unit() * float64(n))
	h := &g.memory[(g.held-1-back)%uint64(len(g.memory))]
	g.id = append(g.id[:0], h.id...)
	g.last = h.rec
	return append(dst, h.text...)
}
