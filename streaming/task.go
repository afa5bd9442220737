package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// Task is one partition number of a topology: what an operator sees of the engine. All methods belong to the operator's calls.
type Task struct {
	top   *Topology
	cfg   *Config
	part  int32
	clock time.Time // of the batch in hand
	op    Operator

	tables  []table // engine's first, then in the order of opening
	byID    map[uint16]table
	openErr error
	windows []engineWindow

	in      []input
	merge   merger
	preview preview
	water   *watermarks
	up      *upstream
	down    *downstream
	timers  *timers
	meta    *Store[[]byte]

	touched  bool // something happened that must be committed
	out      []*kgo.Record
	outBytes int
	sent     int                // how many of out are with the producer
	inTxn    int                // records processed in the open transaction
	ids      map[string]topicID // of the inputs
	logs     []logBuffer
	mem      slab
	entry    []int64 // bytes of what each table last wrote, by entry
	latency  time.Duration
	hot      hotKeys
	// the record that was left out last
	refused      int64
	refusedTopic string
	refusedBytes int
	logged       int // outputs up to the last changelog record
	changelog    string
	local        *localPart // nil: all state is in memory
	rest         restPolicy
	cooled       time.Time // when the stores were last brought to rest
	coolNext     int
	lastTick     time.Time
	tickSec      int64

	stats taskStats
}

// input is the task's partition of one input topic.
type input struct {
	topic     string
	next      int64 // offset after the last processed record
	committed int64 // next as of the last commit
	fresh     bool  // the group has no committed offset for it yet
	paused    bool  // not read while the merge holds too much of it
}

// engineWindow is what the task drives of a window set.
type engineWindow interface {
	advance(watermark int64) error
	tick(now time.Time) error
	restored()
	store() StoreSpec
	counts() WindowCounts // of the open transaction
}

type logBuffer struct {
	spec  LogSpec
	topic string
	vals  []byte
}

type taskStats struct{ records, emitted, changes, timers, refused int64 }

func newTask(top *Topology, cfg *Config, part int32, now time.Time) (*Task, error) {
	return newTaskOn(nil, top, cfg, part, now)
}

// newTaskOn makes a task whose state has a local base.
func newTaskOn(base *localBase, top *Topology, cfg *Config, part int32, now time.Time) (_ *Task, err error) {
	t := &Task{top: top, cfg: cfg, part: part, clock: now, byID: map[uint16]table{}, rest: restNormally, lastTick: now, tickSec: now.Unix(), changelog: ChangelogTopic(*top)}
	for _, topic := range top.Inputs {
		t.in = append(t.in, input{topic: topic})
	}
	for _, l := range top.Logs {
		t.logs = append(t.logs, logBuffer{spec: l, topic: LogTopic(*top, l.Name)})
	}
	if base != nil {
		t.local = newLocalPart(base, part)
	}
	t.meta = OpenStore(t, storeMeta, Codec[[]byte](Bytes{}))
	t.up, t.down = openUpstream(t), newDownstream(t)
	t.water = openWatermarks(t)
	t.timers = openTimers(t)
	t.merge.init(t)
	defer func() {
		if p := recover(); p != nil {
			err = fault.Newf("MR-STR-006", "making the operator of task %d: panic: %v\n%s", part, p, debug.Stack())
		}
	}()
	if t.op, err = top.New(t); err != nil {
		return nil, fault.Newf("MR-STR-006", "making the operator of task %d: %w", part, err)
	}
	t.preview.init(t)
	t.entry = make([]int64, len(t.tables))
	if t.openErr != nil {
		return nil, fault.Newf("MR-STR-006", "making the operator of task %d: %w", part, t.openErr)
	}
	for _, s := range top.Stores {
		if t.byID[s.ID] == nil {
			return nil, fault.Newf("MR-STR-006", "making the operator of task %d: store %d (%s) is declared and not opened", part, s.ID, s.Name)
		}
	}
	if _, ok := t.op.(LogRestorer); !ok && len(top.Logs) > 0 {
		return nil, fault.Newf("MR-STR-006", "making the operator of task %d: it has logs and no RestoreLog", part)
	}
	return t, nil
}

// start sets where the task begins in an input, and how far the input reaches now.
func (t *Task) start(in int, offset, end int64, fresh bool) {
	t.in[in].next, t.in[in].committed, t.in[in].fresh = offset, offset, fresh
	t.preview.shown[in] = offset
	t.merge.start(in, offset, end)
}

func (t *Task) declared(id uint16) StoreSpec {
	if id < FirstStoreID {
		if s, ok := engineStore(id); ok {
			return s
		}
	}
	for _, s := range t.top.Stores {
		if s.ID == id {
			return s
		}
	}
	t.openErr = errors.Join(t.openErr, fmt.Errorf("store %d is opened and not declared", id))
	return StoreSpec{ID: id}
}

