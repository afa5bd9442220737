package gateway

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"millrace/event"
	"millrace/event/wire"
	"millrace/gateway/spool"
	"millrace/internal/telemetry"
)

// Config is what a gateway is told. Bounds that are promises (20 MiB bodies, 1 MiB events, 10,000 events a request) are constants.
type Config struct {
	Listen              string            `koanf:"listen" desc:"address to listen on"`
	DataDir             string            `koanf:"data_dir" desc:"folder of keys.json (the tenants' HMAC keys, made at the first start) and, unless spool.dir is set, of the spool"`
	Partitions          int32             `koanf:"partitions" desc:"partitions of every topic: one number for the whole platform"`
	Sources             []Source          `koanf:"sources" desc:"write keys and what they may do"`
	Spool               spool.Config      `koanf:"spool" desc:"records that wait for the broker"`
	AckTimeout          time.Duration     `koanf:"ack_timeout" desc:"how long the broker may take before an event goes to the spool instead"`
	MaxInFlightBytes    int64             `koanf:"max_in_flight_bytes" desc:"bound of the memory of requests; from half of it on page events go to the spool, from three quarters cart and others, never purchases"`
	MaxInFlightRequests int64             `koanf:"max_in_flight_requests" desc:"most requests handled at once; others wait"`
	MaxConnections      int               `koanf:"max_connections" desc:"most open connections; others wait to be accepted"`
	HeaderTimeout       time.Duration     `koanf:"header_timeout" desc:"time a client has for the request's headers"`
	ReadTimeout         time.Duration     `koanf:"read_timeout" desc:"time a client has for the whole request"`
	IdleTimeout         time.Duration     `koanf:"idle_timeout" desc:"how long an idle connection is kept"`
	ReadyWait           time.Duration     `koanf:"ready_wait" desc:"longest time to be not ready at the start while the spool of earlier processes is drained"`
	ShutdownGrace       time.Duration     `koanf:"shutdown_grace" desc:"time between being not ready and closing the listener"`
	DrainTimeout        time.Duration     `koanf:"drain_timeout" desc:"time for requests to end and for the spool to empty at shutdown"`
	CountryHeaders      []string          `koanf:"country_headers" desc:"headers in which a proxy tells the client's country, first match first"`
	ClientIPHeader      string            `koanf:"client_ip_header" desc:"header in which a trusted proxy tells the client's address (its first element); empty: the connection's, if public"`
	CORSOrigins         []string          `koanf:"cors_origins" desc:"origins that browsers may send from; * is any"`
	UnknownKeyRate      float64           `koanf:"unknown_key_rate" desc:"requests a second with unknown write keys that are kept for each remote address"`
	BreakerFailures     uint32            `koanf:"breaker_failures" desc:"requests in a row that the broker did not acknowledge in time after which everything goes to the spool"`
	BreakerOpen         time.Duration     `koanf:"breaker_open" desc:"time after which the broker is tried again"`
	Tracer              *telemetry.Tracer `koanf:"-"` // nil: no traces
}

// Source is a write key and what it may do.
type Source struct {
	Key         string   `koanf:"key" desc:"write key" secret:"true"`
	Name        string   `koanf:"source" desc:"name of the source; part of an event's identity"`
	Tenant      string   `koanf:"tenant" desc:"tenant its events belong to"`
	Rate        float64  `koanf:"rate" desc:"events a second; 0: no limit"`
	Burst       int      `koanf:"burst" desc:"events at once; 0: one second's, at least a full request's"`
	Categories  []string `koanf:"categories" desc:"categories it may send; empty: all"`
	PII         []Rule   `koanf:"pii" desc:"members to drop or hash, at any depth, before anything is stored"`
	AllowReplay bool     `koanf:"allow_replay" desc:"may send history with X-Millrace-Lane: replay"`
	Disabled    bool     `koanf:"disabled" desc:"revoked: its events are kept as failed events unknown_key"`
}

// Rule says what becomes of the members with a name.
type Rule struct {
	Key    string `koanf:"key" desc:"member name"`
	Action string `koanf:"action" desc:"drop or hash"`
}

// The bounds of a request.
const (
	MaxBodyBytes = 20 << 20 // decoded
	MaxEvents    = 10_000
)

