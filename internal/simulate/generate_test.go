package simulate

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
	"millrace/event/wire"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func generated(o Options, n int) *batch {
	g, b := newGenerator(o), &batch{format: o.Format}
	for range n {
		b.begin()
		b.body = g.next(b.body)
		b.end(g.last, g.id)
	}
	b.seal()
	return b
}

func seeded(seed uint64) Options {
	o := DefaultOptions()
	o.Seed, o.Start, o.Format = seed, noon, FormatNDJSON
	return o
}

// The events of a seed are a promise: a change of these files is a change of what `--seed` means, and is to be told to users.
func TestASeedsEventsAreGolden(t *testing.T) {
	t.Parallel()
	o := seeded(7)
	o.Shares = Shares{Duplicates: 0.05, Late: 0.05, OutOfOrder: 0.05, Malformed: 0.1, Fraud: 0.05}
	o.Shoppers = 3
	got := generated(o, 120).body
	const path = "testdata/seed7.ndjson"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("events of seed 7 (-golden +now):\n%s", diff)
	}
	// Far from the start the sum of a longer run stands for it.
	const sum = 0x3338937900c5a815
	if got := xxhash.Sum64(generated(seeded(7), 20_000).body); got != sum {
		t.Errorf("the first 20000 events of seed 7 have sum %#x, want %#x", got, uint64(sum))
	}
}

func TestEventsDependOnTheSeedAndNotOnTimes(t *testing.T) {
	t.Parallel()
	const n = 5000
	without := func(b *batch) []byte { // times
		var out []byte
		for _, line := range bytes.Split(b.body, []byte("\n")) {
			const key = `"occurred_at":"`
			if i := bytes.Index(line, []byte(key)); i >= 0 && !bytes.Contains(line, []byte("v-clock")) {
				line = append(line[:i:i], line[i+len(key)+len("2026-03-01T12:00:00.000Z"):]...)
			}
			out = append(append(out, line...), '\n')
		}
		return out
	}
	base := generated(seeded(1), n)
	if !bytes.Equal(base.body, generated(seeded(1), n).body) {
		t.Error("the same options gave other events")
	}
	later := seeded(1)
	later.Start, later.Rate, later.Spike, later.Diurnal = noon.Add(1000*time.Hour), 50, 10, 0
	if got := generated(later, n); !bytes.Equal(without(base), without(got)) || bytes.Equal(base.body, got.body) {
		t.Error("another start and rate must change the times and nothing else")
	}
	seen := map[string]bool{}
	for _, seed := range []uint64{1, 2} {
		b, from := generated(seeded(seed), n), uint32(0)
		for i, end := range b.ends {
			id := string(b.ids[from:end])
			from = end
			if b.records[i].class == valid && seed == 2 && seen[id] {
				t.Fatalf("seeds 1 and 2 share id %s", id)
			}
			if seed == 1 {
				seen[id] = true
			}
		}
	}
}

func TestSharesAreAsAsked(t *testing.T) {
	t.Parallel()
	for _, sh := range []Shares{DefaultOptions().Shares, {Duplicates: 0.2, Late: 0.1, OutOfOrder: 0.3, Malformed: 0.05, Fraud: 0.05}, {}} {
		o := seeded(11)
		o.Shares = sh
		g := newGenerator(o)
		const n = 150_000
		var got Shares
		var originals float64
		var seen bitset
		var buf []byte
		for range n {
			buf = g.next(buf[:0])
			r := g.last
			if r.class == malformed {
				got.Malformed++
				continue
			}
			if !seen.add(r.seq, 0) {
				got.Duplicates++
				continue
			}
			originals++
			if r.late {
				got.Late++
			}
			if r.shuffled {
				got.OutOfOrder++
			}
			if r.fraud {
				got.Fraud++
			}
		}
		near := func(name string, got, of, want, units float64) {
			// Six standard deviations of a binomial, whose trials come in units that belong together.
			if bound := 6*math.Sqrt(of*want*units) + 1; math.Abs(got-of*want) > bound {
				t.Errorf("%s: %v of %v, want a share of %v (±%.0f)", name, got, of, want, bound)
			}
		}
		near("duplicates", got.Duplicates, n, sh.Duplicates, 1)
		near("malformed", got.Malformed, n, sh.Malformed, 1)
		near("late", got.Late, originals, sh.Late, 1)
		near("out of order", got.OutOfOrder, originals, sh.OutOfOrder, 1)
		near("fraud", got.Fraud, n*(1-sh.Duplicates-sh.Malformed), sh.Fraud, attackLength)
	}
}

