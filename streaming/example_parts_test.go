package streaming_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
)

// still is an operator that does nothing; the examples have what they need.
type still struct{}

func (still) Process(int, *kgo.Record) error { return nil }
func (still) Timer(streaming.Timer) error    { return nil }
func (still) Tick(time.Time) error           { return nil }
func (still) BeforeCommit() error            { return nil }
func (still) Committed()                     {}
func (still) Aborted()                       {}

// Visits come from two topics and are to be seen in the order in which they happened.
type visits struct {
	still
	t     *streaming.Task
	order *streaming.Ordered[[]byte]
}

func newVisits(t *streaming.Task) (streaming.Operator, error) {
	v := &visits{t: t}
	v.order = streaming.OpenOrdered(t, streaming.OrderedSpec[[]byte]{
		Store: 16, Codec: streaming.Bytes{},
		Each: func(visitor string, at int64, page []byte) error {
			fmt.Println(clock(at), visitor, string(page))
			return nil
		},
		Late: func(visitor string, at int64, page []byte) error {
			fmt.Println("late:", clock(at), visitor, string(page))
			return nil
		},
	})
	return v, nil
}

func (v *visits) Process(in int, r *kgo.Record) error {
	at, page := read(r)
	v.t.Observe(in, streaming.LaneLive, at)
	return v.order.Add(string(r.Key), at, v.t.Rank(r.Topic), r.Offset, bytes.Clone(page))
}

func ExampleOpenOrdered() {
	top := streaming.Topology{
		Name: "shop", Stage: "visits", Inputs: []string{"app", "web"}, Partitions: 1,
		Stores: []streaming.StoreSpec{{ID: 16, Name: "visits.order", Format: 1}}, New: newVisits,
	}
	run(top, "web ann 10 /home", "app ann 13 /pay", "web ann 12 /cart", "web ann 20 /end", "app ann 20 /end", "app ann 11 /lost")
	// Output:
	// 12:00:10 ann /home
	// 12:00:12 ann /cart
	// 12:00:13 ann /pay
	// late: 12:00:11 ann /lost
}

// An order and its payment belong together if the payment comes at most five seconds after the order.
type payments struct {
	still
	t    *streaming.Task
	join *streaming.Interval[[]byte, []byte]
}

func newPayments(t *streaming.Task) (streaming.Operator, error) {
	p := &payments{t: t}
	p.join = streaming.OpenInterval(t, streaming.IntervalSpec[[]byte, []byte]{
		Store: 16, Lower: 0, Upper: 5 * time.Second, Left: streaming.Bytes{}, Right: streaming.Bytes{},
		Match: func(x streaming.Pair[[]byte, []byte]) error {
			fmt.Printf("%s: %s at %s, %s at %s\n", x.Key, x.Left, clock(x.LeftAt), x.Right, clock(x.RightAt))
			return nil
		},
	})
	return p, nil
}

func (p *payments) Process(in int, r *kgo.Record) error {
	at, what := read(r)
	p.t.Observe(in, streaming.LaneLive, at)
	if r.Topic == "orders" {
		return p.join.AddLeft(string(r.Key), at, bytes.Clone(what))
	}
	return p.join.AddRight(string(r.Key), at, bytes.Clone(what))
}

func ExampleOpenInterval() {
	top := streaming.Topology{
		Name: "shop", Stage: "payments", Inputs: []string{"orders", "payments"}, Partitions: 1,
		Stores: []streaming.StoreSpec{{ID: 16, Name: "payments.join", Format: 1}}, New: newPayments,
	}
	run(top, "payments o1 13 card", "orders o1 12 shoes", "orders o2 13 hat", "payments o2 19 cash", "payments o1 17 rest")
	// Output:
	// o1: shoes at 12:00:12, card at 12:00:13
	// o1: shoes at 12:00:12, rest at 12:00:17
}

// A sale is valued at the price that was in force when it was made.
type sales struct {
	still
	t      *streaming.Task
	prices *streaming.Table[[]byte]
	order  *streaming.Ordered[[]byte]
}

