package sink

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"millrace/event"
)

// AlertsConfig is where alerts are sent to. See DefaultAlertsConfig.
type AlertsConfig struct {
	Group          string        `koanf:"group" desc:"consumer groups of destinations: this, a dot, and the destination's name"`
	InstanceID     string        `koanf:"instance_id" desc:"static member id of this process within each of the groups"`
	SessionTimeout time.Duration `koanf:"session_timeout" desc:"after which a silent member loses its partitions"`
	Timeout        time.Duration `koanf:"timeout" desc:"time of one attempt"`
	RetryMin       time.Duration `koanf:"retry_min" desc:"pause before the second attempt; it doubles from there, with jitter"`
	RetryMax       time.Duration `koanf:"retry_max" desc:"longest pause between attempts"`
	MaxAge         time.Duration `koanf:"max_age" desc:"age from which an alert is given up that a destination has not taken, so that one alert cannot hold up all others for ever; 0: never"`
	Keep           time.Duration `koanf:"keep" desc:"how long Redis remembers what was sent, so that it is not sent again"`
	InFlight       int           `koanf:"in_flight" desc:"requests to one destination at the same time, of different partitions"`
	Destinations   []Destination `koanf:"destinations" desc:"where alerts are sent to: name, url, kind (webhook or slack), secret (env:NAME or file:PATH), min_severity, rules, kinds, tenants, provisional, insecure"`
}

// Destination is one place that alerts are sent to.
type Destination struct {
	Name        string   `koanf:"name"`
	URL         string   `koanf:"url" secret:"true"`    // or env:NAME or file:PATH: the address of a Slack webhook is a secret itself
	Kind        string   `koanf:"kind"`                 // webhook (the default) or slack
	Secret      string   `koanf:"secret" secret:"true"` // env:NAME or file:PATH, for the signature of a webhook
	MinSeverity string   `koanf:"min_severity"`         // info (the default), warn or critical
	Rules       []string `koanf:"rules"`                // of these rules only; none: all
	Kinds       []string `koanf:"kinds"`                // of these kinds only; none: all
	Tenants     []string `koanf:"tenants"`              // of these tenants only; none: all
	Provisional bool     `koanf:"provisional"`          // also on arrival, before an alert is confirmed
	Insecure    bool     `koanf:"insecure"`             // http is allowed
}

// The kinds of destinations.
const (
	KindWebhook = "webhook"
	KindSlack   = "slack"
)

// DefaultAlertsConfig has no destination.
func DefaultAlertsConfig() AlertsConfig {
	return AlertsConfig{
		Group: "millrace.alerts", InstanceID: "alerts-0", SessionTimeout: 10 * time.Second, Timeout: 10 * time.Second, RetryMin: 500 * time.Millisecond, RetryMax: time.Minute,
		MaxAge: 7 * 24 * time.Hour, Keep: 7 * 24 * time.Hour, InFlight: 4,
	}
}

// maxDestinations bounds the consumers of one process.
const maxDestinations = 64

var destinationName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// severities are the severities, least first.
func severities() []string {
	return []string{event.SeverityInfo, event.SeverityWarn, event.SeverityCritical}
}

