package streaming

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Protocols of a group.
const (
	ProtocolClassic  = "classic"
	ProtocolConsumer = "consumer"
)

// Guarantees of a worker.
const (
	ExactlyOnce = "exactly_once"
	AtLeastOnce = "at_least_once"
)

// Config is a worker's. Zero values mean the defaults that Defaults fills in.
type Config struct {
	// Group is the consumer group of all workers of the topology.
	Group string `koanf:"group" desc:"consumer group of all workers"`
	// InstanceID names the worker's slot in the group, the same after a restart; no two live workers share one.
	InstanceID string `koanf:"instance_id" desc:"slot of this worker in the group, the same after a restart; no two live workers share one"`
	// TransactionalID is as stable as InstanceID. Default: Group + "." + InstanceID.
	TransactionalID string `koanf:"transactional_id" desc:"as stable as instance_id; empty: group.instance_id"`
	// Protocol of the group: classic (default) or consumer, where the broker assigns tasks (KIP-848). A worker that comes back after a crash goes on at once in both; the tasks
	// of one that does not are given to others after the broker's group.consumer.session.timeout.ms (45 s) in place of SessionTimeout.
	Protocol string `koanf:"protocol" desc:"protocol of the consumer group: classic, or consumer (KIP-848), where the broker's session timeout holds in place of session_timeout"`
	// Guarantee is exactly_once (default), or at_least_once: no transactions; outputs, state and offsets are written in an order in which a crash loses nothing, and up to
	// a commit interval is done again on a state that may hold some of it.
	Guarantee string `koanf:"guarantee" desc:"exactly_once, or at_least_once: without transactions; after a crash up to a commit interval is done again, on a state that may hold some of it already"`
	// Generation of the topics: raised when the platform's partition count changes. Default 1, at most 32767.
	Generation uint32 `koanf:"-"`

	// CommitInterval is the time from the first change to the commit that makes it durable. Default 50 ms, 1 ms to 10 s.
	CommitInterval time.Duration `koanf:"commit_interval" desc:"time from the first change to the commit that makes it durable"`
	// CommitRecords and CommitBytes end a transaction early. Defaults 50,000 records read and 32 MiB emitted.
	CommitRecords int `koanf:"commit_records" desc:"records read after which a transaction ends early"`
	CommitBytes   int `koanf:"commit_bytes" desc:"bytes written after which a transaction ends early"`
	// MergeWait is how long a record waits for an earlier one of another input that has nothing to be read. Default 25 ms, above the longest linger of a producer; -1 does not wait. Less for inputs
	// of which less is known to do (Topology.Linger), and 5 ms for those that an earlier stage writes.
	MergeWait time.Duration `koanf:"merge_wait" desc:"how long a record waits at most for an earlier one of another input that has nothing to be read; -1ns does not wait"`
	// Disorder is how far behind the latest event time of an input its next event may be. Default 2 s.
	Disorder time.Duration `koanf:"disorder" desc:"how far behind the latest event time of an input its next event may be"`
	// IdleAfter is how long an input without lag may be silent before watermarks no longer wait for it. Default 1 s.
	IdleAfter time.Duration `koanf:"idle_after" desc:"how long an input without lag may be silent before watermarks no longer wait for it"`
	// UpstreamGone is how long a later stage waits for the event time of a task of the earlier one that it hears nothing of. Default 1 min, above the earlier stage's
	// commit interval.
	UpstreamGone time.Duration `koanf:"upstream_gone" desc:"how long a later stage waits for the event time of a task of the earlier one that it hears nothing of"`
	// BufferRecords bounds the records that one task holds for merging; a partition of an input above it is paused. Default 20,000.
	BufferRecords int `koanf:"buffer_records" desc:"records that one task holds for merging"`
	// PollRecords bounds the records of one poll. Default 10,000.
	PollRecords int `koanf:"poll_records" desc:"records of one poll"`
	// Parallel is the number of goroutines that run tasks. Default GOMAXPROCS.
	Parallel int `koanf:"parallel" desc:"goroutines that run tasks; 0: one a processor"`

	// MaxKeyBytes bounds the key of an input record; one with a longer key is left out, counted and told of (Refuser): state kept by it could not be written to the
	// changelog. Default 64 KiB, at most 512 KiB.
	MaxKeyBytes int `koanf:"max_key_bytes" desc:"bytes of an input record's key; a record with a longer one is left out and counted"`

	// StateDir is where the worker keeps its local state: snapshots that a restart goes on from, and keys that memory has no room for. Empty: all state is in
	// memory and comes from the changelog. Workers may share it: each slot has a directory of its own in it.
	StateDir string `koanf:"state_dir" desc:"directory of local state: snapshots that a restart goes on from, and keys that memory has no room for; empty: everything in memory, restored from the changelog"`
	// StateBytes bounds what the stores of all tasks of the worker hold in memory, about; windows, timers and the operators' own memory come on top. Default
	// 256 MiB with a StateDir; -1 is unbounded.
	StateBytes int64 `koanf:"state_bytes" desc:"bytes of the keyed stores of all tasks in memory, about, with state_dir; -1: unbounded"`

	// SessionTimeout: a silent worker's tasks are given away after it. Default 10 s, 6 s to 5 min.
	SessionTimeout time.Duration `koanf:"session_timeout" desc:"a silent worker's tasks are given away after it"`
	// RebalanceTimeout: how long a rebalance waits for this worker. Default 30 s.
	RebalanceTimeout time.Duration `koanf:"rebalance_timeout" desc:"how long a rebalance waits for this worker"`
	// TransactionTimeout: the broker aborts a transaction left open for it. Default 10 s, at least CommitInterval + 1 s.
	TransactionTimeout time.Duration `koanf:"transaction_timeout" desc:"the broker aborts a transaction left open for it"`
	// LeaveOnStop gives the tasks away at once when Run stops cleanly (scale-in) in place of keeping the slot for a restart.
	LeaveOnStop bool `koanf:"leave_on_stop" desc:"give the tasks away at once when stopping cleanly (scale-in)"`
}

