package model

import "math"

// turn says how sums become predictions.
type turn uint8

const (
	identity      turn = iota
	logistic           // LightGBM: 1 / (1 + exp(-sigmoid x))
	exponential        // LightGBM
	logOnePlusExp      // LightGBM's cross_entropy_lambda
	signedSquare       // undoes LightGBM's reg_sqrt
	softmax            // LightGBM's Common::Softmax
	logistic32         // XGBoost, which computes in float32
	exponential32
	softmax32
	hardmax // 1 for the class with the greatest sum: what multi:softmax names
	hinge   // 1 above 0
)

// apply turns sums into predictions, in place.
func (t turn) apply(out []float64, sigmoid float64) {
	switch t {
	case softmax, softmax32:
		t.softmax(out)
		return
	case hardmax:
		best := 0
		for i, x := range out {
			if x > out[best] {
				best = i
			}
		}
		clear(out)
		out[best] = 1
		return
	}
	for i, x := range out {
		switch t {
		case logistic:
			out[i] = 1 / (1 + exp(-sigmoid*x))
		case exponential:
			out[i] = exp(x)
		case logOnePlusExp:
			out[i] = math.Log1p(exp(x))
		case signedSquare:
			out[i] = math.Copysign(x*x, x)
		case logistic32: // the bound keeps expf finite
			out[i] = float64(1 / (exp32(float64(min(float32(-x), 88.7))) + 1))
		case exponential32:
			out[i] = float64(exp32(x))
		case hinge:
			out[i] = 0
			if x > 0 {
				out[i] = 1
			}
		}
	}
}

func (t turn) softmax(out []float64) {
	most := out[0]
	for _, x := range out[1:] {
		most = max(most, x)
	}
	sum := 0.0
	for i, x := range out {
		if t == softmax {
			out[i] = exp(x - most)
		} else {
			out[i] = float64(exp32(float64(float32(x - most))))
		}
		sum += out[i]
	}
	for i := range out {
		if t == softmax {
			out[i] /= sum
		} else {
			out[i] = float64(float32(out[i]) / float32(sum))
		}
	}
}

func exp32(x float64) float32 { return float32(math.Exp(x)) }
