package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/test/bench/child"
)

// nexEvent is one event; which fields count depends on its kind.
type nexEvent struct {
	Kind                              int
	At                                int64 // ms
	ID, Seller, Category              int64
	Auction, Bidder, Price, Expires   int64
	Name, Email, City, State, Channel string
}

// person is whose act the event is.
func (e *nexEvent) person() int64 {
	switch e.Kind {
	case child.KindPerson:
		return e.ID
	case child.KindAuction:
		return e.Seller
	}
	return e.Bidder
}

func (e *nexEvent) append(b []byte) []byte {
	num := func(name string, v int64) {
		b = strconv.AppendInt(append(append(append(b, '"'), name...), '"', ':'), v, 10)
	}
	text := func(name, v string) {
		b = append(append(append(append(append(b, '"'), name...), '"', ':', '"'), v...), '"')
	}
	b = append(b, '{')
	num("kind", int64(e.Kind))
	b = append(b, ',')
	num("ms", e.At)
	switch e.Kind {
	case child.KindPerson:
		b = append(b, `,"person":{`...)
		num("id", e.ID)
		for _, f := range [][2]string{{"name", e.Name}, {"email", e.Email}, {"city", e.City}, {"state", e.State}} {
			b = append(b, ',')
			text(f[0], f[1])
		}
		b = append(b, '}')
	case child.KindAuction:
		b = append(b, `,"auction":{`...)
		num("id", e.ID)
		b = append(b, ',')
		num("seller", e.Seller)
		b = append(b, ',')
		num("category", e.Category)
		b = append(b, ',')
		text("item", e.Name)
		b = append(b, ',')
		num("opening", e.Price)
		b = append(b, ',')
		num("expires", e.Expires)
		b = append(b, '}')
	case child.KindBid:
		b = append(b, `,"bid":{`...)
		num("auction", e.Auction)
		b = append(b, ',')
		num("bidder", e.Bidder)
		b = append(b, ',')
		num("price", e.Price)
		b = append(b, ',')
		text("channel", e.Channel)
		b = append(b, ',')
		text("url", "https://auctions.example.com/item.htm?query=1&channel="+e.Channel)
		b = append(b, '}')
	}
	return append(b, '}')
}

// nexEvents gives n events and then an end for each partition.
func nexEvents(n int, each func(partition int32, e *nexEvent) error) error {
	rng := rand.New(rand.NewPCG(3, 4))
	people, auctions := int64(child.NexmarkFirstID), int64(child.NexmarkFirstID)
	cities, states, channels := []string{"Phoenix", "Seattle", "Portland", "Boise", "Bend"}, []string{"AZ", "WA", "OR", "ID", "CA"}, []string{"Google", "Facebook", "Baidu", "Apple"}
	price := func() int64 { return int64(math.Round(math.Pow(10, rng.Float64()*6) * 100)) }
	var key []byte
	for i := range n {
		clock := child.FlinkStart + int64(i)*1000/child.NexmarkRate
		e := nexEvent{At: clock - rng.Int64N(child.NexmarkDisorder+1)}
		someone := func(hot float64) int64 {
			if rng.Float64() < hot {
				return (people - 1) / 100 * 100 // one of each hundred
			}
			return max(child.NexmarkFirstID, people-1-rng.Int64N(1000))
		}
		switch at := i % 50; {
		case at == 0:
			e.Kind, e.ID, e.Name, e.Email = child.KindPerson, people, "person "+strconv.FormatInt(people, 36), strconv.FormatInt(people, 36)+"@example.com"
			e.City, e.State = cities[rng.IntN(len(cities))], states[rng.IntN(len(states))]
			people++
		case at <= 3:
			e.Kind, e.ID, e.Seller, e.Category = child.KindAuction, auctions, someone(0.75), 10+rng.Int64N(5)
			e.Name, e.Price, e.Expires = "item "+strconv.FormatInt(auctions, 36), price(), clock+20_000
			auctions++
		default:
			e.Kind, e.Bidder, e.Price, e.Channel = child.KindBid, someone(0.75), price(), channels[rng.IntN(len(channels))]
			if e.Auction = max(child.NexmarkFirstID, auctions-1-rng.Int64N(300)); rng.IntN(2) == 0 {
				e.Auction = max(child.NexmarkFirstID, (auctions-1)/100*100)
			}
		}
		key = strconv.AppendInt(key[:0], e.person(), 10)
		if err := each(event.Partition(key, child.FlinkPartitions), &e); err != nil {
			return err
		}
	}
	for p := range int32(child.FlinkPartitions) {
		if err := each(p, &nexEvent{Kind: child.KindEnd, At: child.FlinkStart + int64(n)*1000/child.NexmarkRate + 60*child.HotWindow}); err != nil {
			return err
		}
	}
	return nil
}

// fillNexmark writes the events.
func fillNexmark(ctx context.Context, brokers, topic string, n int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(20*time.Millisecond), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	defer cl.Close()
	var failed error
	err = nexEvents(n, func(p int32, e *nexEvent) error {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: p, Key: strconv.AppendInt(nil, e.person(), 10), Value: e.append(nil)}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // promises are called one after the other
			}
		})
		return ctx.Err()
	})
	if err = errors.Join(err, cl.Flush(ctx), failed); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}

