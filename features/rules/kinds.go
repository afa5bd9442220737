package rules

import (
	"math"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/event"
)

// velocity: how many events.
func (r *Rule) velocity(c *cell, at int64) (Hit, bool) {
	n := c.count(r.window, at, 1)
	r.touch(c, at)
	return Hit{N: float64(n)}, float64(n) >= r.Threshold && r.fire(c, at)
}

// distinct: how many values of a field. Values are kept as 64-bit hashes.
func (r *Rule) distinct(c *cell, value string, at int64) (Hit, bool) {
	n := c.see(xxh3.HashString(value), r.window, at)
	r.touch(c, at)
	return Hit{N: float64(n)}, float64(n) >= r.Threshold && r.fire(c, at)
}

// cardTesting: many cards, or many refusals, one after the other. Merchants see both when stolen numbers are tried out (Visa, "Anti-Enumeration and Account Testing Best
// Practices for Merchants", 2021).
func (r *Rule) cardTesting(c *cell, e *event.Rekeyed, at int64) (Hit, bool) {
	cards := 0
	if e.CardFingerprint != "" {
		cards = c.see(xxh3.HashString(e.CardFingerprint), r.window, at)
	}
	refused := uint32(0)
	if e.Declined {
		refused = 1
	}
	declines := uint64(0)
	if r.Declines > 0 {
		declines = c.count(r.window, at, refused)
	}
	r.touch(c, at)
	met := float64(cards) >= r.Threshold || r.Declines > 0 && declines >= uint64(r.Declines)
	return Hit{N: max(float64(cards), float64(declines))}, met && r.fire(c, at)
}

// amount: how far the logarithm of an amount is above the key's own, in robust standard deviations. Amounts of orders are about log-normal, so that a factor is what counts.
// Location and scale are exponentially weighted means of ln(amount) and of its absolute deviation; 1.2533 = √(π/2) makes a standard deviation of a mean absolute one. What is
// far off is pulled in to three deviations before it is learned (Huber, "Robust Estimation of a Location Parameter", Ann. Math. Statist. 1964), so that one attack does not
// make the next one normal.
func (r *Rule) amount(c *cell, value float64, at int64) (Hit, bool) {
	const (
		toSigma = 1.2533
		floor   = 0.25 // a customer who always pays about the same may pay a quarter more
		memory  = 0.05 // weight of the newest of many
		clip    = 3
	)
	x := math.Log(value)
	if c.n == 0 {
		c.mean = x
	}
	scale := max(floor, toSigma*c.dev)
	d := x - c.mean
	z, known := d/scale, c.n >= int64(r.History)
	if known {
		d = max(-clip*scale, min(clip*scale, d))
	}
	c.n++
	w := max(memory, 1/float64(c.n))
	c.mean += w * d
	c.dev += w * (math.Abs(d) - c.dev)
	r.touch(c, at)
	return Hit{N: math.Round(10*z) / 10}, known && z >= r.Threshold && r.fire(c, at)
}

// travel: another country than the last, sooner than anybody gets there.
func (r *Rule) travel(c *cell, country string, at int64) (Hit, bool) {
	if country == "" {
		return Hit{}, false
	}
	from, last := c.text, c.last
	if at >= last {
		c.text = strings.Clone(country)
	}
	r.touch(c, at)
	if from == "" || from == country || at < last || at-last > r.window {
		return Hit{}, false
	}
	km, ok := Distance(from, country)
	if !ok {
		return Hit{}, false
	}
	hours := max(float64(at-last)/microsASec, 60) / 3600
	speed := math.Round(km / hours)
	return Hit{N: speed, From: from, To: strings.Clone(country)}, speed >= r.Threshold && r.fire(c, at)
}

