package olap

import (
	"context"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"millrace/event"
	"millrace/event/schema"
)

// What live KPIs count is decided in the stream: events of lane live that came in time, but for copies of an order. Recompute reads the others from the events tables, so
// that they can be written as the partial of partition -1.

// uncountedSQL selects, of all events tables, the rows that no live KPI counts (or the others) and that no copy of an order is. It is a subquery of the columns that KPIs
// are computed from. more is a further condition.
func uncountedSQL(uncounted bool, columns, more string) (string, error) {
	is, late := "(lane != 0 OR", "IN"
	if !uncounted {
		is, late = "(lane = 0 AND", "NOT IN"
	}
	var parts []string
	for _, c := range event.Categories() {
		cols, err := Columns(c.Table())
		if err != nil {
			return "", err
		}
		columns, rank := columns, "toInt32(0) AS rank"
		if !slices.ContainsFunc(cols, func(c Column) bool { return c.Item }) {
			columns = noItems.Replace(columns)
		}
		if !slices.ContainsFunc(cols, func(c Column) bool { return c.Name == "stock_level" }) {
			columns = noStock.Replace(columns)
		}
		where := "tenant = {tenant:String} AND occurred_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC') AND " + is +
			" (raw_topic, raw_partition, raw_offset) GLOBAL " + late + " (SELECT raw_topic, raw_partition, raw_offset FROM kpi_late WHERE tenant = {tenant:String} AND occurred_at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Micro({to:Int64}, 'UTC')))"
		if slices.ContainsFunc(cols, func(c Column) bool { return c.Name == "order_rank" }) {
			rank = "order_rank AS rank"
			where += " AND order_rank <= 1"
		}
		parts = append(parts, "SELECT "+columns+", "+rank+" FROM "+c.Table()+" WHERE "+where+more+" LIMIT 1 BY raw_topic, raw_partition, raw_offset")
	}
	return "(" + strings.Join(parts, ") UNION ALL (") + ")", nil
}

const recomputeColumns = "name, visitor_id, ifNull(user_id, ''), toUnixTimestamp64Micro(occurred_at), value, ifNull(currency, ''), ifNull(country, ''), ifNull(device_type, ''), items.item_id, items.item_category, items.price, items.quantity, stock_level, quantity_delta, raw_topic, raw_partition, raw_offset"

// noStock stands in for the stock of a product in events of a category that has none.
var noStock = strings.NewReplacer("stock_level", "CAST(NULL, 'Nullable(Int64)')", "quantity_delta", "CAST(NULL, 'Nullable(Int64)')")

// noItems stands in for the lines of events of a category that has none.
var noItems = strings.NewReplacer("items.item_id", "CAST([], 'Array(String)')", "items.item_category", "CAST([], 'Array(Nullable(String))')", "items.price", "CAST([], 'Array(Nullable(Decimal(18, 6)))')",
	"items.quantity", "CAST([], 'Array(Int64)')")

func span(tenant string, from, to int64) clickhouse.Parameters {
	return clickhouse.Parameters{"tenant": unescaped.Replace(tenant), "from": strconv.FormatInt(from, 10), "to": strconv.FormatInt(to, 10)}
}

// Uncounted reads the events of a tenant with occurred_at in [from, to), in µs, that no live KPI counts and that are no copy of an order, with what KPIs are computed
// from. each may not keep its event.
func (r *Repair) Uncounted(ctx context.Context, tenant string, from, to int64, each func(*event.Event) error) error {
	sql, err := uncountedSQL(true, recomputeColumns, "")
	if err != nil {
		return err
	}
	if err := r.query(ctx, sql, span(tenant, from, to), eventRows(tenant, each)); err != nil {
		return fmt.Errorf("reading events that live KPIs do not count: %w", err)
	}
	return nil
}

// CountedBeside reads the events in [from, to) that live KPIs count, of those visitors that have events in [dayFrom, dayTo) which they do not.
func (r *Repair) CountedBeside(ctx context.Context, tenant string, from, to, dayFrom, dayTo int64, each func(*event.Event) error) error {
	visitors, err := uncountedSQL(true, "visitor_id", " AND visitor_id != ''")
	if err != nil {
		return err
	}
	visitors = strings.NewReplacer("{from:Int64}", "{day_from:Int64}", "{to:Int64}", "{day_to:Int64}").Replace(visitors)
	sql, err := uncountedSQL(false, recomputeColumns, " AND visitor_id GLOBAL IN (SELECT visitor_id FROM ("+visitors+"))")
	if err != nil {
		return err
	}
	p := span(tenant, from, to)
	p["day_from"], p["day_to"] = strconv.FormatInt(dayFrom, 10), strconv.FormatInt(dayTo, 10)
	if err := r.query(ctx, sql, p, eventRows(tenant, each)); err != nil {
		return fmt.Errorf("reading visitors that live KPIs count: %w", err)
	}
	return nil
}

