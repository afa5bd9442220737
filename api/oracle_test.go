package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"millrace/kpi"
)

// counting is the relation of events that KPIs count, with the columns that Measure.EventSQL needs.
const counting = "(SELECT tenant, name, value, visitor_id, occurred_at, ifNull(toString(currency), '') AS currency, ifNull(toString(country), '') AS country, ifNull(toString(device_type), '') AS device, `items.quantity`, CAST(NULL, 'Nullable(Int64)') AS stock_level, CAST(NULL, 'Nullable(Int64)') AS quantity_delta FROM events_page" +
	" UNION ALL SELECT tenant, name, value, visitor_id, occurred_at, ifNull(toString(currency), ''), ifNull(toString(country), ''), ifNull(toString(device_type), ''), `items.quantity`, NULL, NULL FROM events_cart" +
	" UNION ALL SELECT tenant, name, value, visitor_id, occurred_at, ifNull(toString(currency), ''), ifNull(toString(country), ''), ifNull(toString(device_type), ''), CAST([], 'Array(Int64)'), stock_level, quantity_delta FROM events_inventory" +
	" UNION ALL SELECT tenant, name, value, visitor_id, occurred_at, ifNull(toString(currency), ''), ifNull(toString(country), ''), ifNull(toString(device_type), ''), `items.quantity`, NULL, NULL FROM events_purchase WHERE order_rank <= 1)"

// truth is every measure as the events say it.
type truth map[kpi.Measure]decimal.Decimal

