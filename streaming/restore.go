package streaming

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// hangingID: a transaction that nobody will ever end holds back what read_committed shows.
const hangingID fault.ID = "MR-STR-008"

// restored is a task that has its state, or the reason why it has none.
type restored struct {
	session *session
	batch   uint64
	tasks   []*Task
	err     error
}

// restore makes the tasks of the given partition numbers from changelog and logs.
//
// The group's offsets were read as stable, so every transaction that is to count has its offsets decided. Its changelog may not show
// it yet (markers travel), and a former owner may have left an open one. So each state partition gets a barrier, a record outside of
// any transaction: read_committed shows it only when everything before it is decided, and being the last of its key no compaction
// takes it away. What is read up to the barrier is the state that belongs to the offsets.
func (w *Worker) restore(ctx context.Context, starts map[int32][]inputStart, memory int64) ([]*Task, error) {
	begun := time.Now()
	opts := append([]kgo.Opt{}, w.opts...)
	opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.FetchMaxPartitionBytes(8<<20), kgo.FetchMaxBytes(32<<20))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("making a client to restore with: %w", err)
	}
	defer cl.Close()

	r := &restorer{memory: memory, moved: map[int32]*restoreProgress{}, w: w, cl: cl, adm: kadm.NewClient(cl), tasks: map[int32]*Task{}, parts: map[topicPartition]*restorePart{}}
	defer func() {
		for p, moved := range r.moved {
			w.status.end(p, moved)
			w.metrics.restoredShare.DeleteLabelValues(strconv.Itoa(int(p)))
		}
	}()
	if err := r.prepare(ctx, starts); err != nil {
		return nil, err
	}
	if err := r.barriers(ctx); err != nil {
		return nil, err
	}
	if err := r.snapshots(ctx); err != nil {
		return nil, err
	}
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	var out []*Task
	took := time.Since(begun).Seconds()
	for p, t := range r.tasks {
		w.metrics.restoreTook.WithLabelValues(strconv.Itoa(int(p))).Set(took)
		if err := t.restoredTo(r.parts[topicPartition{t.changelog, p}].barrier + 1); err != nil {
			return nil, err
		}
		if err := t.ready(w.ids, time.Now()); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	w.metrics.restores.Add(float64(len(out)))
	w.metrics.restoreSeconds.Add(time.Since(begun).Seconds())
	w.log.Info("state restored", "tasks", len(out), "records", r.records.Load(), "seconds", time.Since(begun).Seconds())
	return out, nil
}

type topicPartition struct {
	topic     string
	partition int32
}

type restorer struct {
	w       *Worker
	cl      *kgo.Client
	adm     *kadm.Client
	tasks   map[int32]*Task
	parts   map[topicPartition]*restorePart
	moved   map[int32]*restoreProgress
	records atomic.Int64
	memory  int64 // a task's part of the worker's bound
}

// restorePart is one partition that holds state.
type restorePart struct {
	t       *Task
	log     int              // index of the log, -1 for the changelog
	barrier int64            // its offset
	from    int64            // where reading begins, -1 at the start
	at      int64            // where it is
	moved   *restoreProgress // of the task
	done    bool
}

func (r *restorer) prepare(ctx context.Context, starts map[int32][]inputStart) error {
	ends, err := r.adm.ListCommittedOffsets(ctx, r.w.top.Inputs...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("listing where the inputs end: %w", err)
	}
	for p, ins := range starts {
		if len(ins) != len(r.w.top.Inputs) {
			return fmt.Errorf("task %d was assigned with %d of %d inputs", p, len(ins), len(r.w.top.Inputs))
		}
		t, err := newTaskOn(r.w.local, &r.w.top, &r.w.cfg, p, time.Now())
		if err != nil {
			return err
		}
		if t.local != nil {
			t.local.share = r.memory
		}
		for _, x := range ins {
			end, _ := ends.Lookup(r.w.top.Inputs[x.in], p)
			t.start(x.in, x.offset, end.Offset, x.fresh)
		}
		r.tasks[p] = t
		r.moved[p] = r.w.status.begin(p)
		r.parts[topicPartition{t.changelog, p}] = &restorePart{t: t, log: -1, from: -1, at: -1, moved: r.moved[p]}
		for i, l := range t.logs {
			r.parts[topicPartition{l.topic, p}] = &restorePart{t: t, log: i, from: -1, at: -1, moved: r.moved[p]}
		}
	}
	return nil
}

