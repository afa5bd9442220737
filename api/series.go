package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"millrace/kpi"
	"millrace/olap"
)

const (
	maxSeries   = 50
	maxMeasures = 12
)

// line is one series.
type line struct {
	Measure  string         `json:"measure"`
	Unit     string         `json:"unit"`
	Currency string         `json:"currency"`
	Key      string         `json:"key"`
	Values   []*json.Number `json:"values"`
	Total    *string        `json:"total"`

	size decimal.Decimal // by which lines are ranked
}

// series is the answer of /api/v1/kpis/series.
type series struct {
	Grain     string  `json:"grain"`
	From      stamp   `json:"from"`
	To        stamp   `json:"to"`
	TZ        string  `json:"tz"`
	By        string  `json:"by"`
	Source    string  `json:"source"`
	Tenant    string  `json:"tenant"`
	Times     []int64 `json:"times"`
	Series    []line  `json:"series"`
	Truncated bool    `json:"truncated"`
}

// metric is a measure or a ratio that is asked for.
type metric struct {
	name        string
	numerator   kpi.Measure
	denominator kpi.Measure
	ratio       bool
	unit        string
	perCurrency bool
}

// metrics that can be asked for, by name.
func metricNamed(name string) (metric, bool) {
	for _, m := range kpi.Measures() {
		if m.String() == name {
			if m.Kind() == kpi.Amount {
				return metric{name: name, numerator: m, unit: "money", perCurrency: true}, true
			}
			return metric{name: name, numerator: m, unit: "count"}, true
		}
	}
	r, ok := kpi.RatioNamed(name)
	if !ok {
		return metric{}, false
	}
	out := metric{name: name, numerator: r.Numerator, denominator: r.Denominator, ratio: true, unit: "ratio", perCurrency: r.PerCurrency}
	if r.PerCurrency {
		out.unit = "money"
	}
	return out, true
}

// metricNames lists what can be asked for.
func metricNames() []string {
	var out []string
	for _, m := range kpi.Measures() {
		out = append(out, m.String())
	}
	for _, r := range kpi.Ratios() {
		out = append(out, r.Name)
	}
	return out
}

// measures are those that some metrics are made of.
func measuresOf(metrics []metric) (add []kpi.Measure, visitors bool) {
	seen := map[kpi.Measure]bool{}
	need := func(m kpi.Measure) {
		if !m.Additive() {
			visitors = true
		} else if !seen[m] {
			seen[m] = true
			add = append(add, m)
		}
	}
	for _, m := range metrics {
		need(m.numerator)
		if m.ratio {
			need(m.denominator)
		}
	}
	if visitors {
		need(kpi.Events) // by which keys are ranked, since visitors of a range do not add up
	}
	return add, visitors
}

// seriesQuestion is a question that has been checked.
type seriesQuestion struct {
	tenant, by, currency string
	metrics              []metric
	limit                int
	grid                 grid
	now                  time.Time
}

