package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/event"
	"millrace/internal/simulate"
	"millrace/lakehouse"
	"millrace/olap"
)

// settle is how long the stores may take to agree after the traffic ended.
const settle = 60 * time.Second

// verify compares every store with what the simulator was acknowledged.
func (p *platform) verify(ctx context.Context, sum simulate.Summary) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only reads
	cat, err := lakehouse.Open(ctx, cfg.Iceberg)
	if err != nil {
		return err
	}
	defer func() { _ = cat.Close() }() // only reads
	if sum.Unacknowledged > 0 {
		return fmt.Errorf("%d events have no known outcome", sum.Unacknowledged)
	}
	started := time.Now()
	for _, check := range []struct {
		name string
		f    func() error
	}{
		{"ClickHouse holds the acknowledged ids once", func() error { return clickHouseIDs(ctx, conn, sum) }},
		{"Iceberg holds the acknowledged ids once", func() error { return icebergIDs(ctx, cat, sum) }},
		{"revenue agrees to the micro", func() error { return revenue(ctx, conn, sum) }},
		{"malformed events are failed events", func() error { return failed(ctx, conn, sum) }},
		{"control totals add up", func() error { return ledger(ctx, conn) }},
		{"KPI tables equal their recomputation", func() error { return kpis(ctx, conn) }},
	} {
		if err := eventually(ctx, max(settle-time.Since(started), 5*time.Second), check.f); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		_, _ = fmt.Fprintf(p.out, "    ok %s (%.1f s after the traffic)\n", check.name, time.Since(started).Seconds()) // progress
	}
	var late uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM kpi_late FINAL").Scan(&late); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.out, "    %d distinct ids, %d duplicates, %d malformed, %d ids in kpi.late\n", sum.DistinctIDs, sum.Duplicates, sum.Malformed, late) // progress
	return nil
}

func clickHouseIDs(ctx context.Context, conn driver.Conn, sum simulate.Summary) error {
	var rows, distinct, hash uint64
	err := conn.QueryRow(ctx, "SELECT count(), uniqExact(tenant, source, event_id), sum(xxHash64(event_id)) FROM events").Scan(&rows, &distinct, &hash)
	if err != nil {
		return err
	}
	return sameIDs(int64(rows), int64(distinct), hash, sum)
}

func sameIDs(rows, distinct int64, hash uint64, sum simulate.Summary) error {
	got := fmt.Sprintf("%d rows, %d distinct ids, hash %016x", rows, distinct, hash)
	want := fmt.Sprintf("%d rows, %d distinct ids, hash %s", sum.DistinctIDs, sum.DistinctIDs, sum.IDHash)
	if got != want {
		return fmt.Errorf("there are %s; acknowledged were %s", got, want)
	}
	return nil
}

func icebergIDs(ctx context.Context, cat *lakehouse.Catalog, sum simulate.Summary) error {
	var rows, distinct int64
	var hash uint64
	for _, c := range event.Categories() {
		t, err := cat.Totals(ctx, c.Table())
		if err != nil {
			return err
		}
		rows += t.Count
		distinct += t.Distinct
		hash += t.IDHash
		if c != event.Purchase {
			continue
		}
	}
	return sameIDs(rows, distinct, hash, sum)
}

func revenue(ctx context.Context, conn driver.Conn, sum simulate.Summary) error {
	rows, err := conn.Query(ctx, "SELECT assumeNotNull(currency), toString(toInt128(sum(value) * 1000000)) FROM events_purchase WHERE name = 'purchase' GROUP BY currency")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	got := map[string]string{}
	for rows.Next() {
		var c, v string
		if err := rows.Scan(&c, &v); err != nil {
			return err
		}
		got[c] = v
	}
	want := map[string]string{}
	for c, v := range sum.RevenueMicros {
		want[c] = v.String()
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("micros by currency %v, acknowledged were %v", got, want)
	}
	return rows.Err()
}

func failed(ctx context.Context, conn driver.Conn, sum simulate.Summary) error {
	rows, err := conn.Query(ctx, "SELECT reason, count(), uniqExact(failed_id) FROM failed_events GROUP BY reason")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	got := map[string]int64{}
	for rows.Next() {
		var reason string
		var n, distinct uint64
		if err := rows.Scan(&reason, &n, &distinct); err != nil {
			return err
		}
		if n != distinct {
			return fmt.Errorf("%d rows of reason %s have %d failed_ids", n, reason, distinct)
		}
		got[reason] = int64(n)
	}
	if !maps.Equal(got, sum.MalformedByReason) {
		return fmt.Errorf("failed events %v, sent were %v", got, sum.MalformedByReason)
	}
	return rows.Err()
}

