package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unique"

	"github.com/go-faster/jx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
	"millrace/streaming/agg"
	"millrace/test/bench/child"
)

// Stores of the two stages.
const (
	flinkWindows  = streaming.FirstStoreID
	flinkVisitors = streaming.FirstStoreID + 1
)

// flinkOurs runs the job: events by visitor are counted where they are, so that a row of KPIs is of one partition and those of a window add up; purchases go on to the
// partition of their card, in the transaction that counted them, and are counted there.
func flinkOurs(ctx context.Context, j child.Engine) (child.Cost, error) {
	r := j.Flink
	var read, done atomic.Int64
	first := streaming.Topology{
		Name: r.Name, Stage: "visitor", Inputs: []string{r.Topic}, Rekeys: []string{r.Cards()}, Partitions: r.Partitions,
		Stores: []streaming.StoreSpec{{ID: flinkWindows, Name: "kpis", Format: 1}, {ID: flinkVisitors, Name: "visitors", Format: 1}},
		New:    func(t *streaming.Task) (streaming.Operator, error) { return newShopTask(t, r, &read), nil },
	}
	second := streaming.Topology{
		Name: r.Name, Stage: "card", Inputs: []string{r.Cards()}, Upstream: map[string]int32{r.Cards(): r.Partitions}, Partitions: r.Partitions,
		Stores: []streaming.StoreSpec{{ID: flinkWindows, Name: "uses", Format: 1}},
		New:    func(t *streaming.Task) (streaming.Operator, error) { return newCardTask(t, r, &done), nil },
	}
	if err := createTopics(ctx, j.Brokers, append(first.RequiredTopics(), second.RequiredTopics()...)...); err != nil {
		return child.Cost{}, err
	}
	var workers []*streaming.Worker
	for _, top := range []streaming.Topology{first, second} {
		cfg := streaming.DefaultConfig()
		cfg.Group, cfg.TransactionalID = r.Name+"."+top.Stage, r.Name+"."+top.Stage
		cfg.CommitInterval, cfg.TransactionTimeout, cfg.CommitRecords, cfg.CommitBytes = min(r.Interval, 10*time.Second), time.Minute, 1_000_000, 256<<20
		if r.AtLeast {
			cfg.Guarantee = streaming.AtLeastOnce
		}
		w, err := streaming.NewWorker(cfg, top, []kgo.Opt{kgo.SeedBrokers(j.Brokers)}, prometheus.NewRegistry(), child.Quiet())
		if err != nil {
			return child.Cost{}, err
		}
		workers = append(workers, w)
	}
	c, err := child.Measure(j.Profile, func() (int64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan error, len(workers))
		for _, w := range workers {
			go func() { ended <- w.Run(ctx) }()
		}
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		all := r.Events + int64(r.Partitions) // with the ends
		for read.Load() < all || done.Load() < int64(r.Partitions) {
			select {
			case err := <-ended:
				return 0, errors.Join(err, errors.New("ended early"))
			case <-tick.C:
			}
		}
		cancel()
		return r.Events, errors.Join(<-ended, <-ended) // what is open is committed
	})
	if err != nil {
		return c, err
	}
	c.Peak, err = child.OwnPeak()
	return c, err
}

type place struct{ country, device string }

// shopTask is a task of the first stage.
type shopTask struct {
	t        *streaming.Task
	r        child.FlinkRun
	kpis     *streaming.Windows[unique.Handle[place], *shopSums]
	visitors *streaming.Store[int64]
	places   map[string]unique.Handle[place]
	read     *atomic.Int64
	dec      jx.Decoder
	e        shopView
	buf      []byte
}

// shopView is an event whose texts are those of its record.
type shopView struct {
	id, visitor, name, product, country, device, card, ip []byte
	at, price                                             int64
}

func newShopTask(t *streaming.Task, r child.FlinkRun, read *atomic.Int64) *shopTask {
	s := &shopTask{t: t, r: r, places: map[string]unique.Handle[place]{}, read: read}
	s.kpis = streaming.OpenWindows(t, streaming.WindowsSpec[unique.Handle[place], *shopSums]{
		Store: flinkWindows, Grains: []streaming.Grain[unique.Handle[place]]{streaming.Fixed[unique.Handle[place]]("1s", 0, time.Second)},
		ClosedOnly: true, Keys: placeCodec{}, Values: sumsCodec{}, Emit: s.emit,
	})
	s.visitors = streaming.OpenStore(t, flinkVisitors, streaming.Int64{})
	return s
}

