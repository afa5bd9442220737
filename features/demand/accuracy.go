package demand

import "math"

// Accuracy is measured on weeks that the model has not seen: each of them is forecast whole from what was before it (a rolling origin; Hyndman and Athanasopoulos, section
// 5.10). An error is scaled by that of the seasonal naïve forecast over the days before all of them, so that 1 is as good as saying "as a week ago".
type Accuracy struct {
	Days        int     `json:"days"`         // held back
	MASE        float64 `json:"mase"`         // of units a day; 0 if it is not measured
	NaiveMASE   float64 `json:"naive_mase"`   // of the seasonal naïve forecast on the same days
	MASEHourly  float64 `json:"mase_hourly"`  // of units an hour
	NaiveHourly float64 `json:"naive_hourly"` //
	Bias        float64 `json:"bias"`         // mean forecast − mean sold, a day
	Measured    bool    `json:"measured"`     // false if every day was as the one a week before: there is nothing to scale by
}

// measure compares forecasts of the last weeks with what was sold in them.
func measure(hours []float64, weeks int, after func(seen []float64) Model) Accuracy {
	train, held := hours[:len(hours)-weeks*Week], hours[len(hours)-weeks*Week:]
	forecast, naive := make([]float64, 0, len(held)), hours[len(train)-Week:len(hours)-Week]
	for w := range weeks {
		m := after(hours[:len(train)+w*Week])
		forecast = append(forecast, m.Forecast(Week)...)
	}
	acc := Accuracy{Days: len(held) / 24}
	hourly, daily := scaled(train, Week), scaled(days(train), 7)
	if hourly == 0 || daily == 0 {
		return acc
	}
	acc.Measured = true
	acc.MASEHourly, acc.NaiveHourly = meanError(forecast, held)/hourly, meanError(naive, held)/hourly
	acc.MASE, acc.NaiveMASE = meanError(days(forecast), days(held))/daily, meanError(days(naive), days(held))/daily
	acc.Bias = (meanOf(forecast) - meanOf(held)) * 24
	return acc
}

// scaled is the mean error of saying "as one season ago", within the values.
func scaled(v []float64, season int) float64 {
	if len(v) <= season {
		return 0
	}
	return meanError(v[:len(v)-season], v[season:])
}

func meanError(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(a[i] - b[i])
	}
	return sum / float64(max(1, len(a)))
}

// days sums hours up from the end, so that the last day is whole.
func days(hours []float64) []float64 {
	n := len(hours) / 24
	out := make([]float64, n)
	for i, y := range hours[len(hours)-n*24:] {
		out[i/24] += y
	}
	return out
}
