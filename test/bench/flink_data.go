package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/test/bench/child"
)

// shopEvent is an event of that shop. Times are milliseconds.
type shopEvent struct {
	ID, Visitor, Name, Product, Country, Device, Card, IP string
	At, Price                                             int64
}

func (e *shopEvent) appendJSON(b []byte) []byte {
	text := func(name, v string) {
		b = append(b, ',', '"')
		b = append(b, name...)
		b = append(b, '"', ':', '"')
		b = append(b, v...)
		b = append(b, '"')
	}
	b = append(b, `{"occurred_at":`...)
	b = strconv.AppendInt(b, e.At, 10)
	b = append(b, `,"price_micros":`...)
	b = strconv.AppendInt(b, e.Price, 10)
	text("event_id", e.ID)
	text("visitor_id", e.Visitor)
	text("name", e.Name)
	text("product_id", e.Product)
	text("country", e.Country)
	text("device", e.Device)
	text("card", e.Card)
	text("ip", e.IP)
	return append(b, '}')
}

func (e *shopEvent) appendAvro(b []byte) []byte {
	text := func(v string) { b = append(binary.AppendVarint(b, int64(len(v))), v...) }
	text(e.ID)
	text(e.Visitor)
	text(e.Name)
	b = binary.AppendVarint(b, e.At)
	text(e.Product)
	b = binary.AppendVarint(b, e.Price)
	text(e.Country)
	text(e.Device)
	text(e.Card)
	text(e.IP)
	return b
}

var (
	flinkCountries = []string{"AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FI", "FR", "GB", "GR", "HU", "IE", "IT", "NL", "NO", "PL", "PT", "SE", "US"}
	flinkDevices   = []string{"desktop", "mobile", "tablet"}
	flinkNames     = []string{"page_view", "view_item", "view_item", "search", "add_to_cart"}
)

// shopEvents gives n events in the order of their arrival, then one named end for each partition, whose time lies behind all windows.
func shopEvents(n int, each func(partition int32, e *shopEvent) error) error {
	rng := rand.New(rand.NewPCG(1, 2))
	var e shopEvent
	var id [16]byte
	for i := range n {
		visitor := rng.IntN(100_000)
		binary.BigEndian.PutUint64(id[:], rng.Uint64())
		binary.BigEndian.PutUint64(id[8:], rng.Uint64())
		clock := child.FlinkStart + int64(i)*1000/child.FlinkRate
		e = shopEvent{
			ID: hex.EncodeToString(id[:]), Visitor: "v" + strconv.Itoa(visitor), Name: flinkNames[rng.IntN(len(flinkNames))], At: clock - rng.Int64N(child.FlinkDisorder+1),
			Product: "p" + strconv.Itoa(rng.IntN(5000)), Price: int64(1+rng.IntN(20_000)) * 10_000, Country: flinkCountries[visitor%20], Device: flinkDevices[visitor/20%3],
			IP: "203.0.113." + strconv.Itoa(visitor%250),
		}
		switch rng.IntN(1000) {
		case 0:
			e.Name, e.Card = "purchase", "tried-"+strconv.FormatInt(clock/30_000, 10)
		default:
			if rng.IntN(1000) < 35 {
				e.Name, e.Card = "purchase", "c"+strconv.Itoa(visitor)
			}
		}
		if err := each(event.Partition([]byte(e.Visitor), child.FlinkPartitions), &e); err != nil {
			return err
		}
	}
	for p := range int32(child.FlinkPartitions) {
		e = shopEvent{ID: child.FlinkEnd, Visitor: child.FlinkEnd, Name: child.FlinkEnd, At: child.FlinkStart + int64(n)*1000/child.FlinkRate + 10*child.HopSize}
		if err := each(p, &e); err != nil {
			return err
		}
	}
	return nil
}

// findings are what the job finds: sums over all rows and, for each hop and card, how many purchases.
type findings struct {
	Rows, Events, Orders, Revenue int64
	Alerts                        map[alertKey]int64
}

type kpiKey struct {
	Start           int64
	Country, Device string
}

type alertKey struct {
	Start int64
	Card  string
}

