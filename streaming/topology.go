package streaming

import (
	"errors"
	"fmt"
	"time"
)

// Topology is what one worker group runs: co-partitioned inputs and one operator per partition number.
type Topology struct {
	Name, Stage string                   // the changelog is state.<Name>.<Stage>, a log state.<log>.<Name>.<Stage>
	Inputs      []string                 // topics with Partitions partitions each; the index is the `in` of Process and Observe
	Linger      map[string]time.Duration // how long the producers of an input hold records back at most; Config.MergeWait where it is not said, and never more
	Untimed     []string                 // inputs that carry no event time: watermarks never wait for them
	// Upstream names the inputs that tasks of an earlier stage write by Rekey, and how many of these there are. Their event time is what those tasks say: the operator does
	// not observe it. Rekeys are the topics that this stage writes so.
	Upstream map[string]int32
	Rekeys   []string
	// Announced names the inputs of which the earlier stage announces records (Announce): they are shown (Previewer) before they are committed, and not when they are. Announces are
	// the topics that this stage announces in.
	Announced []string
	Announces []string

	Partitions int32       // N: stored with the state and refused if it changes
	Stores     []StoreSpec // every store and window set that New opens; ids < FirstStoreID are the engine's own
	Logs       []LogSpec
	// New makes the operator of a task: it opens its stores and windows, and remembers the task. It is called before the
	// state is restored, so it must not read the stores yet. Tasks run at the same time on several goroutines, and New for one
	// task while others run: what operators share must be safe for that.
	New func(*Task) (Operator, error)
}

// FirstStoreID is the smallest store id a topology may use.
const FirstStoreID = 16

// StoreSpec declares a store. An id is for ever; Format is a number that the operator raises when its encoding changes.
type StoreSpec struct {
	ID     uint16
	Name   string
	Format uint8
}

// LogSpec declares an append-only log (cleanup.policy=delete): what was appended longer than Retention ago is not restored.
type LogSpec struct {
	Name      string
	Retention time.Duration
}

// TopicSpec is a topic that must exist before a worker starts.
type TopicSpec struct {
	Name       string
	Partitions int32
	// Compacted asks for cleanup.policy=compact, keeping the last value of each key for ever. On a broker whose compaction does not stop
	// at the last stable offset (kfake) the creator must use cleanup.policy=delete with retention.ms=-1 instead.
	Compacted bool
	Retention time.Duration // of a topic that is not compacted
}

// ChangelogTopic is the topic that holds the state of top.
func ChangelogTopic(top Topology) string { return "state." + top.Name + "." + top.Stage }

// LogTopic is the topic of one of top's logs.
func LogTopic(top Topology, log string) string {
	return "state." + log + "." + top.Name + "." + top.Stage
}

// logSlack is how much longer than its window a log is kept, so that a restore inside the window never meets the edge of retention.
const logSlack = time.Hour

// RequiredTopics lists the state topics of the topology. Inputs and outputs are the caller's to create.
func (top Topology) RequiredTopics() []TopicSpec {
	out := []TopicSpec{{Name: ChangelogTopic(top), Partitions: top.Partitions, Compacted: true}}
	for _, l := range top.Logs {
		out = append(out, TopicSpec{Name: LogTopic(top, l.Name), Partitions: top.Partitions, Retention: l.Retention + logSlack})
	}
	return out
}

// Validate reports every problem of the topology.
func (top Topology) Validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("topology %s.%s: "+format, append([]any{top.Name, top.Stage}, a...)...))
	}
	if top.Name == "" || top.Stage == "" {
		bad("name and stage must not be empty")
	}
	if len(top.Inputs) == 0 || len(top.Inputs) > maxInputs {
		bad("%d inputs, want 1 to %d", len(top.Inputs), maxInputs)
	}
	if top.Partitions < 1 {
		bad("partitions %d, want at least 1", top.Partitions)
	}
	if top.New == nil {
		bad("has no operator (New is nil)")
	}
	inputs, ids, names := map[string]bool{}, map[uint16]bool{}, map[string]bool{}
	for _, in := range top.Inputs {
		if in == "" || inputs[in] {
			bad("input %q is empty or named twice", in)
		}
		inputs[in] = true
	}
	for _, s := range top.Stores {
		switch {
		case s.ID < FirstStoreID:
			bad("store %q has id %d, below %d are the engine's own", s.Name, s.ID, FirstStoreID)
		case ids[s.ID]:
			bad("store id %d is given twice", s.ID)
		}
		ids[s.ID] = true
		if s.Name == "" || names[s.Name] {
			bad("store name %q is empty or given twice", s.Name)
		}
		names[s.Name] = true
	}
	for in, n := range top.Upstream {
		if !inputs[in] || n < 1 || n > maxUpstream {
			bad("upstream input %q with %d tasks: want an input, and 1 to %d", in, n, maxUpstream)
		}
	}
	for _, in := range top.Announced {
		if !inputs[in] {
			bad("announced input %q is no input", in)
		}
	}
	for in, d := range top.Linger {
		if !inputs[in] || d < 0 {
			bad("linger %s of %q: want an input, and 0 or more", d, in)
		}
	}
	for _, in := range top.Untimed {
		if !inputs[in] {
			bad("untimed input %q is no input", in)
		}
	}
	logs := map[string]bool{}
	for _, l := range top.Logs {
		if l.Name == "" || logs[l.Name] {
			bad("log name %q is empty or given twice", l.Name)
		}
		logs[l.Name] = true
		if l.Retention <= 0 {
			bad("log %q has retention %s, want more than 0", l.Name, l.Retention)
		}
	}
	return errors.Join(errs...)
}
