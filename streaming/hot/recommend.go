package hot

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/recommend"
	"millrace/streaming"
)

// Stores and timers of recommendations.
const (
	storeTogether = 34
	storePopular  = 35
	storeRecent   = 36

	ownerRecent = 12
	ownerSweep  = 13
)

// recommendStores declares them.
func recommendStores() []streaming.StoreSpec {
	return []streaming.StoreSpec{{ID: storeTogether, Name: "rec.together", Format: 1}, {ID: storePopular, Name: "rec.popular", Format: 1}, {ID: storeRecent, Name: "rec.recent", Format: 1}}
}

// RecommendConfig is what the stream learns of items that go together.
type RecommendConfig struct {
	Off      bool          `koanf:"off" desc:"nothing is learnt; what was learnt stays where it is"`
	HalfLife time.Duration `koanf:"half_life" desc:"after which what visitors did counts half"`
	Share    float64       `koanf:"share" desc:"share of the visitors that is learnt from, by a hash of their id; a busy shop learns as much from a tenth, and pays a tenth"`
	Every    time.Duration `koanf:"every" desc:"least time between two writes of an item's neighbours to Redis"`
}

// DefaultRecommendConfig forgets half within three days.
func DefaultRecommendConfig() RecommendConfig {
	return RecommendConfig{HalfLife: recommend.DefaultOnline().HalfLife, Share: 1, Every: 10 * time.Second}
}

// Validate reports every problem.
func (c RecommendConfig) Validate() error {
	var errs []error
	if c.HalfLife < time.Hour || c.HalfLife > 90*24*time.Hour {
		errs = append(errs, fmt.Errorf("half_life: %s is not between 1h and 2160h", c.HalfLife))
	}
	if !(c.Share > 0 && c.Share <= 1) {
		errs = append(errs, fmt.Errorf("share: %g is not above 0 and at most 1", c.Share))
	}
	if c.Every < 100*time.Millisecond || c.Every > 10*time.Minute {
		errs = append(errs, fmt.Errorf("every: %s is not between 100ms and 10m", c.Every))
	}
	return errors.Join(errs...)
}

const (
	maxScopes    = 2000 // categories and countries of a task: more are somebody's invention
	maxTogether  = 200_000
	maxOrderTo   = 10  // items of an order that are paired
	maxScopeText = 64  // bytes of a category
	visitorBytes = 128 // of a visitor's id
	sweepEvery   = hourMicros
	liveLists    = 3 * 24 * hourMicros
	rewriteHours = 12
)

// together learns which items are looked at and bought together, which are popular, and what a visitor has looked at last. Everything is counted on arrival, once for
// each accepted event, and forgotten with time; what a task knows is its part of it, which readers add up.
//
// State: of an item up to 24 neighbours by looks and 24 by orders (about 1.5 KB when full), of a category or country 100 items (3 KB), of a visitor 8 items for half an
// hour (200 bytes).
type together struct {
	t       *streaming.Task
	cfg     RecommendConfig
	online  recommend.Online
	live    *liveOut
	items   *streaming.Store[*itemLists]
	popular *streaming.Store[*ranking]
	recent  *streaming.Store[*recentItems]

	epoch    uint64               // of the transaction; values of this epoch are its own and may be changed in place
	pending  map[string]time.Time // items and scopes that Redis does not have yet, by key, with when they may be written
	round    uint64               // changes when something is taken out of pending: a value of this round is there
	written  []string             // of pending, by this transaction
	visitors []string             // changed in this transaction, some perhaps twice
	all      *ranking             // what everybody looks at, of ofTenant; of this epoch, or nil
	totals   *itemLists           // likewise the totals
	ofTenant string
	names    map[string]string // items' ids: those of events belong to their records
	decay    recommend.Decay
	hash     uint64 // of the item in hand
	swept    bool
	key      []byte
	earlier  []string
	step     recommend.Step
	text     []byte
	part     string
}

func newTogether(t *streaming.Task, cfg RecommendConfig, codecs *schema.Codecs) *together {
	o := recommend.DefaultOnline()
	o.HalfLife = cfg.HalfLife
	return &together{
		t: t, cfg: cfg, online: o, live: newLiveOut(t, codecs), epoch: 1, round: 1, pending: map[string]time.Time{}, names: map[string]string{}, part: strconv.Itoa(int(t.Partition())),
		items:   streaming.OpenStore(t, storeTogether, streaming.Codec[*itemLists](togetherCodec{})),
		popular: streaming.OpenStore(t, storePopular, streaming.Codec[*ranking](rankedCodec{})),
		recent:  streaming.OpenStore(t, storeRecent, streaming.Codec[*recentItems](recentCodec{})),
	}
}

