package olap

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// ProductForecast is what the last ForecastDemand says of a product.
type ProductForecast struct {
	Product        string
	Version        string
	State          string // fitted or history
	Method         string
	MASE           float64
	NaiveMASE      float64
	MASEHourly     float64
	HeldBackDays   uint16
	Bias           float64
	Units          float64 // sold in the time that was looked at
	Days           uint16
	PriceState     string // band or variation
	Currency       string
	Elasticity     float64
	ElasticityLow  float64
	ElasticityHigh float64
	PriceCurrent   float64
	PriceLow       float64
	PriceHigh      float64
	PriceFloor     float64
	PriceReason    string
	InputAt        time.Time
	FittedAt       time.Time
}

// Forecasts lists the products of a tenant, those of which most is sold first; products names some of them, none is all.
func (r *Reader) Forecasts(ctx context.Context, tenant string, products []string, limit int) ([]ProductForecast, error) {
	p := params{"tenant": tenant, "products": arrayOf(products), "limit": strconv.Itoa(limit)}
	out := []ProductForecast{}
	// Rows are compared by version and not by FINAL: on a cluster the copies of a row may be on several shards.
	err := r.query(ctx, `SELECT product_id, argMax(forecast_version, version), argMax(state, version), argMax(method, version), argMax(mase, version), argMax(naive_mase, version), argMax(mase_hourly, version),
		argMax(held_back_days, version), argMax(bias, version), argMax(units, version) AS sold, argMax(days, version), argMax(price_state, version), argMax(currency, version), argMax(elasticity, version),
		argMax(elasticity_low, version), argMax(elasticity_high, version), argMax(price_current, version), argMax(price_low, version), argMax(price_high, version), argMax(price_floor, version),
		argMax(price_reason, version), argMax(input_at, version), argMax(fitted_at, version)
		FROM forecasts WHERE tenant = {tenant:String} AND (empty({products:Array(String)}) OR has({products:Array(String)}, product_id)) GROUP BY product_id ORDER BY sold DESC, product_id LIMIT {limit:UInt32}`, p,
		func(rows driver.Rows) error {
			var f ProductForecast
			if err := rows.Scan(&f.Product, &f.Version, &f.State, &f.Method, &f.MASE, &f.NaiveMASE, &f.MASEHourly, &f.HeldBackDays, &f.Bias, &f.Units, &f.Days, &f.PriceState, &f.Currency, &f.Elasticity,
				&f.ElasticityLow, &f.ElasticityHigh, &f.PriceCurrent, &f.PriceLow, &f.PriceHigh, &f.PriceFloor, &f.PriceReason, &f.InputAt, &f.FittedAt); err != nil {
				return fmt.Errorf("reading a forecast: %w", err)
			}
			out = append(out, f)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("asking for forecasts: %w", err)
	}
	return out, nil
}

// DemandHour is what was sold in an hour.
type DemandHour struct {
	Hour  time.Time
	Units float64
}

// DemandHours lists the hours in [from, to) in which a product was sold, as the last fits have read them.
func (r *Reader) DemandHours(ctx context.Context, tenant, product string, from, to time.Time) ([]DemandHour, error) {
	p := params{"tenant": tenant, "product": product, "from": strconv.FormatInt(from.Unix(), 10), "to": strconv.FormatInt(to.Unix(), 10)}
	var out []DemandHour
	err := r.query(ctx, `SELECT hour, argMax(units, version) FROM demand_hourly
		WHERE tenant = {tenant:String} AND product_id = {product:String} AND hour >= toDateTime({from:Int64}, 'UTC') AND hour < toDateTime({to:Int64}, 'UTC') GROUP BY hour ORDER BY hour`, p,
		func(rows driver.Rows) error {
			var h DemandHour
			if err := rows.Scan(&h.Hour, &h.Units); err != nil {
				return fmt.Errorf("reading an hour: %w", err)
			}
			out = append(out, h)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("asking what was sold: %w", err)
	}
	return out, nil
}