func newSales(t *streaming.Task) (streaming.Operator, error) {
	s := &sales{t: t}
	s.prices = streaming.OpenTable(t, streaming.TableSpec[[]byte]{Store: 16, Codec: streaming.Bytes{}})
	s.order = streaming.OpenOrdered(t, streaming.OrderedSpec[[]byte]{
		Store: 17, Codec: streaming.Bytes{},
		Each: func(product string, at int64, who []byte) error {
			price, ok := s.prices.AsOf(product, at)
			if !ok {
				price = []byte("unknown")
			}
			fmt.Printf("%s bought %s for %s\n", who, product, price)
			return nil
		},
	})
	return s, nil
}

func (s *sales) Process(in int, r *kgo.Record) error {
	at, what := read(r)
	s.t.Observe(in, streaming.LaneLive, at)
	if r.Topic == "prices" {
		s.prices.Put(string(r.Key), at, bytes.Clone(what))
		return nil
	}
	return s.order.Add(string(r.Key), at, s.t.Rank(r.Topic), r.Offset, bytes.Clone(what))
}

func ExampleOpenTable() {
	top := streaming.Topology{
		Name: "shop", Stage: "sales", Inputs: []string{"prices", "sales"}, Partitions: 1,
		Stores: []streaming.StoreSpec{{ID: 16, Name: "sales.prices", Format: 1}, {ID: 17, Name: "sales.order", Format: 1}}, New: newSales,
	}
	run(top, "sales hat 9 ann", "prices hat 10 20€", "sales hat 12 bob", "sales hat 15 cid", "prices hat 14 25€", "prices hat 30 30€", "sales hat 30 dan")
	// Output:
	// ann bought hat for unknown
	// bob bought hat for 20€
	// cid bought hat for 25€
}

// Logins are keyed by visitor; the second stage is about addresses.
type logins struct {
	still
	t *streaming.Task
}

func newLogins(t *streaming.Task) (streaming.Operator, error) { return &logins{t: t}, nil }

func (l *logins) Process(in int, r *kgo.Record) error {
	at, address := read(r)
	l.t.Observe(in, streaming.LaneLive, at)
	streaming.Rekey(l.t, "rekey.ip", address, r.Key)
	return nil
}

func ExampleRekey() {
	top := streaming.Topology{Name: "shop", Stage: "logins", Inputs: []string{"logins"}, Rekeys: []string{"rekey.ip"}, Partitions: 8, New: newLogins}
	h := run(top, "logins ann 10 192.0.2.7", "logins bob 11 198.51.100.1", "logins cid 12 192.0.2.7")
	for _, r := range h.Outputs("rekey.ip") {
		if r.Key != nil { // not only a watermark
			fmt.Println("partition", r.Partition, string(r.Key), string(r.Value))
		}
	}
	// Output:
	// partition 6 192.0.2.7 ann
	// partition 4 198.51.100.1 bob
	// partition 6 192.0.2.7 cid
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock(at int64) string { return time.UnixMicro(at).UTC().Format(time.TimeOnly) }

// read takes a record apart: seconds after noon, and what happened.
func read(r *kgo.Record) (at int64, what []byte) {
	seconds, what, _ := bytes.Cut(r.Value, []byte(" "))
	var s int64
	_, _ = fmt.Sscan(string(seconds), &s) // the examples' own records
	return noon.Add(time.Duration(s) * time.Second).UnixMicro(), what
}

// run feeds records, each `topic key seconds what`, to a task that allows one second of disorder, and commits.
func run(top streaming.Topology, records ...string) *streaming.Harness {
	h, err := streaming.NewHarness(streaming.Config{Disorder: time.Second, IdleAfter: time.Hour, MergeWait: -1}, top, 0, noon)
	for _, x := range records {
		f := strings.SplitN(x, " ", 3)
		for in, topic := range top.Inputs {
			if err == nil && topic == f[0] {
				h.Produce(in, &kgo.Record{Key: []byte(f[1]), Value: []byte(f[2])})
				err = h.Feed()
			}
		}
	}
	if err == nil {
		_, err = h.Commit()
	}
	if err != nil {
		panic(err)
	}
	return h
}

func TestThePageOfPatternsShowsTheExamples(t *testing.T) {
	t.Parallel()
	source := ""
	for _, name := range []string{"example_parts_test.go", "pattern/example_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source += string(b)
	}
	page, err := os.ReadFile("../docs/streaming-patterns.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 5 {
		t.Errorf("the page has %d blocks of code, want one for each part", len(blocks))
	}
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		if !strings.Contains(source, code) {
			t.Errorf("this code of the page is in no example:\n%s", code)
		}
	}
}