// event implements job.
func (g *together) event(e *event.Event, _ *kgo.Record) error {
	if g.cfg.Off || len(e.Items) == 0 {
		return nil
	}
	weight := 0.0
	switch e.Name {
	case event.NameViewItem, event.NameSelectItem:
		weight = 1
	case event.NameAddToCart, event.NameAddToWishlist:
		weight = 3
	case event.NamePurchase:
		weight = 5
	default:
		return nil
	}
	at := min(e.OccurredAt, e.IngestedAt) // a clock that is ahead must not make all else old
	if !g.swept {
		g.swept = true
		g.t.SetTimer(ownerSweep, "", (at/sweepEvery+1)*sweepEvery)
	}
	learn := g.cfg.Share >= 1 || float64(xxh3.HashString(e.VisitorID)>>11)*0x1p-53 < g.cfg.Share
	if g.ofTenant != e.Tenant {
		g.all, g.totals, g.ofTenant = nil, nil, strings.Clone(e.Tenant)
	}
	if e.Name == event.NamePurchase && learn {
		g.bought(e, at)
	}
	for i := range min(len(e.Items), maxOrderTo) {
		it := &e.Items[i]
		if it.ItemID == "" || len(it.ItemID) > maxItemID {
			continue
		}
		if learn {
			g.hash = xxh3.HashString(it.ItemID)
			g.count(e, it, weight, at)
		}
		if weight < 5 && e.VisitorID != "" && len(e.VisitorID) <= visitorBytes {
			g.looked(e, it.ItemID, weight, at, uint64(i), learn)
		}
	}
	return nil
}

// count adds to the popular items of everybody, of the category and of the country.
func (g *together) count(e *event.Event, it *event.Item, weight float64, at int64) {
	if g.all == nil {
		g.all = g.rank(e.Tenant, "all", "")
	}
	g.add(g.all, "all", "", it.ItemID, weight, at)
	if it.ItemCategory != "" && len(it.ItemCategory) <= maxScopeText {
		g.add(g.rank(e.Tenant, "category", it.ItemCategory), "category", it.ItemCategory, it.ItemID, weight, at)
	}
	if len(e.Country) == 2 {
		g.add(g.rank(e.Tenant, "country", e.Country), "country", e.Country, it.ItemID, weight, at)
	}
}

// scopeKey is tenant 0x1F kind 0x1F name.
func scopeKey(dst []byte, tenant, kind, name string) []byte {
	dst = append(append(dst, tenant...), event.Sep)
	dst = append(append(dst, kind...), event.Sep)
	return append(dst, name...)
}

// rank gives a scope's list to be changed in place; nil if there are too many.
func (g *together) rank(tenant, kind, name string) *ranking {
	g.key = scopeKey(g.key[:0], tenant, kind, name)
	r, ok := g.popular.GetBytes(g.key)
	switch {
	case !ok && g.popular.Len() >= maxScopes:
		return nil
	case !ok:
		r = &ranking{epoch: g.epoch}
		g.popular.PutBytes(g.key, r)
	case r.epoch != g.epoch:
		r = &ranking{Ranked: r.Clone(), epoch: g.epoch, round: r.round}
		g.popular.PutBytes(g.key, r)
	}
	return r
}

// add counts an item, whose hash is in hand, in a scope's list.
func (g *together) add(r *ranking, kind, name, item string, weight float64, at int64) {
	if r == nil {
		return
	}
	r.AddWith(&g.decay, item, g.hash, weight, at, g.online.Popular, g.online.HalfLife)
	if r.round != g.round {
		r.round = g.round
		g.key = scopeKey(g.key[:0], g.ofTenant, kind, name)
		g.wait(g.key)
	}
}

// wait notes that Redis does not have a key's last value.
func (g *together) wait(key []byte) {
	if _, ok := g.pending[string(key)]; !ok {
		g.pending[string(key)] = g.t.Now().Add(g.cfg.Every)
	}
}

// itemKey is tenant 0x1F 'i' 0x1F item; item "" holds the totals of the tenant.
func itemKey(dst []byte, tenant, item string) []byte {
	dst = append(dst, tenant...)
	dst = append(dst, event.Sep, event.KindItem, event.Sep)
	return append(dst, item...)
}

// at gives an item's lists to be changed in place; nil if there are too many items.
func (g *together) at(tenant, item string) *itemLists {
	g.key = itemKey(g.key[:0], tenant, item)
	v, ok := g.items.GetBytes(g.key)
	switch {
	case !ok && g.items.Len() >= maxTogether:
		return nil
	case !ok:
		v = &itemLists{epoch: g.epoch}
		g.items.PutBytes(g.key, v)
	case v.epoch != g.epoch:
		v = &itemLists{Together: v.Clone(), epoch: g.epoch, round: v.round}
		g.items.PutBytes(g.key, v)
	}
	return v
}

