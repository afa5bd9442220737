package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"

	"millrace/event"
	"millrace/features/demand"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

const maxForecastProducts = 2_000_000

var errTooManyProducts = errors.New("more than 2,000,000 distinct products were ordered: are their ids made up?")

// sold is what was sold by product.
type sold struct {
	from   int64 // first hour since the epoch
	newest int64 // of an order, µs
	lines  map[string][]soldLine
}

type soldLine struct {
	hour     int32 // from the first one on
	units    float32
	price    float32 // of one; 0: not known
	currency [3]byte
}

// productForecast is one line of the result.
type productForecast struct {
	Product  string           `json:"product"`
	Units    float64          `json:"units"`
	Days     int              `json:"days"` // since the first sale
	State    string           `json:"state"`
	Fitted   demand.Fitted    `json:"fitted"`
	Price    string           `json:"price"` // state
	Reason   string           `json:"reason"`
	Currency string           `json:"currency,omitempty"`
	Band     demand.Band      `json:"band"`
	Recent   []recentSoldHour `json:"recent,omitempty"`
}

type recentSoldHour struct {
	Hour  int64   `json:"hour"`
	Units float64 `json:"units"`
}

// States of a forecast and of a price.
const (
	forecastFitted  = "fitted"
	forecastHistory = "history" // not enough of it
	priceBand       = "band"
	priceUnknown    = "variation" // not enough of it
)

// read collects the orders, less those of erased people.
func (t *Forecast) read(ctx context.Context, in name.ForecastDemandInput, p forecastPlan, out *ForecastOutput, progress func(rows int64)) (*sold, error) {
	s := &sold{from: p.From.Unix() / 3600, lines: map[string][]soldLine{}}
	if p.Snapshot == 0 {
		return s, nil
	}
	var erased *event.Erased
	if t.erased != nil {
		var err error
		if erased, err = t.erased.Erased(ctx); err != nil {
			return nil, err
		}
	}
	o := lakehouse.ScanOptions{
		Snapshot: p.Snapshot,
		Columns:  []string{"tenant", "name", "visitor_id", "user_id", "occurred_at", "currency", "items", "order_rank", "lane", "raw_topic", "raw_partition", "raw_offset"},
		Filter:   iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference("tenant"), in.Tenant), iceberg.GreaterThanEqual(iceberg.Reference("occurred_at"), iceberg.Timestamp(p.From.UnixMicro()))),
	}
	err := t.lake.ScanRows(ctx, event.Purchase.Table(), o, func(b arrow.RecordBatch) error {
		out.Rows += b.NumRows()
		progress(out.Rows)
		return s.collect(b, erased, &out.Erased, p.InputAt.UnixMicro())
	})
	return s, err
}

func column[T arrow.Array](b arrow.RecordBatch, name string) (T, error) {
	var none T
	for i, f := range b.Schema().Fields() {
		if f.Name == name {
			c, ok := b.Column(i).(T)
			if !ok {
				return none, fmt.Errorf("column %s has type %s", name, f.Type)
			}
			return c, nil
		}
	}
	return none, fmt.Errorf("column %s is missing", name)
}