func (r *restorer) barriers(ctx context.Context) error {
	var recs []*kgo.Record
	for tp, p := range r.parts {
		rec := &kgo.Record{Topic: tp.topic, Partition: tp.partition}
		if p.log < 0 {
			rec.Key = append(binary.BigEndian.AppendUint16(nil, storeMeta), metaBarrier...)
			rec.Value = []byte{1}
		}
		recs = append(recs, rec)
	}
	for _, res := range r.cl.ProduceSync(ctx, recs...) {
		if res.Err != nil {
			return fmt.Errorf("writing a barrier to %s/%d: %w", res.Record.Topic, res.Record.Partition, res.Err)
		}
		r.parts[topicPartition{res.Record.Topic, res.Record.Partition}].barrier = res.Record.Offset
	}
	return nil
}

// snapshots loads what the local base has of the tasks, so that only the rest of their changelogs need be read.
func (r *restorer) snapshots(ctx context.Context) error {
	if r.w.local == nil {
		return nil
	}
	cluster, maxAge, err := r.w.describeState(ctx, r.adm)
	if err != nil {
		return err
	}
	topic := ChangelogTopic(r.w.top)
	starts, err := r.adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("listing where the changelog starts: %w", err)
	}
	for p, t := range r.tasks {
		part := r.parts[topicPartition{topic, p}]
		first, _ := starts.Lookup(topic, p)
		t.identify(cluster, r.w.stateID)
		from, refused, err := t.adopt(time.Now(), span{start: first.Offset, end: part.barrier + 1, maxAge: maxAge})
		if err != nil {
			return err
		}
		part.from = from
		if refused != "" {
			r.w.metrics.snapshotsRefused.Inc()
			r.w.log.Info("local snapshot not used", "partition", p, "reason", refused)
		} else {
			r.w.metrics.snapshotsUsed.Inc()
			r.w.log.Info("local snapshot used", "partition", p, "changelog_behind", part.barrier-from)
		}
	}
	return nil
}

func (r *restorer) read(ctx context.Context) error {
	from := map[string]map[int32]kgo.Offset{}
	for tp, p := range r.parts {
		at := kgo.NewOffset().AtStart()
		if p.from >= 0 {
			at = kgo.NewOffset().At(p.from)
		}
		if p.log >= 0 {
			at = kgo.NewOffset().AfterMilli(time.Now().Add(-p.t.logs[p.log].spec.Retention).UnixMilli())
		}
		if from[tp.topic] == nil {
			from[tp.topic] = map[int32]kgo.Offset{}
		}
		from[tp.topic][tp.partition] = at
	}
	for _, p := range r.parts {
		p.moved.of.Add(p.barrier - max(p.from, 0))
	}
	r.cl.AddConsumePartitions(from)
	left := len(r.parts)
	said, shown, moved := time.Now(), time.Now(), time.Now()
	for left > 0 {
		f, err := r.poll(ctx)
		if err != nil {
			return err
		}
		if f.NumRecords() > 0 {
			moved = time.Now()
		} else if silent := time.Since(moved); silent > max(time.Minute, 3*r.w.cfg.TransactionTimeout) {
			return fault.Newf(hangingID, "restoring: nothing more can be read of %s for %s", strings.Join(r.open(), ", "), silent.Round(time.Second))
		}
		n, err := r.applyAll(f)
		if err != nil {
			return err
		}
		left -= n
		if r.w.metrics.restoreRecords.Add(float64(f.NumRecords())); time.Since(shown) > time.Second {
			shown = time.Now()
			r.show()
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			r.w.log.Info("restoring state", "records", r.records.Load(), "partitions_left", left, "share", r.share())
		}
	}
	return nil
}

