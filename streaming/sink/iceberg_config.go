package sink

import (
	"errors"
	"fmt"
	"time"

	"millrace/event"
	"millrace/internal/telemetry"
)

// IcebergConfig is how the Iceberg sink works. See DefaultIcebergConfig.
type IcebergConfig struct {
	Group          string            `koanf:"group" desc:"consumer group"`
	InstanceID     string            `koanf:"instance_id" desc:"static member id of this process within the group"`
	SessionTimeout time.Duration     `koanf:"session_timeout" desc:"after which a silent member loses its partitions"`
	CommitInterval time.Duration     `koanf:"commit_interval" desc:"age of the oldest row at which a table is committed"`
	CommitBytes    int64             `koanf:"commit_bytes" desc:"uncompressed bytes of rows at which a table is committed before that"`
	MaxBuffered    int64             `koanf:"max_buffered" desc:"uncompressed bytes of rows of all tables at which the largest is committed before that"`
	CommitTimeout  time.Duration     `koanf:"commit_timeout" desc:"limit of one attempt to commit"`
	CheckInterval  time.Duration     `koanf:"check_interval" desc:"how often the head of a table without new rows is looked at, to follow a rollback"`
	LaneTimeout    time.Duration     `koanf:"lane_timeout" desc:"how long appends to a table wait for a commit of its maintenance"`
	RetryMax       time.Duration     `koanf:"retry_max" desc:"longest pause between attempts while the catalog or the warehouse is away"`
	ExpireEvery    int               `koanf:"expire_every" desc:"commits of a table between two expiries of its snapshots"`
	KeepSnapshots  int               `koanf:"keep_snapshots" desc:"snapshots of a table that are kept however old they are"`
	KeepAge        time.Duration     `koanf:"keep_age" desc:"age below which snapshots are kept however many they are; older ones are expired unless a branch or tag names them"`
	Erasures       *event.SubjectKey `koanf:"-"` // key of the ledger of erasures; nil: there is none
	Tracer         *telemetry.Tracer `koanf:"-"` // nil: no traces
}

// DefaultIcebergConfig has values for one machine and for a cluster alike. Metadata grows by 0.7 KB a snapshot and is written anew by every commit: at an hour
// of commits a commit costs 50 ms, at a thousand snapshots 170 ms.
func DefaultIcebergConfig() IcebergConfig {
	return IcebergConfig{
		Group: "millrace.sink.iceberg", InstanceID: "iceberg-0", SessionTimeout: 10 * time.Second,
		CommitInterval: 10 * time.Second, CommitBytes: 128 << 20, MaxBuffered: 256 << 20, CommitTimeout: 15 * time.Second,
		CheckInterval: 30 * time.Second, LaneTimeout: 2 * time.Second, RetryMax: 5 * time.Second, ExpireEvery: 100, KeepSnapshots: 100, KeepAge: time.Hour,
	}
}

// Validate reports every problem.
func (c IcebergConfig) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(c.Group == "", "group: must not be empty")
	bad(c.InstanceID == "", "instance_id: must not be empty")
	bad(c.SessionTimeout < 6*time.Second, "session_timeout: %s is below the broker's least, 6s", c.SessionTimeout)
	bad(c.CommitInterval <= 0, "commit_interval: %s is not above 0s", c.CommitInterval)
	bad(c.CommitBytes < 1, "commit_bytes: %d is below 1", c.CommitBytes)
	bad(c.MaxBuffered < c.CommitBytes, "max_buffered: %d is below commit_bytes, %d", c.MaxBuffered, c.CommitBytes)
	bad(c.CommitTimeout < time.Second || c.CommitTimeout > 30*time.Second, "commit_timeout: %s is not between 1s and 30s, well below the group's rebalance timeout", c.CommitTimeout)
	bad(c.CheckInterval <= 0, "check_interval: %s is not above 0s", c.CheckInterval)
	bad(c.LaneTimeout <= 0 || c.LaneTimeout > 30*time.Second, "lane_timeout: %s is not above 0s and at most 30s", c.LaneTimeout)
	bad(c.RetryMax < icebergRetryMin, "retry_max: %s is below %s", c.RetryMax, icebergRetryMin)
	bad(c.ExpireEvery < 1, "expire_every: %d is below 1", c.ExpireEvery)
	bad(c.KeepSnapshots < 1, "keep_snapshots: %d is below 1", c.KeepSnapshots)
	bad(c.KeepAge < 0, "keep_age: %s is below 0s", c.KeepAge)
	return errors.Join(errs...)
}

const (
	icebergRetryMin   = 100 * time.Millisecond
	icebergPollMax    = 250 * time.Millisecond
	icebergPollRows   = 5000
	icebergFetchBytes = 8 << 20
)