// Process implements streaming.Operator.
func (s *shopTask) Process(in int, r *kgo.Record) error {
	s.read.Add(1)
	e := &s.e
	var err error
	if s.r.Format == "avro" {
		err = e.readAvro(r.Value)
	} else {
		err = e.readJSON(&s.dec, r.Value)
	}
	if err != nil {
		return err
	}
	s.t.Observe(in, streaming.LaneLive, e.at*1000)
	if string(e.name) == child.FlinkEnd {
		return nil // all there was to it is its time
	}
	s.buf = append(append(append(s.buf[:0], e.country...), 0x1f), e.device...)
	h, ok := s.places[string(s.buf)]
	if !ok {
		h = unique.Make(place{string(e.country), string(e.device)})
		s.places[string(s.buf)] = h
	}
	v, outcome := s.kpis.At(h, e.at*1000)
	if outcome != streaming.OnTime {
		return fmt.Errorf("event %s came too late", e.id)
	}
	(*v).events++
	if string(e.name) == "purchase" {
		(*v).orders++
		(*v).revenue += e.price
		b := binary.AppendVarint(s.t.Buf(binary.MaxVarintLen64), e.at)
		streaming.Rekey(s.t, s.r.Cards(), s.t.Copy(e.card), s.t.Keep(b))
	}
	if s.r.Enriched {
		n, _ := s.visitors.GetBytes(e.visitor)
		s.visitors.PutBytes(e.visitor, n+1)
		out := s.t.Record()
		out.Topic, out.Key = s.r.Again(), r.Key
		out.Value = s.t.Keep(e.append(s.r.Format, s.t.Buf(len(r.Value)+8), n+1))
		s.t.Emit(out)
	}
	return nil
}

func (s *shopTask) emit(w streaming.Window[unique.Handle[place]], v *shopSums) error {
	p := w.Key.Value()
	b := append(s.t.Buf(192), `{"window_start":`...)
	b = strconv.AppendInt(b, w.Start/1000, 10)
	b = append(append(append(append(b, `,"country":"`...), p.country...), `","device":"`...), p.device...)
	b = strconv.AppendInt(append(b, `","events":`...), v.events, 10)
	b = strconv.AppendInt(append(b, `,"orders":`...), v.orders, 10)
	b = strconv.AppendInt(append(b, `,"revenue":`...), v.revenue, 10)
	b = strconv.AppendInt(append(b, `,"partition":`...), int64(s.t.Partition()), 10)
	out := s.t.Record()
	out.Topic, out.Value = s.r.KPIs(), s.t.Keep(append(b, '}'))
	s.t.Emit(out)
	return nil
}

// Timer implements streaming.Operator.
func (s *shopTask) Timer(streaming.Timer) error { return nil }

// Tick implements streaming.Operator.
func (s *shopTask) Tick(time.Time) error { return nil }

// BeforeCommit implements streaming.Operator.
func (s *shopTask) BeforeCommit() error { return nil }

// cardTask is a task of the second stage.
type cardTask struct {
	t    *streaming.Task
	r    child.FlinkRun
	uses *streaming.Hopping[string, int64]
	done *atomic.Int64

	closed, told bool
}

func newCardTask(t *streaming.Task, r child.FlinkRun, done *atomic.Int64) *cardTask {
	c := &cardTask{t: t, r: r, done: done}
	c.uses = streaming.OpenHopping(t, streaming.HoppingSpec[string, int64]{
		Store: flinkWindows, Size: child.HopSize * time.Millisecond, Slide: child.HopSlide * time.Millisecond, ClosedOnly: true, Keys: textCodec{}, Values: agg.CountAgg{}, Emit: c.emit,
	})
	return c
}

// Process implements streaming.Operator.
func (c *cardTask) Process(_ int, r *kgo.Record) error {
	at, n := binary.Varint(r.Value)
	if n <= 0 {
		return errors.New("a purchase is cut off")
	}
	v, outcome := c.uses.At(string(r.Key), at*1000)
	if outcome != streaming.OnTime {
		return fmt.Errorf("a purchase with card %s came too late", r.Key)
	}
	*v++
	return nil
}

func (c *cardTask) emit(w streaming.Window[string], n int64) error {
	if n <= child.AlertAbove {
		return nil
	}
	b := append(c.t.Buf(96), `{"window_start":`...)
	b = strconv.AppendInt(b, w.Start/1000, 10)
	b = append(append(append(b, `,"card":"`...), w.Key...), `","purchases":`...)
	out := c.t.Record()
	out.Topic, out.Value = c.r.Alerts(), c.t.Keep(append(strconv.AppendInt(b, n, 10), '}'))
	c.t.Emit(out)
	return nil
}

// Timer implements streaming.Operator.
func (c *cardTask) Timer(streaming.Timer) error { return nil }

// Tick implements streaming.Operator.
func (c *cardTask) Tick(time.Time) error { return nil }

// BeforeCommit implements streaming.Operator: once the watermark lies behind the last event every window is closed.
func (c *cardTask) BeforeCommit() error {
	c.closed = c.t.Watermark() > (child.FlinkStart+c.r.Events*1000/child.FlinkRate+child.HopSize)*1000
	return nil
}