// changedItem notes that an item's lists were changed; its key is in hand.
func (g *together) changedItem(v *itemLists) {
	if v.round != g.round {
		v.round = g.round
		g.wait(g.key)
	}
}

// total gives the lists of the tenant as a whole.
func (g *together) total(tenant string) *itemLists {
	if g.totals == nil {
		g.totals = g.at(tenant, "")
	}
	return g.totals
}

const maxNames = 1 << 16

// name is an item's id that does not belong to a record.
func (g *together) name(item string) string {
	have, ok := g.names[item]
	if !ok {
		if len(g.names) >= maxNames {
			clear(g.names)
		}
		have = strings.Clone(item)
		g.names[have] = have
	}
	return have
}

// looked adds an item to what a visitor has looked at, and to the lists of what was there before.
func (g *together) looked(e *event.Event, item string, weight float64, at int64, n uint64, learn bool) {
	g.key = append(append(append(g.key[:0], e.Tenant...), event.Sep), e.VisitorID...)
	have, ok := g.recent.GetBytes(g.key)
	gap := g.online.Gap.Microseconds()
	over := false
	if ok {
		if newest := have.newest(); newest != 0 && (at-newest > gap || newest-at > gap) {
			if newest > at {
				return // of a session that is over
			}
			over = true
		}
	}
	if !ok || have.epoch != g.epoch {
		next := &recentItems{epoch: g.epoch}
		if ok {
			next.key, next.timer = have.key, have.timer
			next.items = append(next.room[:0], have.items...)
		}
		if next.key == "" {
			next.key = string(g.key)
		}
		have = next
		g.recent.Put(have.key, have)
		g.visitors = append(g.visitors, have.key)
	}
	if over {
		have.items = have.items[:0]
	}
	g.earlier = g.earlier[:0]
	for _, r := range have.items {
		if r.Item != item {
			g.earlier = append(g.earlier, r.Item)
		}
	}
	again := len(have.items) > 0 && have.items[0].Item == item
	have.look(g.name(item), weight, at, g.online.Recent)
	if have.timer == 0 {
		have.timer = have.newest() + gap
		g.t.SetTimer(ownerRecent, have.key, have.timer)
	}
	if !learn || again {
		return // or the same page again
	}
	step := recommend.Look(item, g.earlier[:min(len(g.earlier), 3)], xxh3.HashString(e.ID)+n, &g.step)
	if step == nil {
		return
	}
	if v := g.at(e.Tenant, step.Target); v != nil {
		v.Apply(&g.decay, step, at, g.online)
		g.changedItem(v)
	}
	if step.Count {
		if v := g.total(e.Tenant); v != nil {
			v.Views.CountWith(&g.decay, 2, at, g.online.HalfLife)
		}
	}
}

// bought adds the items of an order to each other's lists.
func (g *together) bought(e *event.Event, at int64) {
	var items []string
	for i := range e.Items {
		if id := e.Items[i].ItemID; id != "" && len(id) <= maxItemID && !slices.Contains(items, id) && len(items) < maxOrderTo {
			items = append(items, id)
		}
	}
	for i, item := range items {
		if v := g.at(e.Tenant, item); v != nil {
			v.Bought(&g.decay, i, items, at, g.online)
			g.changedItem(v)
		}
	}
	if v := g.total(e.Tenant); v != nil && len(items) > 0 {
		v.Orders.CountWith(&g.decay, 1, at, g.online.HalfLife)
	}
}

// timer implements job.
func (g *together) timer(tm streaming.Timer) error {
	if tm.Owner == ownerSweep {
		g.sweep(tm.At)
		return nil
	}
	have, ok := g.recent.Get(tm.Key)
	if !ok {
		return nil
	}
	end := have.newest() + g.online.Gap.Microseconds()
	if end <= tm.At {
		g.recent.Delete(tm.Key)
		return nil
	}
	if have.epoch != g.epoch { // as looked does, but nothing is to be served
		have = &recentItems{items: slices.Clone(have.items), key: tm.Key}
		g.recent.Put(tm.Key, have)
	}
	have.timer = end
	g.t.SetTimer(ownerRecent, tm.Key, end)
	return nil
}

