package demand

import (
	"errors"
	"math"
)

var errSingular = errors.New("price cannot be told from the calendar")

// quasiPoisson fits log E[y] = x·β by iteratively reweighted least squares (McCullagh, Nelder, Generalized Linear Models, 2nd ed., 1989) and gives β with its covariance,
// scaled by Pearson's estimate of the dispersion. Columns that are zero everywhere are left out: their β is 0.
func quasiPoisson(x [][]float64, y []float64) (beta []float64, cov [][]float64, err error) {
	k := len(x[0])
	beta = make([]float64, k)
	mean := 0.0
	for _, v := range y {
		mean += v / float64(len(y))
	}
	beta[0] = math.Log(max(mean, 1e-9))
	used := make([]bool, k)
	for _, r := range x {
		for j, v := range r {
			used[j] = used[j] || v != 0
		}
	}
	var inverse [][]float64
	for step := 0; ; step++ {
		a, b := square(k), make([]float64, k)
		for i, r := range x {
			eta := 0.0
			for j, v := range r {
				eta += v * beta[j]
			}
			mu := math.Exp(min(max(eta, -30), 30))
			z := eta + (y[i]-mu)/mu
			for j, v := range r {
				for l, w := range r {
					a[j][l] += mu * v * w
				}
				b[j] += mu * v * z
			}
		}
		for j := range used {
			if !used[j] {
				a[j][j] = 1
			}
		}
		if inverse, err = invert(a); err != nil {
			return nil, nil, err
		}
		moved := 0.0
		for j := range beta {
			sum := 0.0
			for l := range b {
				sum += inverse[j][l] * b[l]
			}
			moved = max(moved, math.Abs(sum-beta[j]))
			beta[j] = sum
		}
		if moved < 1e-8 {
			break
		}
		if step == 50 {
			return nil, nil, errors.New("the regression does not settle")
		}
	}
	pearson := 0.0
	for i, r := range x {
		eta := 0.0
		for j, v := range r {
			eta += v * beta[j]
		}
		mu := math.Exp(min(max(eta, -30), 30))
		pearson += (y[i] - mu) * (y[i] - mu) / max(mu, 1e-9)
	}
	scale := pearson / float64(max(1, len(x)-k))
	for j := range inverse {
		for l := range inverse[j] {
			inverse[j][l] *= scale
		}
	}
	return beta, inverse, nil
}

func square(n int) [][]float64 {
	out := make([][]float64, n)
	for i := range out {
		out[i] = make([]float64, n)
	}
	return out
}

// invert inverts a symmetric positive matrix by Gauss and Jordan with pivots.
func invert(a [][]float64) ([][]float64, error) {
	n := len(a)
	out := square(n)
	for i := range out {
		out[i][i] = 1
	}
	for c := range n {
		p := c
		for r := c + 1; r < n; r++ {
			if math.Abs(a[r][c]) > math.Abs(a[p][c]) {
				p = r
			}
		}
		if math.Abs(a[p][c]) < 1e-9 {
			return nil, errSingular
		}
		a[c], a[p], out[c], out[p] = a[p], a[c], out[p], out[c]
		f := a[c][c]
		for j := range n {
			a[c][j] /= f
			out[c][j] /= f
		}
		for r := range n {
			if g := a[r][c]; r != c && g != 0 {
				for j := range n {
					a[r][j] -= g * a[c][j]
					out[r][j] -= g * out[c][j]
				}
			}
		}
	}
	return out, nil
}

// studentT95 is the 97.5 % quantile of Student's t, by the expansion of Cornish and Fisher: exact to 0.01 from 5 degrees of freedom on.
func studentT95(df int) float64 {
	const z = 1.959964
	n := float64(max(df, 3))
	return z + (z*z*z+z)/(4*n) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*n*n)
}