// The gateway's own decoder is the judge: valid events are what the books say they are, malformed ones fail with the reason the books say.
func TestEveryEventIsWhatItWasMadeAs(t *testing.T) {
	t.Parallel()
	for _, format := range []Format{FormatArray, FormatNDJSON} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			o := seeded(3)
			o.Format, o.Malformed, o.Fraud = format, 0.05, 0.01
			g := newGenerator(o)
			dec := newDecoder()
			seenFlaws, seenNames, seenCurrencies := map[string]bool{}, map[string]bool{}, map[string]bool{}
			failures := map[string]bool{}
			copies := map[uint64]string{}
			for range 30 {
				b := &batch{format: format}
				for range 500 {
					b.begin()
					b.body = g.next(b.body)
					b.end(g.last, g.id)
				}
				b.seal()
				i, from := 0, uint32(0)
				wire.Split(b.body, func(text []byte) bool {
					if i >= len(b.records) {
						t.Fatalf("the body has more than %d events", len(b.records))
					}
					r, id := b.records[i], string(b.ids[from:b.ends[i]])
					from = b.ends[i]
					i++
					payload := string(text)
					var e event.Event
					fail := dec.Decode(text, &e)
					if fail == nil {
						fail = dec.Complete(&wire.Request{ReceivedAt: noon.Add(time.Minute).UnixMicro()})
					}
					if r.class == malformed {
						f := g.flaws[r.name]
						if fail == nil || fail.Reason != f.reason {
							t.Errorf("%q: %v, want reason %s\n%s", f.name, fail, f.reason, payload)
						}
						if format == FormatArray && !json.Valid([]byte(payload)) {
							t.Errorf("%q is no JSON: %s", f.name, payload)
						}
						if failures[payload] {
							t.Errorf("%q was sent twice: %s", f.name, payload)
						}
						failures[payload], seenFlaws[f.name] = true, true
						return true
					}
					if fail != nil {
						t.Fatalf("%v\n%s", fail, payload)
					}
					if e.ID != id || e.Name != names[r.name] {
						t.Fatalf("id %s name %s, the books have %s and %s", e.ID, e.Name, id, names[r.name])
					}
					if e.Name == event.NamePurchase {
						if e.Value == nil || *e.Value != r.value || e.Currency != currencies[r.currency].code || e.OrderID == "" {
							t.Fatalf("purchase %+v, the books have %+v", e, r)
						}
						checkPurchase(t, &e, r)
						seenCurrencies[e.Currency] = true
					}
					if e.Name == event.NameRefund && (e.Value == nil || *e.Value >= 0 || e.OrderID == "") {
						t.Fatalf("refund %+v", e)
					}
					if late := e.OccurredAt < g.start-int64(45*time.Second/time.Microsecond); late != r.late {
						t.Errorf("late is %v, occurred %s", r.late, event.Time(e.OccurredAt))
					}
					if fraud := strings.Contains(e.Properties, "fraud_label"); fraud != r.fraud {
						t.Errorf("fraud is %v: %s", r.fraud, payload)
					}
					if old, ok := copies[r.seq]; ok && old != payload {
						t.Errorf("a copy differs:\n%s\n%s", old, payload)
					}
					copies[r.seq], seenNames[e.Name] = payload, true
					return true
				})
				if i != len(b.records) {
					t.Fatalf("%d of %d events were found in the body", i, len(b.records))
				}
			}
			if len(seenFlaws) != len(g.flaws) || len(seenNames) != len(names) || len(seenCurrencies) != len(currencies) {
				t.Errorf("seen: %d of %d flaws, %d of %d names, %d of %d currencies", len(seenFlaws), len(g.flaws), len(seenNames), len(names), len(seenCurrencies), len(currencies))
			}
		})
	}
}

