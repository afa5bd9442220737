package olap

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"millrace/kpi"
)

// ProductRow is what was done with a product in one currency.
type ProductRow struct {
	ProductID, Category, Currency         string
	Revenue                               decimal.Decimal
	Quantity, Orders, ItemViews, CartAdds int64
}

// TopProducts ranks products by revenue (each currency by itself), units or orders over windows of a grain that begin in [from, to).
func (r *Reader) TopProducts(ctx context.Context, tenant, grain string, from, to time.Time, by kpi.Measure, currency string, limit int) ([]ProductRow, error) {
	table := KPITable("items", grain)
	if table == "" {
		return nil, fmt.Errorf("grain %q is not known", grain)
	}
	p := params{"tenant": tenant, "from": micros(from), "to": micros(to), "limit": strconv.Itoa(limit)}
	where, cut := "", " LIMIT {limit:UInt32}"
	if currency != "" {
		where, p["currency"] = " AND currency = {currency:String}", currency
	}
	switch by {
	case kpi.Revenue:
		where += " AND currency != ''"
		cut = " LIMIT {limit:UInt32} BY c"
	case kpi.Units, kpi.Orders:
	default:
		return nil, fmt.Errorf("products are not ranked by %s", by)
	}
	sql := "SELECT product_id AS id, toString(argMax(item_category, window_start)) AS category, toString(currency) AS c, sum(revenue) AS r, sum(units) AS u, sum(orders) AS o, sum(item_views), sum(cart_adds)" +
		" FROM " + table + " FINAL WHERE tenant = {tenant:String} AND window_start >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND window_start < fromUnixTimestamp64Micro({to:Int64}, 'UTC') AND product_id != ''" + where +
		" GROUP BY id, c HAVING " + by.SQL() + " > 0 ORDER BY " + by.SQL() + " DESC, r DESC, c, id" + cut
	var out []ProductRow
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		var w ProductRow
		if err := rows.Scan(&w.ProductID, &w.Category, &w.Currency, &w.Revenue, &w.Quantity, &w.Orders, &w.ItemViews, &w.CartAdds); err != nil {
			return fmt.Errorf("reading a product: %w", err)
		}
		out = append(out, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ranking products: %w", err)
	}
	return out, nil
}

// ProductNames finds the newest name of products in orders since a time.
func (r *Reader) ProductNames(ctx context.Context, tenant string, ids []string, since time.Time) (map[string]string, error) {
	p := params{"tenant": tenant, "since": micros(since)}
	out := map[string]string{}
	list := bindAll(p, ids)
	err := r.query(ctx, "SELECT id, argMax(assumeNotNull(item_name), occurred_at) FROM events_purchase ARRAY JOIN `items.item_id` AS id, `items.item_name` AS item_name"+
		" WHERE tenant = {tenant:String} AND name = 'purchase' AND occurred_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') AND item_name IS NOT NULL AND id IN "+list+" GROUP BY id", p,
		func(rows driver.Rows) error {
			var id, name string
			if err := rows.Scan(&id, &name); err != nil {
				return fmt.Errorf("reading a name: %w", err)
			}
			out[id] = name
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("looking for names of products: %w", err)
	}
	return out, nil
}