// sweep forgets what has not been seen for ten half-lives, and twice a day has everything written again.
func (g *together) sweep(at int64) {
	old := at - 10*g.online.HalfLife.Microseconds()
	again := at/sweepEvery%rewriteHours == 0
	var gone [2][]string
	g.items.Range(func(k string, v *itemLists) bool {
		if v.Newest() < old {
			gone[0] = append(gone[0], k)
		} else if again {
			g.wait([]byte(k))
		}
		return true
	})
	g.popular.Range(func(k string, v *ranking) bool {
		if v.Newest() < old {
			gone[1] = append(gone[1], k)
		} else if again {
			g.wait([]byte(k))
		}
		return true
	})
	g.all, g.totals = nil, nil // may be among them
	for _, k := range gone[0] {
		g.items.Delete(k)
	}
	for _, k := range gone[1] {
		g.popular.Delete(k)
	}
	if g.items.Len()+g.popular.Len() > 0 {
		next := at + sweepEvery
		if w := g.t.Watermark(); w > next {
			next = (w/sweepEvery + 1) * sweepEvery
		}
		g.t.SetTimer(ownerSweep, "", next)
	} else {
		g.swept = false
	}
}

// tick implements job: what has waited long enough is written.
func (g *together) tick(now time.Time) error {
	for k, at := range g.pending {
		if now.Before(at) {
			continue
		}
		delete(g.pending, k)
		g.round++
		g.written = append(g.written, k)
		if err := g.write(k, now); err != nil {
			return err
		}
	}
	return nil
}

func (g *together) write(key string, now time.Time) error {
	tenant, kind, name := splitScope(key)
	micros := now.UnixMicro()
	if kind != string(rune(event.KindItem)) {
		r, ok := g.popular.Get(key)
		if !ok {
			return nil
		}
		g.text = r.Append(g.text[:0])
		return g.live.put(tenant, event.PopularLiveKey(tenant, kind, name), g.part, g.text, micros+liveLists)
	}
	v, ok := g.items.Get(key)
	if !ok || name == "" {
		return nil
	}
	redis := event.TogetherLiveKey(tenant, name)
	all, _ := g.items.GetBytes(itemKey(g.key[:0], tenant, ""))
	if all == nil {
		all = &itemLists{}
	}
	for _, one := range []struct {
		field string
		list  *recommend.Ranked
		all   *recommend.Ranked
		of    func(*recommend.Together) *recommend.Ranked
	}{
		{event.TogetherViews, &v.Views, &all.Views, func(t *recommend.Together) *recommend.Ranked { return &t.Views }},
		{event.TogetherOrders, &v.Orders, &all.Orders, func(t *recommend.Together) *recommend.Ranked { return &t.Orders }},
	} {
		if one.list.Len() == 0 {
			continue
		}
		at := one.list.Newest()
		decay := func(r *recommend.Ranked) float64 { return r.Total(at, g.online.HalfLife) }
		l := one.list.Serve(at, g.online, decay(one.all), func(item string) float64 {
			other, ok := g.items.GetBytes(itemKey(g.key[:0], tenant, item))
			if !ok {
				return 0
			}
			return decay(one.of(&other.Together))
		})
		g.text = l.Append(g.text[:0])
		if err := g.live.put(tenant, redis, one.field+g.part, g.text, micros+liveLists); err != nil {
			return err
		}
	}
	return nil
}

// beforeCommit implements job: what visitors have looked at is served at once.
func (g *together) beforeCommit() error {
	for _, key := range g.visitors {
		have, ok := g.recent.Get(key)
		if !ok || have.told == g.epoch {
			continue
		}
		have.told = g.epoch
		tenant, visitor := cutSep(key)
		expires := g.t.Now().UnixMicro() + g.online.Gap.Microseconds()
		if err := g.live.put(tenant, event.RecentLiveKey(tenant, visitor), event.RecentLiveItems, event.AppendRecent(g.text[:0], have.items), expires); err != nil {
			return err
		}
	}
	return nil
}

func (g *together) forget() {
	g.epoch++
	g.all, g.totals = nil, nil
	g.visitors, g.written = g.visitors[:0], g.written[:0]
}

// committed implements job.
func (g *together) committed() { g.forget() }

// aborted implements job: what the transaction wrote has not been written. What it changed is back to what it was; to write that again does no harm.
func (g *together) aborted() {
	for _, k := range g.written {
		g.wait([]byte(k))
	}
	g.swept = false
	g.forget()
}

// restored implements job: nobody knows what the task before has written of what it changed last.
func (g *together) restored() error {
	g.items.Range(func(k string, _ *itemLists) bool { g.wait([]byte(k)); return true })
	g.popular.Range(func(k string, _ *ranking) bool { g.wait([]byte(k)); return true })
	return nil
}