// ledger: every record read is counted once, and the counts are those of the tables.
func ledger(ctx context.Context, conn driver.Conn) error {
	rows, err := conn.Query(ctx, `SELECT out_topic, toInt64(sum(count)), toInt64(sum(hash_lo)), toInt64(sum(hash_hi)) FROM event_ledger FINAL WHERE out_topic LIKE 'events.%' GROUP BY out_topic`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	total := map[string]event.Checksum{}
	for rows.Next() {
		var topic string
		var c event.Checksum
		if err := rows.Scan(&topic, &c.Count, &c.HashLo, &c.HashHi); err != nil {
			return err
		}
		total[topic] = c
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var errs []error
	for _, cat := range event.Categories() {
		var have event.Checksum
		err := conn.QueryRow(ctx, "SELECT toInt64(count()), toInt64(sum(bitAnd(row_hash, 0xffffffff))), toInt64(sum(bitAnd(bitShiftRight(row_hash, 32), 0xffffffff))) FROM "+cat.Table()).
			Scan(&have.Count, &have.HashLo, &have.HashHi)
		if err != nil {
			return err
		}
		if want := total[cat.EventsTopic()]; have != want {
			errs = append(errs, fmt.Errorf("%s holds %+v, the control totals say %+v", cat.Table(), have, want))
		}
	}
	return errors.Join(errs...)
}

// kpis recomputes every grain from the events, less the ids in kpi.late, and compares.
func kpis(ctx context.Context, conn driver.Conn) error {
	starts := map[string]string{
		"1s": "toStartOfSecond(toDateTime64(occurred_at, 6, 'UTC'))", "1m": "toStartOfMinute(occurred_at)", "1h": "toStartOfHour(occurred_at)", "1d": "toStartOfDay(occurred_at)",
	}
	for _, grain := range slices.Sorted(maps.Keys(starts)) {
		var rows, bad uint64
		q := fmt.Sprintf(`
WITH late AS (SELECT event_id FROM kpi_late FINAL),
 e AS (
  SELECT *, name IN ('purchase') AS is_order FROM (
   SELECT occurred_at, tenant, ifNull(currency, '') AS cur, ifNull(country, '') AS cc, ifNull(device_type, '') AS dev, name, value, 0 AS rank, [1] AS q, lane, event_id FROM events_page
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, 0, [1], lane, event_id FROM events_cart
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, order_rank, items.quantity, lane, event_id FROM events_purchase
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, 0, [1], lane, event_id FROM events_exposure
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, 0, [1], lane, event_id FROM events_identity
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, 0, [1], lane, event_id FROM events_custom
   UNION ALL SELECT occurred_at, tenant, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), name, value, 0, [1], lane, event_id FROM events_inventory)
  WHERE lane = 0 AND event_id NOT IN (SELECT event_id FROM late)),
 want AS (SELECT %s AS w, tenant, cc, dev, sumIf(1, is_order AND rank = 1) AS orders, sumIf(toDecimal128(value, 6), is_order AND rank = 1) AS revenue,
   countIf(name = 'page_view') AS views, countIf(name = 'add_to_cart') AS adds FROM e GROUP BY w, tenant, cc, dev HAVING orders + views + adds > 0),
 have AS (SELECT window_start AS w, tenant, country AS cc, device AS dev, sum(orders) AS orders, sum(revenue) AS revenue, sum(page_views) AS views, sum(cart_adds) AS adds
   FROM kpi_%s FINAL GROUP BY w, tenant, cc, dev HAVING orders + views + adds > 0)
SELECT count(), countIf(n != 2 OR lo != hi) FROM (
 SELECT w, tenant, cc, dev, count() AS n, min((orders, revenue, views, adds)) AS lo, max((orders, revenue, views, adds)) AS hi FROM (
  SELECT toDateTime64(w, 6, 'UTC') AS w, tenant, cc, dev, toInt64(orders) AS orders, toString(toDecimal128(revenue, 6)) AS revenue, toInt64(views) AS views, toInt64(adds) AS adds FROM want
  UNION ALL SELECT toDateTime64(w, 6, 'UTC'), tenant, cc, dev, toInt64(orders), toString(toDecimal128(revenue, 6)), toInt64(views), toInt64(adds) FROM have)
 GROUP BY w, tenant, cc, dev)`, starts[grain], grain)
		if err := conn.QueryRow(ctx, q).Scan(&rows, &bad); err != nil {
			return fmt.Errorf("grain %s: %w", grain, err)
		}
		if bad > 0 || rows == 0 {
			return fmt.Errorf("grain %s: %d of %d rows differ", grain, bad, rows)
		}
	}
	return nil
}
