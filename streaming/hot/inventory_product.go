package hot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/features/demand"
	"millrace/streaming"
)

// Stores and timers of products, in the stage of entities.
const (
	storeProduct  = 32
	storeForecast = 33

	ownerProduct = 10
)

// productStores declares them.
func productStores() []streaming.StoreSpec {
	return []streaming.StoreSpec{{ID: storeProduct, Name: "product", Format: 1}, {ID: storeForecast, Name: "forecast", Format: 1}}
}

const (
	maxSold      = 1_000_000 // units of a sale, and of an hour, that are believed
	hourMicros   = 3600 * 1_000_000
	dailyHours   = 24
	liveProduct  = 7 * 24 * hourMicros   // how long a value stays in Redis after it was written; each is written once a day at least
	forgetAfter  = 180 * 24 * hourMicros // a product of which nothing was heard for so long is given up
	staleForward = 28 * 24               // hours that a forecast is carried on without a new fit
)

// stockAlert is told when a product's stock becomes low, once until it is no longer.
type stockAlert struct {
	tenant, product string
	event           string // that made it low
	at              int64  // event time, µs
	stock           int64
	cover           float64 // hours
	risk            float64 // P(stock-out before the lead time is over)
	lead            time.Duration
	forecast        bool // by a forecast, not by the sales of the last days
	out             bool // there is nothing left
}

// products keeps stock and demand of each product, and carries its forecast on hour by hour. It is part of the second stage: its input is rekey.product.
//
// A sale or a change of stock is counted on arrival; an hour is over when the watermark has passed it, and is then told to the forecast. A sale that comes after that
// counts as sold, but the forecast learns of it only with the next nightly fit.
type products struct {
	noJob
	t      *streaming.Task
	cfg    ProductsConfig
	codecs *schema.Codecs
	live   *liveOut
	raise  func(*stockAlert) error
	states *streaming.Store[productState]
	models *streaming.Store[modelState]

	change     event.ProductChange
	key        []byte
	dirty      map[string]dirtyProduct // changed in this transaction, by key
	dirtyOrder []string
}

type dirtyProduct struct{ stock, model bool }

func newProducts(t *streaming.Task, cfg ProductsConfig, codecs *schema.Codecs, raise func(*stockAlert) error) *products {
	return &products{
		t: t, cfg: cfg, codecs: codecs, live: newLiveOut(t, codecs), raise: raise, dirty: map[string]dirtyProduct{},
		states: streaming.OpenStore(t, storeProduct, streaming.Codec[productState](productCodec{})),
		models: streaming.OpenStore(t, storeForecast, streaming.Codec[modelState](modelCodec{})),
	}
}

// errUnreadable says that a record of rekey.product is none: nothing has been changed, and it may be left out.
var errUnreadable = errors.New("not a change of a product")

// record takes a record of rekey.product, which is the input with the given index.
func (p *products) record(in int, r *kgo.Record) error {
	c := &p.change
	*c = event.ProductChange{}
	if err := p.codecs.Decode(context.Background(), event.TopicRekeyProduct, r.Value, c); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if c.Kind != event.ProductForecast {
		p.t.Observe(in, streaming.LaneLive, c.OccurredAt)
	}
	p.key = c.AppendKey(p.key[:0])
	s, known := p.states.GetBytes(p.key)
	if !known {
		s = productState{closed: hourOf(c.OccurredAt) - 1}
	}
	key := string(p.key)
	switch c.Kind {
	case event.ProductSale:
		s.sell(hourOf(c.OccurredAt), min(c.Quantity, maxSold))
	case event.ProductStock:
		if !s.move(c.WarehouseID, c.Delta, c.Level, c.OccurredAt) {
			return nil
		}
	case event.ProductForecast:
		m, err := readForecast(c.Body)
		if err != nil {
			return fmt.Errorf("%w: forecast of product %s: %w", errUnreadable, c.ItemID, err)
		}
		if m.Kind == "" { // it has too short a history by now
			p.models.Delete(key)
		} else {
			p.models.Put(key, catchUp(m, &s))
		}
		p.touch(key, dirtyProduct{model: true})
	default:
		return fmt.Errorf("%w: product %s: change of kind %.20q", errUnreadable, c.ItemID, c.Kind)
	}
	s.seen = max(s.seen, c.OccurredAt)
	p.touch(key, dirtyProduct{stock: true})
	p.schedule(key, &s)
	return p.judge(key, s, c.EventID, c.OccurredAt)
}

