package demand

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// PriceDay is a product's day at one price.
type PriceDay struct {
	Day   int64   // since the epoch
	Units float64 // sold
	Price float64 // the mean that was paid for one, in the currency's units
}

// PriceOptions bound what a price may be. See DefaultPriceOptions.
type PriceOptions struct {
	Cost     float64 // of one unit; 0: not known
	Margin   float64 // least share above cost: the floor is cost · (1 + margin)
	MaxStep  float64 // share by which a price may differ from the last one
	MinDays  int     // with sales or without
	MinUnits float64 // sold on them
	MinSplit int     // days that must lie on each side of the middle price
	MinRange float64 // the 90th percentile of the prices must be this much above the 10th
}

// DefaultPriceOptions move a price by a tenth at most.
func DefaultPriceOptions() PriceOptions {
	return PriceOptions{Margin: 0.1, MaxStep: 0.1, MinDays: 28, MinUnits: 100, MinSplit: 5, MinRange: 0.05}
}

// Elasticity is by how many percent demand changes when the price rises by one percent, the same at every price.
type Elasticity struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"` // 95 % interval
	High  float64 `json:"high"`
	Days  int     `json:"days"`
}

// Band is where a price would be looked for.
type Band struct {
	Elasticity Elasticity `json:"elasticity"`
	Current    float64    `json:"current"`
	Low        float64    `json:"low"`
	High       float64    `json:"high"`
	Floor      float64    `json:"floor"`
	Reason     string     `json:"reason"`
}

// ErrVariation says that prices did not vary enough, or too little was sold, for anything to be said. It is a normal answer.
var ErrVariation = errors.New("not enough variation")

// Price estimates the elasticity and gives a band around the price that earns most, within a step of the last price and not below the floor.
func Price(d []PriceDay, o PriceOptions) (Band, error) {
	e, err := elasticity(d, o)
	if err != nil {
		return Band{}, err
	}
	b := Band{Elasticity: e, Current: d[len(d)-1].Price}
	for i := len(d) - 1; i >= 0 && b.Current <= 0; i-- {
		b.Current = d[i].Price
	}
	least := math.Inf(1)
	for _, x := range d {
		if x.Price > 0 {
			least = min(least, x.Price)
		}
	}
	b.Floor = least // without a cost nothing is said about prices that were never asked
	if o.Cost > 0 {
		b.Floor = o.Cost * (1 + o.Margin)
	}
	lowest, highest := b.Current*(1-o.MaxStep), b.Current*(1+o.MaxStep)
	best := func(elasticity float64) float64 {
		if elasticity >= -1 {
			return math.Inf(1) // dearer is better
		}
		if o.Cost <= 0 {
			return 0 // cheaper sells for more, and what it costs is not known
		}
		return o.Cost * elasticity / (1 + elasticity)
	}
	clamp := func(p float64) float64 { return max(b.Floor, lowest, min(p, highest)) }
	b.Low, b.High = clamp(best(e.Low)), clamp(best(e.High))
	switch {
	case b.Low > b.Current*1.0001:
		b.Reason = "a higher price would earn more"
	case b.High < b.Current*0.9999:
		b.Reason = "a lower price would earn more"
	default:
		b.Reason = "the data does not say that another price would earn more"
	}
	return b, nil
}

// elasticity regresses units on the logarithm of the price, the day of the week and time: a log-log regression in the form of quasi-Poisson maximum likelihood, so that
// days without a sale count (Santos Silva, Tenreyro, The log of gravity, The Review of Economics and Statistics 88(4), 2006).
func elasticity(d []PriceDay, o PriceOptions) (Elasticity, error) {
	var out Elasticity
	var prices []float64
	units := 0.0
	last := 0.0
	rows := make([][]float64, 0, len(d))
	var y []float64
	for _, x := range d {
		units += x.Units
		if x.Price > 0 {
			last = x.Price
		}
		if last <= 0 {
			continue // before the first sale its price is not known
		}
		prices = append(prices, last)
		row := make([]float64, 9) // 1, log price, time, six days of the week
		row[0], row[1], row[2] = 1, math.Log(last), float64(x.Day)
		if wd := int(((x.Day % 7) + 7) % 7); wd > 0 {
			row[2+wd] = 1
		}
		rows, y = append(rows, row), append(y, x.Units)
	}
	sorted := append([]float64(nil), prices...)
	slices.Sort(sorted)
	switch {
	case len(rows) < o.MinDays:
		return out, fmt.Errorf("%w: %d days, %d are needed", ErrVariation, len(rows), o.MinDays)
	case units < o.MinUnits:
		return out, fmt.Errorf("%w: %.0f units, %.0f are needed", ErrVariation, units, o.MinUnits)
	}
	lo, hi := sorted[len(sorted)/10], sorted[len(sorted)*9/10]
	if hi < lo*(1+o.MinRange) {
		return out, fmt.Errorf("%w: prices lie between %.2f and %.2f", ErrVariation, lo, hi)
	}
	middle, below, above := math.Sqrt(lo*hi), 0, 0
	for _, p := range prices {
		if p < middle {
			below++
		} else {
			above++
		}
	}
	if min(below, above) < o.MinSplit {
		return out, fmt.Errorf("%w: %d days on one side of %.2f", ErrVariation, min(below, above), middle)
	}
	t0, t1 := rows[0][2], rows[len(rows)-1][2]
	centre := 0.0
	for _, r := range rows {
		centre += r[1] / float64(len(rows))
	}
	for _, r := range rows {
		r[1] -= centre
		r[2] = (r[2]-t0)/max(1, t1-t0) - 0.5
	}
	beta, cov, err := quasiPoisson(rows, y)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrVariation, err)
	}
	half := studentT95(len(rows)-len(beta)) * math.Sqrt(cov[1][1])
	out = Elasticity{Value: beta[1], Low: beta[1] - half, High: beta[1] + half, Days: len(rows)}
	return out, nil
}
