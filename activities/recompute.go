package activities

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"millrace/event"
	"millrace/kpi"
	"millrace/olap"
	"millrace/workflows/name"
)

// Recompute takes events up into the KPIs that the stream did not count: those that came after kpi.lateness, and those of the lane replay. It computes their contribution
// from the stored events and writes it as the partial of partition -1, so that the sum over partitions is what all events add up to. It writes only what has changed, and
// always the whole of a row, so that it may run again at any time.
type Recompute struct {
	repair *olap.Repair
	defs   kpi.Definitions
	erased ErasedSource
	now    func() time.Time
	rows   *prometheus.CounterVec
	events prometheus.Counter
}

// NewRecompute makes the activity; erased may be nil.
func NewRecompute(conn driver.Conn, cluster string, defs kpi.Definitions, erased ErasedSource, reg prometheus.Registerer) *Recompute {
	return &Recompute{
		repair: olap.NewRepair(conn, cluster), defs: defs, erased: erased, now: time.Now,
		rows:   register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_recompute_rows_total", Help: "Rows of KPI tables that were written for late and replayed events, by grain."}, []string{"grain"})),
		events: register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_recompute_events_total", Help: "Late and replayed events that were taken up into KPIs, at each recomputation again."})),
	}
}

// Register adds nothing: it all runs on the queue "millrace-heavy".
func (r *Recompute) Register(worker.ActivityRegistry) {}

// RegisterHeavy adds what runs on the queue "millrace-heavy".
func (r *Recompute) RegisterHeavy(w worker.ActivityRegistry) {
	w.RegisterActivityWithOptions(r.Day, activity.RegisterOptions{Name: name.RecomputeDay})
}

// Day recomputes a day, and every other day that late or replayed events reached which the platform took on that day.
func (r *Recompute) Day(ctx context.Context, in name.RecomputeKPIsInput) (StepOutput, error) {
	b := startBeats(ctx)
	defer b.end()
	out, err := r.day(ctx, in, b.note)
	return StepOutput{Numbers: out}, failure(ctx, err, "", true)
}

// tenantDay is a day as a tenant's time zone has it: [from, to) in µs.
type tenantDay struct {
	tenant   string
	from, to int64
}

func (r *Recompute) day(ctx context.Context, in name.RecomputeKPIsInput, beat func(Progress)) (map[string]int64, error) {
	days, err := r.days(ctx, in)
	if err != nil {
		return nil, err
	}
	var erased *event.Erased
	if r.erased != nil {
		if erased, err = r.erased.Erased(ctx); err != nil {
			return nil, fmt.Errorf("reading the ledger of erasures: %w", err)
		}
	}
	numbers := map[string]int64{"days": int64(len(days)), "events": 0, "rows": 0, "unchanged": 0, "erased": 0}
	for _, d := range days {
		j := &recomputation{Recompute: r, day: d, erased: erased, numbers: numbers, beat: func() { beat(Progress{Rows: numbers["events"]}) }}
		if err := j.run(ctx); err != nil {
			return nil, fmt.Errorf("recomputing the KPIs of %s of tenant %s: %w", event.Time(d.from).In(r.defs.Zone(d.tenant)).Format(time.DateOnly), d.tenant, err)
		}
	}
	r.events.Add(float64(numbers["events"]))
	return numbers, nil
}

// days lists what is to be recomputed.
func (r *Recompute) days(ctx context.Context, in name.RecomputeKPIsInput) ([]tenantDay, error) {
	at, err := time.Parse(time.DateOnly, in.Day)
	if err != nil {
		return nil, err
	}
	grains := kpi.Grains()
	dayOf := func(tenant string, us int64) tenantDay {
		from, to := r.defs.Window(grains[len(grains)-1], tenant, us)
		return tenantDay{tenant, from, to}
	}
	found := map[tenantDay]bool{}
	const around = 36 * time.Hour // no zone's day lies outside
	near, err := r.repair.UncountedHours(ctx, "", at.Add(-around), at.Add(24*time.Hour+around), false)
	if err != nil {
		return nil, err
	}
	came, err := r.repair.UncountedHours(ctx, "", at, at.Add(24*time.Hour), true)
	if err != nil {
		return nil, err
	}
	add := func(tenant string, us int64, only bool) {
		d := dayOf(tenant, us)
		if len(in.Tenants) > 0 && !slices.Contains(in.Tenants, tenant) || only && event.Time((d.from+d.to)/2).In(r.defs.Zone(tenant)).Format(time.DateOnly) != in.Day {
			return
		}
		found[d] = true
	}
	const hour = 3600 * 1_000_000
	for _, h := range near { // a zone's midnight may be within the hour
		add(h.Tenant, h.At, true)
		add(h.Tenant, h.At+hour-1, true)
	}
	for _, h := range came {
		add(h.Tenant, h.At, false)
		add(h.Tenant, h.At+hour-1, false)
	}
	for _, t := range in.Tenants { // named: also if nothing is late any more
		add(t, at.Add(12*time.Hour).UnixMicro(), true)
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b tenantDay) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.from, b.from))
	}), nil
}

