package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"millrace/live"
	"millrace/olap"
)

// liveKPIs is the answer of /api/v1/kpis/live.
type liveKPIs struct {
	AsOf          stamp       `json:"as_of"`
	WindowSeconds int         `json:"window_seconds"`
	Source        string      `json:"source"`
	Tenant        string      `json:"tenant"`
	Currencies    []string    `json:"currencies"`
	From          stamp       `json:"from"`
	To            stamp       `json:"to"`
	Total         total       `json:"total"`
	Money         []moneyKPIs `json:"money"`
	Previous      kpiWindow   `json:"previous"`
}

const (
	maxLiveWindow   = 3 * time.Hour
	maxSecondWindow = 5 * time.Minute // above it windows of a minute are added up; twice as much is well within what Redis keeps
	silence         = 10 * time.Second
	sinkDelay       = 3 * time.Second // how much later than Redis ClickHouse has a window complete: the sink flushes every 2 s
)

func (a *API) serveLive(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, currency := q.tenant(a.cfg.Tenant), q.currency()
	window := q.duration("window", "60s", time.Second, maxLiveWindow)
	if window > maxSecondWindow && window%time.Minute != 0 {
		q.bad("window", "is above 5m, so it must be in whole minutes")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("live\x00%s\x00%s\x00%d\x00%d", tenant, currency, window, a.now().Unix())
	return a.flights.do(r.Context(), key, func(ctx context.Context) ([]byte, error) {
		k, _, err := a.live(ctx, tenant, currency, window)
		return encode(k, err)
	})
}

// live gives the KPIs of the last window and the one before, and the rows they were made of.
func (a *API) live(ctx context.Context, tenant, currency string, window time.Duration) (*liveKPIs, rows, error) {
	grain, size := "1s", time.Second
	if window > maxSecondWindow {
		grain, size = "1m", time.Minute
	}
	end := a.now().Add(-a.cfg.LiveDelay).Truncate(size)
	r, ok := a.liveOfRedis(ctx, tenant, grain, size, end.Add(-2*window), end)
	// Silence may be an idle shop, or a sink that is behind: ClickHouse, which has another sink, knows.
	if !ok || end.Sub(time.Unix(r.newest(), 0)) > silence+size {
		later := a.now().Add(-a.cfg.LiveDelay - sinkDelay).Truncate(size)
		other, err := a.liveOfClickHouse(ctx, tenant, grain, later.Add(-2*window), later)
		switch {
		case err == nil && (!ok || other.newest() > r.newest()):
			r, end = other, later
		case err != nil && !ok:
			return nil, rows{}, err
		}
	}
	mid := end.Add(-window)
	now, err := r.window(mid, end, currency)
	if err != nil {
		return nil, rows{}, err
	}
	before, err := r.window(mid.Add(-window), mid, currency)
	if err != nil {
		return nil, rows{}, err
	}
	return &liveKPIs{
		AsOf: stamp(end), WindowSeconds: int(window / time.Second), Source: r.source, Tenant: tenant, Currencies: currencies(now.Money, before.Money),
		From: now.From, To: now.To, Total: now.Total, Money: now.Money, Previous: before,
	}, r, nil
}

// liveOfRedis reads windows from Redis; false where it is away or holds nothing, which is also how a server that came back empty looks.
func (a *API) liveOfRedis(ctx context.Context, tenant, grain string, size time.Duration, from, to time.Time) (rows, bool) {
	if a.redis == nil || a.codecs == nil || a.away.now() {
		return rows{}, false
	}
	var starts []int64
	for t := from; t.Before(to); t = t.Add(size) {
		starts = append(starts, t.UnixMicro())
	}
	limited, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	partials, err := live.KPIs(limited, a.redis, a.codecs, tenant, "shop", grain, starts)
	a.away.note(ctx, err)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "live KPIs not read from Redis, asking ClickHouse", "error", err)
		}
		return rows{}, false
	}
	if len(partials) == 0 {
		return rows{}, false
	}
	return ofPartials(partials), true
}

func (a *API) liveOfClickHouse(ctx context.Context, tenant, grain string, from, to time.Time) (rows, error) {
	release, err := a.flights.place(ctx)
	if err != nil {
		return rows{}, err
	}
	defer release()
	q := olap.KPIQuery{Tenant: tenant, Grain: grain, From: from, To: to, Measures: additive()}
	out := rows{source: "clickhouse"}
	if out.kpis, err = a.olap.KPIs(ctx, q); err != nil {
		return rows{}, err
	}
	err = a.olap.Sketches(ctx, q, func(at int64, _ string, b []byte) error {
		out.sketches = append(out.sketches, sketchAt{at, b})
		return nil
	})
	return out, err
}

// currencies lists the currencies of several windows, most orders first.
func currencies(windows ...[]moneyKPIs) []string {
	orders := map[string]int64{}
	for _, w := range windows {
		for _, m := range w {
			orders[m.Currency] += m.Orders
		}
	}
	out := slices.AppendSeq([]string{}, maps.Keys(orders))
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(orders[b], orders[a]), cmp.Compare(a, b))
	})
	return out
}
