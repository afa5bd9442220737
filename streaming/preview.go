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
// for other inputs, and while the transaction before it is being committed. A record that could not be shown so early (older than previewAge, or read after one that was not
// shown) is shown right before Process. Records of one poll come in the order of their timestamps. After an abort they come again.
//
// So what Preview finds is provisional. It must not emit, write to stores or set timers; it may read stores and Announce, and what it remembers is dropped by Aborted. r is
// valid during the call only.
type Previewer interface {
	Previews(in int) bool
	Preview(in int, r *kgo.Record) error
}

// previewAge is the age of a record at which being early is worth nothing any more: a task that has fallen behind shows records in the order of the merge.
const previewAge = 2 * time.Second

// preview is a task's.
type preview struct {
	op        Previewer
	shown     []int64 // by input: the offset after the last record shown
	announced []bool  // by input: Topology.Announced
	apart     bool    // announced inputs are shown from a reader of their own
	early     bool    // what is shown is shown early
	batch     []previewed
	out       []*kgo.Record // announced
}

type previewed struct {
	in int
	r  *kgo.Record
}

func (p *preview) init(t *Task) {
	p.op, _ = t.op.(Previewer)
	p.shown, p.announced = make([]int64, len(t.in)), make([]bool, len(t.in))
	for i, topic := range t.top.Inputs {
		p.announced[i] = slices.Contains(t.top.Announced, topic)
	}
}

// offer gives the merge what was read of an input, and keeps for show what can be shown early.
func (t *Task) offer(in int, recs []*kgo.Record, end int64, now time.Time) {
	p, next := &t.preview, t.merge.q[in].next
	t.merge.offer(in, recs, end, now)
	if p.op == nil || p.apart && p.announced[in] || len(recs) == 0 || !p.op.Previews(in) || p.shown[in] < max(next, t.in[in].next) || now.Sub(recs[0].Timestamp) > previewAge {
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
		if p.apart && p.announced[in] && !isAnnounced(r) {
			continue // it was announced, or is not worth it
		}
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
	t.clock, p.early = now, true
	slices.SortStableFunc(p.batch, func(a, b previewed) int { return a.r.Timestamp.Compare(b.r.Timestamp) })
	defer func() {
		clear(p.batch)
		p.batch, p.early = p.batch[:0], false
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
	if p.op == nil || p.apart && p.announced[in] || r.Offset < p.shown[in] || !p.op.Previews(in) {
		return nil
	}
	p.shown[in] = r.Offset + 1
	if len(r.Key) > t.cfg.MaxKeyBytes {
		return nil
	}
	return t.showOne(in, r)
}

// Announce tells a later stage of a record before it is Rekeyed: key, value and partition are the same, but it is written at once and outside of any transaction. The later
// stage, which names topic in Topology.Announced, is shown it (Previewer) and never processes it. It may be lost, and what it announces may never come: an abort, another
// version of the rules. It is called in Preview only, and does nothing for a record that is shown in its turn: the record itself is about to follow. key and value are not to be
// changed afterwards.
func Announce(t *Task, topic string, key, value []byte) {
	if p := &t.preview; p.early {
		p.out = append(p.out, &kgo.Record{Topic: topic, Partition: PartitionOf(key, t.top.Partitions), Key: key, Value: value, Timestamp: t.clock, Headers: announcedHeaders})
	}
}

// HeaderAnnounced is the header of a record that only announces another.
const HeaderAnnounced = "early"

var announcedHeaders = []kgo.RecordHeader{{Key: HeaderAnnounced, Value: []byte{}}}

func isAnnounced(r *kgo.Record) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == HeaderAnnounced })
}

// announcement says of a record to be processed that there is nothing to it.
func (t *Task) announcement(in int, r *kgo.Record) bool {
	return t.preview.announced[in] && isAnnounced(r)
}

// aborted: the records are read again, and shown again; not those that come from a reader of their own, which goes on.
func (p *preview) aborted(t *Task) {
	clear(p.batch)
	p.batch = p.batch[:0]
	for i := range p.shown {
		if !p.apart || !p.announced[i] {
			p.shown[i] = t.in[i].committed
		}
	}
}

// peeker reads what earlier stages announce, among what they have not committed yet.
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
		return nil, errors.Join(errPermanent, fmt.Errorf("opening a reader of announcements: %w", err))
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &peeker{cl: cl, topics: w.top.Announced, read: make(chan kgo.Fetches, 4), parts: map[int32]bool{}, cancel: cancel, ended: make(chan struct{})}
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
		mine[t.part], t.preview.apart = true, true
		for i := range t.in {
			topic := t.in[i].topic
			if !slices.Contains(p.topics, topic) {
				continue
			}
			if p.parts[t.part] {
				continue
			}
			if add[topic] == nil {
				add[topic] = map[int32]kgo.Offset{}
			}
			add[topic][t.part] = kgo.NewOffset().AtEnd()
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

// show gives the operators what has come, and writes what they announce.
func (w *Worker) show(now time.Time) error {
	for _, t := range w.sorted {
		if err := t.show(now); err != nil {
			return err
		}
		for _, r := range t.preview.out {
			w.announcer.TryProduce(context.Background(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					w.metrics.unannounced.Inc()
				}
			})
		}
		clear(t.preview.out)
		t.preview.out = t.preview.out[:0]
	}
	return nil
}

// newAnnouncer makes the client that writes announcements: what it has no room for, or what the broker refuses, is counted and dropped.
func (w *Worker) newAnnouncer() (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(slices.Clone(w.opts), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MaxBufferedRecords(10_000), kgo.RecordDeliveryTimeout(announceFor))...)
	if err != nil {
		return nil, errors.Join(errPermanent, fmt.Errorf("making the producer of announcements: %w", err))
	}
	return cl, nil
}

// announceFor is how long an announcement is tried: later it says nothing new.
const announceFor = 5 * time.Second

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