// Validate reports every problem. What secrets refer to is only looked at by NewWebhooks.
func (c AlertsConfig) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.Group == "" {
		bad("group: must not be empty")
	}
	if c.SessionTimeout < 6*time.Second {
		bad("session_timeout: %s is below the broker's least, 6s", c.SessionTimeout)
	}
	for _, d := range []struct {
		name         string
		v, low, high time.Duration
	}{{"timeout", c.Timeout, 100 * time.Millisecond, time.Minute}, {"retry_min", c.RetryMin, time.Millisecond, time.Minute}, {"retry_max", c.RetryMax, c.RetryMin, time.Hour}, {"keep", c.Keep, time.Minute, 30 * 24 * time.Hour}} {
		if d.v < d.low || d.v > d.high {
			bad("%s: %s is not between %s and %s", d.name, d.v, d.low, d.high)
		}
	}
	if c.MaxAge < 0 {
		bad("max_age: %s is below 0", c.MaxAge)
	}
	if c.InFlight < 1 || c.InFlight > 64 {
		bad("in_flight: %d is not between 1 and 64", c.InFlight)
	}
	if len(c.Destinations) > maxDestinations {
		bad("destinations: %d, at most %d", len(c.Destinations), maxDestinations)
	}
	seen := map[string]bool{}
	for i, d := range c.Destinations {
		at := fmt.Sprintf("destinations[%d] %.40q", i, d.Name)
		if !destinationName.MatchString(d.Name) {
			bad("%s: name: 1 to 63 small letters, digits, - and _", at)
		}
		if seen[d.Name] {
			bad("%s: name: it is another's already", at)
		}
		seen[d.Name] = true
		for _, err := range d.problems() {
			bad("%s: %w", at, err)
		}
	}
	return errors.Join(errs...)
}

func (d Destination) problems() (errs []error) {
	if d.Kind != "" && d.Kind != KindWebhook && d.Kind != KindSlack {
		errs = append(errs, fmt.Errorf("kind: %.40q is not %s or %s", d.Kind, KindWebhook, KindSlack))
	}
	if d.MinSeverity != "" && !slices.Contains(severities(), d.MinSeverity) {
		errs = append(errs, fmt.Errorf("min_severity: %.40q is not one of %s", d.MinSeverity, strings.Join(severities(), ", ")))
	}
	switch {
	case d.Secret != "" && !isReference(d.Secret):
		errs = append(errs, errors.New("secret: is env:NAME or file:PATH, never the secret itself"))
	case d.Secret == "" && d.Kind != KindSlack:
		errs = append(errs, errors.New("secret: a webhook is signed, so it needs one: env:NAME or file:PATH"))
	}
	if d.URL == "" {
		errs = append(errs, errors.New("url: is missing"))
	} else if !isReference(d.URL) {
		if err := d.checkURL(d.URL); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (d Destination) checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https": // without the address: it may be a secret
		return errors.New("url: is no http or https address")
	case u.User != nil:
		return errors.New("url: holds a user; use a secret")
	case u.Scheme == "http" && !d.Insecure:
		return errors.New("url: is http, which insecure: true allows")
	}
	return nil
}

func isReference(s string) bool {
	return strings.HasPrefix(s, "env:") || strings.HasPrefix(s, "file:")
}

// resolve gives what a reference refers to; what is none is itself. Errors name the reference and never what it holds.
func resolve(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, "env:"); ok {
		v, ok := os.LookupEnv(name)
		if !ok || strings.TrimSpace(v) == "" {
			return "", fmt.Errorf("the environment has no %s", name)
		}
		return strings.TrimSpace(v), nil
	}
	if path, ok := strings.CutPrefix(s, "file:"); ok {
		v, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if v = bytes.TrimSpace(v); len(v) == 0 || len(v) > 4096 {
			return "", fmt.Errorf("%s has %d bytes", path, len(v))
		}
		return string(v), nil
	}
	return s, nil
}

// minSecret is the least length of a key: Standard Webhooks asks for 24 to 64 bytes.
const minSecret = 24

// signingKeys reads secrets: one, or several separated by white space while one is replaced by another. whsec_ and base64 is the form of Standard Webhooks; any other text is the key.
func signingKeys(text string) ([][]byte, error) {
	var keys [][]byte
	for i, one := range strings.Fields(text) {
		key := []byte(one)
		if b64, ok := strings.CutPrefix(one, "whsec_"); ok {
			var err error
			if key, err = base64.StdEncoding.DecodeString(b64); err != nil {
				return nil, fmt.Errorf("secret %d begins with whsec_ and is no base64", i+1)
			}
		}
		if len(key) < minSecret {
			return nil, fmt.Errorf("secret %d has %d bytes, at least %d are needed", i+1, len(key), minSecret)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > 4 {
		return nil, fmt.Errorf("%d secrets, 1 to 4 are possible", len(keys))
	}
	return keys, nil
}
