package hot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unique"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/kpi"
	"millrace/streaming"
)

// Timers of the carts job, and its store.
const (
	ownerCart = 25
	storeCart = 47
)

// CartConfig says when a cart is abandoned.
type CartConfig struct {
	AbandonedAfter time.Duration `koanf:"abandoned_after" desc:"a cart is abandoned if no purchase follows within this after the visitor's last add_to_cart, in event time"`
}

// DefaultCartConfig gives a visitor half an hour, as long as a session lasts.
func DefaultCartConfig() CartConfig { return CartConfig{AbandonedAfter: 30 * time.Minute} }

// Validate reports every problem.
func (c CartConfig) Validate() error {
	if c.AbandonedAfter < time.Minute || c.AbandonedAfter > 48*time.Hour {
		return fmt.Errorf("abandoned_after: %s is not between 1m and 48h", c.AbandonedAfter)
	}
	return nil
}

// carts counts carts that were ordered and carts that were abandoned.
//
// A cart begins with an add_to_cart of a visitor who has none. Each further one within AbandonedAfter of the last belongs to it. It is ordered by the first purchase not later than
// AbandonedAfter after the last add_to_cart, and counted at that time; else it is abandoned, and counted at the end of that time. Both count in the row of its last add_to_cart.
//
// Steps of a visitor are taken in the order of event time, once the watermark has passed them: what is counted depends neither on arrival nor on batches. A step that comes
// later than that counts as far as the cart at hand is concerned, and what was counted before stands; one that is too late for its own KPIs counts nowhere. If nothing happened for so
// long that the time of a cart's end is beyond the lateness of KPIs when it is known, it is counted at the watermark.
type carts struct {
	noJob
	t        *streaming.Task
	kpis     *kpis
	after    int64
	lateness int64
	store    *streaming.Store[cart]
	key      []byte
}

// cart is what is known of a visitor's. Times are µs.
type cart struct {
	first, last int64 // add_to_cart; last 0: there is none
	row         shopKey
	timer       int64
	waiting     []cartStep // that the watermark has not passed, in the order of time; never changed in place
}

// cartStep is an add_to_cart, or a purchase: then row has no value.
type cartStep struct {
	at       int64
	purchase bool
	row      shopKey
}

// mostSteps bounds those of a visitor that wait: beyond it the first is taken before its turn.
const mostSteps = 64

func newCarts(t *streaming.Task, cfg Config, k *kpis) *carts {
	return &carts{t: t, kpis: k, after: cfg.Carts.AbandonedAfter.Microseconds(), lateness: cfg.KPILateness.Microseconds(), store: streaming.OpenStore(t, storeCart, streaming.Codec[cart](cartCodec{}))}
}

// event implements job.
func (c *carts) event(e *event.Event, _ *kgo.Record) error {
	purchase := e.Name == event.NamePurchase
	if !purchase && e.Name != event.NameAddToCart || e.VisitorID == "" {
		return nil
	}
	step := cartStep{at: min(e.OccurredAt, e.IngestedAt), purchase: purchase} // a clock that is ahead is no reason to wait
	if step.at+c.lateness < c.t.Watermark() {
		return nil
	}
	if !purchase {
		step.row = c.kpis.shopKeys.handle(kpi.ShopKeyOf(e))
	}
	c.key = append(append(append(c.key[:0], e.Tenant...), event.Sep), e.VisitorID...)
	v, _ := c.store.GetBytes(c.key)
	i := len(v.waiting)
	for i > 0 && v.waiting[i-1].after(step) {
		i--
	}
	waiting := make([]cartStep, 0, len(v.waiting)+1)
	v.waiting = append(append(append(waiting, v.waiting[:i]...), step), v.waiting[i:]...)
	c.settle(&v, c.t.Watermark())
	for len(v.waiting) > mostSteps {
		c.take(&v, v.waiting[0])
		v.waiting = v.waiting[1:]
	}
	c.put(string(c.key), v)
	return nil
}

// after says whether s is to be taken after x: of two at a time the purchase is the later one.
func (s cartStep) after(x cartStep) bool {
	return s.at > x.at || s.at == x.at && s.purchase && !x.purchase
}

// settle takes the steps that the watermark has passed, and ends a cart whose time is over.
func (c *carts) settle(v *cart, watermark int64) {
	n := 0
	for n < len(v.waiting) && v.waiting[n].at < watermark {
		c.take(v, v.waiting[n])
		n++
	}
	v.waiting = v.waiting[n:]
	if v.last != 0 && v.last+c.after < watermark {
		c.count(v, v.last+c.after, true)
		v.first, v.last = 0, 0
	}
}