func (a *API) serveSeries(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	s := seriesQuestion{tenant: q.tenant(a.cfg.Tenant), currency: q.currency(), by: q.one("by", "none", "none", "country", "device", "currency"), now: a.now()}
	names := strings.Split(q.text("measures", "orders,revenue", 300), ",")
	if len(names) > maxMeasures {
		q.bad("measures", "are more than %d", maxMeasures)
		names = names[:maxMeasures]
	}
	for _, n := range names {
		m, ok := metricNamed(n)
		switch {
		case !ok:
			q.bad("measures", "%q is not known; there are %s", clean(n), strings.Join(metricNames(), ", "))
		case slices.ContainsFunc(s.metrics, func(o metric) bool { return o.name == n }):
			q.bad("measures", "%q is named twice", n)
		default:
			s.metrics = append(s.metrics, m)
		}
	}
	grainName := q.one("grain", "", "1s", "1m", "1h", "1d")
	to := q.time("to", a.now())
	var from time.Time
	if grainName != "" {
		from = q.time("from", to.Add(-defaultRange[grainName]))
	} else {
		from = q.time("from", to.Add(-3*time.Hour))
	}
	tenantZone := a.definitions.Zone(s.tenant)
	zone := q.zone("tz", tenantZone)
	s.limit = q.integer("limit", min(10, maxSeries/max(1, len(s.metrics))), 1, maxSeries)
	if s.limit*len(s.metrics) > maxSeries {
		q.bad("limit", "times %d measures is more than %d series", len(s.metrics), maxSeries)
	}
	if !from.Before(to) {
		q.bad("from", "is not before to")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	grain := grainFor(to.Sub(from))
	if grainName != "" {
		grain, _ = grainNamed(grainName)
	}
	var ok bool
	if s.grid, ok = newGrid(grain, zone, from, to); !ok {
		return nil, newProblem(idRange, fmt.Sprintf("from %s to %s are more than %d points of %s", from.Format(time.RFC3339), to.Format(time.RFC3339), maxPoints, grain.Name),
			fieldError{"grain", fmt.Sprintf("is too fine for the range: %s fits", grainFor(to.Sub(from)).Name)})
	}
	table, days := s.grid.table(tenantZone)
	key := fmt.Sprintf("series\x00%s\x00%s\x00%s\x00%s\x00%s\x00%d\x00%d\x00%d\x00%s\x00%d", s.tenant, s.by, s.currency, strings.Join(names, ","), grain.Name, s.grid.from.Unix(), s.grid.to.Unix(), s.limit, zone,
		min(s.now.Unix(), s.grid.to.Unix())/int64(size(grain)/time.Second))
	return a.answer(r.Context(), key, []string{olap.KPITable("shop", table)}, func(ctx context.Context) (any, error) { return a.series(ctx, s, table, days) })
}

// series reads and lays out a question's series.
func (a *API) series(ctx context.Context, s seriesQuestion, table string, days bool) (*series, error) {
	add, visitors := measuresOf(s.metrics)
	q := olap.KPIQuery{Tenant: s.tenant, Grain: table, From: s.grid.from, To: s.grid.to, Measures: add}
	if s.by != "none" {
		q.By = s.by
	}
	if days {
		q.Days = s.grid.zone.String()
	}
	c := newCanvas(s)
	if q.By != "" {
		// First the whole range, to know which keys are the largest: only those are read by points.
		whole := q
		whole.Whole, whole.Days = true, ""
		if s.by == "currency" && s.currency != "" {
			whole.Keys = []string{s.currency}
		}
		sums, err := a.olap.KPIs(ctx, whole)
		if err != nil {
			return nil, err
		}
		q.Keys = c.rank(sums)
	}
	points, err := a.olap.KPIs(ctx, q)
	if err != nil {
		return nil, err
	}
	c.fill(points)
	if visitors {
		if err := a.olap.Sketches(ctx, q, c.sketch); err != nil {
			return nil, err
		}
	}
	return c.draw("clickhouse")
}

type lineKey struct{ key, currency string }

// canvas collects rows by point, key and currency, and draws lines from them. Cells of currency "*" hold the counts of all currencies.
type canvas struct {
	seriesQuestion
	keys      []string
	truncated bool
	cells     map[lineKey]map[int]*olap.KPIValues // by point; wholeRange is the sum
	sketches  map[string]map[int][][]byte
}

const (
	allCurrencies = "*"
	wholeRange    = -1
)

func newCanvas(s seriesQuestion) *canvas {
	return &canvas{seriesQuestion: s, keys: []string{""}, cells: map[lineKey]map[int]*olap.KPIValues{}, sketches: map[string]map[int][][]byte{}}
}

// rank chooses the keys of which series are drawn: the largest by any of the metrics, since a key that is large by one of them is to be seen by all.
func (c *canvas) rank(sums []olap.KPIRow) []string {
	by := map[lineKey]*olap.KPIValues{}
	for i := range sums {
		r := &sums[i]
		for _, currency := range []string{r.Currency, allCurrencies} {
			k := lineKey{r.Key, currency}
			if by[k] == nil {
				by[k] = &olap.KPIValues{}
			}
			if currency == allCurrencies {
				by[k].AddCounts(&r.KPIValues)
			} else {
				by[k].Add(&r.KPIValues)
			}
		}
	}
	chosen := map[string]bool{}
	all := map[string]bool{}
	for k := range by {
		all[k.key] = true
	}
	for _, m := range c.metrics {
		lists := map[string][]string{}
		for k := range by {
			if m.perCurrency == (k.currency == allCurrencies) || m.perCurrency && (k.currency == "" || c.currency != "" && k.currency != c.currency) {
				continue
			}
			lists[k.currency] = append(lists[k.currency], k.key)
		}
		for currency, keys := range lists {
			rank := m.numerator
			if !rank.Additive() {
				rank = kpi.Events
			}
			slices.SortFunc(keys, func(a, b string) int {
				x, y := by[lineKey{a, currency}], by[lineKey{b, currency}]
				return cmp.Or(valueOf(y, rank).Abs().Cmp(valueOf(x, rank).Abs()), cmp.Compare(y.Count(kpi.Events), x.Count(kpi.Events)), cmp.Compare(a, b))
			})
			for _, k := range keys[:min(len(keys), c.limit)] {
				chosen[k] = true
			}
		}
	}
	c.keys = slices.Sorted(maps.Keys(chosen))
	if len(c.keys) > maxSeries { // many currencies, each with other keys
		c.keys = c.keys[:maxSeries]
	}
	c.truncated = len(c.keys) < len(all)
	return c.keys
}

func (c *canvas) cell(k lineKey, at int) *olap.KPIValues {
	if c.cells[k] == nil {
		c.cells[k] = map[int]*olap.KPIValues{}
	}
	one := c.cells[k][at]
	if one == nil {
		one = &olap.KPIValues{}
		c.cells[k][at] = one
	}
	return one
}

func (c *canvas) fill(points []olap.KPIRow) {
	for i := range points {
		r := &points[i]
		at := c.grid.index(r.At)
		if at < 0 {
			continue
		}
		for _, i := range []int{at, wholeRange} {
			c.cell(lineKey{r.Key, r.Currency}, i).Add(&r.KPIValues)
			c.cell(lineKey{r.Key, allCurrencies}, i).AddCounts(&r.KPIValues)
		}
	}
}

func (c *canvas) sketch(at int64, key string, b []byte) error {
	i := c.grid.index(at)
	if i < 0 {
		return nil
	}
	if c.sketches[key] == nil {
		c.sketches[key] = map[int][][]byte{}
	}
	c.sketches[key][i] = append(c.sketches[key][i], b)
	return nil
}

// visitors counts the distinct visitors of each point, and of the whole range, into the cells of all currencies.
func (c *canvas) visitors() error {
	for key, points := range c.sketches {
		var all [][]byte
		for i, s := range points {
			n, err := kpi.MergeSketches(s...)
			if err != nil {
				return defectError{err}
			}
			c.cell(lineKey{key, allCurrencies}, i).SetCount(kpi.Visitors, n)
			all = append(all, s...)
		}
		n, err := kpi.MergeSketches(all...)
		if err != nil {
			return defectError{err}
		}
		c.cell(lineKey{key, allCurrencies}, wholeRange).SetCount(kpi.Visitors, n)
	}
	return nil
}

// draw makes the lines of all metrics.
func (c *canvas) draw(source string) (*series, error) {
	if err := c.visitors(); err != nil {
		return nil, err
	}
	out := &series{
		Grain: c.grid.grain.Name, From: stamp(c.grid.from), To: stamp(c.grid.to), TZ: c.grid.zone.String(), By: c.by, Source: source, Tenant: c.tenant,
		Times: c.grid.times, Series: []line{}, Truncated: c.truncated,
	}
	for _, m := range c.metrics {
		var lines []line
		for k := range c.cells {
			if !slices.Contains(c.keys, k.key) || m.perCurrency == (k.currency == allCurrencies) {
				continue
			}
			if m.perCurrency && (k.currency == "" || c.currency != "" && k.currency != c.currency || !c.money(k)) {
				continue
			}
			lines = append(lines, c.line(m, k))
		}
		if len(lines) == 0 && !m.perCurrency && c.by == "none" {
			lines = append(lines, c.line(m, lineKey{"", allCurrencies}))
		}
		lines = byRank(lines)
		if len(lines) > c.limit {
			lines, out.Truncated = lines[:c.limit], true
		}
		out.Series = append(out.Series, lines...)
	}
	return out, nil
}

// money says whether anything was sold or refunded: carts have a currency too.
func (c *canvas) money(k lineKey) bool {
	whole := c.cells[k][wholeRange]
	return whole.Count(kpi.Orders) > 0 || whole.Count(kpi.Refunds) > 0 || !whole.Amount(kpi.Revenue).IsZero() || !whole.Amount(kpi.RefundValue).IsZero()
}

// byRank orders lines: the largest of each currency, then the second of each, and so on; amounts of different currencies cannot be compared.
func byRank(lines []line) []line {
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.Currency, b.Currency), b.size.Abs().Cmp(a.size.Abs()), cmp.Compare(a.Key, b.Key))
	})
	rank := make(map[lineKey]int, len(lines))
	seen := map[string]int{}
	for _, l := range lines {
		rank[lineKey{l.Key, l.Currency}] = seen[l.Currency]
		seen[l.Currency]++
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Compare(rank[lineKey{a.Key, a.Currency}], rank[lineKey{b.Key, b.Currency}])
	})
	return lines
}

