package demand

import (
	"errors"
	"math"
)

// Options of Fit. See DefaultOptions.
type Options struct {
	MinDays int // history below which nothing is forecast, from 20
	HeldOut int // weeks at the end that the accuracy is measured on, at most; no more than half of the history
	MinSold int // hours with a sale, below which only the method for sparse demand is tried
}

// DefaultOptions hold four weeks back.
func DefaultOptions() Options { return Options{MinDays: 20, HeldOut: 4, MinSold: 40} }

// ErrHistory says that there are too few days, or no sales at all. It is a normal answer.
var ErrHistory = errors.New("not enough history")

// Fitted is a model of all hours, and how exact one of the same kind was on those held back.
type Fitted struct {
	Model    Model    `json:"model"`
	Accuracy Accuracy `json:"accuracy"`
}

// Fit fits a model to units sold by the hour, of which the first is that of the hour first since the epoch. ErrHistory if there are too few.
func Fit(hours []float64, first int64, o Options) (Fitted, error) {
	for len(hours) > 0 && hours[0] == 0 { // a product begins with its first sale
		hours, first = hours[1:], first+1
	}
	if len(hours) < max(o.MinDays, 20)*24 {
		return Fitted{}, ErrHistory
	}
	weeks := max(1, min(o.HeldOut, (len(hours)+23)/(2*Week)))
	chosen := choose(hours[:len(hours)-weeks*Week], first, o)
	acc := measure(hours, weeks, func(seen []float64) Model { return begin(seen, first, chosen).run(seen) })
	// The method and its smoothing stay those that were measured; profile and state take the held-back days in.
	return Fitted{Model: begin(hours, first, chosen).run(hours), Accuracy: acc}, nil
}

// choose fits every kind and gives the one with the least of Schwarz's criterion, run to the end of the hours.
func choose(hours []float64, first int64, o Options) Model {
	sold := 0
	for _, y := range hours {
		if y > 0 {
			sold++
		}
	}
	best, score := Model{}, math.Inf(1)
	try := func(m Model, sse float64, k int) {
		n := float64(len(hours) - Week)
		bic := n*math.Log(max(sse, 1e-9)/n) + math.Log(n)*float64(k)
		if bic < score {
			best, score = m, bic
		}
	}
	sparse := begin(hours, first, Model{Kind: Sparse})
	x, sse := minimise([]span{{0.001, 0.3}, {0.0005, 0.1}}, func(x []float64) float64 {
		m := sparse
		m.Alpha, m.Beta = x[0], x[1]
		return m.sse(hours)
	})
	sparse.Alpha, sparse.Beta = x[0], x[1]
	try(sparse, sse, 4)
	if sold >= o.MinSold {
		for _, kind := range []Kind{Additive, Multiplicative} {
			start := begin(hours, first, Model{Kind: kind})
			scratch := make([]float32, Week)
			with := func(x []float64) Model {
				m := start
				m.Alpha, m.Gamma = x[0], x[1]
				if len(x) > 2 {
					m.Beta, m.Phi = x[2], x[3]
				}
				copy(scratch, start.Season)
				m.Season = scratch
				return m
			}
			for _, spans := range [][]span{{{0.0001, 0.3}, {0, 0.2}}, {{0.0001, 0.3}, {0, 0.2}, {0, 0.2}, {0.95, 0.9999}}} {
				x, sse := minimise(spans, func(x []float64) float64 { m := with(x); return m.sse(hours) })
				m := with(x)
				m.Season = start.Season
				try(m, sse, 3+len(spans))
			}
		}
	}
	return begin(hours, first, best).run(hours)
}

