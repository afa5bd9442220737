package hot

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// traffic makes records as a shop's visitors do: mostly views, some carts, few orders, two copies in a hundred.
type traffic struct {
	rng    *rand.Rand
	codecs *schema.Codecs
	n      int
	at     int64
}

func newTraffic(codecs *schema.Codecs) *traffic {
	return &traffic{rng: rand.New(rand.NewPCG(1, 1)), codecs: codecs, at: t0.UnixMicro()}
}

// next is a record and the index of its input; event time goes on by a millisecond.
func (g *traffic) next() (int, *kgo.Record) {
	rng := g.rng
	g.n++
	g.at += 1000
	visitor := rng.IntN(20_000)
	e := event.Event{
		ID: "0197-" + strconv.Itoa(g.n) + "-4c1e-9b2a-7d5f3a2b1c0d", Name: event.NamePageView, Tenant: "default", VisitorID: "visitor-" + strconv.Itoa(visitor), OccurredAt: g.at - rng.Int64N(500_000), ReceivedAt: g.at, Source: "web", SchemaVersion: 1,
		Country: []string{"DE", "US", "FR", "GB", "IT", "ES", "PL", "NL", "SE", "AT"}[visitor%10], DeviceType: []string{"mobile", "desktop", "tablet"}[visitor%3], ClientSessionID: "s-" + strconv.Itoa(visitor),
		PageURL: "https://shop.example.com/products/kitchen/mug-" + strconv.Itoa(visitor), PagePath: "/products/kitchen/mug", PageTitle: "A mug for the kitchen", PageReferrer: "https://search.example.com/", DeviceOS: "Android", DeviceBrowser: "Chrome",
		UserAgent: "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36", Locale: "de-DE", TimeZone: "Europe/Berlin", IP: "203.0.113.0", IPHash: "b5bb9d8014a0f9b1d61e21e796d78dcc", Properties: `{"experiment":"b"}`,
	}
	if rng.IntN(50) == 0 && g.n > 100 {
		e.ID = "0197-" + strconv.Itoa(g.n-rng.IntN(100)) + "-4c1e-9b2a-7d5f3a2b1c0d"
	}
	item := func() event.Item {
		p := rng.IntN(200)
		return event.Item{ItemID: "sku-" + strconv.Itoa(p), ItemName: "Mug number " + strconv.Itoa(p), ItemCategory: "category-" + strconv.Itoa(p%10), Price: micros(int64(1 + p)), Quantity: 1}
	}
	switch n := rng.IntN(100); {
	case n < 3:
		e.Name, e.Currency, e.Value, e.OrderID = event.NamePurchase, "EUR", micros(50), "order-"+strconv.Itoa(g.n)
		e.Items = []event.Item{item(), item()}
	case n < 15:
		e.Name, e.Currency, e.Value = event.NameAddToCart, "EUR", micros(20)
		e.Items = []event.Item{item()}
	case n < 40:
		e.Name = event.NameViewItem
		e.Items = []event.Item{item()}
	}
	cat := e.Category()
	return int(cat), &kgo.Record{Key: e.AppendKey(nil), Value: g.codecs.AppendRaw(nil, cat, &e), Timestamp: event.Time(g.at), Headers: []kgo.RecordHeader{
		{Key: event.HeaderCategory, Value: []byte(cat.String())},
		{Key: event.HeaderTenant, Value: []byte("default")},
		{Key: event.HeaderReceived, Value: event.AppendReceived(nil, g.at)},
		{Key: event.HeaderLane, Value: []byte{0}},
		{Key: event.HeaderGateway, Value: event.AppendGateway(nil, 1, uint64(g.n))},
	}}
}

const (
	batch   = 5000 // records a commit when catching up
	batches = 20
)

// cpu is the CPU time of the process, garbage collection included: on a machine that does other things it says more than the clock.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTopology measures what a task does with an event without a broker: merge, operator, windows. Beside it is what any consumer of the same records pays at
// least: decoding them. "catching up" reads 100,000 events in a second of processing time, "live" 1,000 with 20 commits. Commits are outside of the time (the harness's
// copies of the outputs would be most of it) and reported beside it.
func BenchmarkTopology(b *testing.B) {
	codecs, err := testCodecs()
	if err != nil {
		b.Fatal(err)
	}
	g := newTraffic(codecs)
	var ins []int
	var recs []*kgo.Record
	for range batches * batch {
		in, r := g.next()
		ins, recs = append(ins, in), append(recs, r)
	}
	perEvent := func(b *testing.B, what string, took time.Duration, n int) {
		b.ReportMetric(float64(took.Nanoseconds())/float64(n), what)
	}
	b.Run("bare decode", func(b *testing.B) {
		dec := codecs.NewEventDecoder()
		var e event.Event
		b.ReportAllocs()
		n, start := 0, cpu(b)
		for b.Loop() {
			for i, r := range recs[:batch] {
				if _, err := dec.DecodeRaw(b.Context(), event.Category(ins[i]), r.Value, &e); err != nil {
					b.Fatal(err)
				}
			}
			n += batch
		}
		perEvent(b, "cpu-ns/event", cpu(b)-start, n)
	})
	for _, mode := range []struct {
		name   string
		each   int
		passes time.Duration
	}{{"catching up", batch, 50 * time.Millisecond}, {"live", 50, 50 * time.Millisecond}} {
		b.Run(mode.name, func(b *testing.B) {
			var r *rig
			var working, committing time.Duration
			n, rows := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if n%(batches*batch) == 0 {
					if r != nil {
						rows += len(r.h.Outputs(event.TopicKPIPartial))
					}
					r = newRig(b, option{eng: func(c *streaming.Config) { c.MergeWait = -1 }})
				}
				for done := 0; done < batch; done += mode.each {
					for range mode.each {
						i := n % len(recs)
						r.h.Produce(ins[i], recs[i])
						n++
					}
					start := cpu(b)
					b.StartTimer()
					r.feed()
					r.advance(mode.passes)
					b.StopTimer()
					worked := cpu(b)
					r.commit()
					working, committing = working+worked-start, committing+cpu(b)-worked
				}
				b.StartTimer()
			}
			b.StopTimer()
			rows += len(r.h.Outputs(event.TopicKPIPartial))
			perEvent(b, "cpu-ns/event", working, n)
			perEvent(b, "commit-cpu-ns/event", committing, n)
			b.ReportMetric(float64(rows)/float64(n), "kpi-rows/event")
		})
	}
}