func eventRows(tenant string, each func(*event.Event) error) func(driver.Rows) error {
	return func(rows driver.Rows) error {
		e := event.Event{Tenant: tenant}
		var value *decimal.Decimal
		var ids []string
		var categories []*string
		var prices []*decimal.Decimal
		var quantities []int64
		var level, delta *int64
		if err := rows.Scan(&e.Name, &e.VisitorID, &e.UserID, &e.OccurredAt, &value, &e.Currency, &e.Country, &e.DeviceType, &ids, &categories, &prices, &quantities, &level, &delta, &e.RawTopic, &e.RawPartition, &e.RawOffset, &e.OrderRank); err != nil {
			return fmt.Errorf("reading an event: %w", err)
		}
		e.Value, e.StockLevel, e.QuantityDelta = microsOf(value), level, delta
		if len(ids) > 0 {
			e.Items = make([]event.Item, len(ids))
		}
		for i := range e.Items {
			e.Items[i] = event.Item{ItemID: ids[i], ItemCategory: deref(categories[i]), Price: microsOf(prices[i]), Quantity: quantities[i]}
		}
		return each(&e)
	}
}

// Hour is an hour of a tenant's events, by its beginning in µs.
type Hour struct {
	Tenant string
	At     int64
}

// UncountedHours lists the hours of event time that have events which no live KPI counts: of those that occurred in [from, to), or if ingested is true that the platform
// took then. tenant "" is all.
func (r *Repair) UncountedHours(ctx context.Context, tenant string, from, to time.Time, ingested bool) ([]Hour, error) {
	at := "occurred_at"
	if ingested {
		at = "ingested_at"
	}
	when := at + " >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND " + at + " < fromUnixTimestamp64Micro({to:Int64}, 'UTC') AND ({tenant:String} = '' OR tenant = {tenant:String})"
	parts := []string{"SELECT tenant AS t, occurred_at AS o FROM kpi_late WHERE " + when}
	for _, c := range event.Categories() {
		parts = append(parts, "SELECT tenant AS t, occurred_at AS o FROM "+c.Table()+" WHERE lane != 0 AND "+when)
	}
	var out []Hour
	err := r.query(ctx, "SELECT DISTINCT t, toInt64(toUnixTimestamp(toStartOfHour(o))) AS h FROM ("+strings.Join(parts, " UNION ALL ")+") ORDER BY t, h", span(tenant, from.UnixMicro(), to.UnixMicro()), func(rows driver.Rows) error {
		var h Hour
		if err := rows.Scan(&h.Tenant, &h.At); err != nil {
			return err
		}
		h.At *= 1_000_000
		out = append(out, h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for events that live KPIs do not count: %w", err)
	}
	return out, nil
}

// RecomputedPartition is the partition of the partials that are computed from the stored events.
const RecomputedPartition = -1

// Recomputed reads the partials of partition -1 of a tenant whose windows begin in [from, to), and the greatest version among them.
func (r *Repair) Recomputed(ctx context.Context, family, grain, tenant string, from, to int64) ([]event.KPIPartial, uint64, error) {
	return r.partials(ctx, family, grain, tenant, RecomputedPartition, from, to)
}

// Partials reads the partials of one partition of a tenant whose windows begin in [from, to).
func (r *Repair) Partials(ctx context.Context, family, grain, tenant string, partition int32, from, to int64) ([]event.KPIPartial, error) {
	out, _, err := r.partials(ctx, family, grain, tenant, partition, from, to)
	return out, err
}

func (r *Repair) partials(ctx context.Context, family, grain, tenant string, partition int32, from, to int64) ([]event.KPIPartial, uint64, error) {
	f, err := newPartialForm(family, grain)
	if err != nil {
		return nil, 0, err
	}
	var out []event.KPIPartial
	var newest uint64
	params := span(tenant, from, to)
	params["partition"] = strconv.Itoa(int(partition))
	err = r.query(ctx, "SELECT "+strings.Join(f.names(), ", ")+" FROM "+f.table+" FINAL WHERE tenant = {tenant:String} AND kafka_partition = {partition:Int32} AND window_start >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND window_start < fromUnixTimestamp64Micro({to:Int64}, 'UTC')", params, func(rows driver.Rows) error {
		p, version, err := f.read(rows)
		if err != nil {
			return err
		}
		p.Family, p.Grain = family, grain
		newest = max(newest, version)
		out = append(out, p)
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading KPIs of %s: %w", f.table, err)
	}
	return out, newest, nil
}

// WriteRecomputed writes partials of one family and grain under a version.
func (r *Repair) WriteRecomputed(ctx context.Context, family, grain string, ps []event.KPIPartial, version uint64) error {
	f, err := newPartialForm(family, grain)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(ps, maxStoredBlock) {
		ctx := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "max_partitions_per_insert_block": 0}))
		batch, err := r.conn.PrepareBatch(ctx, "INSERT INTO "+r.target(f.table)+" ("+strings.Join(f.names(), ", ")+")")
		if err != nil {
			return fmt.Errorf("writing KPIs to %s: %w", f.table, err)
		}
		for i := range chunk {
			if err := batch.Append(f.values(&chunk[i], version)...); err != nil {
				_ = batch.Abort() // nothing was sent
				return fmt.Errorf("writing KPIs to %s: %w", f.table, err)
			}
		}
		if err := batch.Send(); err != nil {
			return fmt.Errorf("writing KPIs to %s: %w", f.table, err)
		}
	}
	return nil
}

