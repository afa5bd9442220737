package anomaly

import (
	"math"
)

// Kind is what a series counts.
type Kind uint8

// The kinds.
const (
	Counts  Kind = iota // events: their deviation is at least that of independent arrivals
	Amounts             // money, in units of the currency: only its own deviation tells
)

const (
	levelMinutes = 60  // calm minutes from which the level is known
	scaleMinutes = 120 // calm minutes from which the deviation is known
	leastScale   = 30  // of which so many must be there
	lastMinutes  = 15  // the longest window
	trust        = 10  // minutes that the level of the season itself weighs
	relativeSD   = 0.02
	clip         = 4 // most deviations of one minute among several
)

// window is one over which minutes are looked at together.
type window struct {
	minutes int
	open    float64 // times Config.Open: what a season that is a little off adds up to in many minutes is no incident
}

var windows = [...]window{{1, 1}, {5, 1.1}, {15, 1.3}}

// minute is one that was scored, while it is within the longest window: its deviations, what was counted, the same within four deviations, and what was expected.
type minute struct{ z, observed, bounded, expected float32 }

// State of an incident.
type State uint8

// What a minute did to the incident of its series.
const (
	Calm     State = iota // there is none
	Opened                // it begins
	Extended              // it goes on, or began again within its cool-down
	Quiet                 // it has not ended yet, but the minute was calm
	Closed                // it has ended
)

// Incident is a time in which a series was too low, or too high. Minutes are since 1970.
type Incident struct {
	Start    int64 // the first minute that was off
	Last     int64 // the last one so far
	Drop     bool
	Window   int // minutes that it took to be seen
	Z        float64
	Observed float64 // over the window
	Expected float64
	Low      float64 // what would have been no incident, over the window
	High     float64
}

// Head is a series without its season: its level, its deviation, its incident. It is a plain value, and bounded: HeadBytes. The zero value knows nothing.
type Head struct {
	at       int64 // the last minute that was scored
	level    [levelMinutes][2]float32
	levels   uint32 // ever written
	scale    [scaleMinutes]float32
	scales   uint32
	last     [lastMinutes]minute // at % lastMinutes
	slot     int64               // minutes since 1970 / slotMinutes in local time, that is being collected
	sum      float64
	n        uint32
	incident Incident // Start 0: none was yet
	open     bool
	calm     uint32 // minutes in a row
}

// At is the last minute that was scored, 0 if none was.
func (h *Head) At() int64 { return h.at }

// Incident gives the incident at hand, if there is one.
func (h *Head) Incident() (Incident, bool) { return h.incident, h.open }

// root is the transform: the deviation of counts becomes 1.
func root(x float64) float64 { return 2 * math.Sqrt(max(0, x)+3.0/8) }

// square takes it back, without the bias of a mean of roots.
func square(y float64) float64 { return max(0, y*y/4-1.0/8) }

// Step scores the next minute of a series. at is the minute since 1970, local the same by the clock of the tenant, whose days and weeks the season follows. It returns what
// happened, and the day of the week of which a slot has been learned, with that day as it is now, which the caller keeps; nil if none was.
func (h *Head) Step(cfg Config, kind Kind, season Season, at, local int64, x float64) (state State, weekday int, learned *Day) {
	if h.at != 0 && at > h.at+int64(cfg.Longest.Minutes()) {
		h.forget() // nobody has looked for so long that the level is another
	}
	h.at = at
	weekday, learned = h.turn(season, local)
	y := root(x)
	dayOf, minuteOf := weekdayOf(local)
	s, known := expected(overlay{season, weekday, learned}, dayOf, minuteOf)
	if !known {
		h.collect(local, y)
		return Calm, weekday, learned
	}
	e := s * h.ratio()
	sd, sure := h.deviation(kind, e)
	r := y - e
	if !sure {
		// Nothing is said before the deviation is known.
		h.learn(s, y, r)
		h.collect(local, y)
		return Calm, weekday, learned
	}
	z := r / sd
	h.last[at%lastMinutes] = minute{float32(z), float32(x), float32(x), float32(square(e))}
	if math.Abs(z) > clip {
		h.last[at%lastMinutes].bounded = float32(square(e + math.Copysign(clip*sd, z)))
	}
	state = h.judge(cfg, at, sd)
	if state == Calm || state == Closed {
		y = e + min(3*sd, max(-3*sd, r))
		h.learn(s, y, y-e)
		h.collect(local, y)
	}
	return state, weekday, learned
}

// overlay is a season with one day as it has just become.
type overlay struct {
	Season
	weekday int
	day     *Day
}

// Day implements Season.
func (o overlay) Day(weekday int) *Day {
	if o.day != nil && weekday == o.weekday {
		return o.day
	}
	return o.Season.Day(weekday)
}

// weekdayOf gives the day of the week and the minute of the day; 1970 began on a Thursday.
func weekdayOf(local int64) (weekday, minute int) {
	const day = 24 * 60
	d := local / day
	return int((d + 4) % 7), int(local - d*day)
}

// collect adds a minute to its slot.
func (h *Head) collect(local int64, y float64) {
	h.sum += y
	h.n++
}

