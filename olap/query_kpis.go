package olap

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"millrace/kpi"
)

// KPIQuery is a question about rows of family shop.
type KPIQuery struct {
	Tenant   string
	Grain    string    // of the table that is read
	From, To time.Time // windows that begin in [From, To)
	By       string    // "", or the dimension country, device or currency
	Keys     []string  // only these values of the dimension; nil: all
	Days     string    // IANA zone: windows are put together by its days
	Whole    bool      // windows are put together over the whole range
	Measures []kpi.Measure
}

// KPIRow is the sum over partitions, and over the dimensions that were not asked for, of one window, one key and one currency.
type KPIRow struct {
	At       int64 // begin of the window, unix seconds; 0 for the whole range
	Key      string
	Currency string
	KPIValues
}

// KPIValues is one value of each measure. Amounts are of one currency.
type KPIValues struct {
	counts  [kpi.AbandonedCarts + 1]int64
	amounts [kpi.Visitors - kpi.Revenue]decimal.Decimal
}

// Count is a measure that is no amount.
func (v *KPIValues) Count(m kpi.Measure) int64 { return v.counts[m] }

// SetCount sets a measure that is no amount.
func (v *KPIValues) SetCount(m kpi.Measure, n int64) { v.counts[m] = n }

// Amount is a measure of kind Amount.
func (v *KPIValues) Amount(m kpi.Measure) decimal.Decimal { return v.amounts[m-kpi.Revenue] }

// SetAmount sets a measure of kind Amount.
func (v *KPIValues) SetAmount(m kpi.Measure, d decimal.Decimal) { v.amounts[m-kpi.Revenue] = d }

// AddCounts adds what is no amount.
func (v *KPIValues) AddCounts(o *KPIValues) {
	for m, n := range o.counts {
		v.counts[m] += n
	}
}

// Add adds values of the same currency.
func (v *KPIValues) Add(o *KPIValues) {
	v.AddCounts(o)
	for i, d := range o.amounts {
		if !d.IsZero() {
			v.amounts[i] = v.amounts[i].Add(d)
		}
	}
}

// maxKeys bounds KPIQuery.Keys, each of which is a parameter.
const maxKeys = 64

// source gives what all statements of a question have in common: the expressions of window and key, and FROM with WHERE.
func (q KPIQuery) source() (at, key, from string, p params, err error) {
	table := KPITable("shop", q.Grain)
	if table == "" {
		return "", "", "", nil, fmt.Errorf("grain %q is not known", q.Grain)
	}
	p = params{"tenant": q.Tenant, "from": micros(q.From), "to": micros(q.To)}
	at = "toInt64(toUnixTimestamp(window_start))"
	switch {
	case q.Whole:
		at = "toInt64(0)"
	case q.Days != "":
		at = "toInt64(toUnixTimestamp(toStartOfDay(window_start, {days:String})))"
		p["days"] = q.Days
	}
	switch q.By {
	case "":
		key = "''"
	case "country", "device", "currency":
		key = "toString(" + q.By + ")"
	default:
		return "", "", "", nil, fmt.Errorf("dimension %q is not known", q.By)
	}
	var b strings.Builder
	fmt.Fprintf(&b, " FROM %s FINAL WHERE tenant = {tenant:String} AND window_start >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND window_start < fromUnixTimestamp64Micro({to:Int64}, 'UTC')", table)
	if q.Keys != nil {
		if q.By == "" || len(q.Keys) > maxKeys {
			return "", "", "", nil, fmt.Errorf("%d keys of dimension %q", len(q.Keys), q.By)
		}
		b.WriteString(" AND " + q.By + " IN " + bindAll(p, q.Keys))
	}
	return at, key, b.String(), p, nil
}

// bindAll binds each of the values and gives the list that follows IN.
func bindAll(p params, values []string) string {
	if len(values) == 0 {
		return "(SELECT '' WHERE 0)" // IN () is no SQL
	}
	list := make([]string, len(values))
	for i, v := range values {
		name := "value" + strconv.Itoa(i)
		p[name] = v
		list[i] = "{" + name + ":String}"
	}
	return "(" + strings.Join(list, ", ") + ")"
}

func micros(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

// KPIs reads additive measures. Rows come in no order.
func (r *Reader) KPIs(ctx context.Context, q KPIQuery) ([]KPIRow, error) {
	at, key, from, p, err := q.source()
	if err != nil {
		return nil, err
	}
	cols := make([]string, len(q.Measures))
	for i, m := range q.Measures {
		if !m.Additive() {
			return nil, fmt.Errorf("measure %s does not add up over windows: its sketches are to be merged", m)
		}
		cols[i] = ", " + m.SQL()
	}
	sql := "SELECT " + at + " AS at, " + key + " AS k, toString(currency) AS c" + strings.Join(cols, "") + from + " GROUP BY at, k, c"
	var out []KPIRow
	err = r.query(ctx, sql, p, func(rows driver.Rows) error {
		out = append(out, KPIRow{})
		row := &out[len(out)-1]
		dest := []any{&row.At, &row.Key, &row.Currency}
		for _, m := range q.Measures {
			if m.Kind() == kpi.Amount {
				dest = append(dest, &row.amounts[m-kpi.Revenue])
			} else {
				dest = append(dest, &row.counts[m])
			}
		}
		if err := rows.Scan(dest...); err != nil {
			return fmt.Errorf("reading a KPI row: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading KPIs of grain %s: %w", q.Grain, err)
	}
	return out, nil
}

// Sketches reads the visitor sketches of a question, one call of each for each row with visitors. The sketch is each's to keep.
func (r *Reader) Sketches(ctx context.Context, q KPIQuery, each func(at int64, key string, sketch []byte) error) error {
	at, key, from, p, err := q.source()
	if err != nil {
		return err
	}
	err = r.query(ctx, "SELECT "+at+", "+key+", visitors_sketch"+from+" AND visitors > 0", p, func(rows driver.Rows) error {
		var (
			at  int64
			key string
			b   []byte
		)
		if err := rows.Scan(&at, &key, &b); err != nil {
			return fmt.Errorf("reading a sketch: %w", err)
		}
		return each(at, key, b)
	})
	if err != nil {
		return fmt.Errorf("reading visitors of grain %s: %w", q.Grain, err)
	}
	return nil
}