// oracle computes the measures from events, in another language and from other rows than the API, by groups: the key is the group's columns, joined by "|".
func (s *shop) oracle(t testing.TB, where, group string) map[string]truth {
	t.Helper()
	if group == "" {
		group = "''"
	}
	cols := "concat(" + strings.Join(append(strings.Split(group, ";"), "''"), ", '|', ") + ") AS g"
	measures := slices.DeleteFunc(kpi.Measures(), func(m kpi.Measure) bool { return m.EventSQL() == "" }) // the others are not told by events one by one
	for _, m := range measures {
		cols += ", toString(toDecimal128(" + m.EventSQL() + ", 6))"
	}
	out := map[string]truth{}
	err := queryRows(t, s.conn, "SELECT "+cols+" FROM "+counting+" WHERE tenant = '"+s.tenant+"' AND "+where+" GROUP BY g", func(v []string) {
		one := truth{}
		for i, m := range measures {
			one[m] = decimal.RequireFromString(v[i+1])
		}
		out[strings.TrimSuffix(v[0], "|")] = one
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func between(from, to time.Time) string {
	return fmt.Sprintf("occurred_at >= fromUnixTimestamp64Micro(%d) AND occurred_at < fromUnixTimestamp64Micro(%d)", from.UnixMicro(), to.UnixMicro())
}

// expect compares a whole window with the oracle.
func (s *shop) expect(t *testing.T, what string, w kpiWindow, where string) {
	t.Helper()
	total := map[kpi.Measure]int64{
		kpi.Events: w.Total.Events, kpi.PageViews: w.Total.PageViews, kpi.ItemViews: w.Total.ItemViews, kpi.Searches: w.Total.Searches, kpi.Visitors: w.Total.Visitors, kpi.CartAdds: w.Total.CartAdds,
		kpi.Checkouts: w.Total.Checkouts, kpi.Orders: w.Total.Orders, kpi.Units: w.Total.Units, kpi.Refunds: w.Total.Refunds, kpi.StockOuts: w.Total.StockOuts,
	}
	all := s.oracle(t, where, "")[""]
	for m, got := range total {
		if want := all[m]; !want.Equal(decimal.NewFromInt(got)) {
			t.Errorf("%s: %s is %d, the events say %s", what, m, got, want)
		}
	}
	if w.Total.Visitors > 0 {
		if want := float64(w.Total.Orders) / float64(w.Total.Visitors); w.Total.Conversion == nil || math.Abs(*w.Total.Conversion-want) > 1e-9 {
			t.Errorf("%s: conversion is %v, want %v", what, w.Total.Conversion, want)
		}
	}
	by := s.oracle(t, where, "currency")
	if carts, abandoned := all[kpi.CartAdds], by["EUR"][kpi.CartAdds]; !carts.Equal(decimal.NewFromInt(w.Total.Carts)) || !abandoned.Equal(decimal.NewFromInt(w.Total.AbandonedCarts)) ||
		(w.Total.AbandonmentRate == nil) != carts.IsZero() || !carts.IsZero() && math.Abs(*w.Total.AbandonmentRate-float64(w.Total.AbandonedCarts)/float64(w.Total.Carts)) > 1e-9 {
		t.Errorf("%s: %d carts of which %d abandoned, rate %v; the events say %s and %s", what, w.Total.Carts, w.Total.AbandonedCarts, w.Total.AbandonmentRate, carts, abandoned)
	}
	for _, m := range w.Money {
		revenue, orders := by[m.Currency][kpi.Revenue], by[m.Currency][kpi.Orders]
		if !revenue.Equal(decimal.RequireFromString(m.Revenue)) || !orders.Equal(decimal.NewFromInt(m.Orders)) {
			t.Errorf("%s: %s of %d orders in %s, the events say %s of %s", what, m.Revenue, m.Orders, m.Currency, revenue, orders)
		}
		if refunds := by[m.Currency][kpi.RefundValue]; !refunds.Equal(decimal.RequireFromString(m.RefundValue)) {
			t.Errorf("%s: refunds of %s in %s, the events say %s", what, m.RefundValue, m.Currency, refunds)
		}
		if m.Orders > 0 {
			if want := revenue.DivRound(orders, 2).StringFixed(2); m.AOV == nil || *m.AOV != want {
				t.Errorf("%s: average order of %v in %s, want %s", what, m.AOV, m.Currency, want)
			}
		}
	}
	var sum int64
	for _, m := range w.Money {
		sum += m.Orders
	}
	if sum != w.Total.Orders {
		t.Errorf("%s: %d orders by currency, %d in all", what, sum, w.Total.Orders)
	}
}

func TestLiveKPIsAreWhatTheEventsSay(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, append(invent(s.tenant, 3000, 3*time.Minute, 1), invent(s.tenant, 500, 2*time.Hour, 2)...), "UTC")
	s.insertEvents(t, invent("another", 500, time.Minute, 3)) // must not be seen
	for _, window := range []string{"60s", "1s", "5m", "15m"} {
		d, _ := parseDuration(window)
		end := now.Add(-2 * time.Second)
		if d > maxSecondWindow {
			end = end.Truncate(time.Minute)
		}
		k := answer[liveKPIs](t, s, "/api/v1/kpis/live?window="+window)
		if k.Source != "redis" || !time.Time(k.AsOf).Equal(end) {
			t.Fatalf("answered by %s as of %s, want redis and %s", k.Source, time.Time(k.AsOf), end)
		}
		s.expect(t, "the last "+window, kpiWindow{Total: k.Total, Money: k.Money}, between(end.Add(-d), end))
		s.expect(t, "the "+window+" before", k.Previous, between(end.Add(-2*d), end.Add(-d)))
	}
	k := answer[liveKPIs](t, s, "/api/v1/kpis/live?currency=EUR")
	if len(k.Money) != 1 || k.Money[0].Currency != "EUR" || len(k.Currencies) != 1 {
		t.Errorf("with currency=EUR the money is %v of %v", k.Money, k.Currencies)
	}
}

func TestWithoutRedisClickHouseTellsTheSame(t *testing.T) {
	t.Parallel()
	s := open(t, func(_ *Config, d *Deps) { d.Redis = nil })
	s.seed(t, invent(s.tenant, 2000, 3*time.Minute, 4), "UTC")
	for _, window := range []string{"60s", "15m"} {
		d, _ := parseDuration(window)
		end := now.Add(-5 * time.Second)
		if d > maxSecondWindow {
			end = end.Truncate(time.Minute)
		}
		k := answer[liveKPIs](t, s, "/api/v1/kpis/live?window="+window)
		if k.Source != "clickhouse" || !time.Time(k.AsOf).Equal(end) {
			t.Fatalf("answered by %s as of %s, want clickhouse and %s", k.Source, time.Time(k.AsOf), end)
		}
		s.expect(t, "the last "+window, kpiWindow{Total: k.Total, Money: k.Money}, between(end.Add(-d), end))
		s.expect(t, "the "+window+" before", k.Previous, between(end.Add(-2*d), end.Add(-d)))
	}
}

func TestRedisThatStoodStillIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := open(t)
	old := invent(s.tenant, 300, 30*time.Second, 5)
	for i := range old {
		old[i].OccurredAt -= time.Minute.Microseconds()
	}
	s.seed(t, old, "UTC")
	fresh := invent(s.tenant, 300, 50*time.Second, 6)
	redisAway := s.redis
	s.redis = nil
	s.seed(t, fresh, "UTC") // the sink of Redis is down: only ClickHouse has it
	s.redis = redisAway
	if k := answer[liveKPIs](t, s, "/api/v1/kpis/live"); k.Source != "clickhouse" || k.Total.Events == 0 {
		t.Errorf("answered by %s with %d events: Redis has had nothing for a minute", k.Source, k.Total.Events)
	}
}

func TestSeriesAreWhatTheEventsSay(t *testing.T) {
	t.Parallel()
	s := open(t, func(_ *Config, d *Deps) {
		d.Definitions, _ = kpi.New(kpi.Config{}) // no zone can be wrong
	})
	s.seed(t, append(invent(s.tenant, 2500, 20*time.Minute, 7), invent(s.tenant, 1500, 5*24*time.Hour, 8)...), "UTC")
	for _, c := range []struct{ grain, from, to, by, tz string }{
		{"1s", "-2m", "now", "none", ""},
		{"1m", "-30m", "now", "none", ""},
		{"1m", "-30m", "-3m", "country", ""},
		{"1h", "-1d", "now", "device", ""},
		{"1h", "-5d", "now", "currency", ""},
		{"1d", "-5d", "now", "none", ""},
		{"1d", "-5d", "now", "none", "Europe/Berlin"},
		{"1d", "-4d", "now", "country", "Asia/Kolkata"},
		{"1d", "-4d", "now", "none", "America/New_York"},
	} {
		t.Run(strings.Join([]string{c.grain, "by", c.by, c.tz}, " "), func(t *testing.T) {
			path := fmt.Sprintf("/api/v1/kpis/series?measures=orders,revenue,visitors,page_views,conversion,aov&grain=%s&from=%s&to=%s&by=%s&tz=%s&limit=8", c.grain, c.from, c.to, c.by, c.tz)
			got := answer[series](t, s, path)
			if len(got.Series) == 0 || len(got.Times) == 0 {
				t.Fatalf("%s gives %d series of %d points", path, len(got.Series), len(got.Times))
			}
			zone := time.UTC
			if c.tz != "" {
				zone, _ = time.LoadLocation(c.tz) // a zone of the table above
			}
			s.expectSeries(t, got, zone)
		})
	}
}

func (s *shop) expectSeries(t *testing.T, got series, zone *time.Location) {
	t.Helper()
	key := map[string]string{"none": "''", "country": "country", "device": "device", "currency": "currency"}[got.By]
	var starts []string
	for _, at := range got.Times {
		starts = append(starts, strconv.FormatInt(at, 10))
	}
	point := "toString(length(arrayFilter(x -> x <= toUnixTimestamp(occurred_at), [" + strings.Join(starts, ", ") + "])) - 1)"
	where := between(time.Time(got.From), time.Time(got.To))
	points, whole := s.oracle(t, where, point+";"+key), s.oracle(t, where, key)
	pointsOf, wholeOf := s.oracle(t, where, point+";"+key+";currency"), s.oracle(t, where, key+";currency")
	seen := map[string]bool{}
	for _, l := range got.Series {
		seen[l.Measure] = true
		m, _ := metricNamed(l.Measure)
		value := func(v truth) (decimal.Decimal, bool) {
			if !m.ratio {
				return v[m.numerator], true
			}
			if v[m.denominator].IsZero() {
				return decimal.Decimal{}, false
			}
			places := int32(6)
			if l.Unit == "money" {
				places = 2
			}
			return v[m.numerator].DivRound(v[m.denominator], places), true
		}
		for i, at := range got.Times {
			v := points[fmt.Sprintf("%d|%s", i, l.Key)]
			if l.Currency != "" {
				v = pointsOf[fmt.Sprintf("%d|%s|%s", i, l.Key, l.Currency)]
			}
			want, ok := value(v)
			have := l.Values[i]
			if (have != nil) != ok || ok && !want.Equal(decimal.RequireFromString(have.String())) {
				t.Errorf("%s %s %s at %s is %v, the events say %s (%t)", l.Measure, l.Currency, l.Key, time.Unix(at, 0).In(zone), have, want, ok)
			}
		}
		v := whole[l.Key]
		if l.Currency != "" {
			v = wholeOf[l.Key+"|"+l.Currency]
		}
		want, ok := value(v)
		if (l.Total != nil) != ok || ok && !want.Equal(decimal.RequireFromString(*l.Total)) {
			t.Errorf("%s %s %s in all is %v, the events say %s (%t)", l.Measure, l.Currency, l.Key, l.Total, want, ok)
		}
	}
	for _, m := range []string{"orders", "revenue", "visitors", "page_views"} {
		if !seen[m] {
			t.Errorf("there is no series of %s", m)
		}
	}
	for i, at := range got.Times {
		if local := time.Unix(at, 0).In(zone); got.Grain == "1d" && (local.Hour() != 0 || local.Minute() != 0) {
			t.Errorf("day %d begins at %s", i, local)
		}
	}
}

func TestTheLargestKeysAreDrawn(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, invent(s.tenant, 4000, 20*time.Minute, 9), "UTC")
	got := answer[series](t, s, "/api/v1/kpis/series?measures=page_views&grain=1m&from=-30m&by=country&limit=2")
	by := map[string]int{}
	for _, e := range s.counted() {
		if e.Name == "page_view" {
			by[e.Country]++
		}
	}
	keys := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return by[b] - by[a] })
	var drawn []string
	for _, l := range got.Series {
		drawn = append(drawn, l.Key)
		if l.Total == nil || *l.Total != strconv.Itoa(by[l.Key]) {
			t.Errorf("%s has %v in all, want %d", l.Key, l.Total, by[l.Key])
		}
	}
	if diff := cmp.Diff(keys[:2], drawn); diff != "" || !got.Truncated {
		t.Errorf("not the two largest countries (truncated %t): %s", got.Truncated, diff)
	}
}