func hourOf(at int64) int64 {
	if at < 0 {
		return (at - hourMicros + 1) / hourMicros
	}
	return at / hourMicros
}

// readForecast reads the body of a change of kind forecast, a demand.Published.
func readForecast(body []byte) (modelState, error) {
	var f demand.Published
	if err := json.Unmarshal(body, &f); err != nil {
		return modelState{}, err
	}
	if f.Model.Kind == "" {
		return modelState{}, nil
	}
	return modelState{f.Model, f.Version}, f.Model.Valid()
}

// catchUp carries a forecast on to the last hour that is over. Hours that are no longer known are taken as forecast.
func catchUp(m modelState, s *productState) modelState {
	if s.closed-m.Hour > staleForward {
		m.Hour = s.closed - staleForward // nobody has sold it or fitted it for weeks
	}
	for m.Hour < s.closed {
		hour := m.Hour + 1
		y := float64(min(s.sold(hour), maxSold))
		if hour <= s.closed-keptHours {
			y = m.Forecast(1)[0]
		}
		m.Model = m.Step(y)
	}
	return m
}

// schedule asks for a timer at the end of the hour after the last that is over; of a product that nobody buys, a day later.
func (p *products) schedule(key string, s *productState) {
	wait := int64(dailyHours)
	if _, ok := p.models.Get(key); ok || len(s.sales) > 0 {
		wait = 1
	}
	at := (s.closed + 1 + wait) * hourMicros
	if s.timer == at || s.timer != 0 && s.timer < at {
		return
	}
	if s.timer != 0 {
		p.t.DeleteTimer(ownerProduct, key, s.timer)
	}
	s.timer = at
	p.t.SetTimer(ownerProduct, key, at)
}

// timer implements job: hours are over.
func (p *products) timer(tm streaming.Timer) error {
	s, ok := p.states.Get(tm.Key)
	if !ok || s.timer != tm.At {
		return nil
	}
	s.timer = 0
	s.closed = max(s.closed, hourOf(tm.At)-1)
	if w := p.t.Watermark(); w-tm.At > keptHours*hourMicros { // after a long silence hours are not gone through one by one
		s.closed = max(s.closed, hourOf(w)-1)
	}
	if s.seen < tm.At-forgetAfter {
		p.states.Delete(tm.Key)
		p.models.Delete(tm.Key)
		delete(p.dirty, tm.Key)
		return nil
	}
	if len(s.sales) > 0 && s.sales[0].hour <= s.closed-keptHours {
		s.sell(s.closed-keptHours, 0) // drops what is long over
	}
	m, forecast := p.models.Get(tm.Key)
	if forecast {
		p.models.Put(tm.Key, catchUp(m, &s))
	}
	p.touch(tm.Key, dirtyProduct{stock: true, model: forecast}) // a day after it was last written at the latest
	p.schedule(tm.Key, &s)
	return p.judge(tm.Key, s, "", tm.At)
}

func (p *products) touch(key string, what dirtyProduct) {
	d, ok := p.dirty[key]
	if !ok {
		p.dirtyOrder = append(p.dirtyOrder, key)
	}
	p.dirty[key] = dirtyProduct{d.stock || what.stock, d.model || what.model}
}