// flinkTruth is what must be found.
func flinkTruth(n int) findings {
	f := findings{Alerts: map[alertKey]int64{}}
	rows, uses := map[kpiKey]struct{}{}, map[alertKey]int64{}
	_ = shopEvents(n, func(_ int32, e *shopEvent) error { // the function gives none
		if e.Name == child.FlinkEnd {
			return nil
		}
		rows[kpiKey{e.At - e.At%1000, e.Country, e.Device}] = struct{}{}
		f.Events++
		if e.Name != "purchase" {
			return nil
		}
		f.Orders++
		f.Revenue += e.Price
		for start := e.At - e.At%child.HopSlide; start > e.At-child.HopSize; start -= child.HopSlide {
			uses[alertKey{start, e.Card}]++
		}
		return nil
	})
	f.Rows = int64(len(rows))
	for k, n := range uses {
		if n > child.AlertAbove {
			f.Alerts[k] = n
		}
	}
	return f
}

// fillFlink writes the events to both topics.
func fillFlink(ctx context.Context, brokers string, n int, topics map[string]func(*shopEvent, []byte) []byte) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(20*time.Millisecond),
		kgo.ProducerBatchMaxBytes(1<<20-1<<10), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	defer cl.Close()
	var failed error
	err = shopEvents(n, func(p int32, e *shopEvent) error {
		for topic, encode := range topics {
			cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: p, Key: []byte(e.Visitor), Value: encode(e, nil)}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err // promises are called one after the other
				}
			})
		}
		return ctx.Err()
	})
	if err = errors.Join(err, cl.Flush(ctx), failed); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}

// found reads what a run wrote. Rows of one window, key and partition replace each other; those of several partitions add up.
func found(ctx context.Context, brokers, kpiTopic, alertTopic string) (findings, error) {
	type partial struct {
		kpiKey
		partition int32
	}
	type row struct {
		WindowStart int64  `json:"window_start"`
		Country     string `json:"country"`
		Device      string `json:"device"`
		Events      int64  `json:"events"`
		Orders      int64  `json:"orders"`
		Revenue     int64  `json:"revenue"`
		Card        string `json:"card"`
		Purchases   int64  `json:"purchases"`
		Partition   *int32 `json:"partition"` // of a partial row
	}
	f := findings{Alerts: map[alertKey]int64{}}
	kpis, whole := map[partial]row{}, map[kpiKey]struct{}{}
	err := readCommitted(ctx, brokers, []string{kpiTopic, alertTopic}, func(r *kgo.Record) error {
		var x row
		if err := json.Unmarshal(r.Value, &x); err != nil {
			return fmt.Errorf("row %.200q: %w", r.Value, err)
		}
		if r.Topic == alertTopic {
			f.Alerts[alertKey{x.WindowStart, x.Card}] = x.Purchases
			return nil
		}
		key := partial{kpiKey: kpiKey{x.WindowStart, x.Country, x.Device}, partition: -1}
		whole[key.kpiKey] = struct{}{}
		if x.Partition != nil {
			key.partition = *x.Partition
		} else if _, twice := kpis[key]; twice {
			return fmt.Errorf("row %.200q is there twice", r.Value)
		}
		kpis[key] = x
		return nil
	})
	for _, x := range kpis {
		f.Events, f.Orders, f.Revenue = f.Events+x.Events, f.Orders+x.Orders, f.Revenue+x.Revenue
	}
	f.Rows = int64(len(whole))
	return f, err
}

// settled lists where topics end once the markers of all transactions are there, which a broker writes a little after it has said that a transaction is committed.
func settled(ctx context.Context, adm *kadm.Client, topics []string) (ends kadm.ListedOffsets, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return ends, eventually(ctx, "the markers of transactions", func() (bool, error) {
		if ends, err = adm.ListCommittedOffsets(ctx, topics...); err != nil {
			return false, err
		}
		high, err := adm.ListEndOffsets(ctx, topics...)
		open := false
		high.Each(func(o kadm.ListedOffset) {
			stable, _ := ends.Lookup(o.Topic, o.Partition)
			open = open || stable.Offset != o.Offset
		})
		return !open, err
	})
}

// readCommitted reads topics from their start to where they end now.
func readCommitted(ctx context.Context, brokers string, topics []string, each func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	defer cl.Close()
	ends, err := settled(ctx, kadm.NewClient(cl), topics)
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	left := map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			if left[o.Topic] == nil {
				left[o.Topic] = map[int32]int64{}
			}
			left[o.Topic][o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			if failed == nil && !r.Attrs.IsControl() {
				failed = each(r)
			}
			if r.Offset+1 >= left[r.Topic][r.Partition] {
				delete(left[r.Topic], r.Partition)
				if len(left[r.Topic]) == 0 {
					delete(left, r.Topic)
				}
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}
