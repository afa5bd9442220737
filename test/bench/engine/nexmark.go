package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-faster/jx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
	"millrace/streaming/agg"
	"millrace/test/bench/child"
)

// nexStages are the queries' operators: the first stage reads the events, keyed by person, and each later one what the one before has passed on under another key.
var nexStages = map[string][]func(*nexTask) (func(e *nexView) error, func(r *kgo.Record) error){
	"q1":  {nexQ1},
	"q5":  {nexQ5Count, nexQ5Hop, nexQ5Most},
	"q7":  {nexQ7Local, nexQ7Global},
	"q8":  {nexQ8},
	"q11": {nexQ11},
	"q18": {nexQ18},
}

// nexmarkOurs runs a query from the topic's start to its end.
func nexmarkOurs(ctx context.Context, j child.Engine) (child.Cost, error) {
	r := j.Nexmark
	var read, done atomic.Int64
	var workers []*streaming.Worker
	stages := nexStages[r.Query]
	for i, make := range stages {
		top := streaming.Topology{Name: r.Name, Stage: strconv.Itoa(i), Inputs: []string{r.Topic}, Partitions: child.FlinkPartitions}
		if i > 0 {
			top.Inputs, top.Upstream = []string{r.Between(i)}, map[string]int32{r.Between(i): child.FlinkPartitions}
		}
		if i < len(stages)-1 {
			top.Rekeys = []string{r.Between(i + 1)}
		}
		for id := range uint16(2) {
			top.Stores = append(top.Stores, streaming.StoreSpec{ID: streaming.FirstStoreID + id, Name: "s" + strconv.Itoa(int(id)), Format: 1})
		}
		last := i == len(stages)-1
		top.New = func(t *streaming.Task) (streaming.Operator, error) {
			x := &nexTask{t: t, r: r, stage: i, read: &read, done: &done, last: last}
			x.event, x.record = make(x)
			for ; x.opened < 2; x.opened++ { // every declared store is opened
				streaming.OpenStore(t, streaming.FirstStoreID+uint16(x.opened), streaming.Int64{})
			}
			return x, nil
		}
		if err := createTopics(ctx, j.Brokers, top.RequiredTopics()...); err != nil {
			return child.Cost{}, err
		}
		cfg := streaming.DefaultConfig()
		cfg.Group, cfg.TransactionalID = r.Name+"."+top.Stage, r.Name+"."+top.Stage
		cfg.CommitInterval, cfg.TransactionTimeout, cfg.CommitRecords, cfg.CommitBytes = child.FlinkCheckpoint, time.Minute, 1_000_000, 256<<20
		w, err := streaming.NewWorker(cfg, top, []kgo.Opt{kgo.SeedBrokers(j.Brokers)}, prometheus.NewRegistry(), child.Quiet())
		if err != nil {
			return child.Cost{}, err
		}
		workers = append(workers, w)
	}
	c, err := child.Measure(j.Profile, func() (int64, error) {
		return r.Events, runWorkers(ctx, workers, func() bool {
			return read.Load() >= r.Events+child.FlinkPartitions && done.Load() >= child.FlinkPartitions
		})
	})
	if err == nil {
		c.Peak, err = child.OwnPeak()
	}
	return c, err
}