func TestProductsAreRankedWithinACurrency(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, invent(s.tenant, 4000, 40*time.Minute, 10), "UTC")
	got := answer[topProducts](t, s, "/api/v1/products/top?limit=5")
	type key struct{ id, currency string }
	want := map[key][]string{}
	err := queryRows(t, s.conn, "SELECT id, toString(currency), toString(sum(price * quantity)), toString(sum(quantity)), toString(uniqExact(event_id)), any(name1) FROM (SELECT event_id, currency, `items.item_id` AS ids, `items.price` AS prices, `items.quantity` AS quantities, `items.item_name` AS names"+
		" FROM events_purchase WHERE tenant = '"+s.tenant+"' AND name = 'purchase' AND order_rank = 1) ARRAY JOIN ids AS id, prices AS price, quantities AS quantity, names AS name1 GROUP BY 1, 2", func(v []string) {
		want[key{v[0], v[1]}] = v[2:]
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Products) != 15 {
		t.Errorf("%d products, want 5 of each of 3 currencies", len(got.Products))
	}
	last := map[string]decimal.Decimal{}
	for _, p := range got.Products {
		w := want[key{p.ProductID, p.Currency}]
		revenue := decimal.RequireFromString(p.Revenue)
		if w == nil || !revenue.Equal(decimal.RequireFromString(w[0])) || strconv.FormatInt(p.Quantity, 10) != w[1] || strconv.FormatInt(p.Orders, 10) != w[2] || p.Name == nil || *p.Name != w[3] {
			t.Errorf("%+v, the orders say %v", p, w)
		}
		if before, ok := last[p.Currency]; ok && revenue.GreaterThan(before) {
			t.Errorf("%s of %s ranks below %s", p.Revenue, p.Currency, before)
		}
		last[p.Currency] = revenue
	}
	for _, by := range []string{"quantity", "orders"} {
		got := answer[topProducts](t, s, "/api/v1/products/top?window=24h&limit=7&by="+by)
		if len(got.Products) != 7 {
			t.Errorf("by %s: %d products, want 7", by, len(got.Products))
		}
		for i, p := range got.Products {
			w := want[key{p.ProductID, p.Currency}]
			if w == nil || strconv.FormatInt(p.Quantity, 10) != w[1] || strconv.FormatInt(p.Orders, 10) != w[2] || p.Rank != i+1 {
				t.Errorf("by %s: %+v, the orders say %v", by, p, w)
			}
		}
	}
}

