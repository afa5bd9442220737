package model

import "math"

// exp is e^x with the bits that glibc's exp gives where there is a fused multiply-add, which is what LightGBM's predictions were made with: math.Exp differs from it in
// the last bit of some. The algorithm is Szabolcs Nagy's of ARM's optimized routines (math/exp.c; glibc has it since 2.28): x = (k/128) ln 2 + r with |r| <= ln 2 / 256, and
// e^x = 2^(k/128) (1 + p(r)), p of degree 5, within 0.511 ulp.
func exp(x float64) float64 {
	const (
		invLn2N  = 0x1.71547652b82fep0 * 128
		negLn2Hi = -0x1.62e42fefa0000p-8
		negLn2Lo = -0x1.cf79abc9e3b39p-47
		shift    = 0x1.8p52
		c2       = 0x1.ffffffffffdbdp-2
		c3       = 0x1.555555555543cp-3
		c4       = 0x1.55555cf172b91p-5
		c5       = 0x1.1111167a4d017p-7
	)
	if a := math.Abs(x); !(a >= 0x1p-54 && a < 512) {
		return math.Exp(x) // exactly 1, close to overflow or underflow, infinite, no number: no probability depends on the last bit
	}
	kd := math.FMA(invLn2N, x, shift)
	ki := math.Float64bits(kd)
	kd -= shift
	r := math.FMA(kd, negLn2Lo, math.FMA(kd, negLn2Hi, x))
	i := 2 * (ki % 128)
	tail, scale := math.Float64frombits(expTable[i]), math.Float64frombits(expTable[i+1]+ki<<45)
	r2 := r * r
	p := math.FMA(r2, math.FMA(r, c3, c2), tail+r)
	p = math.FMA(r2*r2, math.FMA(r, c5, c4), p)
	return math.FMA(scale, p, scale)
}
