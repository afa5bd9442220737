package anomaly

import (
	"errors"
	"fmt"
	"time"
)

// Config is when a minute is too far off.
type Config struct {
	Open     float64       `koanf:"open" desc:"an incident begins when a KPI is this many robust standard deviations off what is expected, in two minutes in a row, or together over 5 or 15"`
	Close    float64       `koanf:"close" desc:"minutes that are less than this many standard deviations off are calm again"`
	Effect   float64       `koanf:"effect" desc:"least deviation of an incident as a share of what is expected: 0.3 is 30 %"`
	Calm     time.Duration `koanf:"calm" desc:"an incident ends after this much calm"`
	Cooldown time.Duration `koanf:"cooldown" desc:"what begins again within this after an incident's end, in the same direction, is that incident and no new alert"`
	Longest  time.Duration `koanf:"longest" desc:"an incident that lasts longer is the new normal: it ends, and the level is learned anew"`
}

// DefaultConfig finds four in five of the drops and rises by half within some minutes in a shop with ten orders a minute, and hardly anything that is none.
func DefaultConfig() Config {
	return Config{Open: 4.5, Close: 2, Effect: 0.3, Calm: 5 * time.Minute, Cooldown: 15 * time.Minute, Longest: 6 * time.Hour}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	number := func(field string, v, lo, hi float64) {
		if !(v >= lo && v <= hi) {
			errs = append(errs, fmt.Errorf("%s: %g is not between %g and %g", field, v, lo, hi))
		}
	}
	length := func(field string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s: %s is not between %s and %s", field, v, lo, hi))
		}
	}
	number("open", c.Open, 3, 50)
	number("close", c.Close, 0.5, 10)
	if c.Close >= c.Open {
		errs = append(errs, fmt.Errorf("close: %g is not below open, which is %g", c.Close, c.Open))
	}
	number("effect", c.Effect, 0, 10)
	length("calm", c.Calm, time.Minute, time.Hour)
	length("cooldown", c.Cooldown, 0, 24*time.Hour)
	length("longest", c.Longest, 30*time.Minute, 7*24*time.Hour)
	return errors.Join(errs...)
}