// collect takes the lines of a batch of orders.
func (s *sold) collect(b arrow.RecordBatch, erased *event.Erased, dropped *int64, until int64) error {
	tenant, err1 := column[*array.String](b, "tenant")
	names, err2 := column[*array.String](b, "name")
	visitor, err3 := column[*array.String](b, "visitor_id")
	user, err4 := column[*array.String](b, "user_id")
	occurred, err5 := column[*array.Timestamp](b, "occurred_at")
	currency, err6 := column[*array.String](b, "currency")
	items, err7 := column[*array.List](b, "items")
	rank, err8 := column[*array.Int32](b, "order_rank")
	rawTopic, err9 := column[*array.String](b, "raw_topic")
	rawPartition, err10 := column[*array.Int32](b, "raw_partition")
	rawOffset, err11 := column[*array.Int64](b, "raw_offset")
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11); err != nil {
		return err
	}
	line, ok := items.ListValues().(*array.Struct)
	if !ok {
		return fmt.Errorf("items holds %s", items.ListValues().DataType())
	}
	var ids *array.String
	var quantities *array.Int64
	var prices *array.Decimal128
	for i, f := range line.DataType().(*arrow.StructType).Fields() {
		switch f.Name {
		case "item_id":
			ids, _ = line.Field(i).(*array.String)
		case "quantity":
			quantities, _ = line.Field(i).(*array.Int64)
		case "price":
			prices, _ = line.Field(i).(*array.Decimal128)
		}
	}
	if ids == nil || quantities == nil || prices == nil {
		return fmt.Errorf("items holds %s", line.DataType())
	}
	text := func(a *array.String, i int) string {
		if a.IsNull(i) {
			return ""
		}
		return a.Value(i)
	}
	for i := range int(b.NumRows()) {
		if names.Value(i) != event.NamePurchase || rank.Value(i) > 1 || items.IsNull(i) { // copies of an order count once
			continue
		}
		at := int64(occurred.Value(i))
		if at > until { // a clock that is ahead
			continue
		}
		if erased.Drops(tenant.Value(i), text(visitor, i), text(user, i), rawTopic.Value(i), rawPartition.Value(i), rawOffset.Value(i)) {
			*dropped++
			continue
		}
		s.newest = max(s.newest, at)
		from, to := items.ValueOffsets(i)
		for n := int(from); n < int(to); n++ {
			id, units := text(ids, n), quantities.Value(n)
			if id == "" || len(id) > 128 || units < 1 {
				continue
			}
			l := soldLine{hour: int32(at/3_600_000_000 - s.from), units: float32(min(units, 1_000_000))}
			copy(l.currency[:], text(currency, i))
			if !prices.IsNull(n) {
				l.price = float32(float64(int64(prices.Value(n).LowBits())) / 1e6)
			}
			if _, known := s.lines[id]; !known {
				if len(s.lines) >= maxForecastProducts {
					return errTooManyProducts
				}
				id = strings.Clone(id)
			}
			s.lines[id] = append(s.lines[id], l)
		}
	}
	return nil
}