// begin gives the state before the first hour of a model with the parameters of p.
func begin(hours []float64, first int64, p Model) Model {
	m := Model{Kind: p.Kind, Alpha: p.Alpha, Beta: p.Beta, Gamma: p.Gamma, Phi: p.Phi, Hour: first - 1, Dispersion: 1}
	head := hours[:min(Week, len(hours))]
	if m.Kind == Sparse {
		sum, sold := 0.0, 0
		for _, y := range head {
			if y > 0 {
				sum, sold = sum+y, sold+1
			}
		}
		m.Level, m.P = 1, 0.5/float64(len(head))
		if sold > 0 {
			m.Level, m.P = sum/float64(sold), float64(sold)/float64(len(head))
		}
		return m
	}
	slope := slopeOf(hours)
	profile, mean := weekOf(level(hours, slope), first)
	m.Season = make([]float32, Week)
	for i, v := range profile {
		if m.Kind == Multiplicative {
			m.Season[i] = float32(v / mean)
		} else {
			m.Season[i] = float32(v - mean)
		}
	}
	m.Level = meanOf(head)
	if m.Phi > 0 {
		m.Level, m.Trend = m.Level-slope*Week/2, slope
	}
	return m
}

// run gives the state after all hours, with the dispersion of the errors.
func (m Model) run(hours []float64) Model {
	if m.Season != nil {
		m.Season = append([]float32(nil), m.Season...)
	}
	squares, means := 0.0, 0.0
	for i, y := range hours {
		p := m.step(y)
		if i >= Week {
			squares += (y - p) * (y - p)
			means += max(p, 1e-9)
		}
	}
	if means > 0 {
		m.Dispersion = min(max(squares/means, 0.1), 1e6)
	}
	return m
}

// sse is the squared error one hour ahead, from the second week on. It changes m's season.
func (m *Model) sse(hours []float64) float64 {
	sum := 0.0
	for i, y := range hours {
		p := m.step(y)
		if i >= Week {
			sum += (y - p) * (y - p)
		}
	}
	return sum
}

func meanOf(v []float64) float64 {
	sum := 0.0
	for _, y := range v {
		sum += y
	}
	return sum / float64(max(1, len(v)))
}

// slopeOf is by how much the mean hour grows each hour, by least squares over whole weeks.
func slopeOf(hours []float64) float64 {
	weeks := len(hours) / Week
	hours = hours[len(hours)-weeks*Week:]
	top, bottom := 0.0, 0.0
	for w := range weeks {
		x := float64(w) - float64(weeks-1)/2
		top += x * meanOf(hours[w*Week:(w+1)*Week])
		bottom += x * x
	}
	return top / max(bottom, 1) / Week
}

// level takes a slope out: each hour is divided by what the line through the mean says of it.
func level(hours []float64, slope float64) []float64 {
	mean := meanOf(hours)
	out := make([]float64, len(hours))
	for i, y := range hours {
		line := mean + slope*(float64(i)-float64(len(hours)-1)/2)
		out[i] = y * mean / max(line, 0.1*mean, 1e-9)
	}
	return out
}

// weekOf is the mean week by hour since the epoch modulo 168, and its mean, which is above 0. Each hour's mean is shrunk towards the product of its day's and its hour of
// the day's by the share of its variance that is noise.
func weekOf(hours []float64, first int64) (profile [Week]float64, mean float64) {
	var squares, n [Week]float64
	for i, y := range hours {
		k := index(first + int64(i))
		profile[k] += y
		squares[k] += y * y
		n[k]++
	}
	for k := range profile {
		profile[k] /= max(1, n[k])
		squares[k] /= max(1, n[k])
	}
	mean = max(meanOf(profile[:]), 1e-6)
	var days [7]float64
	var clock [24]float64
	for k, v := range profile {
		days[k/24] += v / 24
		clock[k%24] += v / 7
	}
	noise, spread, counted := 0.0, 0.0, 0.0
	var plain [Week]float64
	for k, v := range profile {
		plain[k] = days[k/24] * clock[k%24] / mean
		if n[k] > 1 {
			spread += (v - plain[k]) * (v - plain[k])
			noise += (squares[k] - v*v) / (n[k] - 1)
			counted++
		}
	}
	keep := 0.0 // of what an hour says for itself
	if counted > Week/2 && spread > 0 {
		keep = max(0, 1-noise/spread)
	}
	for k := range profile {
		profile[k] = keep*profile[k] + (1-keep)*plain[k]
	}
	return profile, mean
}
