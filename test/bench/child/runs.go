package child

import (
	"strconv"
	"time"
)

// FlinkCheckpoint is how far apart Flink's checkpoints are, and our commits.
const FlinkCheckpoint = 10 * time.Second

// FlinkRun is one run of a job over a topic.
type FlinkRun struct {
	Name       string        `json:"name"`   // of its topics and groups
	Topic      string        `json:"topic"`  // of events
	Format     string        `json:"format"` // avro or json
	Events     int64         `json:"events"`
	Interval   time.Duration `json:"interval"`
	Enriched   bool          `json:"enriched"`   // write every event again, and keep a state of each visitor
	AtLeast    bool          `json:"at_least"`   // at least once in place of exactly once
	Partitions int32         `json:"partitions"` // of its topics
}

// KPIs is the topic of its rows of KPIs.
func (r FlinkRun) KPIs() string { return r.Name + ".kpi" }

// Alerts is the topic of its alerts.
func (r FlinkRun) Alerts() string { return r.Name + ".alerts" }

// Cards is the topic between the two stages.
func (r FlinkRun) Cards() string { return r.Name + ".rekey.card" }

// Again is the topic of events that are written again.
func (r FlinkRun) Again() string { return r.Name + ".events" }

// NexRun is one run of a query.
type NexRun struct {
	Query  string `json:"query"`
	Name   string `json:"name"` // of its topics and groups
	Topic  string `json:"topic"`
	Events int64  `json:"events"`
}

// Out is the topic of its answer.
func (r NexRun) Out() string { return r.Name + ".out" }

// NexStages is how many stages a query has at most.
const NexStages = 3

// Between is the topic between two stages.
func (r NexRun) Between(stage int) string { return r.Name + ".rekey." + strconv.Itoa(stage) }

// The shop of bench-flink: 10,000 events in a second of event time, up to two seconds out of order, of 100,000 visitors in 20 countries with three kinds of devices; one
// in 28 is a purchase, and one purchase in 36 is made with the card that is being tried out just then. The same seed gives the same events.
const (
	FlinkPartitions = 12
	FlinkRate       = 10_000 // events a second of event time
	FlinkStart      = int64(1_772_366_400_000)
	FlinkDisorder   = 2000 // ms
	FlinkEnd        = "end"
	AlertAbove      = 5
	HopSize         = 60_000 // ms
	HopSlide        = 10_000 // ms
)

// The auctions of Nexmark (Tucker, Tufte, Papadimos, Maier: "NEXMark – A Benchmark for Queries over Data Streams", 2002, in the proportions of Apache Beam's generator):
// of 50 events one is a new person, three are new auctions, 46 are bids, half of them on an auction that is hot and three in four by a bidder who is. A topic is keyed by
// the person who acts. Event time goes on by a second every 10,000 events, up to a second out of order.
const (
	NexmarkRate     = 10_000
	NexmarkDisorder = 1000 // ms
	NexmarkFirstID  = 1000
	KindPerson      = 0
	KindAuction     = 1
	KindBid         = 2
	KindEnd         = 9
	HotWindow       = 10_000 // ms: of q5, q7 and q8
	HotSlide        = 2_000  // of q5
	SessionGap      = 10_000 // of q11
)