// take moves the cart on by a step.
func (c *carts) take(v *cart, s cartStep) {
	if v.last != 0 && s.at > v.last+c.after {
		c.count(v, v.last+c.after, true)
		v.first, v.last = 0, 0
	}
	switch {
	case s.purchase && v.last == 0, s.purchase && s.at < v.first:
	case s.purchase && s.at < v.last: // it came too late to end the cart before something was added again
		c.count(v, s.at, false)
		v.first = v.last
	case s.purchase:
		c.count(v, s.at, false)
		v.first, v.last = 0, 0
	case v.last == 0:
		v.first, v.last, v.row = s.at, s.at, s.row
	case s.at >= v.last:
		v.last, v.row = s.at, s.row
	default:
		v.first = min(v.first, s.at)
	}
}

// count adds a cart to its row.
func (c *carts) count(v *cart, at int64, abandoned bool) {
	if w := c.t.Watermark(); at+c.lateness < w {
		at = w
	}
	if values, outcome := c.kpis.shop.At(v.row, at); outcome != streaming.Dropped {
		(*values).AddCart(abandoned)
	}
}

// put keeps a cart for as long as there is something to come, and asks for a timer then: at the next purchase, and when a cart's time is over.
func (c *carts) put(key string, v cart) {
	next := int64(0)
	until := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	for _, s := range v.waiting {
		if s.purchase {
			until(s.at + 1)
		} else {
			until(s.at + c.after + 1)
		}
	}
	if v.last != 0 {
		until(v.last + c.after + 1)
	}
	if next == 0 {
		c.store.Delete(key)
		return
	}
	if v.timer == 0 || next < v.timer {
		v.timer = next
		c.t.SetTimer(ownerCart, key, next)
	}
	c.store.Put(key, v)
}

// timer implements job.
func (c *carts) timer(tm streaming.Timer) error {
	v, ok := c.store.Get(tm.Key)
	if !ok || v.timer != tm.At {
		return nil // of a cart that another followed
	}
	v.timer = 0
	c.settle(&v, max(tm.At, c.t.Watermark()))
	c.put(tm.Key, v)
	return nil
}

// cartCodec packs a cart: varints, the row if there is a cart, the steps.
type cartCodec struct{}

// Append implements streaming.Codec.
func (cartCodec) Append(b []byte, v cart) []byte {
	b = binary.AppendVarint(b, v.timer)
	b = binary.AppendVarint(b, v.last)
	if v.last != 0 {
		b = appendRow(binary.AppendVarint(b, v.last-v.first), v.row)
	}
	b = binary.AppendUvarint(b, uint64(len(v.waiting)))
	for _, s := range v.waiting {
		b = binary.AppendVarint(b, s.at)
		if s.purchase {
			b = append(b, 0)
		} else {
			b = appendRow(b, s.row)
		}
	}
	return b
}

// appendRow writes a row behind its length, which is not 0.
func appendRow(b []byte, row shopKey) []byte {
	var buf [128]byte
	k := row.Value().Append(buf[:0])
	return append(binary.AppendUvarint(b, uint64(len(k))), k...)
}

var errCart = errors.New("not a cart")

// Decode implements streaming.Codec.
func (cartCodec) Decode(b []byte) (cart, error) {
	var v cart
	bad := false
	number := func() int64 {
		n, k := binary.Varint(b)
		if k <= 0 {
			bad = true
			return 0
		}
		b = b[k:]
		return n
	}
	row := func() (shopKey, bool) {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			bad = true
			return shopKey{}, false
		}
		text := b[k : k+int(n)]
		b = b[k+int(n):]
		if n == 0 {
			return shopKey{}, false
		}
		key, err := kpi.DecodeShopKey(text)
		bad = bad || err != nil
		return unique.Make(key), true
	}
	v.timer, v.last = number(), number()
	if v.last != 0 {
		v.first = v.last - number()
		var ok bool
		v.row, ok = row()
		bad = bad || !ok
	}
	n, k := binary.Uvarint(b)
	if bad || k <= 0 || n > uint64(len(b)) {
		return cart{}, errCart
	}
	b = b[k:]
	v.waiting = make([]cartStep, 0, n)
	for range n {
		s := cartStep{at: number()}
		r, ok := row()
		s.row, s.purchase = r, !ok
		v.waiting = append(v.waiting, s)
	}
	if bad || len(b) != 0 || !slices.IsSortedFunc(v.waiting, compareSteps) {
		return cart{}, errCart
	}
	return v, nil
}

// compareSteps orders steps as they are taken.
func compareSteps(x, y cartStep) int {
	switch {
	case x.after(y):
		return 1
	case y.after(x):
		return -1
	}
	return 0
}
