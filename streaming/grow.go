package streaming

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// A partition count is for ever: it says where a key lives. More partitions are another generation of the topics, and growing is a
// move: producers switch to the new topics, the workers of the old ones drain them and end, Grow copies their state, and the workers
// of the new ones start. What is produced meanwhile waits in the new topics.

// GrowSpec says what moves where.
type GrowSpec struct {
	From, To  Topology // the same stores, formats and logs; other inputs and another name. To has a multiple of From's partitions
	FromGroup string   // consumer group of From
	// Key gives the record key that a key of a store belongs to: it moves to the partition that this key has among To's. false: the
	// entry belongs to its partition (a partial result of it) and keeps its number. For StoreTimers key is the timer's.
	Key func(store uint16, key []byte) (record []byte, keyed bool)
}

// StoreTimers is the id of the engine's store of timers, as GrowSpec.Key is asked for.
const StoreTimers = storeTimers

// GrowReport is what Grow has done.
type GrowReport struct {
	Entries, Moved int64 // changelog records copied, and those of them whose partition number changed
	LogRecords     int64
	Watermark      int64 // that the new tasks begin with
}

const (
	metaGrow      = "grow" // value growOpen or growDone
	growOpen byte = 1
	growDone byte = 2
)

// Validate reports every problem of the specification.
func (g GrowSpec) Validate() error {
	errs := []error{g.From.Validate(), g.To.Validate()}
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("grow: "+format, a...)) }
	if g.From.Partitions < 1 || g.To.Partitions <= g.From.Partitions || g.To.Partitions%g.From.Partitions != 0 {
		bad("from %d to %d partitions, want a multiple", g.From.Partitions, g.To.Partitions)
	}
	if ChangelogTopic(g.From) == ChangelogTopic(g.To) {
		bad("both topologies have the changelog %s", ChangelogTopic(g.To))
	}
	for _, in := range g.To.Inputs {
		if slices.Contains(g.From.Inputs, in) {
			bad("topic %s is an input of both", in)
		}
	}
	byID := func(a, b StoreSpec) int { return int(a.ID) - int(b.ID) }
	if !slices.Equal(slices.SortedFunc(slices.Values(g.From.Stores), byID), slices.SortedFunc(slices.Values(g.To.Stores), byID)) {
		bad("the topologies have other stores or formats: grow first, then upgrade")
	}
	if !slices.Equal(g.From.Logs, g.To.Logs) {
		bad("the topologies have other logs")
	}
	if g.FromGroup == "" || g.Key == nil {
		bad("FromGroup and Key are needed")
	}
	return errors.Join(errs...)
}

// Undrained tells what From's workers have left to do; empty when they are done and gone.
func (g GrowSpec) Undrained(ctx context.Context, adm *kadm.Client) (string, error) {
	groups, err := adm.DescribeGroups(ctx, g.FromGroup)
	if err != nil {
		return "", fmt.Errorf("describing group %s: %w", g.FromGroup, err)
	}
	offsets, err := adm.FetchOffsets(ctx, g.FromGroup)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return "", fmt.Errorf("reading the offsets of group %s: %w", g.FromGroup, err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, g.From.Inputs...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return "", fmt.Errorf("listing where the inputs end: %w", err)
	}
	left := int64(0)
	ends.Each(func(e kadm.ListedOffset) {
		at := int64(0)
		if o, ok := offsets.Lookup(e.Topic, e.Partition); ok {
			at = o.At
		}
		left += max(0, e.Offset-at)
	})
	switch n := len(groups[g.FromGroup].Members); {
	case left > 0:
		return fmt.Sprintf("%d records of its inputs are not processed", left), nil
	case n > 0:
		return fmt.Sprintf("group %s still has %d members", g.FromGroup, n), nil
	}
	return "", nil
}

