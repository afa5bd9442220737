package demand

import "math"

// Lead is the demand of the next hours as one number: its mean and variance.
type Lead struct {
	Hours    int     `json:"hours"`
	Mean     float64 `json:"mean"`
	Variance float64 `json:"variance"`
}

// Lead sums the next n hours up. The variance has two parts: each hour's own, the dispersion times its mean, and what the hours before it will do to the level, which
// each hour moves by α of its error: the class-1 formula of Hyndman et al. 2008, section 6.1, with the level's part alone.
func (m *Model) Lead(n int) Lead {
	out := Lead{Hours: n}
	alpha := m.Alpha
	if m.Kind == Sparse {
		alpha = m.Beta
	}
	for h := 1; h <= n; h++ {
		mean := m.ahead(h)
		grow := 1 + alpha*float64(n-h)
		out.Mean += mean
		out.Variance += m.Dispersion * mean * grow * grow
	}
	return out
}

// StockOut is the probability that more is asked for than there is: P(demand > stock). Demand is negative binomial with the mean and the variance of l, Poisson where
// the variance is not above the mean, and normal where the mean is above a thousand. What is on its way in, and that sold-out shops sell less, is not taken into account.
func (l Lead) StockOut(stock int64) float64 {
	switch {
	case stock < 0:
		return 1
	case l.Mean <= 0:
		return 0
	case l.Mean > 1000:
		z := (float64(stock) + 0.5 - l.Mean) / math.Sqrt(max(l.Variance, l.Mean))
		return 0.5 * math.Erfc(z/math.Sqrt2)
	case float64(stock) > l.Mean+20*math.Sqrt(max(l.Variance, l.Mean)):
		return 0
	}
	sum := 0.0
	l.each(func(k int64, p float64) bool {
		sum += p
		return k < stock
	})
	return min(1, max(0, 1-sum))
}

// each calls f with 0, 1, 2, … and their probabilities until it says no.
func (l Lead) each(f func(k int64, p float64) bool) {
	r, q, log := math.Inf(1), 0.0, -l.Mean // Poisson
	if over := l.Variance - l.Mean; over > 1e-9*l.Mean {
		r = l.Mean * l.Mean / over
		q = l.Mean / (r + l.Mean)
		log = r * math.Log1p(-q)
	}
	for k := int64(0); f(k, math.Exp(log)); k++ {
		if math.IsInf(r, 1) {
			log += math.Log(l.Mean / float64(k+1))
		} else {
			log += math.Log((float64(k) + r) / float64(k+1) * q)
		}
	}
}

// Interval gives the quantiles of demand that leave (1−level)/2 on both sides.
func (l Lead) Interval(level float64) (low, high int64) {
	if l.Mean <= 0 {
		return 0, 0
	}
	tail := (1 - level) / 2
	sd := math.Sqrt(max(l.Variance, l.Mean))
	if l.Mean > 1000 {
		z := math.Sqrt2 * math.Erfinv(1-2*tail)
		return int64(max(0, math.Floor(l.Mean-z*sd))), int64(math.Ceil(l.Mean + z*sd))
	}
	sum := 0.0
	low, high = -1, -1
	l.each(func(k int64, p float64) bool {
		sum += p
		if low < 0 && sum > tail {
			low = k
		}
		high = k
		return sum < 1-tail && float64(k) <= l.Mean+60*sd
	})
	return max(low, 0), high
}

// MaxCover is the longest cover that is told apart, in hours.
const MaxCover = 90 * 24

// Cover is after how many hours the stock is gone if all goes as forecast, at most MaxCover.
func (m *Model) Cover(stock int64) int {
	left := float64(stock)
	for h := 1; h <= MaxCover; h++ {
		if left -= m.ahead(h); left < 0 {
			return h - 1
		}
	}
	return MaxCover
}