// turn ends the slot that was collected if the minute is of another.
func (h *Head) turn(season Season, local int64) (weekday int, learned *Day) {
	slot := local / slotMinutes
	if slot == h.slot {
		return 0, nil
	}
	if h.n >= slotMinutes/2 {
		var minute int
		weekday, minute = weekdayOf(h.slot * slotMinutes)
		learned = &Day{}
		if d := season.Day(weekday); d != nil {
			*learned = *d
		}
		learned.push(minute/slotMinutes, float32(h.sum/float64(h.n)))
	}
	h.slot, h.sum, h.n = slot, 0, 0
	return weekday, learned
}

// learn takes a calm minute into the level and the deviation.
func (h *Head) learn(s, y, r float64) {
	h.level[h.levels%levelMinutes] = [2]float32{float32(s), float32(y)}
	h.levels++
	h.scale[h.scales%scaleMinutes] = float32(math.Abs(r))
	h.scales++
}

// ratio is the level of the last calm minutes beside their season.
func (h *Head) ratio() float64 {
	n := min(h.levels, levelMinutes)
	var s, y float64
	for _, l := range h.level[:n] {
		s += float64(l[0])
		y += float64(l[1])
	}
	if n == 0 {
		return 1
	}
	prior := trust * s / float64(n)
	return (y + prior) / (s + prior)
}

// deviation is the robust standard deviation of a minute: 1.4826 × the median of the absolute ones, but not below their mean's where more than half are the same.
func (h *Head) deviation(kind Kind, e float64) (float64, bool) {
	n := min(h.scales, scaleMinutes)
	if n < leastScale {
		return 0, false
	}
	v := h.scale
	var sum float64
	for _, r := range v[:n] {
		sum += float64(r)
	}
	sd := max(1.4826*median(v[:n]), 1.2533*sum/float64(n)*0.9, relativeSD*e)
	if kind == Counts {
		sd = max(sd, 1)
	}
	return sd, true
}

// over looks at the last minutes together: roots of sums deviate as roots of minutes do, if minutes are independent. One minute alone cannot make several be off.
func (h *Head) over(at int64, minutes int, sd float64) (z, observed, expected float64) {
	if minutes == 1 {
		m := &h.last[at%lastMinutes]
		return float64(m.z), float64(m.observed), float64(m.expected)
	}
	bounded := 0.0
	for i := range int64(minutes) {
		m := &h.last[(at-i)%lastMinutes]
		observed += float64(m.observed)
		bounded += float64(m.bounded)
		expected += float64(m.expected)
	}
	return (root(bounded) - root(expected)) / sd, observed, expected
}

// off says whether the last minutes are too far off together.
func (h *Head) off(cfg Config, at int64, w window, sd float64) (Incident, bool) {
	z, observed, expect := h.over(at, w.minutes, sd)
	limit := cfg.Open * w.open
	span := w.minutes
	if math.Abs(z) < limit {
		return Incident{}, false
	}
	if w.minutes == 1 { // twice in a row
		before, o, e := h.over(at-1, 1, sd)
		if math.Abs(before) < limit || before < 0 != (z < 0) {
			return Incident{}, false
		}
		observed, expect, span = observed+o, expect+e, 2
		z = math.Copysign(min(math.Abs(z), math.Abs(before)), z)
	}
	if math.Abs(observed-expect) < cfg.Effect*max(expect, 1) {
		return Incident{}, false
	}
	in := Incident{Last: at, Drop: z < 0, Window: w.minutes, Z: z, Observed: observed, Expected: expect}
	// What would have been none: within the deviations, or within the effect.
	in.Low = max(0, min(square(max(0, root(expect)-limit*sd)), expect*(1-cfg.Effect)))
	in.High = max(square(root(expect)+limit*sd), expect*(1+cfg.Effect))
	// It began with the first minute of the window, from which on all were on its side.
	in.Start = at
	for i := int64(1); i < int64(span); i++ {
		if h.last[(at-i)%lastMinutes].z < 0 != in.Drop {
			break
		}
		in.Start = at - i
	}
	return in, true
}

// judge moves the incident on by a minute.
func (h *Head) judge(cfg Config, at int64, sd float64) State {
	if h.open {
		return h.goOn(cfg, at, sd)
	}
	for _, w := range windows {
		in, off := h.off(cfg, at, w, sd)
		if !off {
			continue
		}
		h.open, h.calm = true, 0
		if old := h.incident; old.Start != 0 && old.Drop == in.Drop && in.Start-old.Last <= int64((cfg.Calm+cfg.Cooldown).Minutes()) {
			h.incident.Last, h.incident.Window = at, in.Window
			return Extended
		}
		h.incident = in
		return Opened
	}
	return Calm
}

// goOn looks whether the incident lasts, by the window that it was seen in.
func (h *Head) goOn(cfg Config, at int64, sd float64) State {
	in := &h.incident
	if at-in.Start >= int64(cfg.Longest.Minutes()) {
		h.forget()
		return Closed
	}
	z, _, _ := h.over(at, in.Window, sd)
	if math.Abs(z) >= cfg.Close && z < 0 == in.Drop {
		in.Last, h.calm = at, 0
		return Extended
	}
	if h.calm++; h.calm < uint32(cfg.Calm.Minutes()) {
		return Quiet
	}
	h.open = false
	h.last = [lastMinutes]minute{} // what was off is told, and is not to be told again by a longer window
	return Closed
}

// forget lets level and deviation be learned anew; the season is kept.
func (h *Head) forget() {
	*h = Head{at: h.at, slot: h.slot, sum: h.sum, n: h.n, incident: h.incident}
}