// timing: the time from the first event of one name to that of another. A person who orders has read, chosen and typed; a script has not.
func (r *Rule) timing(c *cell, begins bool, at int64) (Hit, bool) {
	defer r.touch(c, at)
	if begins {
		if c.mark == 0 || at-c.mark > r.window {
			c.mark = at
		}
		return Hit{}, false
	}
	from := c.mark
	c.mark = 0
	if from == 0 || at < from || at-from > r.window {
		return Hit{}, false
	}
	seconds := float64(at-from) / microsASec
	return Hit{N: math.Round(10*seconds) / 10}, seconds < r.Threshold && r.fire(c, at)
}

// firstSeen: every one of some fields has a value that a key with a history never had.
func (r *Rule) firstSeen(c *cell, e *event.Rekeyed, at int64) (Hit, bool) {
	fresh := true
	var hashes [4]uint64
	for i, f := range r.of {
		v := f.text(e)
		if v == "" {
			return Hit{}, false
		}
		hashes[i] = xxh3.HashString(v) + uint64(i)*0x9e3779b97f4a7c15
		fresh = fresh && !c.seen(hashes[i])
	}
	n := c.n
	c.n++
	for _, h := range hashes[:len(r.of)] {
		c.see(h, r.window, at)
	}
	r.touch(c, at)
	return Hit{N: float64(n), To: strings.Clone(r.of[0].text(e))}, fresh && float64(n) >= r.Threshold && r.fire(c, at)
}

// pattern: events in an order within the window, others between them allowed. The newest beginning counts.
func (r *Rule) pattern(c *cell, e *event.Rekeyed, at int64) (Hit, bool) {
	defer r.touch(c, at)
	if c.n > 0 && at-c.mark > r.window {
		c.n = 0
	}
	last := int64(len(r.Sequence) - 1)
	switch {
	case e.Name == r.Sequence[c.n] && (c.n < last || r.where == nil || r.where(e)):
		if c.n == 0 {
			c.mark = at
		}
		c.n++
	case c.n == 1 && e.Name == r.Sequence[0]:
		c.mark = at
	}
	if c.n <= last {
		return Hit{}, false
	}
	c.n = 0
	return Hit{N: math.Round(float64(at-c.mark)/microsASec*10) / 10}, r.fire(c, at)
}

// Features of rules of kind model, in this order.
var modelFeatures = []string{"log_value", "events", "cards", "refusals", "value_deviations", "hour", "units", "age_seconds"}

// Features names what a model is asked with, in this order: ln(1 + value); events and distinct cards of the key within the rule's window (the latest is among
// them); how many deviations ln(value) is from the key's own; hour of the day, UTC; units of the items; seconds since the key's first event of those remembered.
func Features() []string { return slices.Clone(modelFeatures) }

// model asks for a score.
func (r *Rule) model(c *cell, e *event.Rekeyed, at int64, score func([]float64) float64) (Hit, bool) {
	if c.mark == 0 {
		c.mark = at
	}
	events := c.count(r.window, at, 1)
	cards := 0
	if e.CardFingerprint != "" {
		cards = c.see(xxh3.HashString(e.CardFingerprint), r.window, at)
	}
	if e.Declined {
		c.n++
	}
	value := max(0, float64(e.Value)/event.MicrosPerUnit)
	x := math.Log1p(value)
	z := 0.0
	if value > 0 {
		if c.mean == 0 {
			c.mean = x
		}
		z = (x - c.mean) / max(0.25, 1.2533*c.dev)
		c.dev += 0.2 * (math.Abs(x-c.mean) - c.dev)
		c.mean += 0.2 * (x - c.mean)
	}
	r.touch(c, at)
	hour := float64(at/(3600*microsASec)) - 24*math.Floor(float64(at/(3600*microsASec))/24)
	v := score([]float64{x, float64(events), float64(cards), float64(c.n), z, hour, float64(e.Units), float64(at-c.mark) / microsASec})
	return Hit{N: math.Round(1000*v) / 1000}, v >= r.Threshold && r.fire(c, at)
}