func (t *Task) register(x table) {
	id := x.store().ID
	if t.byID[id] != nil {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("store %d is opened twice", id))
	}
	if t.op != nil {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("store %d is opened after New", id))
	}
	t.byID[id] = x
	t.tables = append(t.tables, x)
}

// Partition is the task's partition number.
func (t *Task) Partition() int32 { return t.part }

// Partitions is N, the topology's number of partitions.
func (t *Task) Partitions() int32 { return t.top.Partitions }

// Generation is the generation of the topics.
func (t *Task) Generation() uint32 { return t.cfg.Generation }

// Now is processing time: the injected clock, read once per batch.
func (t *Task) Now() time.Time { return t.clock }

// Record gives an empty record to fill and Emit. It and what Buf, Keep and Copy give are reused after the transaction.
func (t *Task) Record() *kgo.Record { return t.mem.record() }

// Buf gives an empty buffer with room for n bytes to append to.
func (t *Task) Buf(n int) []byte { return t.mem.buf(n) }

// Keep gives back the room that b, the last Buf with what was appended to it, did not use. It may be left out.
func (t *Task) Keep(b []byte) []byte { return t.mem.keep(b) }

// Copy is a copy of b that lasts until the transaction ends.
func (t *Task) Copy(b []byte) []byte { return t.mem.keep(append(t.mem.buf(len(b)), b...)) }

// Emit writes r to the task's own partition of r.Topic.
func (t *Task) Emit(r *kgo.Record) { t.EmitTo(t.part, r) }

// EmitTo writes r to the given partition of r.Topic. Its timestamp becomes the processing time: retention, tombstones and the client's delivery timeout go by
// it, so what is read again after a stop is not taken for old.
func (t *Task) EmitTo(partition int32, r *kgo.Record) {
	r.Partition = partition
	t.stats.emitted++
	t.touched = true
	t.write(r)
}

func (t *Task) write(r *kgo.Record) {
	r.Timestamp = t.clock
	t.out = append(t.out, r)
	t.outBytes += len(r.Key) + len(r.Value)
}

// Observe tells the event time of the record in hand: it advances the watermark of (input, lane). Call it once per decoded record.
func (t *Task) Observe(in int, lane uint8, eventTime int64) { t.water.observe(in, lane, eventTime) }

// Watermark is the event time, in the live lane, before which no input that is not idle has more to come: an event below it is late.
// math.MinInt64 when there is none yet. It never goes back, and moves only between calls of Process.
func (t *Task) Watermark() int64 { return t.water.now[LaneLive] }

// SetTimer asks for a call of Timer once the watermark has reached at. Setting the same timer again changes nothing.
func (t *Task) SetTimer(owner uint16, key string, at int64) { t.timers.set(Timer{owner, key, at}) }

// DeleteTimer takes a timer back.
func (t *Task) DeleteTimer(owner uint16, key string, at int64) {
	t.timers.remove(Timer{owner, key, at})
}

// AppendLog appends value to one of the topology's logs, in this transaction. The values of a commit travel as one record (more when
// they would be larger than a record may be).
func (t *Task) AppendLog(log string, value []byte) {
	for i := range t.logs {
		if l := &t.logs[i]; l.spec.Name == log {
			l.vals = binary.AppendUvarint(l.vals, uint64(len(value)))
			l.vals = append(l.vals, value...)
			t.touched = true
			return
		}
	}
	panic("streaming: log " + log + " is not declared")
}

// run processes what the merge lets through, as long as there is something left of what all tasks may process in a step; nil is no bound.
func (t *Task) run(now time.Time, budget *atomic.Int64) error {
	t.clock = now
	for {
		in, n := t.merge.pick(now)
		if budget != nil && n > 0 {
			left := budget.Add(-int64(n))
			n += int(max(min(left, 0), -int64(n)))
		}
		if n == 0 {
			return nil
		}
		for range n {
			if err := t.process(in, t.merge.take(in)); err != nil {
				return err
			}
		}
	}
}

// process gives one record to the operator and then fires what the watermark has reached.
func (t *Task) process(in int, r *kgo.Record) error {
	x := &t.in[in]
	if r.Offset < x.next {
		return nil // the consumer was set back further than the task
	}
	t.touched = true
	t.inTxn++
	if !r.Attrs.IsControl() && !t.announcement(in, r) && !t.up.observe(in, r) {
		t.stats.records++
		t.hot.note(r.Key)
		if err := t.turn(in, r); err != nil {
			return err
		}
		if err := t.guard(in, r); err != nil {
			return err
		}
	}
	x.next = r.Offset + 1
	return t.advance()
}

// refuse notes a record that is left out.
func (t *Task) refuse(in int, r *kgo.Record) error {
	t.stats.refused++
	t.refused = r.Offset
	t.refusedTopic, t.refusedBytes = r.Topic, len(r.Key)
	if x, ok := t.op.(Refuser); ok {
		return x.Refused(in, r)
	}
	return nil
}

