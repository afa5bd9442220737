package kpi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	_ "time/tzdata" // a container need not have the time zone database
)

// Config is what a deployment may say about its KPIs.
type Config struct {
	// TimeZones gives tenants the IANA time zone in which their days begin and end. A tenant that is not named has UTC. A change takes effect for days that no
	// event has been counted in yet; the day of the change may have a row of each zone.
	TimeZones map[string]string `koanf:"time_zones" desc:"IANA time zone in which a tenant's days begin and end (tenant: zone); UTC for tenants not named"`
}

// DefaultConfig names no tenant.
func DefaultConfig() Config { return Config{} }

// Validate reports every time zone that does not exist.
func (c Config) Validate() error {
	var errs []error
	for _, tenant := range slices.Sorted(maps.Keys(c.TimeZones)) {
		if _, err := loadZone(c.TimeZones[tenant]); err != nil {
			errs = append(errs, fmt.Errorf("time_zones.%s: %q is no IANA time zone: %w", tenant, c.TimeZones[tenant], err))
		}
	}
	return errors.Join(errs...)
}

func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, errors.New("a name such as Europe/Berlin is expected")
	}
	return time.LoadLocation(name)
}

// Definitions is what is not the same everywhere: the time zones of the tenants. It is immutable and safe for concurrent use; the zero value has UTC for all.
type Definitions struct{ zones map[string]*time.Location }

// New makes the definitions of a configuration.
func New(c Config) (Definitions, error) {
	if err := c.Validate(); err != nil {
		return Definitions{}, err
	}
	d := Definitions{zones: make(map[string]*time.Location, len(c.TimeZones))}
	for tenant, name := range c.TimeZones {
		zone, err := loadZone(name)
		if err != nil {
			return Definitions{}, fmt.Errorf("time zone of tenant %s: %w", tenant, err)
		}
		d.zones[tenant] = zone
	}
	return d, nil
}

// Zone is the tenant's time zone.
func (d Definitions) Zone(tenant string) *time.Location {
	if z := d.zones[tenant]; z != nil {
		return z
	}
	return time.UTC
}

// Window is the window [start, end) of a grain that holds a time, in µs.
func (d Definitions) Window(g Grain, tenant string, at int64) (start, end int64) {
	if g.Size == 0 {
		return day(d.Zone(tenant), at)
	}
	return fixed(g.Size.Microseconds(), at)
}

// Days finds days as Window does and remembers the last one of each zone, which nearly always is the next one asked for. It belongs to one goroutine.
type Days struct {
	d    Definitions
	last map[*time.Location][2]int64
}

// Days makes a cache of days.
func (d Definitions) Days() *Days { return &Days{d: d, last: map[*time.Location][2]int64{}} }

// Of is the tenant's day that holds a time.
func (c *Days) Of(tenant string, at int64) (start, end int64) {
	if len(c.d.zones) == 0 {
		return fixed(dayUTC, at)
	}
	zone := c.d.Zone(tenant)
	if zone == time.UTC {
		return fixed(dayUTC, at)
	}
	w, ok := c.last[zone]
	if !ok || at < w[0] || at >= w[1] {
		w[0], w[1] = day(zone, at)
		c.last[zone] = w
	}
	return w[0], w[1]
}

const dayUTC = 24 * 3600 * 1_000_000

func fixed(size, at int64) (start, end int64) {
	start = at - at%size
	if start > at {
		start -= size
	}
	return start, start + size
}

// day is the day of a zone. Days are intervals that cover time without gap or overlap: a day begins at the first instant at which the zone's date is that day's or
// later, whatever clock changes there are at midnight.
func day(zone *time.Location, at int64) (start, end int64) {
	if zone == time.UTC {
		return fixed(dayUTC, at)
	}
	y, m, d := time.UnixMicro(at).In(zone).Date()
	start, end = firstInstant(zone, y, m, d), firstInstant(zone, y, m, d+1)
	for n := 2; at >= end; n++ { // the clock was set back across midnight: the new day has begun already
		start, end = end, firstInstant(zone, y, m, d+n)
	}
	return start, end
}

// firstInstant is the first instant at which the zone's date is y-m-d or later, in µs.
func firstInstant(zone *time.Location, y int, m time.Month, d int) int64 {
	midnight := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() // as the clocks there show it
	t := time.Unix(midnight-36*3600, 0).In(zone)                // it is an earlier day there, since no zone is more than 15 hours ahead of UTC
	for {
		_, offset := t.Zone()
		_, next := t.ZoneBounds()
		at := midnight - int64(offset)
		switch {
		case at < t.Unix(): // midnight was leapt over by the change of clocks at t
			return t.UnixMicro()
		case next.IsZero() || at < next.Unix():
			return at * 1_000_000
		}
		t = next
	}
}