func queryRows(t testing.TB, conn driver.Conn, sql string, each func([]string)) error {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v := make([]string, len(rows.Columns()))
		dest := make([]any, len(v))
		for i := range v {
			dest[i] = &v[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		each(v)
	}
	return rows.Err()
}

func TestRecentEventsAreTheNewestThatFit(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.seed(t, invent(s.tenant, 1000, 50*time.Minute, 11), "UTC")
	s.insertEvents(t, invent("another", 100, time.Minute, 12))
	for _, c := range []struct {
		query string
		fits  func(e *eventJSON) bool
	}{
		{"", func(*eventJSON) bool { return true }},
		{"&category=cart", func(e *eventJSON) bool { return e.Category == "cart" }},
		{"&name=purchase", func(e *eventJSON) bool { return e.Name == "purchase" }},
		{"&q=" + s.events[3].VisitorID, func(e *eventJSON) bool { return e.VisitorID == s.events[3].VisitorID }},
		{"&q=p4", func(e *eventJSON) bool { return slices.Contains(e.ProductIDs, "p4") }},
		{"&q=nobody", func(*eventJSON) bool { return false }},
	} {
		got := answer[recentEvents](t, s, "/api/v1/events/recent?limit=20"+c.query)
		var want []string
		sorted := slices.Clone(s.events)
		slices.SortFunc(sorted, func(a, b eventOf) int { return int(b.IngestedAt - a.IngestedAt) })
		for i := range sorted {
			shown := asShown(&sorted[i])
			if c.fits(&shown) && len(want) < 20 {
				want = append(want, sorted[i].ID)
			}
		}
		var ids []string
		for _, e := range got.Events {
			ids = append(ids, e.EventID)
			if e.Tenant != s.tenant {
				t.Fatalf("an event of tenant %s is shown", e.Tenant)
			}
		}
		slices.Sort(want)
		slices.Sort(ids)
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%q: %s", c.query, diff)
		}
	}
}