func (c *canvas) line(m metric, k lineKey) line {
	l := line{Measure: m.name, Unit: m.unit, Key: k.key, Values: make([]*json.Number, len(c.grid.times))}
	if k.currency != allCurrencies {
		l.Currency = k.currency
	}
	empty := &olap.KPIValues{}
	for i, at := range c.grid.times {
		if at > c.now.Unix() {
			break
		}
		one := c.cells[k][i]
		if one == nil {
			one = empty
		}
		if d, ok := m.of(one); ok {
			n := number(d)
			l.Values[i] = &n
		}
	}
	whole := c.cells[k][wholeRange]
	if whole == nil {
		whole = empty
	}
	if d, ok := m.of(whole); ok {
		text := d.String()
		if m.unit == "money" {
			text = money(d)
		}
		l.Total = &text
		l.size = d
		if m.ratio { // a high ratio of few is no large key
			l.size = decimal.NewFromInt(whole.Count(m.denominator))
		}
	}
	return l
}

func valueOf(v *olap.KPIValues, m kpi.Measure) decimal.Decimal {
	if m.Kind() == kpi.Amount {
		return v.Amount(m)
	}
	return decimal.NewFromInt(v.Count(m))
}

// of computes a metric; false for a ratio without a denominator.
func (m metric) of(v *olap.KPIValues) (decimal.Decimal, bool) {
	n := valueOf(v, m.numerator)
	if !m.ratio {
		return n, true
	}
	d := valueOf(v, m.denominator)
	if d.IsZero() {
		return decimal.Decimal{}, false
	}
	places := int32(6)
	if m.unit == "money" {
		places = 2
	}
	return n.DivRound(d, places), true
}

// tail is the last seconds of the main series, from the rows of live KPIs.
func tail(tenant string, zone *time.Location, r rows, end time.Time, length time.Duration) (*series, error) {
	g, ok := newGrid(kpi.Grains()[0], zone, end.Add(-length), end)
	if !ok {
		return nil, defectError{fmt.Errorf("a tail of %s", length)}
	}
	q := seriesQuestion{tenant: tenant, by: "none", limit: maxSeries, grid: g, now: end}
	for _, name := range []string{"page_views", "item_views", "cart_adds", "checkouts", "orders", "visitors", "revenue"} {
		m, _ := metricNamed(name) // a test holds that all of them exist
		q.metrics = append(q.metrics, m)
	}
	c := newCanvas(q)
	c.fill(r.kpis)
	for _, s := range r.sketches {
		if err := c.sketch(s.at, "", s.sketch); err != nil {
			return nil, err
		}
	}
	return c.draw(r.source)
}
