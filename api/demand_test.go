package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/features/demand"
	"millrace/features/recommend"
	"millrace/live"
)

// keeps writes fields of a key as the Redis sink does.
func (s *shop) keeps(t *testing.T, key string, fields map[string][]byte) {
	t.Helper()
	var writes []live.Write
	for f, v := range fields {
		writes = append(writes, live.Write{Key: key, Field: f, Version: live.Version{Offset: 1}, Value: v, TTL: time.Hour})
	}
	if _, err := live.Put(t.Context(), s.redis, writes); err != nil {
		t.Fatal(err)
	}
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDemandIsWhatTheStreamAndTheNightKnow(t *testing.T) {
	t.Parallel()
	s := open(t)
	hour := now.Unix() / 3600
	season := make([]float32, demand.Week)
	for i := range season {
		season[i] = 1
	}
	model := demand.Model{Kind: demand.Multiplicative, Level: 2, Season: season, Hour: hour - 1, Dispersion: 1}
	s.keeps(t, event.ProductLiveKey(s.tenant, "a"), map[string][]byte{
		event.ProductLiveStock: jsonOf(t, event.ProductLive{
			Stock: []event.WarehouseStock{{Warehouse: "ams", Level: 100, At: now.UnixMicro()}, {Warehouse: "reno", Level: 30, At: math.MinInt64}}, Sales: []event.HourSales{{Hour: hour - 30, Units: 9}, {Hour: hour - 2, Units: 3}, {Hour: hour, Units: 1}},
			Closed: hour - 1, Low: true, LeadHours: 72,
		}),
		event.ProductLiveForecast: jsonOf(t, demand.Published{Version: "v1", Model: model}),
	})
	s.keeps(t, event.ProductLiveKey(s.tenant, "b"), map[string][]byte{event.ProductLiveStock: jsonOf(t, event.ProductLive{Sales: []event.HourSales{{Hour: hour, Units: 36}}, Closed: hour - 1})})
	insert := func(table, rows string) {
		if err := s.conn.Exec(t.Context(), "INSERT INTO "+table+" VALUES "+rows); err != nil {
			t.Fatal(err)
		}
	}
	at := now.UTC().Format("2006-01-02 15:04:05")
	for version, state := range map[int]string{1: "history", 2: "fitted"} {
		insert("forecasts", fmt.Sprintf("('%s', 'a', 'v1', '%s', 'multiplicative', 0.75, 1.05, 0.8, 28, 0.1, 500, 56, 'band', 'EUR', -2, -2.5, -1.5, 20, 19, 21, 11, 'because', '%s', '%s', %d)", s.tenant, state, at, at, version))
	}
	insert("forecasts", fmt.Sprintf("('%s', 'c', 'v1', 'history', '', 0, 0, 0, 0, 0, 10, 5, 'variation', '', 0, 0, 0, 0, 0, 0, 0, 'not enough variation', '%s', '%s', 1)", s.tenant, at, at))
	insert("demand_hourly", fmt.Sprintf("('%s', 'a', toDateTime(%d), 4, 1), ('%s', 'a', toDateTime(%d), 3, 1)", s.tenant, (hour-100)*3600, s.tenant, (hour-2)*3600))

	doc := description(t).Paths.Value("/api/v1/demand").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
	for _, path := range []string{"", "?product=a", "?product=b", "?low=true", "?limit=1&lead=12h"} {
		path = "/api/v1/demand" + path
		status, body := s.get(t, path)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		conforms(t, doc, path, body)
	}
	got := answer[demandAnswer](t, s, "/api/v1/demand?product=a").Products[0]
	if *got.Stock != 130 || len(got.Warehouses) != 2 || got.Warehouses[1].CountedAt != nil || !got.Low || got.Sold24h != 4 || *got.CoverHours != 65 || got.Basis != "forecast" || got.Lead.Mean != 144 || got.Week.Mean != 336 {
		t.Errorf("%+v", got)
	}
	if want := model.Lead(72); math.Abs(*got.StockOut-want.StockOut(130)) > 1e-9 || *got.StockOut < 0.8 {
		t.Errorf("P(stock-out) is %g", *got.StockOut)
	}
	if f := got.Forecast; f.State != "fitted" || *f.MASE != 0.75 || f.HeldBack != 28 || got.Price.State != "band" || *got.Price.Low != 19 || got.Price.Interval[0] != -2.5 {
		t.Errorf("%+v %+v", got.Forecast, got.Price)
	}
	if len(got.Hours) != 2*7*24 {
		t.Fatalf("%d hours", len(got.Hours))
	}
	at100, at2, last, next := got.Hours[168-101], got.Hours[168-3], got.Hours[167], got.Hours[168]
	if *at100.Sold != 4 || *at2.Sold != 3 || *last.Sold != 1 || *last.Expected != 2 || next.Sold != nil || *next.Expected != 2 || *got.Hours[100].Sold != 0 || *at100.Expected != 2 || *at2.Expected != 2 {
		t.Errorf("%+v %+v %+v %+v", at100, at2, last, next)
	}
	got = answer[demandAnswer](t, s, "/api/v1/demand?product=b").Products[0]
	if got.Stock != nil || got.StockOut != nil || got.Basis != "sales" || got.Lead.Mean != 36 || got.Forecast != nil {
		t.Errorf("%+v", got)
	}
	all := answer[demandAnswer](t, s, "/api/v1/demand")
	var ids []string
	for _, p := range all.Products {
		ids = append(ids, p.ProductID)
	}
	if d := cmp.Diff([]string{"a", "c"}, ids); d != "" || all.LeadHours != 72 || all.Products[1].Forecast.MASE != nil || all.Products[1].Basis != "none" {
		t.Errorf("%s %+v", d, all)
	}
	if low := answer[demandAnswer](t, s, "/api/v1/demand?low=true"); len(low.Products) != 1 || low.Products[0].ProductID != "a" {
		t.Errorf("%+v", low)
	}
	if status, body := s.get(t, "/api/v1/demand?product=nobody"); status != http.StatusNotFound || !strings.Contains(string(body), "MR-DEM-001") {
		t.Errorf("%d %s", status, body)
	}
	for _, path := range []string{"?lead=30m", "?lead=61d", "?low=yes", "?limit=0", "?product=" + strings.Repeat("x", 129), "?x=1"} {
		if status, body := s.get(t, "/api/v1/demand"+path); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestRecommendationsAddUpWhatTheNightAndTheStreamKnow(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := recommend.DefaultOnline()
	list := func(pairs ...recommend.Pair) []byte {
		l := recommend.List{Self: 10, All: 100, At: now.UnixMicro(), Pairs: pairs}
		return l.Append(nil)
	}
	// Two partitions know of the pair a, n; the stream has learnt of it since the night.
	s.keeps(t, event.TogetherLiveKey(s.tenant, "a"), map[string][]byte{
		event.TogetherViews + "0": list(recommend.Pair{Item: "n", Co: 6, Other: 8}, recommend.Pair{Item: "chance", Co: 1, Other: 90}), event.TogetherViews + "3": list(recommend.Pair{Item: "n", Co: 4, Other: 6}),
		event.TogetherOrders + "0": list(recommend.Pair{Item: "case", Co: 5, Other: 5}),
	})
	rank := func(items ...string) []byte {
		var r recommend.Ranked
		for i, item := range items {
			r.Add(item, float64(len(items)-i), now.UnixMicro(), 10, o.HalfLife)
		}
		return r.Append(nil)
	}
	s.keeps(t, event.PopularLiveKey(s.tenant, "all", ""), map[string][]byte{"0": rank("hot", "a"), "1": rank("warm")})
	s.keeps(t, event.PopularLiveKey(s.tenant, "country", "DE"), map[string][]byte{"0": rank("wurst")})
	s.keeps(t, event.RecentLiveKey(s.tenant, "v1"), map[string][]byte{event.RecentLiveItems: event.AppendRecent(nil, []event.RecentItem{{Item: "a", Weight: 1, At: now.UnixMicro()}, {Item: "z", Weight: 3, At: now.UnixMicro()}})})

	doc := description(t).Paths.Value("/api/v1/recommendations").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
	ask := func(path string) (recommendations, []string) {
		t.Helper()
		path = "/api/v1/recommendations" + path
		status, body := s.get(t, path)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		conforms(t, doc, path, body)
		var items []string
		got := answer[recommendations](t, s, path)
		for _, i := range got.Items {
			items = append(items, i.Item)
		}
		return got, items
	}
	// Before a model is published the stream answers alone.
	got, items := ask("?item=a&limit=4")
	if d := cmp.Diff([]string{"n", "hot", "warm"}, items); d != "" || got.Version != "" || got.Basis != "items" || got.Items[0].Lift == nil || *got.Items[0].Lift < 7 {
		t.Errorf("%s %+v", d, got)
	}
	s.recommends(t, map[string][]live.Scored{"a": {{Item: "b", Score: 0.9}, {Item: "n", Score: 0.1}}, "z": {{Item: "c", Score: 0.5}}}, live.Scored{Item: "top", Score: 9})
	for path, want := range map[string][]string{
		"?item=a&limit=3":         {"b", "n", "hot"},
		"?item=a&kind=bought":     {"case", "hot", "warm", "top"},
		"?limit=3":                {"hot", "a", "warm"},
		"?country=DE":             {"wurst"},
		"?visitor=v1&limit=3":     {"b", "c", "n"}, // z was looked at before a, and put into the cart
		"?item=who&country=DE":    {"wurst"},
		"?category=nothing":       nil,
		"?visitor=nobody&limit=1": {"hot"},
	} {
		if _, items := ask(path); !cmp.Equal(want, items) {
			t.Errorf("%s: %v, want %v", path, items, want)
		}
	}
	if got, _ := ask("?visitor=v1"); !got.Session || got.Known != 2 || got.Version != "v1" {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{"?kind=other", "?category=a&country=DE", "?country=DEU"} {
		if status, body := s.get(t, "/api/v1/recommendations"+path); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
