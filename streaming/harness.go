package streaming

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Harness runs one task in memory as a worker does, with a clock and a broker of its own: inputs, committed outputs, changelog and
// logs are slices. It is for tests of operators: every commit, abort and crash happens when the test says so.
type Harness struct {
	cfg  Config
	top  Topology
	part int32
	now  time.Time
	task *Task

	local *localBase // with Config.StateDir
	share int64      // of memory; 0: Config.StateBytes

	inputs  [][]*kgo.Record
	offsets []int64 // committed
	topics  map[string][]*kgo.Record
}

// NewHarness makes the task of the given partition. Config needs no names.
func NewHarness(cfg Config, top Topology, partition int32, now time.Time) (*Harness, error) {
	def(&cfg.Group, "harness")
	def(&cfg.InstanceID, "0")
	h := &Harness{cfg: cfg.Defaults(), top: top, part: partition, now: now, inputs: make([][]*kgo.Record, len(top.Inputs)), offsets: make([]int64, len(top.Inputs)), topics: map[string][]*kgo.Record{}}
	if err := h.cfg.Validate(); err != nil {
		return nil, err
	}
	if err := top.Validate(); err != nil {
		return nil, err
	}
	if h.cfg.StateDir != "" {
		base, err := openLocal(h.cfg.StateDir, h.cfg.StateBytes, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		h.local = base
	}
	return h, h.restore()
}

// Close ends a harness with a StateDir.
func (h *Harness) Close() error {
	if h.local == nil {
		return nil
	}
	return h.local.close()
}

// Task is the task as it is now; a crash makes another.
func (h *Harness) Task() *Task { return h.task }

// Now is the harness's clock.
func (h *Harness) Now() time.Time { return h.now }

// Produce appends a record to an input. Topic, partition and offset are set, and the timestamp if it is zero.
func (h *Harness) Produce(in int, r *kgo.Record) {
	r.Topic, r.Partition, r.Offset = h.top.Inputs[in], h.part, int64(len(h.inputs[in]))
	if r.Timestamp.IsZero() {
		r.Timestamp = h.now
	}
	h.inputs[in] = append(h.inputs[in], r)
}

// Poll reads up to n records of an input into the task, and tells how many.
func (h *Harness) Poll(in, n int) int {
	q := &h.task.merge.q[in]
	recs := h.inputs[in][q.next:]
	recs = recs[:min(n, len(recs))]
	h.task.merge.offer(in, recs, int64(len(h.inputs[in])), h.now)
	return len(recs)
}

// Run processes what the merge lets through now.
func (h *Harness) Run() error { return h.task.run(h.now, nil) }

// Feed polls all that was produced and runs, letting the clock pass the merge wait.
func (h *Harness) Feed() error {
	for in := range h.inputs {
		h.Poll(in, len(h.inputs[in]))
	}
	if h.cfg.MergeWait > 0 {
		h.now = h.now.Add(h.cfg.MergeWait)
	}
	return h.task.run(h.now, nil)
}

// Advance moves the clock in steps of at most 100 ms, ticking and running.
func (h *Harness) Advance(d time.Duration) error {
	for d > 0 {
		step := min(d, tickEvery)
		h.now, d = h.now.Add(step), d-step
		if err := h.task.tick(h.now); err != nil {
			return err
		}
		if err := h.task.run(h.now, nil); err != nil {
			return err
		}
	}
	return nil
}

// Commit ends the transaction. It tells whether there was anything to commit.
func (h *Harness) Commit() (bool, error) {
	dirty, err := h.task.seal(h.now)
	if err != nil || !dirty {
		return false, err
	}
	for _, r := range h.task.out {
		r.Offset = int64(len(h.topics[r.Topic]))
		c := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Timestamp: r.Timestamp, Offset: r.Offset}
		for _, x := range r.Headers {
			c.Headers = append(c.Headers, kgo.RecordHeader{Key: x.Key, Value: bytes.Clone(x.Value)})
		}
		h.topics[r.Topic] = append(h.topics[r.Topic], c)
	}
	for i := range h.task.in {
		h.offsets[i] = h.task.in[i].next
	}
	h.task.committed()
	return true, h.task.maintain(h.now)
}

// Abort drops the transaction; the inputs will be read again from the last commit.
func (h *Harness) Abort() error {
	if h.task.aborted() {
		return nil
	}
	return h.restore()
}

// Crash drops the task and restores another from changelog and logs.
func (h *Harness) Crash() error { return h.restore() }

// Outputs are the committed records of a topic, in order.
func (h *Harness) Outputs(topic string) []*kgo.Record { return h.topics[topic] }

func (h *Harness) restore() error {
	t, err := newTaskOn(h.local, &h.top, &h.cfg, h.part, h.now)
	if err != nil {
		return err
	}
	state := h.topics[t.changelog]
	from := int64(0)
	if t.local != nil {
		if share := cmp.Or(h.share, h.cfg.StateBytes); share > 0 {
			t.local.share = share
		}
		t.identify("harness", topicID{})
		if from, _, err = t.adopt(h.now, span{end: int64(len(state))}); err != nil {
			return err
		}
	}
	for i, r := range state[from:] {
		if err := t.loadState(r.Key, r.Value); err != nil {
			return fmt.Errorf("restoring task %d: %w", h.part, err)
		}
		if err := t.relieve(h.now, from+int64(i)+1); err != nil {
			return fmt.Errorf("restoring task %d: %w", h.part, err)
		}
	}
	if err := t.restoredTo(int64(len(state))); err != nil {
		return fmt.Errorf("restoring task %d: %w", h.part, err)
	}
	for _, l := range t.logs {
		for _, r := range h.topics[l.topic] {
			if h.now.Sub(r.Timestamp) <= l.spec.Retention {
				if err := t.loadLog(l.spec.Name, r.Value, r.Timestamp); err != nil {
					return err
				}
			}
		}
	}
	ids := map[string]topicID{}
	for i, topic := range h.top.Inputs {
		ids[topic] = topicID{}
		t.start(i, h.offsets[i], int64(len(h.inputs[i])), h.offsets[i] == 0)
	}
	if err := t.ready(ids, h.now); err != nil {
		return err
	}
	h.task = t
	return nil
}

// Operator is the task's operator as it is now; a crash makes another.
func (h *Harness) Operator() Operator { return h.task.op }
