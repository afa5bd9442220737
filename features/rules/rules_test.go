package rules

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/event"
)

const second = int64(1_000_000)

func parse(t testing.TB, rule string) (*Set, *Plan, *Rule) {
	t.Helper()
	s, err := Parse([]byte("version: 2\nrules:\n  - {name: r, severity: warn, score: 0.5, reason: '{n}', " + rule + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rules[0]
	return s, s.Plan(r.Entity), r
}

func TestTheDefaultRulesAreRight(t *testing.T) {
	t.Parallel()
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != 1 || len(s.Rules) < 10 {
		t.Errorf("version %d, %d rules", s.Version, len(s.Rules))
	}
	for _, e := range Entities() {
		if s.Plan(e) == nil {
			t.Errorf("no rule is about %s", e)
		}
	}
	again, err := Parse([]byte("# the same\n" + strings.ReplaceAll(string(s.Source()), "card_fingerprint != ''", "card_fingerprint  !=  \"\"")))
	if err != nil || again.Hash != s.Hash {
		t.Errorf("comments and white space change the hash: %v", err)
	}
}

func TestEveryProblemIsToldWithItsLine(t *testing.T) {
	t.Parallel()
	ok := func(rule string) string {
		return "version: 2\nrules:\n  - {name: r, severity: warn, score: 0.5, reason: x, " + rule + "}\n"
	}
	for name, c := range map[string]struct{ file, want string }{
		"no YAML":                        {"a: [", "no YAML"},
		"a list":                         {"- a", "line 1: a mapping"},
		"an unknown field":               {"version: 2\nrulez: []\nrules: []", `line 2: the file has no field "rulez"`},
		"no version":                     {"rules: []", "version: a whole number"},
		"aliases":                        {"version: 2\nrules: [&a {name: x}, *a]", "line 2: anchors and aliases"},
		"velocity of everything":         {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 0"), "threshold: 0 is no whole number from 2"},
		"all events":                     {ok("kind: velocity, entity: card, window: 1h, threshold: 5"), "a rule on all events would match everything"},
		"a star":                         {ok("kind: velocity, entity: card, on: ['*'], window: 1h, threshold: 5"), `"*" is no name of an event`},
		"a condition without a field":    {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 5, where: '1 == 1'"), "1 is no field"},
		"a text compared with a number":  {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 5, where: country == 5"), "country is a text"},
		"a condition that is cut off":    {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 5, where: value >"), "it ends too early"},
		"a wrong window":                 {ok("kind: velocity, entity: card, on: [purchase], window: soon, threshold: 5"), `line 3: "soon" is no duration`},
		"a threshold in words":           {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: many"), "line 3: cannot unmarshal"},
		"a placeholder that is none":     {strings.Replace(ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 5"), "reason: x", "reason: '{who}'", 1), "{who} is none of"},
		"an address that travels":        {ok("kind: impossible_travel, entity: ip, on: [purchase], window: 1h, threshold: 900"), "an address does not travel"},
		"two of a name":                  {"version: 2\nrules:\n  - &x {name: r}\n", "anchors"},
		"first seen without a history":   {ok("kind: first_seen, entity: user, on: [purchase], of: [country], window: 1h, threshold: 0"), "at 0 the first event of everybody"},
		"a field that the kind does not": {ok("kind: velocity, entity: card, on: [purchase], window: 1h, threshold: 5, declines: 3"), "a rule of kind velocity has none"},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	_, err := Parse([]byte("version: 0\nrules:\n  - {name: A, kind: x}\n  - {name: b, kind: y}\n"))
	if err == nil || strings.Count(err.Error(), "line 3") < 3 || strings.Count(err.Error(), "line 4") < 3 {
		t.Errorf("not every problem is told: %v", err)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	e := &event.Rekeyed{Name: "purchase", Value: 12_500_000, Currency: "EUR", Country: "DE", Declined: true}
	for text, want := range map[string]bool{
		`value > 12.4`: true, `value == 12.5`: true, `value < -1`: false, `country in ("US", 'DE')`: true, `country != "DE"`: false, `declined`: true, `!declined || value >= 13`: false,
		`country == "US" || currency == "EUR" && value in (1, 12.5)`: true, `(country == "US" || currency == "EUR") && !(value > 100)`: true, `user_id == ''`: true,
	} {
		f, normal, err := parseWhere(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if f(e) != want {
			t.Errorf("%s is %v", text, !want)
		}
		if _, again, err := parseWhere(normal); err != nil || again != normal {
			t.Errorf("%s: the normal form %s becomes %s: %v", text, normal, again, err)
		}
	}
}

// TestCountsAreThoseOfTheWindow: a count is between that of 11/12 of the window and that of all of it.
func TestCountsAreThoseOfTheWindow(t *testing.T) {
	t.Parallel()
	_, plan, r := parse(t, "kind: velocity, entity: card, on: [purchase], window: 120s, threshold: 1000000")
	rapid.Check(t, func(t *rapid.T) {
		s, at, times := &State{}, int64(1_700_000_000)*second, []int64{}
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			at += rapid.Int64Range(0, 30).Draw(t, "gap") * second
			times = append(times, at)
			plan.Apply(s, &event.Rekeyed{Name: "purchase"}, at, false, nil)
			sum := 0
			for _, v := range s.cell(r.id).ring {
				sum += int(v)
			}
			least, most := 0, 0
			for _, x := range times {
				if at-x < 110*second {
					least++
				}
				if at-x < 120*second {
					most++
				}
			}
			if sum < least || sum > most {
				t.Fatalf("%d events, want %d to %d", sum, least, most)
			}
		}
	})
}

func TestAStateIsDecodedAsItWasEncoded(t *testing.T) {
	t.Parallel()
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	plan := s.Plan(event.EntityUser)
	rapid.Check(t, func(t *rapid.T) {
		st, at := &State{Timer: 5}, int64(1_700_000_000)*second
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			at += rapid.Int64Range(-5, 4000).Draw(t, "gap") * second
			e := &event.Rekeyed{
				Name: rapid.SampledFrom([]string{"purchase", "add_payment_info", "identify"}).Draw(t, "name"), Country: rapid.SampledFrom([]string{"", "DE", "BR", "JP"}).Draw(t, "country"),
				Value: rapid.Int64Range(0, 1e10).Draw(t, "value"), Currency: "EUR", Device: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "device"), CardFingerprint: "c",
			}
			plan.Apply(st, e, at, rapid.Bool().Draw(t, "late"), nil)
		}
		b := st.Append(nil)
		back, err := DecodeState(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := back.Append(nil); string(got) != string(b) {
			t.Fatalf("%x becomes %x", b, got)
		}
		if string(st.Clone().Append(nil)) != string(b) {
			t.Fatal("a clone differs")
		}
		for cut := range b {
			if _, err := DecodeState(b[:cut]); err == nil {
				t.Fatalf("a state cut after %d of %d bytes is decoded", cut, len(b))
			}
		}
		st.Expire(math.MaxInt64 / 2)
		if !st.Empty() {
			t.Fatal("something is remembered for ever")
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		if _, err := DecodeState(s.Append(nil)); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(defaultFile)
	f.Add([]byte("version: 1\nrules: [{where: '((a'}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := Parse(b); err == nil && len(s.Hash) != 32 {
			t.Fatal("a set without a hash")
		}
	})
}

// run gives events to a rule and tells the numbers of those at which it was met.
func run(plan *Plan, events []event.Rekeyed, at func(i int) int64) (met []int) {
	s := &State{}
	for i := range events {
		if len(plan.Apply(s, &events[i], at(i), false, nil)) > 0 {
			met = append(met, i)
		}
	}
	return met
}

func TestKinds(t *testing.T) {
	t.Parallel()
	every := func(step time.Duration) func(int) int64 {
		return func(i int) int64 { return 1_700_000_000*second + int64(i)*step.Microseconds() }
	}
	repeat := func(n int, e event.Rekeyed) (out []event.Rekeyed) {
		for range n {
			out = append(out, e)
		}
		return out
	}
	paid := func(value int64, country, device string) event.Rekeyed {
		return event.Rekeyed{Name: "purchase", Value: value * event.MicrosPerUnit, Currency: "EUR", Country: country, Device: device}
	}
	cards := func(n int) (out []event.Rekeyed) {
		for i := range n {
			out = append(out, event.Rekeyed{Name: "add_payment_info", CardFingerprint: strconv.Itoa(i)})
		}
		return out
	}
	steps := func(names ...string) (out []event.Rekeyed) {
		for _, n := range names {
			out = append(out, event.Rekeyed{Name: n})
		}
		return out
	}
	for name, c := range map[string]struct {
		rule   string
		events []event.Rekeyed
		at     func(int) int64
		want   string
	}{
		"many within the window, told once": {"kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 5", repeat(9, paid(1, "", "")), every(time.Second), "[4]"},
		"many, but slowly":                  {"kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 5", repeat(9, paid(1, "", "")), every(3 * time.Minute), "[]"},
		"told again after the cooldown":     {"kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 2, cooldown: 3s", repeat(9, paid(1, "", "")), every(time.Second), "[1 4 7]"},
		"many cards":                        {"kind: card_testing, entity: visitor, on: [add_payment_info], window: 10m, threshold: 4", cards(6), every(time.Second), "[3]"},
		"many refusals of one card":         {"kind: card_testing, entity: visitor, on: [add_payment_info], window: 10m, threshold: 4, declines: 3", repeat(5, event.Rekeyed{Name: "add_payment_info", CardFingerprint: "c", Declined: true}), every(time.Second), "[2]"},
		"another continent in an hour":      {"kind: impossible_travel, entity: user, on: [purchase], window: 1d, threshold: 1000", []event.Rekeyed{paid(1, "DE", ""), paid(1, "DE", ""), paid(1, "JP", "")}, every(time.Hour), "[2]"},
		"another continent by plane":        {"kind: impossible_travel, entity: user, on: [purchase], window: 7d, threshold: 1000", []event.Rekeyed{paid(1, "DE", ""), paid(1, "JP", "")}, every(14 * time.Hour), "[]"},
		"next door":                         {"kind: impossible_travel, entity: user, on: [purchase], window: 1d, threshold: 1000", []event.Rekeyed{paid(1, "DE", ""), paid(1, "NL", "")}, every(time.Minute), "[]"},
		"an amount far above the own":       {"kind: amount_outlier, entity: user, on: [purchase], window: 90d, threshold: 6", append(repeat(6, paid(40, "", "")), paid(45, "", ""), paid(4000, "", ""), paid(4000, "", "")), every(time.Hour * 30), "[7 8]"},
		"an amount without a history":       {"kind: amount_outlier, entity: user, on: [purchase], window: 90d, threshold: 6", append(repeat(4, paid(40, "", "")), paid(4000, "", "")), every(time.Hour), "[]"},
		"cart to order by a script":         {"kind: time_anomaly, entity: visitor, from: add_to_cart, on: [purchase], window: 1h, threshold: 2.5", steps("add_to_cart", "purchase", "purchase"), every(time.Second), "[1]"},
		"cart to order by a person":         {"kind: time_anomaly, entity: visitor, from: add_to_cart, on: [purchase], window: 1h, threshold: 2.5", steps("add_to_cart", "add_to_cart", "purchase"), every(40 * time.Second), "[]"},
		"a new device in a new country":     {"kind: first_seen, entity: user, on: [purchase], of: [device, country], window: 90d, threshold: 3", append(repeat(3, paid(1, "DE", "mine")), paid(1, "DE", "new"), paid(1, "BR", "mine"), paid(1, "US", "theirs")), every(time.Hour), "[5]"},
		"a sequence, with others between":   {"kind: pattern, entity: visitor, sequence: [a, b, c], window: 10s", steps("a", "x", "b", "a", "c", "a", "b", "b", "c"), every(time.Second), "[4]"},
		"a sequence that takes too long":    {"kind: pattern, entity: visitor, sequence: [a, b, c], window: 10s", steps("a", "b", "c"), every(6 * time.Second), "[]"},
		"values of a field":                 {"kind: distinct, entity: ip, on: [purchase], of: [country], window: 1h, threshold: 3", []event.Rekeyed{paid(1, "DE", ""), paid(1, "DE", ""), paid(1, "FR", ""), paid(1, "", ""), paid(1, "NL", "")}, every(time.Second), "[4]"},
		"only what the condition means":     {"kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 2, where: value > 10", []event.Rekeyed{paid(1, "", ""), paid(20, "", ""), paid(2, "", ""), paid(30, "", "")}, every(time.Second), "[3]"},
	} {
		_, plan, _ := parse(t, c.rule)
		met := run(plan, c.events, c.at)
		if got := "[" + strings.Trim(strings.Join(strings.Fields(sprint(met)), " "), "[]") + "]"; got != c.want {
			t.Errorf("%s: met at %s, want %s", name, got, c.want)
		}
	}
}

func sprint(v []int) string {
	var out []string
	for _, x := range v {
		out = append(out, strconv.Itoa(x))
	}
	return strings.Join(out, " ")
}

func TestRulesThatAreMetTogetherScoreTogether(t *testing.T) {
	t.Parallel()
	s, err := Parse([]byte(`version: 3
rules:
  - {name: a, kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 2, severity: warn, score: 0.5, reason: a}
  - {name: b, kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 3, severity: warn, score: 0.6, reason: b}
`))
	if err != nil {
		t.Fatal(err)
	}
	st := &State{}
	var hits []Hit
	for i := range int64(3) {
		hits = s.Plan(event.EntityCard).Apply(st, &event.Rekeyed{Name: "purchase"}, 1_700_000_000*second+i, false, hits)
	}
	if len(hits) != 2 || hits[0].Score != 0.5 || math.Abs(hits[1].Score-0.8) > 1e-12 || len(hits[1].Others) != 1 || hits[1].Others[0] != "a" {
		t.Errorf("%+v, want 0.5, then 1 − 0.5·0.4 together with a", hits)
	}
}

func TestAModelIsAskedWithItsFeatures(t *testing.T) {
	t.Parallel()
	s, plan, _ := parse(t, "kind: model, entity: visitor, on: [purchase], window: 1h, threshold: 0.5")
	e := event.Rekeyed{Name: "purchase", Value: event.MicrosPerUnit, Currency: "EUR", CardFingerprint: "c", Units: 3}
	at := int64(1_700_000_000) * second
	if hits := plan.Apply(&State{}, &e, at, false, nil); len(hits) != 0 {
		t.Error("a rule without a model is met")
	}
	var asked []float64
	s.SetScorer(&Scorer{Score: func(f []float64) float64 { asked = append([]float64{}, f...); return 0.75 }})
	hits := plan.Apply(&State{}, &e, at, false, nil)
	if len(asked) != len(Features()) || asked[0] != math.Log1p(1) || asked[1] != 1 || asked[2] != 1 || asked[5] != 22 || asked[6] != 3 {
		t.Errorf("features %v of %v", asked, Features())
	}
	if len(hits) != 1 || hits[0].N != 0.75 {
		t.Errorf("%+v", hits)
	}
	s.SetScorer(&Scorer{Score: func([]float64) float64 { return math.NaN() }})
	if hits := plan.Apply(&State{}, &e, at, false, nil); len(hits) != 0 {
		t.Error("a rule is met by a model without a score")
	}
}

func TestASetMayNameTheVersionOfItsModel(t *testing.T) {
	t.Parallel()
	rule := "rules:\n- {name: m, kind: model, entity: visitor, on: [purchase], window: 1h, threshold: 0.5, severity: warn, score: 0.5, reason: r}\n"
	without, err := Parse([]byte("version: 2\n" + rule))
	if err != nil {
		t.Fatal(err)
	}
	with, err := Parse([]byte("version: 2\nmodel: \"0123abcd\"\n" + rule))
	if err != nil {
		t.Fatal(err)
	}
	if with.Model != "0123abcd" || without.Model != "" || with.Hash == without.Hash || !with.Asks() {
		t.Errorf("models %q and %q, hashes %s and %s", with.Model, without.Model, with.Hash, without.Hash)
	}
	for _, bad := range []string{`"../x"`, `""`, "[a]"} {
		if _, err := Parse([]byte("version: 2\nmodel: " + bad + "\n" + rule)); err == nil || !strings.Contains(err.Error(), "line 2: model") {
			t.Errorf("model %s: %v", bad, err)
		}
	}
}
