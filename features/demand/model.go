package demand

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Week is the season, in hours.
const Week = 168

// Kind is a method of forecasting.
type Kind string

// The methods.
const (
	Additive       Kind = "additive"       // Holt–Winters, season added to the level
	Multiplicative Kind = "multiplicative" // Holt–Winters, season times the level
	Sparse         Kind = "sparse"         // TSB: probability of a sale in an hour times its size
)

// Model is a fitted forecast and its state after an hour. Step gives the state after the next one.
type Model struct {
	Kind  Kind    `json:"kind"`
	Alpha float64 `json:"alpha"`           // of the level; sparse: of the size of a sale
	Beta  float64 `json:"beta,omitempty"`  // of the trend; sparse: of the probability
	Gamma float64 `json:"gamma,omitempty"` // of the season
	Phi   float64 `json:"phi,omitempty"`   // by which the trend is damped each hour; 0: there is no trend
	Level float64 `json:"level"`           // sparse: size of a sale
	Trend float64 `json:"trend,omitempty"` // an hour
	P     float64 `json:"p,omitempty"`     // sparse: probability of a sale in an hour
	// Season by hour since the epoch modulo 168: additive around 0, multiplicative around 1.
	Season []float32 `json:"season,omitempty"`
	Hour   int64     `json:"hour"` // the last one counted, since the epoch
	// Dispersion is the variance of an hour's error in units of its mean: 1 as in a Poisson process, more where sales come in bursts.
	Dispersion float64 `json:"dispersion"`
}

// least is the least seasonal factor that an error is divided by: what one sale at night says about the level is bounded.
const least = 0.1

func (m *Model) season(hour int64) float64 {
	if len(m.Season) == 0 {
		return 0
	}
	return float64(m.Season[index(hour)])
}

func index(hour int64) int { return int(((hour % Week) + Week) % Week) }

// ahead is the mean of the h-th hour after m.Hour, from 1, and at least 0.
func (m *Model) ahead(h int) float64 {
	switch m.Kind {
	case Sparse:
		return m.P * m.Level
	case Multiplicative:
		return max(0, (m.Level+m.drift(h))*m.season(m.Hour+int64(h)))
	default:
		return max(0, m.Level+m.drift(h)+m.season(m.Hour+int64(h)))
	}
}

// drift is φ + φ² + … + φ^h times the trend.
func (m *Model) drift(h int) float64 {
	if m.Phi == 0 || m.Trend == 0 {
		return 0
	}
	return m.Trend * m.Phi * (1 - math.Pow(m.Phi, float64(h))) / (1 - m.Phi)
}

// Forecast gives the means of the next n hours.
func (m *Model) Forecast(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = m.ahead(i + 1)
	}
	return out
}

// Explain is the mean that the model, as it stands, gives an hour that is over: its level with the season of that hour, without a trend.
func (m *Model) Explain(hour int64) float64 {
	back := Model{Kind: m.Kind, Level: m.Level, P: m.P, Season: m.Season, Hour: hour - 1}
	return back.ahead(1)
}

// Step is the model after one more hour with y units sold. The argument's season is shared until it changes; m itself stays as it is.
func (m Model) Step(y float64) Model {
	if m.Gamma > 0 && m.Kind != Sparse {
		m.Season = slices.Clone(m.Season)
	}
	m.step(y)
	return m
}

// step changes m, its season included.
func (m *Model) step(y float64) (predicted float64) {
	m.Hour++
	if m.Kind == Sparse {
		predicted = m.P * m.Level
		if y > 0 {
			m.P += m.Beta * (1 - m.P)
			m.Level += m.Alpha * (y - m.Level)
		} else {
			m.P -= m.Beta * m.P
		}
		return predicted
	}
	at := index(m.Hour)
	s := float64(m.Season[at])
	damped := m.Phi * m.Trend
	base := m.Level + damped
	if m.Kind == Multiplicative {
		predicted = base * s
		e := y - predicted
		level := base + m.Alpha*e/max(s, least)
		m.Trend = damped + m.Beta*(level-base)
		if m.Gamma > 0 {
			m.Season[at] = float32(max(0, s+m.Gamma*e/max(base, least)))
		}
		m.Level = max(0, level)
		return max(0, predicted)
	}
	predicted = base + s
	e := y - predicted
	m.Level = base + m.Alpha*e
	m.Trend = damped + m.Beta*m.Alpha*e
	if m.Gamma > 0 {
		m.Season[at] = float32(s + m.Gamma*e)
	}
	return max(0, predicted)
}

// Valid says what of a model that comes from elsewhere cannot be.
func (m *Model) Valid() error {
	var errs []error
	within := func(name string, v, lo, hi float64) {
		if !(v >= lo && v <= hi) {
			errs = append(errs, fmt.Errorf("%s: %g is not between %g and %g", name, v, lo, hi))
		}
	}
	within("alpha", m.Alpha, 0, 1)
	within("beta", m.Beta, 0, 1)
	within("gamma", m.Gamma, 0, 1)
	within("phi", m.Phi, 0, 0.99999)
	within("p", m.P, 0, 1)
	within("level", m.Level, -1e9, 1e9)
	within("trend", m.Trend, -1e9, 1e9)
	within("dispersion", m.Dispersion, 0, 1e6)
	want := Week
	switch m.Kind {
	case Sparse:
		want = 0
	case Additive, Multiplicative:
	default:
		errs = append(errs, fmt.Errorf("kind: %.20q is none", m.Kind))
	}
	if len(m.Season) != want {
		errs = append(errs, fmt.Errorf("season: has %d hours, want %d", len(m.Season), want))
	}
	for i, s := range m.Season {
		if v := float64(s); !(v >= -1e9 && v <= 1e9) {
			errs = append(errs, fmt.Errorf("season[%d]: %g is no factor", i, v))
			break
		}
	}
	return errors.Join(errs...)
}