// Defaults returns c with its zero values filled in.
func (c Config) Defaults() Config {
	def(&c.TransactionalID, c.Group+"."+c.InstanceID)
	def(&c.Protocol, ProtocolClassic)
	def(&c.Guarantee, ExactlyOnce)
	def(&c.Generation, 1)
	def(&c.CommitInterval, 50*time.Millisecond)
	def(&c.CommitRecords, 50_000)
	def(&c.CommitBytes, 32<<20)
	def(&c.MergeWait, 25*time.Millisecond)
	def(&c.Disorder, 2*time.Second)
	def(&c.IdleAfter, time.Second)
	def(&c.UpstreamGone, time.Minute)
	def(&c.BufferRecords, 20_000)
	def(&c.PollRecords, 10_000)
	def(&c.Parallel, runtime.GOMAXPROCS(0))
	if c.StateDir != "" {
		def(&c.StateBytes, 256<<20)
	}
	def(&c.MaxKeyBytes, 64<<10)
	def(&c.SessionTimeout, 10*time.Second)
	def(&c.RebalanceTimeout, 30*time.Second)
	def(&c.TransactionTimeout, 10*time.Second)
	return c
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports every problem of a Config after Defaults.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, field string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("streaming: %s is %v, want %s", field, value, bound))
		}
	}
	need(c.Group != "", "Group", `""`, "a name")
	need(c.InstanceID != "", "InstanceID", `""`, "a name")
	need(c.Protocol == ProtocolClassic || c.Protocol == ProtocolConsumer, "Protocol", c.Protocol, "classic or consumer")
	need(c.Guarantee == ExactlyOnce || c.Guarantee == AtLeastOnce, "Guarantee", c.Guarantee, "exactly_once or at_least_once")
	need(c.Generation >= 1 && c.Generation <= 32767, "Generation", c.Generation, "1 to 32767")
	need(c.CommitInterval >= time.Millisecond && c.CommitInterval <= 10*time.Second, "CommitInterval", c.CommitInterval, "1ms to 10s")
	need(c.CommitRecords >= 1, "CommitRecords", c.CommitRecords, "at least 1")
	need(c.CommitBytes >= 1<<10, "CommitBytes", c.CommitBytes, "at least 1024")
	need(c.MergeWait >= -1 && c.MergeWait <= time.Minute, "MergeWait", c.MergeWait, "-1 or 0 to 1m")
	need(c.Disorder >= 0 && c.Disorder <= 24*time.Hour, "Disorder", c.Disorder, "0 to 24h")
	need(c.IdleAfter >= time.Millisecond, "IdleAfter", c.IdleAfter, "at least 1ms")
	need(c.UpstreamGone >= time.Second, "UpstreamGone", c.UpstreamGone, "at least 1s")
	need(c.BufferRecords >= 1, "BufferRecords", c.BufferRecords, "at least 1")
	need(c.PollRecords >= 1, "PollRecords", c.PollRecords, "at least 1")
	need(c.Parallel >= 1, "Parallel", c.Parallel, "at least 1")
	need(c.MaxKeyBytes >= 1 && c.MaxKeyBytes <= 512<<10, "MaxKeyBytes", c.MaxKeyBytes, "1 to 524288")
	need(c.StateBytes == -1 || c.StateBytes == 0 || c.StateBytes >= 1<<20, "StateBytes", c.StateBytes, "at least 1048576, or -1")
	need(c.SessionTimeout >= 6*time.Second && c.SessionTimeout <= 5*time.Minute, "SessionTimeout", c.SessionTimeout, "6s to 5m, the brokers' bounds")
	need(c.RebalanceTimeout >= time.Second, "RebalanceTimeout", c.RebalanceTimeout, "at least 1s")
	need(c.TransactionTimeout >= c.CommitInterval+time.Second, "TransactionTimeout", c.TransactionTimeout, "at least CommitInterval + 1s")
	return errors.Join(errs...)
}

// DefaultConfig has values for one worker of the group millrace.hot.
func DefaultConfig() Config {
	return Config{Group: "millrace.hot", InstanceID: "stream-0"}.Defaults()
}