// cell is one row of a KPI table but for the tenant.
type cell struct {
	family kpi.Family
	grain  int
	start  int64
	shop   kpi.ShopKey
	items  kpi.ItemsKey
}

// tally is what uncounted events add to a row. A visitor counts only if no event of theirs that the stream counted is in the row: distinct visitors add up over partials.
type visitTally struct {
	values   kpi.Values
	visitors map[uint64]struct{} // of uncounted events
	counted  map[uint64]struct{} // those of them that counted events have
}

// recomputation is that of one day of a tenant.
type recomputation struct {
	*Recompute
	day     tenantDay
	erased  *event.Erased
	numbers map[string]int64
	beat    func()

	hour map[cell]*visitTally // of the hour at hand: 1s, 1m, 1h
	days map[cell]*visitTally
}

// run goes through the day by hours: rows of a second are many, and each hour's are written before the next one is read. Hours at the day's ends are taken whole, since
// their windows are: a zone's midnight need not be on an hour.
func (j *recomputation) run(ctx context.Context) error {
	const hour = int64(3600 * 1_000_000)
	j.days = map[cell]*visitTally{}
	begin, end := floorTo(j.day.from, hour), floorTo(j.day.to+hour-1, hour)
	hours, err := j.hours(ctx, begin, end)
	if err != nil {
		return err
	}
	for _, at := range hours {
		j.hour = map[cell]*visitTally{}
		if err := j.repair.Uncounted(ctx, j.day.tenant, at, at+hour, func(e *event.Event) error {
			if j.erased.Drops(e.Tenant, e.VisitorID, e.UserID, e.RawTopic, e.RawPartition, e.RawOffset) {
				j.numbers["erased"]++
				return nil
			}
			if e.OccurredAt >= j.day.from && e.OccurredAt < j.day.to {
				j.numbers["events"]++
			}
			j.cells(e, true, func(c cell, t *visitTally, line int, first bool) {
				if c.family == kpi.Shop {
					t.values.AddShop(e)
				} else {
					t.values.AddLine(e, line, first)
				}
				if e.VisitorID != "" {
					t.visitors[xxh3.HashString(e.VisitorID)] = struct{}{}
				}
			})
			return nil
		}); err != nil {
			return err
		}
		if len(j.hour) > 0 {
			if err := j.markCounted(ctx, at, at+hour, at, at+hour); err != nil {
				return err
			}
		}
		if err := j.write(ctx, j.hour, at, at+hour); err != nil {
			return err
		}
		j.beat()
	}
	j.hour = map[cell]*visitTally{}
	if len(j.days) > 0 { // which visitors of the day's rows the stream counted, in whatever hour
		if err := j.markCounted(ctx, j.day.from, j.day.to, j.day.from, j.day.to); err != nil {
			return err
		}
		j.beat()
	}
	return j.write(ctx, j.days, j.day.from, j.day.from+1)
}

