package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"millrace/features/demand"
	"millrace/internal/fault"
	"millrace/kpi"
	"millrace/live"
	"millrace/olap"
)

const idProduct fault.ID = "MR-DEM-001"

// demandAnswer is the answer of /api/v1/demand.
type demandAnswer struct {
	Tenant    string          `json:"tenant"`
	LeadHours int             `json:"lead_hours"`
	Products  []productDemand `json:"products"`
}

// productDemand is one product. What is not known is null.
type productDemand struct {
	ProductID  string        `json:"product_id"`
	Stock      *int64        `json:"stock"`
	Warehouses []warehouse   `json:"warehouses"`
	Low        bool          `json:"low"` // somebody was told
	Sold24h    int64         `json:"sold_24h"`
	CoverHours *int          `json:"cover_hours"` // at most 2160
	StockOut   *float64      `json:"stock_out"`   // probability within lead_hours
	Basis      string        `json:"basis"`       // forecast, sales or none
	Lead       *units        `json:"lead"`        // demand within lead_hours
	Week       *units        `json:"week"`        // demand within seven days
	Forecast   *forecastInfo `json:"forecast"`
	Price      *priceInfo    `json:"price"`
	Hours      []demandHour  `json:"hours"` // of a single product; else empty
}

type warehouse struct {
	Warehouse string `json:"warehouse"`
	Level     int64  `json:"level"`
	CountedAt *stamp `json:"counted_at"`
}

// units is a demand with the interval that holds it with a probability of 90 %.
type units struct {
	Mean float64 `json:"mean"`
	Low  int64   `json:"low"`
	High int64   `json:"high"`
}

type forecastInfo struct {
	State     string   `json:"state"` // fitted or history
	Method    string   `json:"method"`
	Version   string   `json:"version"`
	FittedAt  stamp    `json:"fitted_at"`
	MASE      *float64 `json:"mase"`
	NaiveMASE *float64 `json:"naive_mase"`
	HeldBack  int      `json:"held_back_days"`
}

type priceInfo struct {
	State      string      `json:"state"` // band or variation
	Currency   string      `json:"currency"`
	Elasticity *float64    `json:"elasticity"`
	Interval   *[2]float64 `json:"elasticity_interval"`
	Current    *float64    `json:"current"`
	Low        *float64    `json:"low"`
	High       *float64    `json:"high"`
	Floor      *float64    `json:"floor"`
	Reason     string      `json:"reason"`
}

// demandHour is an hour that is over, with what was sold and what the forecast as it stands says of it, or one to come, with what is expected.
type demandHour struct {
	At       stamp    `json:"at"`
	Sold     *float64 `json:"sold"`
	Expected *float64 `json:"expected"`
}

const (
	confidence   = 0.9
	shownPast    = 7 * 24 // hours
	shownAhead   = 7 * 24
	maxLead      = 60 * 24 * time.Hour
	demandLister = 24 * time.Hour // whose best sellers are listed before there is a forecast
)

// serveDemand says what is there of products, what will be asked for, and what follows. Stock and the state of a forecast come from Redis, where the stream keeps them; how
// exact the forecast is, and prices, from what the night has noted in ClickHouse.
func (a *API) serveDemand(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, product, limit := q.tenant(a.cfg.Tenant), q.text("product", "", maxItemID), q.integer("limit", 20, 1, 200)
	lead, low := q.duration("lead", "3d", time.Hour, maxLead), q.one("low", "false", "true", "false") == "true"
	if err := q.err(); err != nil {
		return nil, err
	}
	if a.redis == nil {
		return nil, newProblem(idUnavailable, "no Redis is configured")
	}
	ids, fits, err := a.demanded(r.Context(), tenant, product, limit)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), recommendationWait)
	defer cancel()
	states, err := live.ReadProducts(ctx, a.redis, tenant, ids)
	if err != nil {
		a.log.WarnContext(r.Context(), "demand cannot be read", "error", err)
		return nil, newProblem(idUnavailable, "Redis does not answer")
	}
	out := &demandAnswer{Tenant: tenant, LeadHours: int(lead / time.Hour), Products: []productDemand{}}
	for i, id := range ids {
		fit, fitted := fits[id]
		if product != "" && !states[i].Known && !fitted {
			return nil, newProblem(idProduct, "of product "+clean(product)+" of tenant "+clean(tenant)+" nothing is known")
		}
		one, m, err := a.productDemand(id, states[i], out.LeadHours)
		if err != nil {
			return nil, defectError{err}
		}
		if low && !one.Low {
			continue
		}
		if fitted {
			one.Forecast, one.Price = fitOf(fit), priceOf(fit)
		}
		if product != "" {
			if one.Hours, err = a.hoursOf(r.Context(), tenant, id, states[i], m); err != nil {
				return nil, err
			}
		}
		out.Products = append(out.Products, one)
	}
	return encode(out, nil)
}

// demanded are the products that are asked about: one, or those of which most is sold.
func (a *API) demanded(ctx context.Context, tenant, product string, limit int) (ids []string, fits map[string]olap.ProductForecast, err error) {
	var names []string
	if product != "" {
		names, limit = []string{product}, 1
	}
	rows, err := a.olap.Forecasts(ctx, tenant, names, limit)
	if err != nil {
		return nil, nil, err
	}
	fits = map[string]olap.ProductForecast{}
	for _, f := range rows {
		ids, fits[f.Product] = append(ids, f.Product), f
	}
	if product != "" {
		return []string{product}, fits, nil
	}
	if len(ids) < limit {
		top, err := a.olap.TopProducts(ctx, tenant, "1h", a.now().Add(-demandLister).Truncate(time.Hour), a.now().Add(time.Hour), kpi.Units, "", limit)
		if err != nil {
			return nil, nil, err
		}
		slices.SortStableFunc(top, func(x, y olap.ProductRow) int { return cmp.Compare(y.Quantity, x.Quantity) })
		for _, p := range top {
			if len(ids) < limit && !slices.Contains(ids, p.ProductID) { // it may have several currencies
				ids = append(ids, p.ProductID)
			}
		}
	}
	return ids, fits, nil
}