// Grow copies the state of From to the topics of To. From must be drained and its workers gone, nothing may write to its inputs any more, and no worker of To may have
// started: one that does before Grow has ended is refused (MR-STR-022). It may be run again after a failure.
func Grow(ctx context.Context, opts []kgo.Opt, spec GrowSpec, log *slog.Logger) (GrowReport, error) {
	if err := spec.Validate(); err != nil {
		return GrowReport{}, err
	}
	g := &grower{spec: spec, watermarks: map[int32][]byte{}}
	all := append(slices.Clone(opts), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MaxBufferedRecords(200_000))
	cl, err := kgo.NewClient(all...)
	if err != nil {
		return GrowReport{}, fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	g.cl, g.opts = cl, opts
	why, err := spec.Undrained(ctx, kadm.NewClient(cl))
	if err != nil {
		return GrowReport{}, err
	}
	if why != "" {
		return GrowReport{}, fault.Newf("MR-STR-022", "the topology cannot grow yet: %s", why)
	}
	if err := g.open(ctx); err != nil {
		return GrowReport{}, err
	}
	if err := g.copyState(ctx); err != nil {
		return GrowReport{}, err
	}
	for _, l := range spec.From.Logs {
		if err := g.copyLog(ctx, l); err != nil {
			return GrowReport{}, err
		}
	}
	if err := g.finish(ctx); err != nil {
		return GrowReport{}, err
	}
	log.Info("state moved to the new generation", "entries", g.report.Entries, "moved", g.report.Moved, "log_records", g.report.LogRecords)
	return g.report, nil
}

type grower struct {
	spec       GrowSpec
	cl         *kgo.Client
	opts       []kgo.Opt
	report     GrowReport
	watermarks map[int32][]byte // last of each old task
	failed     error
}

func metaChange(key string, value []byte) (k, v []byte) {
	return append(binary.BigEndian.AppendUint16(nil, storeMeta), key...), append([]byte{1}, value...)
}

// mark writes how far the move is to every new task's state.
func (g *grower) mark(ctx context.Context, how byte) error {
	var recs []*kgo.Record
	k, v := metaChange(metaGrow, []byte{how})
	for p := range g.spec.To.Partitions {
		recs = append(recs, &kgo.Record{Topic: ChangelogTopic(g.spec.To), Partition: p, Key: k, Value: v})
	}
	if err := g.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("marking the new state: %w", err)
	}
	return nil
}

