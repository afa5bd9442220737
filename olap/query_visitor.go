package olap

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// VisitorItem is an item that a visitor did something with: looked at it (weight 1), put it into the cart (3) or bought it (5).
type VisitorItem struct {
	Item   string
	Weight float64 // the greatest
	Last   time.Time
}

// VisitorItems lists the items that a visitor did something with since a time, the last first.
func (r *Reader) VisitorItems(ctx context.Context, tenant, visitor string, since time.Time, limit int) ([]VisitorItem, error) {
	part := func(table, names string, weight int) string {
		return "SELECT product_ids, occurred_at, " + strconv.Itoa(weight) + " AS w FROM " + table + " WHERE tenant = {tenant:String} AND visitor_id = {visitor:String} AND name IN (" + names + ")" +
			" AND toStartOfHour(occurred_at) >= toStartOfHour(fromUnixTimestamp64Micro({since:Int64}, 'UTC')) AND occurred_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
	}
	sql := "SELECT item, toFloat64(max(w)), max(occurred_at) AS last FROM (" +
		part("events_page", "'view_item', 'select_item'", 1) + " UNION ALL " + part("events_cart", "'add_to_cart', 'add_to_wishlist'", 3) + " UNION ALL " + part("events_purchase", "'purchase'", 5) +
		") ARRAY JOIN product_ids AS item GROUP BY item ORDER BY last DESC, item LIMIT {limit:UInt32}"
	p := params{"tenant": tenant, "visitor": visitor, "since": micros(since), "limit": strconv.Itoa(limit)}
	var out []VisitorItem
	err := r.query(ctx, sql, p, func(rows driver.Rows) error {
		var v VisitorItem
		if err := rows.Scan(&v.Item, &v.Weight, &v.Last); err != nil {
			return fmt.Errorf("reading an item: %w", err)
		}
		out = append(out, v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking what a visitor did: %w", err)
	}
	return out, nil
}
