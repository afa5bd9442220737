package activities

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
)

// EventLog reads the topics that stores are fed from: what Kafka still holds of a row is the truth about it. A nil *EventLog is a platform whose broker cannot be asked.
type EventLog struct {
	opts   []kgo.Opt
	codecs func(ctx context.Context) (*schema.Codecs, error)

	mu  sync.Mutex
	cl  *kgo.Client // for metadata
	adm *kadm.Client
}

// NewEventLog makes it. codecs is called when the first record is to be decoded. Close it.
func NewEventLog(opts []kgo.Opt, codecs func(ctx context.Context) (*schema.Codecs, error)) *EventLog {
	return &EventLog{opts: opts, codecs: codecs}
}

// Close closes its connections.
func (l *EventLog) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cl != nil {
		l.cl.Close()
		l.cl, l.adm = nil, nil
	}
}

func (l *EventLog) admin() (*kadm.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.adm == nil {
		cl, err := kgo.NewClient(l.opts...)
		if err != nil {
			return nil, fmt.Errorf("making a client of Kafka: %w", err)
		}
		l.cl, l.adm = cl, kadm.NewClient(cl)
	}
	return l.adm, nil
}

// Positions gives how far a consumer group has committed a topic.
func (l *EventLog) Positions(ctx context.Context, group, topic string) (map[int32]int64, error) {
	adm, err := l.admin()
	if err != nil {
		return nil, err
	}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		if errors.Is(err, kerr.GroupIDNotFound) {
			return map[int32]int64{}, nil
		}
		return nil, fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	out := map[int32]int64{}
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic && o.Err == nil && o.At >= 0 {
			out[o.Partition] = o.At
		}
	})
	return out, nil
}

// TopicID is the id of a topic, "" if there is no such topic.
func (l *EventLog) TopicID(ctx context.Context, topic string) (string, error) {
	adm, err := l.admin()
	if err != nil {
		return "", err
	}
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return "", fmt.Errorf("looking for topic %s: %w", topic, err)
	}
	d, ok := details[topic]
	if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return "", nil
	}
	if d.Err != nil {
		return "", fmt.Errorf("looking for topic %s: %w", topic, d.Err)
	}
	return d.ID.String(), nil
}

// silence is how long nothing comes before what is left of a topic counts as read.
const silence = 10 * time.Second

// promotions reads which properties of a table's events have become columns.
func (l *EventLog) promotions(ctx context.Context, table string) ([]schema.Promotion, error) {
	if l == nil {
		return nil, nil
	}
	for _, c := range event.Categories() {
		if c.Table() != table {
			continue
		}
		var set schema.Promotions
		err := l.read(ctx, event.TopicControl, 0, kgo.NewOffset().AtStart(), func(r *kgo.Record) (bool, error) {
			set.Apply(r.Key, r.Value)
			return true, nil
		})
		return set.Of(c), err
	}
	return nil, nil
}

// read gives the committed records of a partition from an offset on, up to where it ends now, while each says true.
func (l *EventLog) read(ctx context.Context, topic string, partition int32, from kgo.Offset, each func(*kgo.Record) (bool, error)) error {
	adm, err := l.admin()
	if err != nil {
		return err
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("asking where %s ends: %w", topic, err)
	}
	end, ok := ends.Lookup(topic, partition)
	switch {
	case !ok, errors.Is(end.Err, kerr.UnknownTopicOrPartition):
		return nil
	case end.Err != nil:
		return fmt.Errorf("asking where %s ends: %w", topic, end.Err)
	case end.Offset == 0:
		return nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(l.opts), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxPartitionBytes(8<<20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: from}}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return fmt.Errorf("reading %s: %w", topic, err)
	}
	defer cl.Close()
	for {
		wait, cancel := context.WithTimeout(ctx, silence)
		fetches := cl.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				failed = err
			}
		})
		if failed != nil {
			return fmt.Errorf("reading %s/%d: %w", topic, partition, failed)
		}
		n := 0
		for it := fetches.RecordIter(); !it.Done(); n++ {
			r := it.Next()
			if !r.Attrs.IsControl() {
				more, err := each(r)
				if err != nil || !more {
					return err
				}
			}
			if r.Offset+1 >= end.Offset {
				return nil
			}
		}
		if n == 0 {
			return nil // compaction may have removed the last record, or the last range is that of an aborted transaction
		}
	}
}

// logView is the topic of a slice as a source of rows.
type logView struct {
	*EventLog
	slice
	ledger []event.LedgerEntry // by partition and offset: it says when a range was taken
}