// productDemand is what Redis knows of a product, and what follows from it.
func (a *API) productDemand(id string, p live.Product, lead int) (productDemand, *demand.Model, error) {
	out := productDemand{ProductID: id, Warehouses: []warehouse{}, Hours: []demandHour{}, Basis: "none", Low: p.State.Low}
	for _, w := range p.State.Stock {
		if out.Stock == nil {
			out.Stock = new(int64)
		}
		*out.Stock += w.Level
		out.Warehouses = append(out.Warehouses, warehouse{w.Warehouse, w.Level, countedAt(w.At)})
	}
	now := a.now().Unix() / 3600
	recent := int64(0)
	for _, h := range p.State.Sales {
		recent += h.Units
		if h.Hour > now-24 {
			out.Sold24h += h.Units
		}
	}
	var f demand.Published
	if p.Forecast != "" {
		if err := json.Unmarshal([]byte(p.Forecast), &f); err != nil {
			return out, nil, fmt.Errorf("forecast of product %s: %w", id, err)
		}
	}
	var leadDemand, week demand.Lead
	var cover func(int64) int
	var m *demand.Model
	switch {
	case f.Model.Kind != "":
		if err := f.Model.Valid(); err != nil {
			return out, nil, fmt.Errorf("forecast of product %s: %w", id, err)
		}
		m = &f.Model
		out.Basis, leadDemand, week, cover = "forecast", m.Lead(lead), m.Lead(demand.Week), m.Cover
	case recent > 0:
		mean := float64(recent) / 72
		leadDemand = demand.Lead{Hours: lead, Mean: mean * float64(lead), Variance: mean * float64(lead)}
		week = demand.Lead{Hours: demand.Week, Mean: mean * demand.Week, Variance: mean * demand.Week}
		out.Basis, cover = "sales", func(stock int64) int { return int(min(float64(max(0, stock))/mean, demand.MaxCover)) }
	default:
		return out, nil, nil
	}
	out.Lead, out.Week = unitsOf(leadDemand), unitsOf(week)
	if out.Stock != nil {
		hours, risk := cover(max(0, *out.Stock)), leadDemand.StockOut(*out.Stock)
		out.CoverHours, out.StockOut = &hours, &risk
	}
	return out, m, nil
}

func countedAt(micros int64) *stamp {
	if micros <= 0 {
		return nil // never: changes alone
	}
	return stampOf(time.UnixMicro(micros))
}

func unitsOf(l demand.Lead) *units {
	low, high := l.Interval(confidence)
	return &units{l.Mean, low, high}
}

func fitOf(f olap.ProductForecast) *forecastInfo {
	out := &forecastInfo{State: f.State, Method: f.Method, Version: f.Version, FittedAt: stamp(f.FittedAt), HeldBack: int(f.HeldBackDays)}
	if f.MASE > 0 {
		out.MASE, out.NaiveMASE = &f.MASE, &f.NaiveMASE
	}
	return out
}

func priceOf(f olap.ProductForecast) *priceInfo {
	out := &priceInfo{State: f.PriceState, Currency: f.Currency, Reason: f.PriceReason}
	if f.PriceState == "band" {
		out.Elasticity, out.Interval = &f.Elasticity, &[2]float64{f.ElasticityLow, f.ElasticityHigh}
		out.Current, out.Low, out.High, out.Floor = &f.PriceCurrent, &f.PriceLow, &f.PriceHigh, &f.PriceFloor
	}
	return out
}

// hoursOf are the hours of the last week with what was sold in them (the newest as the stream has counted them, those before as the night has), and those of the next one
// with what is expected.
func (a *API) hoursOf(ctx context.Context, tenant, id string, p live.Product, m *demand.Model) ([]demandHour, error) {
	end := a.now().Unix()/3600 + 1
	first := end - shownPast
	past, err := a.olap.DemandHours(ctx, tenant, id, time.Unix(first*3600, 0), time.Unix(end*3600, 0))
	if err != nil {
		return nil, err
	}
	sold := make([]float64, shownPast)
	for _, h := range past {
		sold[h.Hour.Unix()/3600-first] = h.Units
	}
	for _, h := range p.State.Sales {
		if h.Hour >= first && h.Hour < end {
			sold[h.Hour-first] = max(sold[h.Hour-first], float64(h.Units)) // the night may have known more, or less
		}
	}
	out := make([]demandHour, 0, shownPast+shownAhead)
	for i := range sold {
		out = append(out, demandHour{At: stamp(time.Unix((first+int64(i))*3600, 0)), Sold: &sold[i]})
	}
	if m == nil || m.Hour >= end+shownAhead {
		return out, nil
	}
	for i := range out {
		if hour := first + int64(i); hour <= m.Hour {
			said := m.Explain(hour)
			out[i].Expected = &said
		}
	}
	ahead := m.Forecast(int(min(end+shownAhead-1-m.Hour, 2*shownAhead)))
	for i := range ahead {
		hour := m.Hour + 1 + int64(i)
		switch {
		case hour >= end:
			out = append(out, demandHour{At: stamp(time.Unix(hour*3600, 0)), Expected: &ahead[i]})
		case hour >= first:
			out[hour-first].Expected = &ahead[i]
		}
	}
	return out, nil
}
