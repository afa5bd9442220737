package demand

import (
	"cmp"
	"math"
	"slices"
)

// span bounds a parameter.
type span struct{ lo, hi float64 }

const (
	simplexSteps = 160
	simplexTol   = 1e-6 // relative difference of the values at its corners
)

// minimise finds a minimum of f within bounds by the simplex of Nelder and Mead (The Computer Journal 7(4), 1965). The bounds are kept by going along a logistic curve,
// so that every corner is within. The same f gives the same answer.
func minimise(bounds []span, f func(x []float64) float64) (x []float64, value float64) {
	n := len(bounds)
	at := make([]float64, n)
	eval := func(u []float64) float64 {
		for i, b := range bounds {
			at[i] = b.lo + (b.hi-b.lo)/(1+math.Exp(-u[i]))
		}
		v := f(at)
		if math.IsNaN(v) {
			return math.Inf(1)
		}
		return v
	}
	type corner struct {
		u []float64
		v float64
	}
	corners := make([]corner, n+1)
	for i := range corners {
		u := make([]float64, n)
		for k := range u {
			u[k] = -2 // an eighth of the span: smoothing is mostly little
		}
		if i > 0 {
			u[i-1] += 2.5
		}
		corners[i] = corner{u, eval(u)}
	}
	mid, next := make([]float64, n), make([]float64, n)
	along := func(worst []float64, factor float64) float64 {
		for k := range next {
			next[k] = mid[k] + factor*(worst[k]-mid[k])
		}
		return eval(next)
	}
	for range simplexSteps {
		slices.SortStableFunc(corners, func(a, b corner) int { return cmp.Compare(a.v, b.v) })
		best, worst := corners[0], &corners[n]
		if worst.v-best.v <= simplexTol*math.Abs(best.v) {
			break
		}
		clear(mid)
		for _, c := range corners[:n] {
			for k, u := range c.u {
				mid[k] += u / float64(n)
			}
		}
		take := func(v float64) { copy(worst.u, next); worst.v = v }
		v := along(worst.u, -1)
		switch {
		case v < best.v:
			reflected := slices.Clone(next)
			if far := along(worst.u, -2); far < v {
				take(far)
			} else {
				copy(next, reflected)
				take(v)
			}
		case v < corners[n-1].v:
			take(v)
		default:
			factor := 0.5
			if v < worst.v {
				factor = -0.5
			}
			if in := along(worst.u, factor); in < min(v, worst.v) {
				take(in)
				continue
			}
			for i := 1; i <= n; i++ { // towards the best
				for k := range corners[i].u {
					corners[i].u[k] = best.u[k] + 0.5*(corners[i].u[k]-best.u[k])
				}
				corners[i].v = eval(corners[i].u)
			}
		}
	}
	best := slices.MinFunc(corners, func(a, b corner) int { return cmp.Compare(a.v, b.v) })
	eval(best.u)
	return slices.Clone(at), best.v
}