// fit fits the products of which most is sold, on as many goroutines as there are processors, at most four. The order of the answer is that of their names.
func (s *sold) fit(ctx context.Context, in name.ForecastDemandInput, p forecastPlan) ([]productForecast, error) {
	out := make([]productForecast, 0, len(s.lines))
	for id, lines := range s.lines {
		units := 0.0
		for _, l := range lines {
			units += float64(l.units)
		}
		out = append(out, productForecast{Product: id, Units: units})
	}
	slices.SortFunc(out, func(a, b productForecast) int {
		return cmp.Or(cmp.Compare(b.Units, a.Units), cmp.Compare(a.Product, b.Product))
	})
	out = out[:min(len(out), in.MaxProducts)]
	slices.SortFunc(out, func(a, b productForecast) int { return cmp.Compare(a.Product, b.Product) })
	hours := int(s.newest/3_600_000_000 - s.from) // the newest hour is not over
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		wg.Go(func() {
			dense := make([]float64, max(hours, 0))
			for {
				i := int(next.Add(1) - 1)
				if i >= len(out) || ctx.Err() != nil {
					return
				}
				s.fitOne(&out[i], dense, in)
			}
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// recentHours go to the table demand_hourly each night: the days before are there from the nights before.
const recentHours = 8 * 24

func (s *sold) fitOne(f *productForecast, dense []float64, in name.ForecastDemandInput) {
	clear(dense)
	lines := s.lines[f.Product]
	byCurrency := map[[3]byte]float64{}
	first := int32(math.MaxInt32)
	for _, l := range lines {
		if int(l.hour) < len(dense) && l.hour >= 0 {
			dense[l.hour] += float64(l.units)
		}
		first = min(first, l.hour)
		if l.price > 0 {
			byCurrency[l.currency] += float64(l.units)
		}
	}
	f.Days = max(0, (len(dense)-int(first)+23)/24)
	f.State = forecastHistory
	fitted, err := demand.Fit(dense, s.from, demand.DefaultOptions())
	if err == nil {
		f.State, f.Fitted = forecastFitted, fitted
	}
	for h := max(0, len(dense)-recentHours); h < len(dense); h++ {
		if dense[h] > 0 {
			f.Recent = append(f.Recent, recentSoldHour{s.from + int64(h), dense[h]})
		}
	}
	var currency [3]byte
	most := 0.0
	for c, units := range byCurrency {
		if in.Currency != "" && string(c[:]) != in.Currency {
			continue
		}
		if units > most || units == most && string(c[:]) < string(currency[:]) {
			currency, most = c, units
		}
	}
	s.price(f, lines, currency, in, len(dense))
}

// price looks at the orders in one currency, day by day.
func (s *sold) price(f *productForecast, lines []soldLine, currency [3]byte, in name.ForecastDemandInput, hours int) {
	f.Price = priceUnknown
	f.Currency = strings.TrimRight(string(currency[:]), "\x00")
	from := (s.from + 23) / 24 // the first whole day
	until := (s.from + int64(hours)) / 24
	days := make([]demand.PriceDay, max(0, until-from))
	paid := make([]float64, len(days))
	for i := range days {
		days[i].Day = from + int64(i)
	}
	for _, l := range lines {
		if i := (s.from+int64(l.hour))/24 - from; l.currency == currency && l.price > 0 && i >= 0 && i < int64(len(days)) {
			days[i].Units += float64(l.units)
			paid[i] += float64(l.units) * float64(l.price)
		}
	}
	last := 0.0
	for i := range days {
		if days[i].Units > 0 {
			days[i].Price = paid[i] / days[i].Units
			last = days[i].Price
		}
	}
	o := demand.DefaultPriceOptions()
	o.MaxStep, o.Cost = in.MaxPriceStep, in.CostShare*last
	band, err := demand.Price(days, o)
	if err != nil {
		f.Reason = err.Error()
		return
	}
	f.Price, f.Band, f.Reason = priceBand, band, band.Reason
}

// summary is what the run's result says of all products.
func summary(products []productForecast) (metrics map[string]float64, fitted int) {
	var mase, hourly []float64
	below, better, priced := 0, 0, 0
	kinds := map[demand.Kind]int{}
	for _, p := range products {
		if p.Price == priceBand {
			priced++
		}
		if p.State != forecastFitted {
			continue
		}
		fitted++
		kinds[p.Fitted.Model.Kind]++
		if a := p.Fitted.Accuracy; a.Measured {
			mase, hourly = append(mase, a.MASE), append(hourly, a.MASEHourly)
			if a.MASE < 1 {
				below++
			}
			if a.MASE < a.NaiveMASE {
				better++
			}
		}
	}
	metrics = map[string]float64{"measured": float64(len(mase)), "priced": float64(priced)}
	for _, k := range []demand.Kind{demand.Additive, demand.Multiplicative, demand.Sparse} {
		metrics["kind_"+string(k)] = float64(kinds[k])
	}
	if n := len(mase); n > 0 {
		slices.Sort(mase)
		slices.Sort(hourly)
		metrics["mase_median"], metrics["mase_p90"], metrics["mase_hourly_median"] = mase[n/2], mase[n*9/10], hourly[n/2]
		metrics["share_below_1"], metrics["share_better_than_naive"] = float64(below)/float64(n), float64(better)/float64(n)
	}
	return metrics, fitted
}

// hourTime is an hour since the epoch as a time.
func hourTime(h int64) time.Time { return time.Unix(h*3600, 0).UTC() }
