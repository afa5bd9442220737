package event

import "time"

// Topics that are no category's.
const (
	TopicRawFailed    = "raw.failed"    // typed failed events from the gateway and the sinks
	TopicEventsFailed = "events.failed" // the same, deduplicated
	TopicKPIPartial   = "kpi.partial"
	TopicKPILate      = "kpi.late"
	TopicLedger       = "events.ledger" // control totals
	TopicAlerts       = "alerts"
	TopicAlertsFast   = "alerts.fast" // the same, on arrival and provisional
	TopicRekeyCard    = "rekey.card"  // what the second stage sees, keyed by card, address, user and product
	TopicRekeyIP      = "rekey.ip"
	TopicRekeyUser    = "rekey.user"
	TopicRekeyProduct = "rekey.product"
	TopicRekeyKPI     = "rekey.kpi"    // keyed by tenant: what tasks have counted in a minute
	TopicLiveUpdates  = "live.updates" // what jobs keep in Redis
	TopicControl      = "control"
	TopicErasures     = "erasures"
)

// Codec is a producer's compression.
type Codec string

// The compressions in use.
const (
	Snappy Codec = "snappy"
	Zstd   Codec = "zstd"
)

// ShedClass is the order in which the gateway sheds load: lower first.
type ShedClass uint8

// The shed classes.
const (
	ShedFirst ShedClass = iota // page
	ShedLater                  // cart and all others
	ShedNever                  // purchase, failed events
)

// Topic is what a topic's nature asks of its producers and of the broker. All are produced idempotently with acks=all, RF 3 and min ISR 2 (1 and 1 on one machine).
type Topic struct {
	Name          string
	Linger        time.Duration
	Codec         Codec
	Retention     time.Duration // 0: forever
	Compacted     bool          // cleanup.policy=compact (never on kfake: it loses what transactions write)
	LogAppendTime bool          // message.timestamp.type=LogAppendTime: the broker's arrival time is ingested_at
	Tiered        bool          // older segments go to object storage where the broker can
	Shed          ShedClass
	Partitioned   bool // has the platform's N partitions; else 1
	HotInput      bool // read by the hot topology
}

const day = 24 * time.Hour

// Topics is every topic but the engine's own state.*, in one table.
func Topics() []Topic {
	raw := map[Category]Topic{
		Page:     {Linger: 20 * time.Millisecond, Codec: Zstd, Retention: 3 * day, Shed: ShedFirst},
		Cart:     {Linger: 5 * time.Millisecond, Codec: Snappy, Retention: 7 * day, Shed: ShedLater},
		Purchase: {Codec: Snappy, Retention: 30 * day, Tiered: true, Shed: ShedNever},
	}
	var out []Topic
	for _, c := range Categories() {
		t, ok := raw[c]
		if !ok {
			t = Topic{Linger: 10 * time.Millisecond, Codec: Snappy, Retention: 7 * day, Shed: ShedLater}
		}
		t.Name, t.LogAppendTime, t.Partitioned, t.HotInput = c.RawTopic(), true, true, true
		out = append(out, t, Topic{Name: c.EventsTopic(), Codec: Snappy, Retention: t.Retention, Tiered: t.Tiered, Partitioned: true})
	}
	return append(out,
		Topic{Name: TopicRawFailed, Linger: 5 * time.Millisecond, Codec: Snappy, Retention: 30 * day, LogAppendTime: true, Shed: ShedNever, Partitioned: true, HotInput: true},
		Topic{Name: TopicEventsFailed, Codec: Snappy, Retention: 30 * day, Partitioned: true},
		Topic{Name: TopicAlerts, Linger: 5 * time.Millisecond, Codec: Snappy, Retention: 30 * day, Partitioned: true, Shed: ShedNever},
		Topic{Name: TopicAlertsFast, Codec: Snappy, Retention: 3 * day, Partitioned: true, Shed: ShedNever},
		Topic{Name: TopicRekeyCard, Codec: Snappy, Retention: day, Partitioned: true},
		Topic{Name: TopicRekeyIP, Codec: Snappy, Retention: day, Partitioned: true},
		Topic{Name: TopicRekeyUser, Codec: Snappy, Retention: day, Partitioned: true},
		Topic{Name: TopicRekeyProduct, Codec: Snappy, Retention: day, Partitioned: true},
		Topic{Name: TopicRekeyKPI, Codec: Snappy, Retention: day, Partitioned: true},
		Topic{Name: TopicLiveUpdates, Codec: Snappy, Retention: 3 * day, Partitioned: true},
		Topic{Name: TopicKPIPartial, Codec: Snappy, Compacted: true, Partitioned: true},
		Topic{Name: TopicKPILate, Codec: Snappy, Retention: 30 * day, Partitioned: true},
		Topic{Name: TopicLedger, Codec: Snappy, Retention: 30 * day, Partitioned: true},
		Topic{Name: TopicControl, Codec: Snappy, Compacted: true},
		Topic{Name: TopicErasures, Codec: Snappy, Compacted: true},
	)
}

// TopicNamed finds a topic in the table.
func TopicNamed(name string) (Topic, bool) {
	for _, t := range Topics() {
		if t.Name == name {
			return t, true
		}
	}
	return Topic{}, false
}