func TestFailedEventsAreCountedByReasonAndShown(t *testing.T) {
	t.Parallel()
	s := open(t)
	insert := func(reason, tenant string, n int, ago time.Duration, payload string) {
		for i := range n {
			at := now.Add(-ago - time.Duration(i)*time.Second)
			if err := s.conn.Exec(t.Context(), "INSERT INTO failed_events (failed_id, event_id, failed_at, received_at, tenant, reason, error, error_path, payload, source, payload_bytes, ingested_at) VALUES (?, NULL, ?, ?, ?, ?, 'what was wrong', 'items[0].price', ?, 'web', ?, ?)",
				fmt.Sprintf("%s-%s-%d", reason, tenant, i), at, at, tenant, reason, payload, int64(len(payload)), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	insert("bad_amount", s.tenant, 7, time.Minute, `{"value":"x"}`)
	insert("schema", s.tenant, 3, 2*time.Hour, strings.Repeat("é", 20_000))
	insert("unknown_key", "", 2, time.Hour, `{}`)
	insert("schema", "another", 5, time.Minute, `{}`)
	insert("schema", s.tenant, 4, 30*time.Hour, `{}`) // before the window
	got := answer[failedEvents](t, s, "/api/v1/failed")
	counts := map[string]int64{}
	for _, r := range got.ByReason {
		counts[r.Reason] = r.Count
	}
	if diff := cmp.Diff(map[string]int64{"bad_amount": 7, "schema": 3, "unknown_key": 2}, counts); diff != "" || got.Total != 12 || len(got.Samples) != 12 {
		t.Errorf("%d in all, %d samples: %s", got.Total, len(got.Samples), diff)
	}
	for _, l := range got.Series.Series {
		var sum int64
		for _, v := range l.Values {
			sum += v
		}
		if sum != counts[l.Reason] || len(l.Values) != len(got.Series.Times) {
			t.Errorf("the series of %s sums up to %d in %d points, want %d in %d", l.Reason, sum, len(l.Values), counts[l.Reason], len(got.Series.Times))
		}
	}
	one := answer[failedEvents](t, s, "/api/v1/failed?reason=schema&limit=2")
	if len(one.Samples) != 2 || !one.Samples[0].PayloadTruncated || len([]rune(one.Samples[0].Payload)) != 16384 || one.Samples[0].ErrorPath != "items[0].price" || one.Total != 12 {
		t.Errorf("asked for two of schema: %d samples of %d", len(one.Samples), one.Total)
	}
}

func TestTablesHaveTheirSizes(t *testing.T) {
	t.Parallel()
	s := openAlone(t)
	s.seed(t, invent(s.tenant, 400, time.Hour, 13), "UTC")
	got := answer[tables](t, s, "/api/v1/tables")
	if !got.ClickHouse.Available || got.Iceberg.Available || got.Iceberg.Detail == "" {
		t.Fatalf("clickhouse %t, iceberg %t %q", got.ClickHouse.Available, got.Iceberg.Available, got.Iceberg.Detail)
	}
	found := false
	for _, c := range got.ClickHouse.Tables {
		var rows uint64
		if err := s.conn.QueryRow(t.Context(), "SELECT count() FROM "+c.Name).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if uint64(c.Rows) != rows {
			t.Errorf("%s has %d rows, not %d", c.Name, rows, c.Rows)
		}
		if c.Name == "events_page" {
			found = true
			var newest int64
			for _, e := range s.events {
				if e.Name == "page_view" || e.Name == "view_item" {
					newest = max(newest, e.IngestedAt)
				}
			}
			if c.Newest == nil || time.Time(*c.Newest).UnixMicro() != newest {
				t.Errorf("events_page is as new as %v, want %s", c.Newest, time.UnixMicro(newest))
			}
		}
		if c.Rows == 0 && c.Newest != nil {
			t.Errorf("%s is empty and has a newest row", c.Name)
		}
	}
	if !found {
		t.Error("events_page is not among the tables")
	}
}

func TestNumbersOfSeriesAreExact(t *testing.T) {
	n := number(decimal.RequireFromString("90071992547409931.000001"))
	b, err := json.Marshal([]*json.Number{&n, nil})
	if err != nil || string(b) != "[90071992547409931.000001,null]" {
		t.Errorf("%s %v", b, err)
	}
	for in, want := range map[string]string{"129.9": "129.90", "0": "0.00", "-1.000001": "-1.000001", "12": "12.00", "3.14159": "3.14159"} {
		if got := money(decimal.RequireFromString(in)); got != want {
			t.Errorf("%s is written %s, want %s", in, got, want)
		}
	}
}
