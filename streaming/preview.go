package streaming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Previewer is implemented by operators that say something of a record before its turn: alerts that are worth more at once than for certain.
//
// Preview is called once for each record of an input that Previews asks for, on the goroutine of Process: as soon as the record is read, which is before the merge has waited
// for other inputs, while the transaction before it is being committed, and, for the inputs in Topology.Uncommitted, before an earlier stage has committed it. A record that
// could not be shown so early (older than previewAge, or read after one that was not shown) is shown right before Process. Records of one poll come in the order of their
// timestamps. After an abort they come again; those of an earlier stage's aborted transaction are followed by no Process.
//
// So what Preview finds is provisional. It must not emit, write to stores or set timers; it may read stores, and what it remembers is dropped by Aborted. r is valid during
// the call only.
type Previewer interface {
	Previews(in int) bool
	Preview(in int, r *kgo.Record) error
}

// previewAge is the age of a record at which being early is worth nothing any more: a task that has fallen behind shows records in the order of the merge.
const previewAge = 2 * time.Second

// preview is a task's.
type preview struct {
	op    Previewer
	shown []int64 // by input: the offset after the last record shown
	apart []bool  // by input: shown from a reader of its own
	batch []previewed
}

type previewed struct {
	in int
	r  *kgo.Record
}

func (p *preview) init(t *Task) {
	p.op, _ = t.op.(Previewer)
	p.shown, p.apart = make([]int64, len(t.in)), make([]bool, len(t.in))
}

// offer gives the merge what was read of an input, and keeps for show what can be shown early.
func (t *Task) offer(in int, recs []*kgo.Record, end int64, now time.Time) {
	p, next := &t.preview, t.merge.q[in].next
	t.merge.offer(in, recs, end, now)
	if p.op == nil || p.apart[in] || len(recs) == 0 || !p.op.Previews(in) || p.shown[in] < max(next, t.in[in].next) || now.Sub(recs[0].Timestamp) > previewAge {
		return
	}
	t.early(in, recs)
}

// early keeps records for show.
func (t *Task) early(in int, recs []*kgo.Record) {
	p := &t.preview
	for _, r := range recs {
		if r.Offset < p.shown[in] {
			continue
		}
		p.shown[in] = r.Offset + 1
		if !r.Attrs.IsControl() && len(r.Key) <= t.cfg.MaxKeyBytes && !t.up.says(in, r) {
			p.batch = append(p.batch, previewed{in, r})
		}
	}
}

// show gives the operator what was kept, in the order of timestamps.
func (t *Task) show(now time.Time) error {
	p := &t.preview
	if len(p.batch) == 0 {
		return nil
	}
	t.clock = now
	slices.SortStableFunc(p.batch, func(a, b previewed) int { return a.r.Timestamp.Compare(b.r.Timestamp) })
	defer func() {
		clear(p.batch)
		p.batch = p.batch[:0]
	}()
	for _, x := range p.batch {
		if err := t.showOne(x.in, x.r); err != nil {
			return err
		}
	}
	return nil
}

