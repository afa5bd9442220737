package workers

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"

	"millrace/internal/fault"
)

// Validate reports every problem of what the named roles use (all roles if none is named), with key, value and bound.
func (c Config) Validate(roles []string) error {
	c = c.complete()
	var errs []error
	section := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	needs := map[string]bool{}
	uses := func(role string) bool { return len(roles) == 0 || slices.Contains(roles, role) }
	for _, r := range Roles() {
		if uses(r.Name) {
			for _, n := range r.Needs {
				needs[n] = true
			}
		}
	}
	if _, err := ParseLevel(c.Log.Level); err != nil {
		section("log.level", err)
	}
	if c.Log.Format != "json" && c.Log.Format != "text" {
		errs = append(errs, fmt.Errorf("log.format: %q is neither json nor text", c.Log.Format))
	}
	section("telemetry", c.Telemetry.Validate())
	if needs["kafka"] {
		section("kafka", c.Kafka.Validate())
	}
	if needs["schema_registry"] && c.SchemaRegistry.URL == "" {
		errs = append(errs, errors.New("schema_registry.url: must not be empty"))
	}
	if needs["clickhouse"] {
		section("clickhouse", c.ClickHouse.Validate())
		section("sink.clickhouse", c.Sink.ClickHouse.Validate())
	}
	if needs["redis"] {
		if len(c.Redis.Addr) == 0 {
			errs = append(errs, errors.New("redis.addr: must not be empty"))
		}
		section("sink.redis", c.Sink.Redis.Validate())
	}
	if needs["iceberg"] {
		section("iceberg", c.Iceberg.Validate())
		section("sink.iceberg", c.Sink.Iceberg.Validate())
	}
	if needs["temporal"] {
		section("temporal", c.Temporal.Validate())
	}
	if uses("batch") || uses("sink-clickhouse") || uses("sink-iceberg") {
		section("erasure", c.Erasure.Validate())
	}
	if uses("batch") {
		section("bigquery", c.BigQuery.Validate())
		section("batch", c.Batch.Validate())
		section("lineage", c.Lineage.Validate())
	}
	if uses("api") {
		section("api", c.API.Validate())
	}
	if uses("gateway") {
		section("gateway", c.Gateway.Validate())
	}
	if uses("registry") {
		section("registry", c.registryConfig().Validate())
	}
	if uses("sink-redis") {
		section("alerts", c.Alerts.Validate())
	}
	if uses("stream") {
		section("stream", c.Stream.Validate())
		section("hot", c.Hot.Validate())
	}
	return fault.New("MR-CFG-001", errors.Join(errs...))
}

// Validate reports every problem.
func (c KafkaConfig) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: must not be empty"))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			errs = append(errs, fmt.Errorf("brokers: %q is not host:port", b))
		}
	}
	if c.Partitions < 1 || c.Partitions > 1024 {
		errs = append(errs, fmt.Errorf("partitions: %d is not between 1 and 1024", c.Partitions))
	}
	if c.Replication < 1 || c.Replication > 9 {
		errs = append(errs, fmt.Errorf("replication: %d is not between 1 and 9", c.Replication))
	}
	if !slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, c.SASLMechanism) {
		errs = append(errs, fmt.Errorf("sasl_mechanism: %q is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASLMechanism))
	}
	if c.MaxMessageBytes < 2<<20 || c.MaxMessageBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("max_message_bytes: %d is not between 2 MiB and 64 MiB: one event may have 1 MiB", c.MaxMessageBytes))
	}
	return errors.Join(errs...)
}

// ParseLevel reads a log level.
func ParseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return l, fmt.Errorf("%q is not debug, info, warn or error", s)
	}
	return l, nil
}