// checkPurchase checks that an order's value is what its items cost, and in coins that exist.
func checkPurchase(t *testing.T, e *event.Event, r record) {
	t.Helper()
	coin := currencies[r.currency].coin
	sum := int64(0)
	for _, it := range e.Items {
		price := *it.Price
		if it.Discount != nil {
			price -= *it.Discount
		}
		sum += price * it.Quantity
	}
	if len(e.Items) > 0 && sum != *e.Value {
		t.Errorf("value %d, items cost %d: %+v", *e.Value, sum, e)
	}
	for _, v := range []*int64{e.Value, e.Tax, e.Shipping} {
		if v != nil && *v%coin != 0 {
			t.Errorf("%d micros of %s are no whole coins", *v, e.Currency)
		}
	}
	if !r.fraud && len(e.Items) == 0 {
		t.Error("an order without items")
	}
}

// The funnel narrows, and every order went through it.
func TestShoppersGoThroughTheFunnel(t *testing.T) {
	t.Parallel()
	o := seeded(5)
	o.Shares, o.Shoppers = Shares{}, 200
	b := generated(o, 25_000)
	count := map[string]int{}
	began := map[string]bool{}
	visits := map[string]map[string]bool{}
	dec := newDecoder()
	wire.Split(b.body, func(text []byte) bool {
		var e event.Event
		if fail := dec.Decode(text, &e); fail != nil {
			t.Fatal(fail)
		}
		count[e.Name]++
		session, visitor := strings.Clone(e.ClientSessionID), strings.Clone(e.VisitorID)
		switch e.Name {
		case event.NameBeginCheckout:
			began[session] = true
		case event.NamePurchase:
			if !began[session] {
				t.Fatalf("an order without a checkout in session %s", session)
			}
		}
		if session != "" {
			if visits[visitor] == nil {
				visits[visitor] = map[string]bool{}
			}
			visits[visitor][session] = true
		}
		return true
	})
	funnel := []string{event.NameViewItem, event.NameAddToCart, event.NameBeginCheckout, event.NameAddShippingInfo, event.NameAddPaymentInfo, event.NamePurchase, event.NameRefund}
	for i := 1; i < len(funnel); i++ {
		if count[funnel[i]] == 0 || count[funnel[i]] >= count[funnel[i-1]] {
			t.Errorf("%d %s after %d %s", count[funnel[i]], funnel[i], count[funnel[i-1]], funnel[i-1])
		}
	}
	back := 0
	for _, sessions := range visits {
		if len(sessions) > 1 {
			back++
		}
	}
	if share := float64(back) / float64(len(visits)); share < 0.1 || share > 0.6 {
		t.Errorf("%.2f of the visitors came back", share)
	}
}

func TestStringsAreJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		var got string
		if err := json.Unmarshal(appendQuoted(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); utf8.ValidString(s) && got != want {
			t.Fatalf("%q became %q", s, got)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(0, 4_000_000_000_000_000).Draw(t, "us")
		if got, want := string(appendTime(nil, us)), time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func TestABodyOfAnArrayIsOneJSONValue(t *testing.T) {
	t.Parallel()
	o := seeded(9)
	o.Format, o.Malformed = FormatArray, 0.3
	var all []json.RawMessage
	if err := json.Unmarshal(generated(o, 5000).body, &all); err != nil || len(all) != 5000 {
		t.Errorf("%d events, %v", len(all), err)
	}
}
