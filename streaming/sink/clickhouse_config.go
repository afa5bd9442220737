package sink

import (
	"errors"
	"fmt"
	"time"

	"millrace/event"
	"millrace/internal/telemetry"
)

// ClickHouseConfig is how the ClickHouse sink works. See DefaultClickHouseConfig.
type ClickHouseConfig struct {
	Group          string            `koanf:"group" desc:"consumer group"`
	InstanceID     string            `koanf:"instance_id" desc:"static member id of this process within the group"`
	SessionTimeout time.Duration     `koanf:"session_timeout" desc:"after which a silent member loses its partitions; also the age of an accepted commit beyond which nothing is inserted"`
	FlushRows      int               `koanf:"flush_rows" desc:"rows of a batch, which is one block, at most"`
	FlushBytes     int               `koanf:"flush_bytes" desc:"bytes of a batch's records at most"`
	FlushInterval  time.Duration     `koanf:"flush_interval" desc:"age of a batch at most; widened while a table has many active parts"`
	SlowParts      int               `koanf:"slow_parts" desc:"active parts of a table's partition from which even full batches wait"`
	PartsEvery     time.Duration     `koanf:"parts_every" desc:"how often active parts are counted"`
	InsertTimeout  time.Duration     `koanf:"insert_timeout" desc:"limit of one insert"`
	Inserters      int               `koanf:"inserters" desc:"inserts at the same time"`
	MaxBuffered    int               `koanf:"max_buffered" desc:"bytes of records in memory from which on nothing more is fetched"`
	RetryMax       time.Duration     `koanf:"retry_max" desc:"longest pause between attempts while the store is away"`
	Cluster        bool              `koanf:"-"` // the tables are replicated: write to t_local, read presence from a replica that has everything
	ClusterName    string            `koanf:"-"` // of the cluster, for the columns that are added to its tables
	Erasures       *event.SubjectKey `koanf:"-"` // key of the ledger of erasures; nil: there is none
	Generation     uint16            `koanf:"-"` // topic generation
	Tracer         *telemetry.Tracer `koanf:"-"` // nil: no traces
}

// maxBlockRows keeps a batch within one block whatever the server's settings.
const maxBlockRows = 100_000

// DefaultClickHouseConfig has values for one machine and for a cluster alike.
func DefaultClickHouseConfig() ClickHouseConfig {
	return ClickHouseConfig{
		Group: "millrace.sink.clickhouse", InstanceID: "clickhouse-0", SessionTimeout: 10 * time.Second,
		FlushRows: 50_000, FlushBytes: 8 << 20, FlushInterval: 2 * time.Second, SlowParts: 500, PartsEvery: 10 * time.Second,
		InsertTimeout: 30 * time.Second, Inserters: 2, MaxBuffered: 64 << 20, RetryMax: 5 * time.Second,
	}
}

// Validate reports every problem.
func (c ClickHouseConfig) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(c.Group == "", "group: must not be empty")
	bad(c.InstanceID == "", "instance_id: must not be empty")
	bad(c.SessionTimeout < 6*time.Second, "session_timeout: %s is below the broker's least, 6s", c.SessionTimeout)
	bad(c.FlushRows < 1 || c.FlushRows > maxBlockRows, "flush_rows: %d is not between 1 and %d", c.FlushRows, maxBlockRows)
	bad(c.FlushBytes < 1, "flush_bytes: %d is below 1", c.FlushBytes)
	bad(c.FlushInterval <= 0, "flush_interval: %s is not above 0", c.FlushInterval)
	bad(c.SlowParts < 10, "slow_parts: %d is below 10", c.SlowParts)
	bad(c.PartsEvery <= 0, "parts_every: %s is not above 0", c.PartsEvery)
	bad(c.InsertTimeout < time.Second || c.InsertTimeout > 50*time.Second, "insert_timeout: %s is not between 1s and 50s, below the group's rebalance timeout", c.InsertTimeout)
	bad(c.Inserters < 1, "inserters: %d is below 1", c.Inserters)
	bad(c.MaxBuffered < c.FlushBytes, "max_buffered: %d is below flush_bytes, %d", c.MaxBuffered, c.FlushBytes)
	bad(c.RetryMax < 100*time.Millisecond, "retry_max: %s is below 100ms", c.RetryMax)
	return errors.Join(errs...)
}