// answer is a query's result: rows by what names them, with a number that must agree.
type answer map[nexRow]int64

// nexRow names a row of any of the queries; what a query does not have is 0.
type nexRow struct {
	Auction, Bidder, Price, At, Starts, Ends int64
	Name                                     string
}

// nexmarkTruth computes the answers by brute force.
func nexmarkTruth(n int) map[string]answer {
	type slot struct{ start, id int64 }
	out := map[string]answer{"q1": {}, "q5": {}, "q7": {}, "q8": {}, "q11": {}, "q18": {}}
	counts, most := map[slot]int64{}, map[int64]int64{}
	best, people, sellers := map[int64]int64{}, map[slot]string{}, map[slot]bool{}
	times := map[int64][]int64{}
	var bids []nexEvent
	_ = nexEvents(n, func(_ int32, e *nexEvent) error { // the function gives none
		window := e.At - e.At%child.HotWindow
		switch e.Kind {
		case child.KindPerson:
			people[slot{window, e.ID}] = e.Name
		case child.KindAuction:
			sellers[slot{window, e.Seller}] = true
		case child.KindBid:
			bids = append(bids, *e)
			out["q1"][nexRow{Auction: e.Auction, Bidder: e.Bidder, Price: e.Price * 908, At: e.At}]++
			for start := e.At - e.At%child.HotSlide; start > e.At-child.HotWindow; start -= child.HotSlide {
				counts[slot{start, e.Auction}]++
				most[start] = max(most[start], counts[slot{start, e.Auction}])
			}
			best[window] = max(best[window], e.Price)
			times[e.Bidder] = append(times[e.Bidder], e.At)
			last := nexRow{Auction: e.Auction, Bidder: e.Bidder}
			out["q18"][last] = max(out["q18"][last], e.At)
		}
		return nil
	})
	for s, n := range counts {
		if n == most[s.start] {
			out["q5"][nexRow{Starts: s.start / 1000, Auction: s.id}] = n
		}
	}
	for _, b := range bids {
		if window := b.At - b.At%child.HotWindow; b.Price == best[window] {
			out["q7"][nexRow{Starts: window / 1000, Auction: b.Auction, Bidder: b.Bidder, Price: b.Price, At: b.At}]++
		}
	}
	for s, name := range people {
		if sellers[s] {
			out["q8"][nexRow{Bidder: s.id, Name: name, Starts: s.start / 1000}] = 1
		}
	}
	for bidder, at := range times {
		for _, s := range sessionsOf(at) {
			out["q11"][nexRow{Bidder: bidder, Starts: s.start / 1000, Ends: s.end / 1000}] += s.n
		}
	}
	return out
}

// answered reads what a run of a query wrote. Rows that replace others have keys.
func answered(ctx context.Context, brokers, topic, query string) (answer, error) {
	type row struct {
		Auction, Bidder, Num, Starts, Ends, ID int64

		At        int64 `json:"ms"`
		Price     json.Number
		Name      string
		Retracted bool
	}
	out := answer{}
	err := readCommitted(ctx, brokers, []string{topic}, func(r *kgo.Record) error {
		if r.Value == nil {
			return nil // a key taken back, which comes again
		}
		var x row
		if err := json.Unmarshal(r.Value, &x); err != nil {
			return fmt.Errorf("row %.200q: %w", r.Value, err)
		}
		switch query {
		case "q1":
			price, err := strconv.ParseFloat(x.Price.String(), 64)
			if err != nil {
				return fmt.Errorf("row %.200q: %w", r.Value, err)
			}
			out[nexRow{Auction: x.Auction, Bidder: x.Bidder, Price: int64(math.Round(price * 1000)), At: x.At}]++
		case "q5":
			out[nexRow{Starts: x.Starts, Auction: x.Auction}] = x.Num
		case "q7":
			price, err := x.Price.Int64()
			if err != nil {
				return fmt.Errorf("row %.200q: %w", r.Value, err)
			}
			out[nexRow{Starts: x.Starts, Auction: x.Auction, Bidder: x.Bidder, Price: price, At: x.At}]++
		case "q8":
			out[nexRow{Bidder: x.ID, Name: x.Name, Starts: x.Starts}] = 1
		case "q11":
			out[nexRow{Bidder: x.Bidder, Starts: x.Starts, Ends: x.Ends}] += x.Num
		case "q18":
			k := nexRow{Auction: x.Auction, Bidder: x.Bidder}
			out[k] = max(out[k], x.At)
		}
		return nil
	})
	return out, err
}

type nexSession struct{ start, end, n int64 }

// sessionsOf groups times that are at most the gap apart, as Flink does: windows that touch are one.
func sessionsOf(at []int64) []nexSession {
	sorted := append([]int64(nil), at...)
	sortInt64(sorted)
	var out []nexSession
	for _, t := range sorted {
		if n := len(out); n > 0 && t <= out[n-1].end {
			out[n-1].end = t + child.SessionGap
			out[n-1].n++
			continue
		}
		out = append(out, nexSession{t, t + child.SessionGap, 1})
	}
	return out
}