// applyAll applies what was read, each task on one goroutine. It tells how many partitions are complete.
func (r *restorer) applyAll(f kgo.Fetches) (complete int, err error) {
	var errs []error
	f.EachError(func(topic string, p int32, err error) {
		errs = append(errs, fmt.Errorf("reading %s/%d to restore: %w", topic, p, err))
	})
	work := map[*Task][]kgo.FetchTopicPartition{}
	f.EachPartition(func(fp kgo.FetchTopicPartition) {
		if p := r.parts[topicPartition{fp.Topic, fp.Partition}]; p != nil && !p.done {
			work[p.t] = append(work[p.t], fp)
		}
	})
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	err = r.w.each(slices.Collect(maps.Keys(work)), func(t *Task) error {
		for _, fp := range work[t] {
			if err := r.applyPart(r.parts[topicPartition{fp.Topic, fp.Partition}], fp.Records); err != nil {
				return err
			}
		}
		return nil
	})
	for _, fps := range work {
		for _, fp := range fps {
			if r.parts[topicPartition{fp.Topic, fp.Partition}].done {
				complete++
				r.cl.PauseFetchPartitions(map[string][]int32{fp.Topic: {fp.Partition}})
			}
		}
	}
	return complete, err
}

// applyPart applies records of one partition, up to its barrier.
func (r *restorer) applyPart(p *restorePart, recs []*kgo.Record) error {
	n := int64(0)
	defer func() { r.records.Add(n) }()
	for _, rec := range recs {
		if p.at < 0 {
			p.moved.of.Add(max(p.from, 0) - rec.Offset) // where the partition begins was not known
			p.at = rec.Offset
		}
		p.moved.read.Add(rec.Offset + 1 - p.at)
		p.at = rec.Offset + 1
		if rec.Offset >= p.barrier {
			p.done = true
			return nil
		}
		n++
		if err := r.apply(p, rec); err != nil {
			return fmt.Errorf("restoring from %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
	}
	return nil
}

// show shows how far each task is.
func (r *restorer) show() {
	for part, p := range r.moved {
		r.w.metrics.restoredShare.WithLabelValues(strconv.Itoa(int(part))).Set(p.share())
	}
}

func (r *restorer) share() float64 {
	var of, read int64
	for _, p := range r.moved {
		of, read = of+p.of.Load(), read+p.read.Load()
	}
	return min(1, float64(read)/float64(max(of, 1)))
}

// poll waits a second at most, so that a partition that gives nothing is noticed.
func (r *restorer) poll(ctx context.Context) (kgo.Fetches, error) {
	pollCtx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	f := r.cl.PollRecords(pollCtx, 50_000)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("restoring: %w", context.Cause(ctx))
	}
	if pollCtx.Err() != nil && f.NumRecords() == 0 {
		return nil, nil
	}
	return f, nil
}

// open names the partitions whose barrier has not been seen.
func (r *restorer) open() []string {
	var out []string
	for tp, p := range r.parts {
		if !p.done {
			out = append(out, fmt.Sprintf("%s/%d", tp.topic, tp.partition))
		}
	}
	slices.Sort(out)
	return out
}

func (r *restorer) apply(p *restorePart, rec *kgo.Record) error {
	if p.log < 0 {
		if err := p.t.loadState(rec.Key, rec.Value); err != nil {
			return err
		}
		return p.t.relieve(time.Now(), rec.Offset+1)
	}
	l := &p.t.logs[p.log]
	if time.Since(rec.Timestamp) > l.spec.Retention {
		return nil
	}
	return p.t.loadLog(l.spec.Name, rec.Value, rec.Timestamp)
}