// partialForm reads and writes rows of one KPI table.
type partialForm struct {
	table   string
	columns []Column
	fields  map[string][]int
}

func newPartialForm(family, grain string) (*partialForm, error) {
	f := &partialForm{table: KPITable(family, grain), fields: avroFields(reflect.TypeFor[event.KPIPartial](), nil)}
	var err error
	if f.columns, err = RecordColumns(f.table); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *partialForm) names() []string {
	out := make([]string, len(f.columns))
	for i, c := range f.columns {
		out[i] = c.Name
	}
	return out
}

func (f *partialForm) read(rows driver.Rows) (p event.KPIPartial, version uint64, err error) {
	record := reflect.ValueOf(&p).Elem()
	dest := make([]any, len(f.columns))
	var take []func()
	for i, c := range f.columns {
		if c.Name == VersionColumn {
			dest[i] = &version
			continue
		}
		field := record.FieldByIndex(f.fields[c.Name])
		switch c.Field.Type {
		case schema.Timestamp:
			v := new(time.Time)
			dest[i], take = v, append(take, func() { field.SetInt(v.UnixMicro()) })
		case schema.Total:
			v := new(decimal.Decimal)
			dest[i], take = v, append(take, func() { field.Set(reflect.ValueOf(sumOf(*v))) })
		case schema.Blob:
			v := new(string)
			dest[i], take = v, append(take, func() {
				if *v != "" {
					field.SetBytes([]byte(*v))
				}
			})
		default:
			dest[i] = field.Addr().Interface()
		}
	}
	if err := rows.Scan(dest...); err != nil {
		return p, 0, fmt.Errorf("reading a row of %s: %w", f.table, err)
	}
	for _, set := range take {
		set()
	}
	return p, version, nil
}

func (f *partialForm) values(p *event.KPIPartial, version uint64) []any {
	record := reflect.ValueOf(p).Elem()
	out := make([]any, len(f.columns))
	for i, c := range f.columns {
		if c.Name == VersionColumn {
			out[i] = version
			continue
		}
		field := record.FieldByIndex(f.fields[c.Name])
		switch c.Field.Type {
		case schema.Timestamp:
			out[i] = event.Time(field.Int())
		case schema.Total:
			s, _ := field.Interface().(event.Sum)
			out[i] = decimal.NewFromBigInt(s.Big(), -6)
		case schema.Blob:
			out[i] = string(field.Bytes())
		default:
			out[i] = field.Interface()
		}
	}
	return out
}

func sumOf(d decimal.Decimal) event.Sum {
	n := d.Shift(6).BigInt()
	var s event.Sum
	if n.Sign() < 0 { // two's complement
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	n.FillBytes(s[:])
	return s
}