func (v *logView) name() string { return "kafka" }

// skew is how much the clocks of the broker, which stamps raw records, and of the engine, which stamps what it writes, may differ.
const skew = time.Minute

// start finds where to begin with a raw offset: events are written after their raw record was.
func (v *logView) start(ctx context.Context, partition int32, raw int64) (kgo.Offset, bool, error) {
	since := v.from
	for _, e := range v.ledger {
		if e.RawPartition == partition && e.RawFrom <= raw && raw < e.RawTo {
			since = event.Time(e.IngestedFrom)
		}
	}
	adm, err := v.admin()
	if err != nil {
		return kgo.Offset{}, false, err
	}
	at, err := adm.ListOffsetsAfterMilli(ctx, since.Add(-skew).UnixMilli(), v.topic)
	if err != nil {
		return kgo.Offset{}, false, fmt.Errorf("asking where %s was at %s: %w", v.topic, since.Format(time.RFC3339), err)
	}
	o, ok := at.Lookup(v.topic, partition)
	if !ok || errors.Is(o.Err, kerr.UnknownTopicOrPartition) || o.Offset < 0 {
		return kgo.Offset{}, false, nil
	}
	if o.Err != nil {
		return kgo.Offset{}, false, fmt.Errorf("asking where %s was at %s: %w", v.topic, since.Format(time.RFC3339), o.Err)
	}
	return kgo.NewOffset().At(o.Offset), true, nil
}

// each decodes the records of raw offsets [from, to). Those of one raw partition are in order on their topic.
func (v *logView) each(ctx context.Context, partition int32, from, to int64, f func(event.Stored) error) error {
	codecs, err := v.codecs(ctx)
	if err != nil {
		return err
	}
	at, ok, err := v.start(ctx, partition, from)
	if err != nil || !ok {
		return err
	}
	dec := codecs.NewEventDecoder()
	return v.read(ctx, v.topic, partition, at, func(r *kgo.Record) (bool, error) {
		s := event.Stored{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
		if v.topic == event.TopicEventsFailed {
			s.Failed = &event.Failed{}
			if err := codecs.Decode(ctx, v.topic, r.Value, s.Failed); err != nil {
				return false, fmt.Errorf("decoding %s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
			}
		} else {
			s.Event = &event.Event{}
			c, _ := event.ParseCategory(v.topic[len("events."):])
			if err := dec.DecodeEnriched(ctx, c, r.Value, s.Event); err != nil {
				return false, fmt.Errorf("decoding %s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
			}
		}
		topic, p, raw := s.Raw()
		switch {
		case topic != v.raw || p != partition || raw < from:
			return true, nil
		case raw >= to:
			return false, nil
		}
		return true, f(s)
	})
}

func (v *logView) spots(ctx context.Context, partition int32, from, to int64, each func(spot) error) error {
	return v.each(ctx, partition, from, to, func(s event.Stored) error {
		_, _, raw := s.Raw()
		return each(spot{raw, hashOf(&s), s.Offset, 1})
	})
}

func (v *logView) rows(ctx context.Context, partition int32, offsets []int64, each func(event.Stored) error) error {
	want := make(map[int64]bool, len(offsets))
	for _, o := range offsets {
		want[o] = true
	}
	return v.each(ctx, partition, slices.Min(offsets), slices.Max(offsets)+1, func(s event.Stored) error {
		_, _, raw := s.Raw()
		if !want[raw] {
			return nil
		}
		delete(want, raw)
		return each(s)
	})
}

// hashOf is the hash of a row in the control totals.
func hashOf(s *event.Stored) int64 {
	if s.Failed != nil {
		return int64(xxhash.Sum64String(s.Failed.ID))
	}
	return s.Event.RowHash
}

func digestOfRows(rows []event.Stored) string {
	offsets := make([]int64, len(rows))
	for i := range rows {
		_, _, offsets[i] = rows[i].Raw()
	}
	return digestOfOffsets(offsets)
}

func digestOfDrops(drops []drop) string {
	offsets := make([]int64, len(drops))
	for i, d := range drops {
		offsets[i] = d.offset
	}
	return digestOfOffsets(offsets)
}

func digestOfOffsets(offsets []int64) string {
	slices.Sort(offsets)
	h := xxhash.New()
	var b [8]byte
	for _, o := range offsets {
		binary.LittleEndian.PutUint64(b[:], uint64(o))
		_, _ = h.Write(b[:]) // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil))
}