// runWorkers runs workers until all is done; what is open is committed then.
func runWorkers(ctx context.Context, workers []*streaming.Worker, all func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(workers))
	for _, w := range workers {
		go func() { ended <- w.Run(ctx) }()
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var errs []error
	for !all() && len(errs) == 0 {
		select {
		case err := <-ended:
			errs = append(errs, err, errors.New("ended early"))
		case <-tick.C:
		}
	}
	cancel()
	for range len(workers) - len(errs)/2 {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// nexTask is a task of any stage.
type nexTask struct {
	t          *streaming.Task
	r          child.NexRun
	stage      int
	opened     int
	last       bool // stage
	closed     bool // every window, in what is to be committed
	told       bool
	read, done *atomic.Int64
	event      func(*nexView) error
	record     func(*kgo.Record) error
	dec        jx.Decoder
	e          nexView
}

// store gives the next declared store's id.
func (x *nexTask) store() uint16 {
	x.opened++
	return streaming.FirstStoreID + uint16(x.opened) - 1
}

// Process implements streaming.Operator.
func (x *nexTask) Process(in int, r *kgo.Record) error {
	if x.stage > 0 {
		return x.record(r)
	}
	x.read.Add(1)
	if err := x.e.read(&x.dec, r.Value); err != nil {
		return err
	}
	x.t.Observe(in, streaming.LaneLive, x.e.at*1000)
	if x.e.kind == child.KindEnd {
		return nil
	}
	return x.event(&x.e)
}

// Timer implements streaming.Operator.
func (x *nexTask) Timer(streaming.Timer) error { return nil }

// Tick implements streaming.Operator.
func (x *nexTask) Tick(time.Time) error { return nil }

// BeforeCommit implements streaming.Operator.
func (x *nexTask) BeforeCommit() error {
	x.closed = x.t.Watermark() > (child.FlinkStart+x.r.Events*1000/child.NexmarkRate+2*child.HotWindow)*1000
	return nil
}

// Committed implements streaming.Committer.
func (x *nexTask) Committed() {
	if x.last && x.closed && !x.told {
		x.told = true
		x.done.Add(1)
	}
}

// Aborted implements streaming.Committer.
func (x *nexTask) Aborted() { x.closed = false }

// row writes a row of the result, with a key where it replaces the row of that key.
func (x *nexTask) row(key []byte, value []byte) {
	out := x.t.Record()
	out.Topic, out.Key, out.Value = x.r.Out(), key, x.t.Keep(value)
	x.t.Emit(out)
}

// pass gives numbers to the next stage's task of a key.
func (x *nexTask) pass(key int64, numbers ...int64) {
	k := x.t.Keep(binary.BigEndian.AppendUint64(x.t.Buf(8), uint64(key)))
	b := x.t.Buf(binary.MaxVarintLen64 * len(numbers))
	for _, n := range numbers {
		b = binary.AppendVarint(b, n)
	}
	streaming.Rekey(x.t, x.r.Between(x.stage+1), k, x.t.Keep(b))
}

// numbers reads what pass wrote.
func numbers(b []byte, to ...*int64) error {
	for _, p := range to {
		v, n := binary.Varint(b)
		if n <= 0 {
			return errors.New("numbers are cut off")
		}
		*p, b = v, b[n:]
	}
	return nil
}

func late(o streaming.Outcome) error {
	if o != streaming.OnTime {
		return errors.New("an event came too late")
	}
	return nil
}

// rowText builds an object of numbers.
type rowText struct{ b []byte }

func (x *nexTask) object() *rowText { return &rowText{append(x.t.Buf(160), '{')} }

func (o *rowText) num(name string, v int64) *rowText {
	if len(o.b) > 1 {
		o.b = append(o.b, ',')
	}
	o.b = strconv.AppendInt(append(append(append(o.b, '"'), name...), '"', ':'), v, 10)
	return o
}

func (o *rowText) end() []byte { return append(o.b, '}') }

// q1: every bid with its price in another currency.
func nexQ1(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	return func(e *nexView) error {
		if e.kind != child.KindBid {
			return nil
		}
		o := x.object().num("auction", e.auction).num("bidder", e.bidder).num("ms", e.at)
		price := e.price * 908
		b := strconv.AppendInt(append(o.b, `,"price":`...), price/1000, 10)
		b = append(b, '.', byte('0'+price/100%10), byte('0'+price/10%10), byte('0'+price%10))
		x.row(nil, append(b, '}'))
		return nil
	}, nil
}

// q5: the auctions with most bids in the last ten seconds, every two. Bids are counted where they are, by slices; an auction's task adds the slices up to windows and passes
// on what may be the most; the window's task decides.
func nexQ5Count(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := streaming.OpenWindows(x.t, streaming.WindowsSpec[int64, int64]{
		Store: x.store(), Grains: []streaming.Grain[int64]{streaming.Fixed[int64]("slice", 0, child.HotSlide*time.Millisecond)}, ClosedOnly: true, Keys: streaming.Int64{}, Values: agg.CountAgg{},
		Emit: func(w streaming.Window[int64], n int64) error {
			x.pass(w.Key, w.Key, w.Start, n)
			return nil
		},
	})
	return func(e *nexView) error {
		if e.kind != child.KindBid {
			return nil
		}
		n, outcome := w.At(e.auction, e.at*1000)
		if err := late(outcome); err != nil {
			return err
		}
		*n++
		return nil
	}, nil
}

func nexQ5Hop(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	var best *streaming.Store[int64]
	w := streaming.OpenHopping(x.t, streaming.HoppingSpec[int64, int64]{
		Store: x.store(), Size: child.HotWindow * time.Millisecond, Slide: child.HotSlide * time.Millisecond, ClosedOnly: true, Keys: streaming.Int64{}, Values: agg.CountAgg{},
		Emit: func(w streaming.Window[int64], n int64) error {
			key := strconv.FormatInt(w.End%(10*child.HotWindow*1000), 10) // few windows close at a time: the place of one is used again
			have, _ := best.Get(key)
			if end, most := have>>20, have&(1<<20-1); end == w.End/1000 && n < most {
				return nil
			}
			best.Put(key, w.End/1000<<20|min(n, 1<<20-1))
			x.pass(w.End, w.End, w.Key, n)
			return nil
		},
	})
	best = streaming.OpenStore(x.t, x.store(), streaming.Int64{})
	return nil, func(r *kgo.Record) error {
		var auction, start, n int64
		if err := numbers(r.Value, &auction, &start, &n); err != nil {
			return err
		}
		v, outcome := w.At(auction, start+child.HotSlide*1000-1)
		*v += n
		return late(outcome)
	}
}

func nexQ5Most(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := streaming.OpenWindows(x.t, streaming.WindowsSpec[int64, *mostOf]{
		Store: x.store(), Grains: []streaming.Grain[int64]{streaming.Fixed[int64]("window", 0, child.HotSlide*time.Millisecond)}, ClosedOnly: true, Keys: streaming.Int64{}, Values: mostCodec{},
		Emit: func(w streaming.Window[int64], m *mostOf) error {
			for _, row := range m.rows {
				x.row(nil, x.object().num("starts", (w.End-child.HotWindow*1000)/1_000_000).num("auction", row[0]).num("num", m.top).end())
			}
			return nil
		},
	})
	return nil, func(r *kgo.Record) error {
		var end, auction, n int64
		if err := numbers(r.Value, &end, &auction, &n); err != nil {
			return err
		}
		m, outcome := w.At(0, end-1)
		if err := late(outcome); err != nil {
			return err
		}
		(*m).add(n, [3]int64{auction})
		return nil
	}
}

// q7: the highest bids of each ten seconds: those of a task, then those of all.
func nexQ7Local(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := highest(x, func(w streaming.Window[int64], m *mostOf) {
		for _, row := range m.rows {
			x.pass(w.End, w.End, m.top, row[0], row[1], row[2])
		}
	})
	return func(e *nexView) error {
		if e.kind != child.KindBid {
			return nil
		}
		m, outcome := w.At(0, e.at*1000)
		if err := late(outcome); err != nil {
			return err
		}
		(*m).add(e.price, [3]int64{e.auction, e.bidder, e.at})
		return nil
	}, nil
}

func nexQ7Global(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := highest(x, func(w streaming.Window[int64], m *mostOf) {
		for _, row := range m.rows {
			x.row(nil, x.object().num("starts", w.Start/1_000_000).num("auction", row[0]).num("bidder", row[1]).num("price", m.top).num("ms", row[2]).end())
		}
	})
	return nil, func(r *kgo.Record) error {
		var end, price int64
		var row [3]int64
		if err := numbers(r.Value, &end, &price, &row[0], &row[1], &row[2]); err != nil {
			return err
		}
		m, outcome := w.At(0, end-1)
		if err := late(outcome); err != nil {
			return err
		}
		(*m).add(price, row)
		return nil
	}
}

func highest(x *nexTask, closed func(streaming.Window[int64], *mostOf)) *streaming.Windows[int64, *mostOf] {
	return streaming.OpenWindows(x.t, streaming.WindowsSpec[int64, *mostOf]{
		Store: x.store(), Grains: []streaming.Grain[int64]{streaming.Fixed[int64]("window", 0, child.HotWindow*time.Millisecond)}, ClosedOnly: true, Keys: streaming.Int64{}, Values: mostCodec{},
		Emit: func(w streaming.Window[int64], m *mostOf) error {
			closed(w, m)
			return nil
		},
	})
}

// q8: who has come and opened an auction within the same ten seconds.
func nexQ8(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := streaming.OpenWindows(x.t, streaming.WindowsSpec[int64, *newcomer]{
		Store: x.store(), Grains: []streaming.Grain[int64]{streaming.Fixed[int64]("window", 0, child.HotWindow*time.Millisecond)}, ClosedOnly: true, Keys: streaming.Int64{}, Values: newcomerCodec{},
		Emit: func(w streaming.Window[int64], n *newcomer) error {
			if !n.sells || n.name == "" {
				return nil
			}
			b := x.object().num("id", w.Key).num("starts", w.Start/1_000_000).b
			x.row(nil, append(append(append(b, `,"name":"`...), n.name...), '"', '}'))
			return nil
		},
	})
	return func(e *nexView) error {
		if e.kind == child.KindBid {
			return nil
		}
		n, outcome := w.At(e.person, e.at*1000)
		if err := late(outcome); err != nil {
			return err
		}
		if e.kind == child.KindAuction {
			(*n).sells = true
		} else {
			(*n).name = string(e.name)
		}
		return nil
	}, nil
}

// q11: how many bids a person makes without pausing for ten seconds.
func nexQ11(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	w := streaming.OpenSessions(x.t, streaming.SessionsSpec[int64, int64]{
		Store: x.store(), Gap: child.SessionGap * time.Millisecond, ClosedOnly: true, Keys: streaming.Int64{}, Values: agg.CountAgg{},
		Emit: func(s streaming.Session[int64], n int64) error {
			x.row(nil, x.object().num("bidder", s.Key).num("num", n).num("starts", s.Start/1_000_000).num("ends", s.End/1_000_000).end())
			return nil
		},
	})
	return func(e *nexView) error {
		if e.kind != child.KindBid {
			return nil
		}
		n, _, outcome := w.Add(e.bidder, e.at*1000)
		if err := late(outcome); err != nil {
			return err
		}
		*n++
		return nil
	}, nil
}

// q18: the last bid of each bidder on each auction.
func nexQ18(x *nexTask) (func(*nexView) error, func(*kgo.Record) error) {
	lasts := streaming.OpenStore(x.t, x.store(), streaming.Int64{})
	return func(e *nexView) error {
		if e.kind != child.KindBid {
			return nil
		}
		key := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(x.t.Buf(16), uint64(e.bidder)), uint64(e.auction))
		key = x.t.Keep(key)
		if at, ok := lasts.GetBytes(key); ok && at >= e.at {
			return nil
		}
		lasts.PutBytes(key, e.at)
		x.row(key, x.object().num("auction", e.auction).num("bidder", e.bidder).num("price", e.price).num("ms", e.at).end())
		return nil
	}, nil
}

// nexView is an event as far as the queries need it.
type nexView struct {
	kind                               int
	at, auction, bidder, price, person int64
	name                               []byte
}

func (e *nexView) read(d *jx.Decoder, b []byte) error {
	*e = nexView{name: e.name[:0]}
	d.ResetBytes(b)
	number := func(d *jx.Decoder, to *int64) error {
		v, err := d.Int64()
		*to = v
		return err
	}
	return d.ObjBytes(func(d *jx.Decoder, key []byte) error {
		switch string(key) {
		case "kind":
			v, err := d.Int()
			e.kind = v
			return err
		case "ms":
			return number(d, &e.at)
		case "person":
			return d.ObjBytes(func(d *jx.Decoder, key []byte) (err error) {
				switch string(key) {
				case "id":
					return number(d, &e.person)
				case "name":
					e.name, err = d.StrAppend(e.name)
					return err
				}
				return d.Skip()
			})
		case "auction":
			return d.ObjBytes(func(d *jx.Decoder, key []byte) error {
				if string(key) == "seller" {
					return number(d, &e.person)
				}
				return d.Skip()
			})
		case "bid":
			return d.ObjBytes(func(d *jx.Decoder, key []byte) error {
				switch string(key) {
				case "auction":
					return number(d, &e.auction)
				case "bidder":
					return number(d, &e.bidder)
				case "price":
					return number(d, &e.price)
				}
				return d.Skip()
			})
		}
		return d.Skip()
	})
}

// mostOf is the greatest number of a window and the rows that have it.
type mostOf struct {
	top  int64
	rows [][3]int64
}

func (m *mostOf) add(n int64, row [3]int64) {
	if n > m.top || len(m.rows) == 0 {
		m.top, m.rows = n, m.rows[:0]
	}
	if n == m.top {
		m.rows = append(m.rows, row)
	}
}

type mostCodec struct{}

func (mostCodec) New() *mostOf { return &mostOf{} }

func (mostCodec) Clone(m *mostOf) *mostOf { return &mostOf{m.top, append([][3]int64(nil), m.rows...)} }

func (mostCodec) Merge(into **mostOf, d *mostOf) {
	for _, row := range d.rows {
		(*into).add(d.top, row)
	}
}

func (mostCodec) Append(b []byte, m *mostOf) []byte {
	b = binary.AppendVarint(b, m.top)
	for _, row := range m.rows {
		for _, v := range row {
			b = binary.AppendVarint(b, v)
		}
	}
	return b
}

func (mostCodec) Decode(b []byte) (*mostOf, error) {
	m := &mostOf{}
	top, n := binary.Varint(b)
	if n <= 0 {
		return nil, errors.New("the most is cut off")
	}
	for m.top, b = top, b[n:]; len(b) > 0; {
		var row [3]int64
		for i := range row {
			if row[i], n = binary.Varint(b); n <= 0 {
				return nil, fmt.Errorf("row %d is cut off", len(m.rows))
			}
			b = b[n:]
		}
		m.rows = append(m.rows, row)
	}
	return m, nil
}

// newcomer is somebody in a window of q8.
type newcomer struct {
	name  string
	sells bool
}

type newcomerCodec struct{}

func (newcomerCodec) New() *newcomer { return &newcomer{} }

func (newcomerCodec) Clone(n *newcomer) *newcomer { c := *n; return &c }

func (newcomerCodec) Merge(into **newcomer, d *newcomer) {
	if d.name != "" {
		(*into).name = d.name
	}
	(*into).sells = (*into).sells || d.sells
}

func (newcomerCodec) Append(b []byte, n *newcomer) []byte {
	return append(strconv.AppendBool(b, n.sells), n.name...)
}

func (newcomerCodec) Decode(b []byte) (*newcomer, error) {
	for _, sells := range []bool{true, false} {
		if text := strconv.FormatBool(sells); len(b) >= len(text) && string(b[:len(text)]) == text {
			return &newcomer{string(b[len(text):]), sells}, nil
		}
	}
	return nil, errors.New("neither selling nor not")
}
