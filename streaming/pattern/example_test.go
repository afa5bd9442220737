package pattern_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
	"millrace/streaming/pattern"
)

// A payment is what the example's patterns look at.
type payment struct {
	cents    int64
	accepted bool
}

// Card testing: at least three small payments, then one that is twenty times the last of them, within ten minutes.
func cardTesting() (*pattern.Pattern[payment], error) {
	return pattern.New[payment]("card-testing").
		Begin("small", func(p payment, _ pattern.Earlier[payment]) bool { return p.cents < 500 }).Times(3, 10).
		FollowedBy("large", func(p payment, earlier pattern.Earlier[payment]) bool {
			last, _, _ := earlier.Last("small")
			return p.accepted && p.cents >= 20*last.cents
		}).
		Within(10 * time.Minute).SkipPast().Compile()
}

// Given up: a payment was refused, and none was accepted in the ten minutes after it.
func givenUp() (*pattern.Pattern[payment], error) {
	return pattern.New[payment]("given-up").
		Begin("refused", func(p payment, _ pattern.Earlier[payment]) bool { return !p.accepted }).
		NotFollowedBy("accepted", func(p payment, _ pattern.Earlier[payment]) bool { return p.accepted }).
		Within(10 * time.Minute).Compile()
}

// Cards are watched for both; an ordered buffer brings their payments into order.
type cards struct {
	t     *streaming.Task
	order *streaming.Ordered[payment]
	set   *pattern.Set[payment]
}

func newCards(t *streaming.Task) (_ streaming.Operator, err error) {
	c := &cards{t: t}
	spec := pattern.Spec[payment]{Store: 16, Owner: 1, Codec: paymentCodec{}, Match: c.match, Patterns: make([]*pattern.Pattern[payment], 2)}
	if spec.Patterns[0], err = cardTesting(); err != nil {
		return nil, err
	}
	if spec.Patterns[1], err = givenUp(); err != nil {
		return nil, err
	}
	if c.set, err = pattern.Open(t, spec); err != nil {
		return nil, err
	}
	c.order = streaming.OpenOrdered(t, streaming.OrderedSpec[payment]{Store: 17, Codec: paymentCodec{}, Each: c.set.Add})
	return c, nil
}

func (c *cards) Process(in int, r *kgo.Record) error {
	at, p := read(r)
	c.t.Observe(in, streaming.LaneLive, at)
	return c.order.Add(string(r.Key), at, c.t.Rank(r.Topic), r.Offset, p)
}

func (c *cards) Timer(tm streaming.Timer) error { return c.set.Timer(tm) } // of owner 1

func (c *cards) match(m *pattern.Match[payment]) error {
	fmt.Println(time.UnixMicro(m.At).UTC().Format(time.TimeOnly), m.Pattern, m.Key, len(m.Events))
	return nil
}

func (c *cards) Tick(time.Time) error { return nil }
func (c *cards) BeforeCommit() error  { return nil }
func (c *cards) Committed()           {}
func (c *cards) Aborted()             {}

// paymentCodec is how payments are kept while they wait or belong to a partial match.
type paymentCodec struct{}

func (paymentCodec) Append(b []byte, p payment) []byte {
	return strconv.AppendBool(append(strconv.AppendInt(b, p.cents, 10), ' '), p.accepted)
}

func (paymentCodec) Decode(b []byte) (p payment, err error) {
	cents, accepted, _ := strings.Cut(string(b), " ")
	if p.cents, err = strconv.ParseInt(cents, 10, 64); err == nil {
		p.accepted, err = strconv.ParseBool(accepted)
	}
	return p, err
}

func Example() {
	top := streaming.Topology{
		Name: "shop", Stage: "cards", Inputs: []string{"payments"}, Partitions: 1, New: newCards,
		Stores: []streaming.StoreSpec{{ID: 16, Name: "cards.patterns", Format: 1}, {ID: 17, Name: "cards.order", Format: 1}},
	}
	h, err := streaming.NewHarness(streaming.Config{Disorder: 20 * time.Second, IdleAfter: time.Hour}, top, 0, noon)
	for _, x := range []string{
		"c1 0 100 true", "c1 20 100 false", "c1 10 100 true", "c1 30 4000 true", // out of order: that at 10 is before that at 20
		"c2 60 90 false", "c2 90 7000 true",
		"c3 100 5000 false",
		"c9 900 900 true", // ten minutes after it nobody has heard of c3
	} {
		if key, value, _ := strings.Cut(x, " "); err == nil {
			h.Produce(0, &kgo.Record{Key: []byte(key), Value: []byte(value)})
		}
	}
	if err == nil {
		err = h.Feed()
	}
	if err != nil {
		panic(err)
	}
	// Output:
	// 12:00:30 card-testing c1 4
	// 12:11:40 given-up c3 1
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// read takes a record apart: seconds after noon, cents, and whether it was accepted.
func read(r *kgo.Record) (at int64, p payment) {
	seconds, rest, _ := strings.Cut(string(r.Value), " ")
	s, _ := strconv.Atoi(seconds)              // the example's own records
	p, _ = paymentCodec{}.Decode([]byte(rest)) // likewise
	return noon.Add(time.Duration(s) * time.Second).UnixMicro(), p
}
