package api

import (
	"slices"
	"time"

	"millrace/kpi"
)

// maxPoints bounds the points of a series, and so what a query groups by.
const maxPoints = 5000

// grid is the points of a series.
type grid struct {
	grain kpi.Grain
	from  time.Time // begin of the first point
	to    time.Time // end of the last one
	zone  *time.Location
	times []int64 // begin of each point, unix seconds
}

// grains by name.
func grainNamed(name string) (kpi.Grain, bool) {
	i := slices.IndexFunc(kpi.Grains(), func(g kpi.Grain) bool { return g.Name == name })
	if i < 0 {
		return kpi.Grain{}, false
	}
	return kpi.Grains()[i], true
}

// size is about how long a window of a grain is.
func size(g kpi.Grain) time.Duration {
	if g.Size == 0 {
		return 24 * time.Hour
	}
	return g.Size
}

// defaultRange is how far a series goes back if nothing is said.
var defaultRange = map[string]time.Duration{"1s": 5 * time.Minute, "1m": 3 * time.Hour, "1h": 7 * 24 * time.Hour, "1d": 90 * 24 * time.Hour}

// grainFor is the finest grain that gives at most 400 points.
func grainFor(d time.Duration) kpi.Grain {
	for _, g := range kpi.Grains() {
		if d <= 400*size(g) {
			return g
		}
	}
	return kpi.Grains()[len(kpi.Grains())-1]
}

// newGrid lays points over [from, to), rounded outwards. ok is false for more than maxPoints, without laying them.
func newGrid(g kpi.Grain, zone *time.Location, from, to time.Time) (out grid, ok bool) {
	out = grid{grain: g, zone: zone}
	if to.Sub(from) > (maxPoints+2)*size(g) {
		return out, false
	}
	if g.Size > 0 {
		out.from = from.Truncate(g.Size)
		for t := out.from; t.Before(to); t = t.Add(g.Size) {
			out.times = append(out.times, t.Unix())
		}
		out.to = out.from.Add(time.Duration(len(out.times)) * g.Size)
		return out, len(out.times) <= maxPoints
	}
	y, m, d := from.In(zone).Date()
	for i := 0; ; i++ {
		t := time.Date(y, m, d+i, 0, 0, 0, 0, zone)
		if i == 0 {
			out.from = t
		}
		if !t.Before(to) {
			out.to = t
			break
		}
		out.times = append(out.times, t.Unix())
	}
	return out, len(out.times) <= maxPoints
}

// index finds the point that holds a window, -1 if there is none.
func (g grid) index(at int64) int {
	i, found := slices.BinarySearch(g.times, at)
	if !found {
		i--
	}
	if i < 0 || at >= g.to.Unix() {
		return -1
	}
	return i
}

// table says which grain's table the points are made of, and whether its windows are put together by days of the zone: days that begin elsewhere than the tenant's are
// made of hours, or of minutes where the zone is off by less than an hour.
func (g grid) table(tenantZone *time.Location) (grain string, days bool) {
	if g.grain.Size > 0 {
		return g.grain.Name, false
	}
	if g.zone.String() == tenantZone.String() {
		return "1d", false
	}
	for _, t := range g.times {
		if _, offset := time.Unix(t, 0).In(g.zone).Zone(); offset%3600 != 0 {
			return "1m", true
		}
	}
	return "1h", true
}
