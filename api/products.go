package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"millrace/kpi"
	"millrace/olap"
)

// product is one line of a ranking.
type product struct {
	Rank      int     `json:"rank"`
	ProductID string  `json:"product_id"`
	Name      *string `json:"name"`
	Category  string  `json:"category"`
	Currency  string  `json:"currency"`
	Revenue   string  `json:"revenue"`
	Quantity  int64   `json:"quantity"`
	Orders    int64   `json:"orders"`
	ItemViews int64   `json:"item_views"`
	CartAdds  int64   `json:"cart_adds"`
}

// topProducts is the answer of /api/v1/products/top.
type topProducts struct {
	From          stamp     `json:"from"`
	To            stamp     `json:"to"`
	WindowSeconds int       `json:"window_seconds"`
	By            string    `json:"by"`
	Tenant        string    `json:"tenant"`
	Currencies    []string  `json:"currencies"`
	Products      []product `json:"products"`
}

const (
	maxProductWindow = 90 * 24 * time.Hour
	maxMinuteWindow  = 3 * time.Hour // longer windows are read by the hour: a busy shop's products of a day by the minute are millions of rows
	maxNameLookback  = 7 * 24 * time.Hour
	maxNamed         = 200
)

func (a *API) serveProducts(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, currency, by := q.tenant(a.cfg.Tenant), q.currency(), q.one("by", "revenue", "revenue", "quantity", "orders")
	window, limit := q.duration("window", "1h", time.Minute, maxProductWindow), q.integer("limit", 20, 1, 200)
	if err := q.err(); err != nil {
		return nil, err
	}
	grain, step := "1m", time.Minute
	if window > maxMinuteWindow {
		grain, step = "1h", time.Hour
	}
	to := a.now().Truncate(step).Add(step)
	from := a.now().Add(-window).Truncate(step)
	key := fmt.Sprintf("products\x00%s\x00%s\x00%s\x00%d\x00%d\x00%d", tenant, currency, by, from.Unix(), to.Unix(), limit)
	return a.answer(r.Context(), key, []string{olap.KPITable("items", grain)}, func(ctx context.Context) (any, error) {
		measure := map[string]kpi.Measure{"revenue": kpi.Revenue, "quantity": kpi.Units, "orders": kpi.Orders}[by]
		top, err := a.olap.TopProducts(ctx, tenant, grain, from, to, measure, currency, limit)
		if err != nil {
			return nil, err
		}
		out := &topProducts{From: stamp(from), To: stamp(to), WindowSeconds: int(window / time.Second), By: by, Tenant: tenant, Products: []product{}}
		out.Currencies = byOrders(top)
		names, err := a.names(ctx, tenant, top, from)
		if err != nil {
			return nil, err
		}
		ranks := map[string]int{}
		for _, p := range top {
			group := ""
			if by == "revenue" {
				group = p.Currency
			}
			ranks[group]++
			one := product{
				Rank: ranks[group], ProductID: p.ProductID, Category: p.Category, Currency: p.Currency, Revenue: money(p.Revenue), Quantity: p.Quantity, Orders: p.Orders,
				ItemViews: p.ItemViews, CartAdds: p.CartAdds,
			}
			if n, ok := names[p.ProductID]; ok {
				one.Name = &n
			}
			out.Products = append(out.Products, one)
		}
		return out, nil
	})
}

// byOrders lists the currencies of a ranking, most orders first.
func byOrders(top []olap.ProductRow) []string {
	orders := map[string]int64{}
	out := []string{}
	for _, p := range top {
		if p.Currency == "" {
			continue
		}
		if _, ok := orders[p.Currency]; !ok {
			out = append(out, p.Currency)
		}
		orders[p.Currency] += p.Orders
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(orders[b], orders[a]), cmp.Compare(a, b))
	})
	return out
}

// names finds what the products are called.
func (a *API) names(ctx context.Context, tenant string, top []olap.ProductRow, from time.Time) (map[string]string, error) {
	var ids []string
	for _, p := range top {
		if len(ids) < maxNamed && !slices.Contains(ids, p.ProductID) {
			ids = append(ids, p.ProductID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	if earliest := a.now().Add(-maxNameLookback); from.Before(earliest) {
		from = earliest
	}
	return a.olap.ProductNames(ctx, tenant, ids, from)
}
