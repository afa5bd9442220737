package simulate

import (
	"math"
	"math/bits"
)

const golden = 0x9e3779b97f4a7c15

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): a bijection that scatters its argument.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// hash2 scatters a pair.
func hash2(a, b uint64) uint64 { return mix(mix(a+golden) ^ (b*golden + 1)) }

// random is SplitMix64. It is our own, and not math/rand, because a seed's events are a promise.
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += golden
	return mix(r.state)
}

// n is uniform in [0, n).
func (r *random) n(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// unit is uniform in [0, 1).
func (r *random) unit() float64 { return float64(r.next()>>11) / (1 << 53) }

// chance is true with probability p.
func (r *random) chance(p float64) bool { return r.unit() < p }

// between is log-uniform in [lo, hi]: a small value is as likely as one a hundred times larger.
func (r *random) between(lo, hi float64) float64 {
	return lo * math.Exp(r.unit()*math.Log(hi/lo))
}

// weights chooses among alternatives by their weights.
type weights []uint32 // cumulative

func newWeights(n int, weight func(i int) uint32) weights {
	w, sum := make(weights, n), uint32(0)
	for i := range w {
		sum += weight(i)
		w[i] = sum
	}
	return w
}

// choose maps a random number to an alternative.
func (w weights) choose(u uint64) int {
	hi, _ := bits.Mul64(u, uint64(w[len(w)-1]))
	for i, sum := range w {
		if uint32(hi) < sum {
			return i
		}
	}
	return len(w) - 1
}

// Streams of ids: the same number in two streams gives unrelated ids.
const (
	streamEvent   = 1
	streamBad     = 2
	streamVisitor = 3
	streamSession = 4
	streamOrder   = 5
	streamCard    = 6
	streamAddress = 7
)

// appendUUID writes the n-th id of a stream of a seed in the form of a UUIDv4. 122 bits of hash: two of 10^7 ids are equal with probability 10^-23.
func appendUUID(dst []byte, seed, stream, n uint64) []byte {
	h := mix(seed + stream*golden)
	hi, lo := hash2(h, n), hash2(h^0x5851f42d4c957f2d, n)
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	dst = appendHex(dst, hi>>32, 8)
	dst = append(dst, '-')
	dst = appendHex(dst, hi>>16, 4)
	dst = append(dst, '-')
	dst = appendHex(dst, hi, 4)
	dst = append(dst, '-')
	dst = appendHex(dst, lo>>48, 4)
	dst = append(dst, '-')
	return appendHex(dst, lo, 12)
}

// appendHex writes the lowest n hex digits of v.
func appendHex(dst []byte, v uint64, n int) []byte {
	for i := n - 1; i >= 0; i-- {
		dst = append(dst, "0123456789abcdef"[v>>(4*i)&15])
	}
	return dst
}