// Committed implements streaming.Committer.
func (c *cardTask) Committed() {
	if c.closed && !c.told {
		c.told = true
		c.done.Add(1)
	}
}

// Aborted implements streaming.Committer.
func (c *cardTask) Aborted() { c.closed = false }

// textCodec is the codec of texts.
type textCodec struct{}

func (textCodec) Append(b []byte, v string) []byte { return append(b, v...) }

func (textCodec) Decode(b []byte) (string, error) { return string(b), nil }

func (e *shopView) readAvro(b []byte) error {
	ok := true
	text := func() []byte {
		n, k := binary.Varint(b)
		if k <= 0 || n < 0 || n > int64(len(b)-k) {
			ok, b = false, nil
			return nil
		}
		v := b[k : k+int(n)]
		b = b[k+int(n):]
		return v
	}
	number := func() int64 {
		n, k := binary.Varint(b)
		if k <= 0 {
			ok, b = false, nil
			return 0
		}
		b = b[k:]
		return n
	}
	e.id, e.visitor, e.name, e.at = text(), text(), text(), number()
	e.product, e.price = text(), number()
	e.country, e.device, e.card, e.ip = text(), text(), text(), text()
	if !ok {
		return errors.New("an event is cut off")
	}
	return nil
}

func (e *shopView) readJSON(d *jx.Decoder, b []byte) error {
	d.ResetBytes(b)
	return d.ObjBytes(func(d *jx.Decoder, key []byte) error {
		var to *[]byte
		switch string(key) {
		case "occurred_at":
			v, err := d.Int64()
			e.at = v
			return err
		case "price_micros":
			v, err := d.Int64()
			e.price = v
			return err
		case "event_id":
			to = &e.id
		case "visitor_id":
			to = &e.visitor
		case "name":
			to = &e.name
		case "product_id":
			to = &e.product
		case "country":
			to = &e.country
		case "device":
			to = &e.device
		case "card":
			to = &e.card
		case "ip":
			to = &e.ip
		default:
			return d.Skip()
		}
		v, err := d.StrAppend((*to)[:0])
		*to = v
		return err
	})
}

// append writes the event again, with how many of its visitor there have been in place of its address.
func (e *shopView) append(format string, b []byte, n int64) []byte {
	if format == "avro" {
		text := func(v []byte) { b = append(binary.AppendVarint(b, int64(len(v))), v...) }
		text(e.id)
		text(e.visitor)
		text(e.name)
		b = binary.AppendVarint(b, e.at)
		text(e.product)
		b = binary.AppendVarint(b, e.price)
		text(e.country)
		text(e.device)
		text(e.card)
		return binary.AppendVarint(b, n)
	}
	b = strconv.AppendInt(append(b, `{"occurred_at":`...), e.at, 10)
	b = strconv.AppendInt(append(b, `,"price_micros":`...), e.price, 10)
	b = strconv.AppendInt(append(b, `,"nth":`...), n, 10)
	for _, f := range []struct {
		name string
		v    []byte
	}{{"event_id", e.id}, {"visitor_id", e.visitor}, {"name", e.name}, {"product_id", e.product}, {"country", e.country}, {"device", e.device}, {"card", e.card}} {
		b = append(append(append(append(append(b, ',', '"'), f.name...), `":"`...), f.v...), '"')
	}
	return append(b, '}')
}

// shopSums are a row of KPIs.
type shopSums struct{ events, orders, revenue int64 }

type sumsCodec struct{}

func (sumsCodec) New() *shopSums              { return &shopSums{} }
func (sumsCodec) Clone(v *shopSums) *shopSums { c := *v; return &c }
func (sumsCodec) Merge(into **shopSums, d *shopSums) {
	(*into).events, (*into).orders, (*into).revenue = (*into).events+d.events, (*into).orders+d.orders, (*into).revenue+d.revenue
}

func (sumsCodec) Append(b []byte, v *shopSums) []byte {
	return binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, v.events), v.orders), v.revenue)
}

func (sumsCodec) Decode(b []byte) (*shopSums, error) {
	v := &shopSums{}
	for _, to := range []*int64{&v.events, &v.orders, &v.revenue} {
		n, k := binary.Varint(b)
		if k <= 0 {
			return nil, errors.New("sums are cut off")
		}
		*to, b = n, b[k:]
	}
	return v, nil
}

type placeCodec struct{}

func (placeCodec) Append(b []byte, h unique.Handle[place]) []byte {
	p := h.Value()
	return append(append(append(b, p.country...), 0x1f), p.device...)
}

func (placeCodec) Decode(b []byte) (unique.Handle[place], error) {
	country, device, _ := strings.Cut(string(b), "\x1f")
	return unique.Make(place{country, device}), nil
}