// DefaultConfig has everything but a data folder and sources.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:8080", Partitions: 4, Spool: spool.DefaultConfig(), AckTimeout: 2 * time.Second,
		MaxInFlightBytes: 256 << 20, MaxInFlightRequests: 4096, MaxConnections: 16384,
		HeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ReadyWait: 30 * time.Second, ShutdownGrace: 0, DrainTimeout: 20 * time.Second,
		CountryHeaders: []string{"CF-IPCountry", "X-Country"}, CORSOrigins: []string{"*"}, UnknownKeyRate: 1,
		BreakerFailures: 5, BreakerOpen: time.Second,
	}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen: %q is no host:port: %w", c.Listen, err)
	}
	if c.DataDir == "" {
		bad("data_dir: is missing")
	}
	if c.Partitions < 1 {
		bad("partitions: %d is below 1", c.Partitions)
	}
	for _, one := range []struct {
		name string
		d    time.Duration
	}{{"ack_timeout", c.AckTimeout}, {"header_timeout", c.HeaderTimeout}, {"read_timeout", c.ReadTimeout}, {"idle_timeout", c.IdleTimeout}, {"drain_timeout", c.DrainTimeout}, {"breaker_open", c.BreakerOpen}} {
		if one.d <= 0 {
			bad("%s: %v is not above 0", one.name, one.d)
		}
	}
	if c.ReadyWait < 0 {
		bad("ready_wait: %v is below 0", c.ReadyWait)
	}
	if c.ShutdownGrace < 0 {
		bad("shutdown_grace: %v is below 0", c.ShutdownGrace)
	}
	if c.MaxInFlightBytes < 2*MaxBodyBytes {
		bad("max_in_flight_bytes: %d is below %d", c.MaxInFlightBytes, 2*MaxBodyBytes)
	}
	if c.MaxInFlightRequests < 1 {
		bad("max_in_flight_requests: %d is below 1", c.MaxInFlightRequests)
	}
	if c.MaxConnections < 1 {
		bad("max_connections: %d is below 1", c.MaxConnections)
	}
	if c.UnknownKeyRate <= 0 {
		bad("unknown_key_rate: %v is not above 0", c.UnknownKeyRate)
	}
	if c.BreakerFailures < 1 {
		bad("breaker_failures: %d is below 1", c.BreakerFailures)
	}
	if err := c.spool().Validate(); err != nil && c.DataDir+c.Spool.Dir != "" {
		bad("spool: %w", err)
	}
	keys := map[string]bool{}
	for i, s := range c.Sources {
		for _, err := range s.problems() {
			bad("sources[%d].%w", i, err)
		}
		if keys[s.Key] {
			bad("sources[%d].key: is that of another source", i)
		}
		keys[s.Key] = true
	}
	return errors.Join(errs...)
}

func (s Source) problems() []error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if len(s.Key) < 8 || len(s.Key) > 256 || strings.ContainsFunc(s.Key, notKeyRune) {
		bad("key: 8 to 256 visible characters without ':' are expected")
	}
	for _, one := range []struct{ name, v string }{{"source", s.Name}, {"tenant", s.Tenant}} {
		if one.v == "" || len(one.v) > 64 || strings.ContainsFunc(one.v, func(r rune) bool { return r < 0x20 || r == 0x7F }) {
			bad("%s: %q is not 1 to 64 bytes without control characters", one.name, one.v)
		}
	}
	if s.Rate < 0 {
		bad("rate: %v is below 0", s.Rate)
	}
	if s.Burst < 0 {
		bad("burst: %d is below 0", s.Burst)
	}
	for _, c := range s.Categories {
		if _, ok := event.ParseCategory(c); !ok {
			bad("categories: %q is no category", c)
		}
	}
	for i, r := range s.PII {
		if r.Key == "" {
			bad("pii[%d].key: is missing", i)
		}
		if a := wire.Action(r.Action); a != wire.Drop && a != wire.Hash {
			bad("pii[%d].action: %q is neither drop nor hash", i, r.Action)
		}
	}
	return errs
}

func notKeyRune(r rune) bool { return r <= ' ' || r > '~' || r == ':' }

// spool is the spool's configuration with its folder filled in.
func (c Config) spool() spool.Config {
	s := c.Spool
	if s.Dir == "" && c.DataDir != "" {
		s.Dir = c.DataDir + "/spool"
	}
	return s
}
