package schema

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

func TestPromotionsAreCheckedByThemselves(t *testing.T) {
	good := Promotion{Category: "purchase", Name: "gift_wrap", Type: "bool", ID: FirstPromotedID}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Promotion)
		want   string
	}{
		"a category that is none":             {func(p *Promotion) { p.Category = "order" }, "category"},
		"a name that begins with _":           {func(p *Promotion) { p.Name = "_gift" }, "name"},
		"a name in capitals":                  {func(p *Promotion) { p.Name = "giftWrap" }, "name"},
		"no name":                             {func(p *Promotion) { p.Name = "" }, "name"},
		"a reserved word":                     {func(p *Promotion) { p.Name = "partition" }, "reserved"},
		"a column that is there":              {func(p *Promotion) { p.Name = "coupon" }, "already"},
		"a column that a release added later": {func(p *Promotion) { p.Name = "total" }, "already"},
		"a type that is none":                 {func(p *Promotion) { p.Type = "float" }, "type"},
		"a field id of the releases":          {func(p *Promotion) { p.ID = 77 }, "id"},
	} {
		p := good
		c.change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	all := Promotion{Category: "x", Name: "_", Type: "y"}
	if err := all.Validate(); strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not every problem is listed: %v", err)
	}
}

func applied(t *testing.T, s *Promotions, p Promotion) bool {
	t.Helper()
	key, value, err := p.Record()
	if err != nil {
		t.Fatal(err)
	}
	return s.Apply(key, value)
}

func TestPromotionsFollowTheOrderOfTheTopic(t *testing.T) {
	var s Promotions
	a := Promotion{Category: "purchase", Name: "a", Type: "int", ID: FirstPromotedID, Since: time.Unix(1, 0).UTC()}
	if !applied(t, &s, a) || applied(t, &s, a) {
		t.Error("a promotion changes something once")
	}
	b := a
	b.Name = "b"
	if applied(t, &s, b) || s.Refused()[b.Key()] == nil {
		t.Error("a field id that another column has was accepted")
	}
	b.ID++
	if !applied(t, &s, b) || len(s.Refused()) != 0 {
		t.Errorf("a second column: %v", s.Refused())
	}
	for _, wrong := range []func(*Promotion){func(p *Promotion) { p.Type = "string" }, func(p *Promotion) { p.ID += 5 }} {
		p := a
		wrong(&p)
		if applied(t, &s, p) || s.Refused()[a.Key()] == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	wide := a
	wide.Type = "long"
	if !applied(t, &s, wide) {
		t.Errorf("int to long: %v", s.Refused())
	}
	if applied(t, &s, a) {
		t.Error("long to int was accepted")
	}
	if s.Apply([]byte(a.Key()), nil) || s.Apply([]byte(a.Key()), []byte("{")) || s.Apply([]byte("rules/x"), []byte("{}")) {
		t.Error("what is no promotion changed something")
	}
	if diff := cmp.Diff([]Promotion{wide, b}, s.Of(event.Purchase)); diff != "" {
		t.Error(diff)
	}
	if got := s.Of(event.Page); len(got) != 0 {
		t.Errorf("%v", got)
	}
	next, err := s.Next(Promotion{Category: "purchase", Name: "c", Type: "bool"})
	if err != nil || next.ID != FirstPromotedID+2 {
		t.Errorf("%+v %v", next, err)
	}
	if next, err = s.Next(Promotion{Category: "page", Name: "c", Type: "bool"}); err != nil || next.ID != FirstPromotedID {
		t.Errorf("%+v %v", next, err)
	}
	if _, err = s.Next(Promotion{Category: "purchase", Name: "b", Type: "string"}); err == nil {
		t.Error("a narrowing was offered")
	}
}

func TestPromotedValuesFitOrAreCounted(t *testing.T) {
	types := []Promotion{
		{Category: "custom", Name: "s", Type: "string"},
		{Category: "custom", Name: "i", Type: "int"},
		{Category: "custom", Name: "l", Type: "long"},
		{Category: "custom", Name: "b", Type: "bool"},
		{Category: "custom", Name: "t", Type: "timestamp"},
		{Category: "custom", Name: "a", Type: "amount"},
		{Category: "custom", Name: "renamed", Type: "string", Property: "context.page.Theme"},
	}
	null := Promoted{}
	text := func(s string) Promoted { return Promoted{OK: true, Text: s} }
	num := func(n int64) Promoted { return Promoted{OK: true, Num: n} }
	for _, c := range []struct {
		props string
		want  []Promoted
		unfit string
	}{
		{``, []Promoted{null, null, null, null, null, null, null}, "[0 0 0 0 0 0 0]"},
		{
			`{"s":"x","i":7,"l":"-9007199254740993","b":true,"t":"2026-03-01T12:00:00.123456Z","a":"129.90","context.page.Theme":"dark"}`,
			[]Promoted{text("x"), num(7), num(-9007199254740993), num(1), num(1772366400123456), num(129_900_000), text("dark")},
			"[0 0 0 0 0 0 0]",
		},
		{`{"s":12.50,"i":"8","b":"false","t":1772366400123,"a":1e2}`, []Promoted{text("12.50"), num(8), null, num(0), num(1772366400123000), num(100_000_000), null}, "[0 0 0 0 0 0 0]"},
		{`{"s":{"x":1},"i":2147483648,"l":1.5,"b":1,"t":"yesterday","a":"1.2345678"}`, []Promoted{null, null, null, null, null, null, null}, "[1 1 1 1 1 1 0]"},
		{`{"s":null,"i":null,"x":[1,{"i":5}],"l":"\u0034"}`, []Promoted{null, null, num(4), null, null, null, null}, "[0 0 0 0 0 0 0]"},
		{`{"s":"","t":"3000-01-01T00:00:00Z","a":true,"i":"0x10"}`, []Promoted{null, null, null, null, null, null, null}, "[1 1 0 0 1 1 0]"},
		{`{"i":1,"l":2,`, []Promoted{null, num(1), num(2), null, null, null, null}, "[0 0 0 0 0 0 0]"},
	} {
		x := NewExtractor(types)
		got := x.Values(c.props)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.props, diff)
		}
		if unfit := fmt.Sprint(x.Unfit); unfit != c.unfit {
			t.Errorf("%s: unfit %s, want %s", c.props, unfit, c.unfit)
		}
	}
}

func TestAValueOfOneEventDoesNotStayForTheNext(t *testing.T) {
	x := NewExtractor([]Promotion{{Category: "custom", Name: "s", Type: "string"}})
	if !x.Values(`{"s":"x"}`)[0].OK || x.Values(`{}`)[0].OK || x.Values(``)[0].OK {
		t.Error("a value was carried over")
	}
}

func TestNoPropertiesMakeTheExtractorPanic(t *testing.T) {
	var ps []Promotion
	for _, typ := range PromotedTypes() {
		ps = append(ps, Promotion{Category: "custom", Name: "p_" + typ, Type: typ})
	}
	rapid.Check(t, func(t *rapid.T) {
		x := NewExtractor(ps)
		x.Values(rapid.String().Draw(t, "text"))
		key := "p_" + rapid.SampledFrom(PromotedTypes()).Draw(t, "type")
		x.Values(`{"` + key + `":` + rapid.String().Draw(t, "value") + `}`)
	})
}
