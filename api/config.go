package api

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Config is how the API answers.
type Config struct {
	Listen               string        `koanf:"listen" desc:"address of the API and the dashboard"`
	Tenant               string        `koanf:"tenant" desc:"tenant of questions that name none"`
	MaxRows              int           `koanf:"max_rows" desc:"rows of one query's result at most"`
	MaxRowsRead          int           `koanf:"max_rows_read" desc:"rows that one query reads at most"`
	MaxMemory            int64         `koanf:"max_memory" desc:"memory of one query on the server, bytes"`
	QueryTimeout         time.Duration `koanf:"query_timeout" desc:"run time of one query at most"`
	MaxConcurrentQueries int           `koanf:"max_concurrent_queries" desc:"answers that are computed at once"`
	MaxWaiting           int           `koanf:"max_waiting" desc:"questions that wait for one of those places; more are answered busy"`
	MaxWait              time.Duration `koanf:"max_wait" desc:"time that a question waits for its place"`
	CacheTTL             time.Duration `koanf:"cache_ttl" desc:"time that an answer is kept in Redis; it is used only while the data has not changed"`
	Freshness            time.Duration `koanf:"freshness" desc:"how often it is looked whether the data has changed: answers may be this much behind"`
	LiveDelay            time.Duration `koanf:"live_delay" desc:"how far live KPIs end before now, so that their last second is complete"`
	HealthInterval       time.Duration `koanf:"health_interval" desc:"time between looks at the health of the pipeline"`
	StaleAfter           time.Duration `koanf:"stale_after" desc:"age of the newest stored record above which a sink with lag is called stale"`
	MaxStreams           int           `koanf:"max_streams" desc:"clients of server-sent events at once"`
	Heartbeat            time.Duration `koanf:"heartbeat" desc:"time between comments that keep an idle stream open"`
	CORSOrigins          []string      `koanf:"cors_origins" desc:"origins of other pages that may ask; * for all"`
	TemporalUI           string        `koanf:"temporal_ui" desc:"address of the Temporal UI for links; empty: temporal.ui"`
	Metrics              []string      `koanf:"metrics" desc:"addresses of the roles' /metrics, each as role=url"`
}

// DefaultConfig suits one machine.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:8090", Tenant: "default",
		MaxRows: 500_000, MaxRowsRead: 2_000_000_000, MaxMemory: 1 << 30, QueryTimeout: 10 * time.Second,
		MaxConcurrentQueries: 8, MaxWaiting: 64, MaxWait: 2 * time.Second,
		CacheTTL: time.Minute, Freshness: time.Second, LiveDelay: 2 * time.Second, HealthInterval: 2 * time.Second, StaleAfter: time.Minute,
		MaxStreams: 500, Heartbeat: 15 * time.Second,
	}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen: %q is not host:port", c.Listen)
	}
	if c.Tenant == "" || len(c.Tenant) > maxTenant {
		bad("tenant: %q has not 1 to %d characters", c.Tenant, maxTenant)
	}
	for name, v := range map[string]int{"max_rows": c.MaxRows, "max_rows_read": c.MaxRowsRead, "max_concurrent_queries": c.MaxConcurrentQueries, "max_streams": c.MaxStreams} {
		if v < 1 {
			bad("%s: %d is below 1", name, v)
		}
	}
	if c.MaxWaiting < 0 {
		bad("max_waiting: %d is below 0", c.MaxWaiting)
	}
	if c.MaxMemory < 64<<20 {
		bad("max_memory: %d is below 64 MiB", c.MaxMemory)
	}
	for name, v := range map[string]time.Duration{"query_timeout": c.QueryTimeout, "max_wait": c.MaxWait, "cache_ttl": c.CacheTTL, "stale_after": c.StaleAfter, "heartbeat": c.Heartbeat} {
		if v < 100*time.Millisecond {
			bad("%s: %s is below 100ms", name, v)
		}
	}
	if c.QueryTimeout >= requestTimeout {
		bad("query_timeout: %s is not below %s, in which a request is answered", c.QueryTimeout, requestTimeout)
	}
	if c.Freshness < 0 {
		bad("freshness: %s is below 0", c.Freshness)
	}
	if c.LiveDelay < 0 || c.LiveDelay > time.Minute {
		bad("live_delay: %s is not between 0s and 1m", c.LiveDelay)
	}
	if c.HealthInterval < 200*time.Millisecond || c.HealthInterval > time.Minute {
		bad("health_interval: %s is not between 200ms and 1m", c.HealthInterval)
	}
	for _, o := range c.CORSOrigins {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != o) {
			bad("cors_origins: %q is not an origin such as https://shop.example, or *", o)
		}
	}
	if u, err := url.Parse(c.TemporalUI); c.TemporalUI != "" && (err != nil || u.Host == "") {
		bad("temporal_ui: %q is not an address", c.TemporalUI)
	}
	for _, m := range c.Metrics {
		if _, err := parseTarget(m); err != nil {
			bad("metrics: %w", err)
		}
	}
	return errors.Join(errs...)
}

// target is where a role's metrics are.
type target struct{ role, url string }

// parseTarget reads role=url.
func parseTarget(s string) (target, error) {
	role, address, ok := strings.Cut(s, "=")
	u, err := url.Parse(address)
	if !ok || role == "" || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return target{}, fmt.Errorf("%q is not role=http://host:port/metrics", s)
	}
	return target{role, address}, nil
}