// judge stores the state, with whether the stock is low, and tells it when it becomes so.
func (p *products) judge(key string, s productState, by string, at int64) error {
	stock, known := s.total()
	if !known {
		p.states.Put(key, s)
		return nil
	}
	risk, cover, forecast := p.risk(key, &s, stock)
	was := s.low
	switch {
	case stock <= 0 || risk >= p.cfg.Risk:
		s.low = true
	case risk < p.cfg.Risk/2: // what comes and goes around the bound is told once
		s.low = false
	}
	p.states.Put(key, s)
	if !s.low || was {
		if was != s.low {
			p.touch(key, dirtyProduct{stock: true})
		}
		return nil
	}
	p.touch(key, dirtyProduct{stock: true})
	tenant, product := splitProduct(key)
	if by == "" {
		by = fmt.Sprintf("hour-%d", s.closed)
	}
	return p.raise(&stockAlert{tenant: tenant, product: product, event: by, at: at, stock: stock, cover: cover, risk: risk, lead: p.cfg.LeadTime, forecast: forecast, out: stock <= 0})
}

// risk is the probability that the stock does not last for the lead time, and how many hours it lasts as forecast. Without a forecast the sales of the last hours stand
// for it, as a Poisson process; without those there is none.
func (p *products) risk(key string, s *productState, stock int64) (risk, cover float64, forecast bool) {
	lead := int(p.cfg.LeadTime / time.Hour)
	if m, ok := p.models.Get(key); ok {
		return m.Lead(lead).StockOut(stock), float64(m.Cover(max(0, stock))), true
	}
	units := int64(0)
	for _, h := range s.sales {
		units += h.units
	}
	if units == 0 {
		return 0, demand.MaxCover, false
	}
	mean := float64(units) / keptHours
	l := demand.Lead{Hours: lead, Mean: mean * float64(lead), Variance: mean * float64(lead)}
	return l.StockOut(stock), min(float64(max(0, stock))/mean, demand.MaxCover), false
}

// splitProduct takes a key apart.
func splitProduct(key string) (tenant, product string) {
	sep := string(rune(event.Sep))
	tenant, rest, _ := strings.Cut(key, sep)
	_, product, _ = strings.Cut(rest, sep)
	return tenant, product
}

// beforeCommit writes what has changed to Redis: each product at most once a transaction.
func (p *products) beforeCommit() error {
	for _, key := range p.dirtyOrder {
		d, ok := p.dirty[key]
		if !ok {
			continue
		}
		s, known := p.states.Get(key)
		if !known {
			continue
		}
		tenant, product := splitProduct(key)
		redis := event.ProductLiveKey(tenant, product)
		expires := p.t.Now().UnixMicro() + liveProduct
		if d.model {
			m, ok := p.models.Get(key)
			f := demand.Published{Version: m.version, Model: m.Model}
			if !ok {
				f = demand.Published{}
			}
			text, err := json.Marshal(f)
			if err != nil {
				return fmt.Errorf("writing the forecast of product %s: %w", product, err)
			}
			if err := p.live.put(tenant, redis, event.ProductLiveForecast, text, expires); err != nil {
				return err
			}
		}
		if d.stock {
			v := event.ProductLive{Closed: s.closed, Low: s.low, LeadHours: int(p.cfg.LeadTime / time.Hour)}
			for _, w := range s.stock {
				v.Stock = append(v.Stock, event.WarehouseStock{Warehouse: w.id, Level: w.level, At: w.at})
			}
			for _, h := range s.sales {
				v.Sales = append(v.Sales, event.HourSales{Hour: h.hour, Units: h.units})
			}
			text, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("writing the stock of product %s: %w", product, err)
			}
			if err := p.live.put(tenant, redis, event.ProductLiveStock, text, expires); err != nil {
				return err
			}
		}
	}
	p.forget()
	return nil
}

func (p *products) aborted() { p.forget() }

func (p *products) forget() {
	clear(p.dirty)
	p.dirtyOrder = p.dirtyOrder[:0]
}
