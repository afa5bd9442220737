package gateway

import "sync/atomic"

// budget is the memory of requests in flight: bodies, and records that wait for their acknowledgement.
type budget struct {
	max  int64
	used atomic.Int64
}

// take takes n bytes if they are there, and adds them to spent.
func (b *budget) take(n int64, spent *int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	*spent += n
	return true
}

// force takes n bytes whether they are there or not: what was read has to be handled.
func (b *budget) force(n int64, spent *int64) {
	b.used.Add(n)
	*spent += n
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// fill is the share of the memory in use.
func (b *budget) fill() float64 { return float64(b.used.Load()) / float64(b.max) }