func (t *Task) showOne(in int, r *kgo.Record) error {
	if err := t.call("a preview", func() error { return t.preview.op.Preview(in, r) }); err != nil {
		return fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return nil
}

// turn shows a record whose turn it is, if it was not shown before.
func (t *Task) turn(in int, r *kgo.Record) error {
	p := &t.preview
	if p.op == nil || r.Offset < p.shown[in] || !p.op.Previews(in) {
		return nil
	}
	p.shown[in] = r.Offset + 1
	if len(r.Key) > t.cfg.MaxKeyBytes {
		return nil
	}
	return t.showOne(in, r)
}

// aborted: the records are read again, and shown again; not those that come from a reader of their own, which goes on.
func (p *preview) aborted(t *Task) {
	clear(p.batch)
	p.batch = p.batch[:0]
	for i := range p.shown {
		if !p.apart[i] {
			p.shown[i] = t.in[i].committed
		}
	}
}

// peeker reads what earlier stages have written and not committed yet. What it cannot read is shown when its turn comes.
type peeker struct {
	cl     *kgo.Client
	topics []string
	read   chan kgo.Fetches
	parts  map[int32]bool
	cancel context.CancelFunc
	ended  chan struct{}
}

// newPeeker makes one without partitions. wake is called when there is something in read.
func (w *Worker) newPeeker(ctx context.Context, wake func()) (*peeker, error) {
	cl, err := kgo.NewClient(append(slices.Clone(w.opts), kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(512<<10), kgo.FetchMaxWait(200*time.Millisecond))...)
	if err != nil {
		return nil, errors.Join(errPermanent, fmt.Errorf("opening a reader of uncommitted records: %w", err))
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &peeker{cl: cl, topics: w.top.Uncommitted, read: make(chan kgo.Fetches, 4), parts: map[int32]bool{}, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		for ctx.Err() == nil {
			f := cl.PollRecords(ctx, w.cfg.PollRecords)
			if f.IsClientClosed() {
				return
			}
			if f.NumRecords() > 0 {
				select {
				case p.read <- f:
					wake()
				case <-ctx.Done():
				}
			}
			select { // each poll costs the broker, and what fails is not to be tried without a pause
			case <-time.After(pollEvery):
			case <-ctx.Done():
			}
		}
	}()
	return p, nil
}

func (p *peeker) close() {
	p.cancel()
	<-p.ended
	p.cl.Close()
}

// follow reads the partitions of tasks, and of no others.
func (p *peeker) follow(tasks []*Task) {
	add, remove := map[string]map[int32]kgo.Offset{}, map[string][]int32{}
	mine := map[int32]bool{}
	for _, t := range tasks {
		mine[t.part] = true
		for i := range t.in {
			topic := t.in[i].topic
			if !slices.Contains(p.topics, topic) {
				continue
			}
			t.preview.apart[i] = true
			if p.parts[t.part] {
				continue
			}
			if add[topic] == nil {
				add[topic] = map[int32]kgo.Offset{}
			}
			add[topic][t.part] = kgo.NewOffset().At(t.in[i].next)
		}
		p.parts[t.part] = true
	}
	for part := range p.parts {
		if !mine[part] {
			for _, topic := range p.topics {
				remove[topic] = append(remove[topic], part)
			}
			delete(p.parts, part)
		}
	}
	if len(remove) > 0 {
		p.cl.RemoveConsumePartitions(remove)
	}
	if len(add) > 0 {
		p.cl.AddConsumePartitions(add)
	}
}

// peek shows the tasks what the peeker has read.
func (w *Worker) peek(p *peeker, now time.Time) error {
	if p == nil {
		return nil
	}
	for len(p.read) > 0 {
		f := <-p.read
		f.EachPartition(func(x kgo.FetchTopicPartition) {
			if t := w.tasks[x.Partition]; t != nil && t.preview.op != nil && t.preview.op.Previews(slices.Index(w.top.Inputs, x.Topic)) {
				t.early(slices.Index(w.top.Inputs, x.Topic), x.Records)
			}
		})
	}
	return w.show(now)
}

// show gives the operators what has come.
func (w *Worker) show(now time.Time) error {
	for _, t := range w.sorted {
		if err := t.show(now); err != nil {
			return err
		}
	}
	return nil
}

// interrupt ends a wait for records: there are others. It may come too early for a wait that begins, which therefore looks first.
type interrupt struct {
	cancel atomic.Pointer[context.CancelFunc]
}

func (i *interrupt) set(f context.CancelFunc) { i.cancel.Store(&f) }

func (i *interrupt) now() {
	if f := i.cancel.Load(); f != nil {
		(*f)()
	}
}

// commitReading ends the transaction, and meanwhile reads and shows what comes: nothing is processed before the outcome is known, and nothing waits for it to be looked at.
func (w *Worker) commitReading(ctx context.Context, s *session, commit func() (bool, error)) (ok bool, err error) {
	reading, ended := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer ended()
		ok, err = commit()
	}()
	var failed error
	for failed == nil && reading.Err() == nil {
		f := w.read(reading, s, time.Now().Add(tickEvery))
		if failed = w.distribute(s, f, time.Now()); failed == nil {
			w.flow(s)
		}
	}
	<-done
	if err == nil && failed != nil {
		w.readFailed = failed // what was committed is to be noted first
	}
	return ok, err
}