// open refuses a new generation that has begun to work, and marks it as one that may not yet.
func (g *grower) open(ctx context.Context) error {
	marks := map[int32]byte{}
	used := false
	err := g.each(ctx, ChangelogTopic(g.spec.To), g.spec.To.Partitions, false, func(r *kgo.Record) error {
		if k, _ := metaChange(metaGrow, nil); string(r.Key) == string(k) && len(r.Value) == 2 {
			marks[r.Partition] = r.Value[1]
		} else if marks[r.Partition] == 0 {
			used = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range marks {
		used = used || m == growDone
	}
	if used {
		return fault.Newf("MR-STR-022", "the new generation has state already: %s is not empty", ChangelogTopic(g.spec.To))
	}
	return g.mark(ctx, growOpen)
}

func (g *grower) send(ctx context.Context, topic string, partition int32, r *kgo.Record) {
	g.cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}, func(_ *kgo.Record, err error) {
		if err != nil && g.failed == nil { // promises are called one after the other
			g.failed = fmt.Errorf("writing to %s/%d: %w", topic, partition, err)
		}
	})
}

// flush waits for what was sent.
func (g *grower) flush(ctx context.Context) error {
	if err := g.cl.Flush(ctx); err != nil {
		return fmt.Errorf("writing the new state: %w", err)
	}
	return g.failed
}

// copyState sends each entry of the old changelog to where it belongs, in its order, so that the last value of a key stays the last.
func (g *grower) copyState(ctx context.Context) error {
	to := ChangelogTopic(g.spec.To)
	err := g.each(ctx, ChangelogTopic(g.spec.From), g.spec.From.Partitions, true, func(r *kgo.Record) error {
		if len(r.Key) < 2 {
			return fault.Newf("MR-STR-005", "a changelog key has %d bytes", len(r.Key))
		}
		store, key := binary.BigEndian.Uint16(r.Key), r.Key[2:]
		p := r.Partition
		switch store {
		case storeMeta, storeDecisions, storeUpstream:
			return nil // of the old topics
		case storeWatermarks:
			g.watermarks[p] = r.Value
			return nil
		case storeTimers:
			if len(key) < timerHead {
				return fault.Newf("MR-STR-005", "a timer's key has %d bytes", len(key))
			}
			key = key[timerHead:]
		}
		if record, keyed := g.spec.Key(store, key); keyed {
			if old := PartitionOf(record, g.spec.From.Partitions); old != r.Partition {
				return fault.Newf("MR-STR-022", "an entry of store %d in task %d belongs to task %d by its key: GrowSpec.Key does not fit the producers' partitioner", store, r.Partition, old)
			}
			p = PartitionOf(record, g.spec.To.Partitions)
		}
		g.report.Entries++
		if p != r.Partition {
			g.report.Moved++
		}
		r.Timestamp = time.Now() // tombstones count from when they are written here
		g.send(ctx, to, p, r)
		return nil
	})
	return errors.Join(err, g.flush(ctx))
}

// copyLog gives each value to every new task that has keys of its old one: a log's values do not say whose they are.
func (g *grower) copyLog(ctx context.Context, l LogSpec) error {
	from, to := LogTopic(g.spec.From, l.Name), LogTopic(g.spec.To, l.Name)
	err := g.each(ctx, from, g.spec.From.Partitions, true, func(r *kgo.Record) error {
		if len(r.Value) == 0 || time.Since(r.Timestamp) > l.Retention {
			return nil
		}
		for p := r.Partition; p < g.spec.To.Partitions; p += g.spec.From.Partitions {
			g.send(ctx, to, p, r)
		}
		g.report.LogRecords++
		return nil
	})
	return errors.Join(err, g.flush(ctx))
}

// finish writes event time and the mark that lets workers start. The new tasks are as far as the last of the old ones: none may take for late what the task that its key
// comes from would not have.
func (g *grower) finish(ctx context.Context) error {
	low := [lanes]int64{noTime, noTime}
	for _, v := range g.watermarks {
		if len(v) < 1+8*lanes {
			continue
		}
		for lane := range low {
			if at := int64(binary.BigEndian.Uint64(v[1+8*lane:])); at != noTime && (low[lane] == noTime || at < low[lane]) {
				low[lane] = at
			}
		}
	}
	g.report.Watermark = low[LaneLive]
	if low[LaneLive] != noTime || low[LaneReplay] != noTime {
		v := []byte{1}
		for _, at := range low {
			v = binary.BigEndian.AppendUint64(v, uint64(at))
		}
		r := &kgo.Record{Key: binary.BigEndian.AppendUint16(nil, storeWatermarks), Value: v, Timestamp: time.Now()}
		for p := range g.spec.To.Partitions {
			g.send(ctx, ChangelogTopic(g.spec.To), p, r)
		}
	}
	if err := g.flush(ctx); err != nil {
		return err
	}
	return g.mark(ctx, growDone)
}

// each reads a topic to its end as it is now: up to a barrier, if it may be written to, so that no open transaction hides anything.
func (g *grower) each(ctx context.Context, topic string, partitions int32, barrier bool, f func(*kgo.Record) error) error {
	ends := map[int32]int64{}
	if barrier {
		var recs []*kgo.Record
		k, v := metaChange(metaBarrier, nil)
		for p := range partitions {
			r := &kgo.Record{Topic: topic, Partition: p}
			if strings.HasPrefix(topic, ChangelogTopic(g.spec.From)) {
				r.Key, r.Value = k, v
			}
			recs = append(recs, r)
		}
		for _, res := range g.cl.ProduceSync(ctx, recs...) {
			if res.Err != nil {
				return fmt.Errorf("writing a barrier to %s/%d: %w", topic, res.Record.Partition, res.Err)
			}
			ends[res.Record.Partition] = res.Record.Offset + 1
		}
	} else {
		listed, err := kadm.NewClient(g.cl).ListCommittedOffsets(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return fmt.Errorf("listing where %s ends: %w", topic, err)
		}
		listed.Each(func(o kadm.ListedOffset) {
			if o.Offset > 0 {
				ends[o.Partition] = o.Offset
			}
		})
	}
	from := map[int32]kgo.Offset{}
	for p := range ends {
		from[p] = kgo.NewOffset().AtStart()
	}
	if len(from) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(g.opts), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	defer cl.Close()
	moved := time.Now()
	for len(ends) > 0 {
		if g.failed != nil {
			return g.failed
		}
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fs := cl.PollRecords(poll, 50_000)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("reading %s: %w", topic, context.Cause(ctx))
		}
		if fs.NumRecords() > 0 {
			moved = time.Now()
		} else if time.Since(moved) > time.Minute {
			return fault.Newf(hangingID, "growing: nothing more can be read of %s", topic)
		}
		var errs []error
		fs.EachError(func(t string, p int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				errs = append(errs, fmt.Errorf("reading %s/%d: %w", t, p, err))
			}
		})
		fs.EachRecord(func(r *kgo.Record) {
			end, open := ends[r.Partition]
			if !open || len(errs) > 0 {
				return
			}
			if !r.Attrs.IsControl() && r.Offset < end {
				errs = append(errs, f(r))
				if errs[len(errs)-1] == nil {
					errs = errs[:len(errs)-1]
				}
			}
			if r.Offset+1 >= end {
				delete(ends, r.Partition)
			}
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}