// guard calls Process and turns a panic into an error that names the record.
func (t *Task) guard(in int, r *kgo.Record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if local, ok := p.(localError); ok {
				err = local
			} else {
				err = fault.Newf("MR-STR-006", "processing %s/%d@%d: panic: %v\n%s", r.Topic, r.Partition, r.Offset, p, debug.Stack())
			}
		}
	}()
	if len(r.Key) > t.cfg.MaxKeyBytes {
		err = t.refuse(in, r)
	} else {
		err = t.op.Process(in, r)
	}
	if err != nil {
		return fault.Newf("MR-STR-006", "processing %s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return nil
}

// advance moves the watermark and does what is due at it: windows first (they close), then timers in order.
func (t *Task) advance() error {
	if !t.water.advance() {
		if !t.timers.due(t.Watermark()) {
			return nil
		}
	} else {
		for _, w := range t.windows {
			if err := t.call("closing windows", func() error { return w.advance(t.Watermark()) }); err != nil {
				return err
			}
		}
	}
	for {
		tm, ok := t.timers.pop(t.Watermark())
		if !ok {
			t.down.reached = t.Watermark()
			return nil
		}
		t.stats.timers++
		if err := t.call("a timer", func() error { return t.op.Timer(tm) }); err != nil {
			return err
		}
	}
}

func (t *Task) call(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if local, ok := p.(localError); ok {
				err = local
			} else {
				err = fault.Newf("MR-STR-006", "%s of task %d: panic: %v\n%s", what, t.part, p, debug.Stack())
			}
		}
	}()
	if err = f(); err != nil {
		return fault.Newf("MR-STR-006", "%s of task %d: %w", what, t.part, err)
	}
	return nil
}

const tickEvery = 100 * time.Millisecond

// tick does what processing time asks for: idle decisions, windows that emit, the operator's Tick.
func (t *Task) tick(now time.Time) error {
	if now.Sub(t.lastTick) < tickEvery && now.Unix() == t.tickSec {
		return nil
	}
	t.clock, t.lastTick, t.tickSec = now, now, now.Unix()
	if t.water.decideIdle(now, t.merge.caughtUp) {
		if err := t.advance(); err != nil {
			return err
		}
	}
	t.down.tick(now)
	for _, w := range t.windows {
		if err := t.call("emitting windows", func() error { return w.tick(now) }); err != nil {
			return err
		}
	}
	if err := t.call("a tick", func() error { return t.op.Tick(now) }); err != nil || t.touched {
		return err
	}
	t.cool(now)
	return nil
}

// stagger is the time that stands for the last emission before the first one of the i-th of the task's windows, or grains of them: tasks and windows emit at different
// times, for all of it at once between two commits is what a record that comes then would wait for.
func (t *Task) stagger(every time.Duration, i int) time.Time {
	_, share := math.Modf(0.618*float64(t.part) + 0.382*float64(i)) // multiples of the golden ratio lie evenly, however many there are
	return t.clock.Add(-time.Duration(share * float64(every)))
}

// seal ends the task's part of a transaction: what it changed becomes changelog and log records among its outputs. It tells
// whether there is anything to commit.
func (t *Task) seal(now time.Time) (bool, error) {
	if err := t.tick(now); err != nil {
		return false, err
	}
	if !t.touched {
		return false, nil
	}
	t.clock = now
	if err := t.call("the end of a transaction", t.op.BeforeCommit); err != nil {
		return false, err
	}
	t.writeLogs()
	return true, t.writeChangelog()
}

// committed makes what was sealed the base.
func (t *Task) committed() {
	for i := range t.in {
		t.in[i].committed, t.in[i].fresh = t.in[i].next, false
	}
	for _, x := range t.tables {
		x.commit()
	}
	t.timers.committed()
	if t.local != nil {
		t.local.committed(t)
	}
	t.forget()
	if c, ok := t.op.(Committer); ok {
		c.Committed()
	}
	t.cool(t.clock)
}

// aborted goes back to the last commit. It tells whether the task can go on: an operator without Committer cannot.
func (t *Task) aborted() bool {
	for i := range t.in {
		t.in[i].next = t.in[i].committed
	}
	for _, x := range t.tables {
		x.abort()
	}
	t.timers.aborted()
	if t.local != nil {
		t.local.aborted()
	}
	t.merge.reset()
	t.preview.aborted(t)
	t.down.aborted()
	t.stats = taskStats{}
	t.forget()
	if err := t.checkMeta(); err != nil {
		return false // cannot be: it was right before
	}
	c, ok := t.op.(Committer)
	if ok {
		c.Aborted()
	}
	return ok
}

func (t *Task) forget() {
	for i := range t.logs {
		t.logs[i].vals = t.logs[i].vals[:0]
	}
	clear(t.out)
	t.out, t.outBytes, t.sent, t.logged, t.inTxn, t.touched = t.out[:0], 0, 0, 0, 0, false
	t.up.ended()
	t.mem.reset()
}

// noTime is the watermark before any event.
const noTime = math.MinInt64