// hours lists those of [begin, end) that have uncounted events, or rows from when they had some.
func (j *recomputation) hours(ctx context.Context, begin, end int64) ([]int64, error) {
	found := map[int64]bool{}
	events, err := j.repair.UncountedHours(ctx, j.day.tenant, event.Time(begin), event.Time(end), false)
	if err != nil {
		return nil, err
	}
	for _, h := range events {
		found[h.At] = true
	}
	rows, err := j.repair.Partials(ctx, kpi.Shop.String(), "1h", j.day.tenant, olap.RecomputedPartition, begin, end)
	if err != nil {
		return nil, err
	}
	for _, p := range rows { // an event counts in its hour, whatever else it counts in
		if p.Events != 0 {
			found[p.WindowStart] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func floorTo(at, size int64) int64 {
	f := at - at%size
	if f > at {
		f -= size
	}
	return f
}

// markCounted notes the visitors of events in [from, to) that the stream counted, in rows that have them as uncounted visitors too.
func (j *recomputation) markCounted(ctx context.Context, from, to, dayFrom, dayTo int64) error {
	return j.repair.CountedBeside(ctx, j.day.tenant, from, to, dayFrom, dayTo, func(e *event.Event) error {
		h := xxh3.HashString(e.VisitorID)
		j.cells(e, false, func(_ cell, t *visitTally, _ int, _ bool) {
			if _, ok := t.visitors[h]; ok {
				t.counted[h] = struct{}{}
			}
		})
		return nil
	})
}

// cells calls each for every row that an event is counted in, making rows that are missing if make says so. For rows of items it is called once a line; first says that
// no earlier line of the event was of the same row.
func (j *recomputation) cells(e *event.Event, make bool, each func(c cell, t *visitTally, line int, first bool)) {
	at := func(c cell, line int, first bool) {
		in := j.hour
		if kpi.Grains()[c.grain].Size == 0 {
			in = j.days
		}
		t := in[c]
		if t == nil {
			if !make {
				return
			}
			t = &visitTally{visitors: map[uint64]struct{}{}, counted: map[uint64]struct{}{}}
			in[c] = t
		}
		each(c, t, line, first)
	}
	for grain, g := range kpi.Grains() {
		start, _ := j.defs.Window(g, e.Tenant, e.OccurredAt)
		if g.Size == 0 && (e.OccurredAt < j.day.from || e.OccurredAt >= j.day.to) {
			continue // of the neighbouring day, in an hour that both share
		}
		at(cell{family: kpi.Shop, grain: grain, start: start, shop: kpi.ShopKeyOf(e)}, 0, true)
		if !kpi.HasLines(e.Name) {
			continue
		}
		seen := map[kpi.ItemsKey]bool{}
		for i := range e.Items {
			key := kpi.ItemsKey{Tenant: e.Tenant, Currency: e.Currency, ProductID: e.Items[i].ItemID, ItemCategory: e.Items[i].ItemCategory}
			keys := []kpi.ItemsKey{key}
			if key.ProductID != "" {
				key.ProductID = ""
				keys = append(keys, key)
			}
			for _, k := range keys {
				at(cell{family: kpi.Items, grain: grain, start: start, items: k}, i, !seen[k])
				seen[k] = true
			}
		}
	}
}

// write brings the rows of windows that begin in [from, to) to the tables. Rows that were there and are no longer become zero; rows that have not changed are left alone.
func (j *recomputation) write(ctx context.Context, rows map[cell]*visitTally, from, to int64) error {
	byTable := map[[2]int][]event.KPIPartial{}
	for c, t := range rows {
		p, err := partialOf(c, t)
		if err != nil {
			return err
		}
		byTable[[2]int{int(c.family), c.grain}] = append(byTable[[2]int{int(c.family), c.grain}], p)
	}
	daily := to == from+1
	for _, f := range kpi.Families() {
		for grain, g := range kpi.Grains() {
			if (g.Size == 0) != daily {
				continue
			}
			have, newest, err := j.repair.Recomputed(ctx, f.String(), g.Name, j.day.tenant, from, to)
			if err != nil {
				return err
			}
			changed, unchanged := changes(byTable[[2]int{int(f), grain}], have)
			j.numbers["unchanged"] += unchanged
			if len(changed) == 0 {
				continue
			}
			version := max(uint64(j.now().UnixMicro()), newest+1)
			if err := j.repair.WriteRecomputed(ctx, f.String(), g.Name, changed, version); err != nil {
				return err
			}
			j.numbers["rows"] += int64(len(changed))
			j.rows.WithLabelValues(g.Name).Add(float64(len(changed)))
		}
	}
	return nil
}

func partialOf(c cell, t *visitTally) (event.KPIPartial, error) {
	p := event.KPIPartial{Family: c.family.String(), Grain: kpi.Grains()[c.grain].Name, WindowStart: c.start, KafkaPartition: olap.RecomputedPartition, Final: true}
	if c.family == kpi.Shop {
		p.Tenant, p.Currency, p.Country, p.Device = c.shop.Tenant, c.shop.Currency, c.shop.Country, c.shop.Device
	} else {
		p.Tenant, p.Currency, p.ProductID, p.ItemCategory = c.items.Tenant, c.items.Currency, c.items.ProductID, c.items.ItemCategory
	}
	if err := t.values.Fill(&p); err != nil {
		return p, err
	}
	p.Visitors = int64(len(t.visitors) - len(t.counted))
	return p, nil
}

// changes gives what is to be written so that what is there becomes what is wanted.
func changes(want, have []event.KPIPartial) (changed []event.KPIPartial, unchanged int64) {
	key := func(p *event.KPIPartial) string { return string(kpi.AppendRecordKey(nil, p)) }
	there := make(map[string]*event.KPIPartial, len(have))
	for i := range have {
		there[key(&have[i])] = &have[i]
	}
	for i := range want {
		k := key(&want[i])
		if old := there[k]; old != nil && samePartial(old, &want[i]) {
			unchanged++
		} else {
			changed = append(changed, want[i])
		}
		delete(there, k)
	}
	for _, old := range there {
		zero := event.KPIPartial{
			Family: old.Family, Grain: old.Grain, Tenant: old.Tenant, WindowStart: old.WindowStart, Currency: old.Currency, Country: old.Country, Device: old.Device, ProductID: old.ProductID,
			ItemCategory: old.ItemCategory, KafkaPartition: old.KafkaPartition, Final: true,
		}
		if samePartial(old, &zero) {
			unchanged++
			continue
		}
		changed = append(changed, zero)
	}
	return changed, unchanged
}

func samePartial(a, b *event.KPIPartial) bool {
	x, y := *a, *b
	x.VisitorsSketch, y.VisitorsSketch = nil, nil
	return fmt.Sprint(x) == fmt.Sprint(y) && bytes.Equal(a.VisitorsSketch, b.VisitorsSketch)
}
