package hotrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
)

// Broker is a running broker.
type Broker struct {
	Addr   string
	Client *kgo.Client // of a reader that is in no group
	Admin  *kadm.Client
	stop   func()
}

// StartBroker starts a broker of a kind on dir.
func StartBroker(ctx context.Context, dir, kind string) (*Broker, error) {
	servers, err := embeddedtest.Start(ctx, dir, kind, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	b := &Broker{Addr: servers.Endpoints().Kafka, stop: servers.Stop}
	if b.Client, err = kgo.NewClient(kgo.SeedBrokers(b.Addr)); err != nil {
		servers.Stop()
		return nil, fmt.Errorf("making a client: %w", err)
	}
	b.Admin = kadm.NewClient(b.Client)
	return b, nil
}

// Stop ends the broker.
func (b *Broker) Stop() {
	b.Client.Close()
	b.stop()
}

// CreateTopics makes the platform's topics and those of the hot topology's state.
func (b *Broker) CreateTopics(ctx context.Context, dir string, partitions int32) error {
	for _, t := range event.Topics() {
		n := int32(1)
		if t.Partitioned {
			n = partitions
		}
		configs := map[string]*string{}
		if t.LogAppendTime {
			configs["message.timestamp.type"] = kadm.StringPtr("LogAppendTime")
		}
		if err := b.Create(ctx, n, configs, t.Name); err != nil {
			return err
		}
	}
	codecs, err := Codecs()
	if err != nil {
		return err
	}
	cfg := hot.DefaultConfig()
	cfg.Dir = dir
	visitor, err := hot.Topology(cfg, partitions, codecs, kpi.Definitions{}, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	entity, err := hot.EntityTopology(cfg, partitions, codecs, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return b.CreateState(ctx, visitor, entity)
}

// CreateState makes the topics of topologies' state. None is compacted: compaction is no part of what the drills look at, and kfake's loses what transactions write.
func (b *Broker) CreateState(ctx context.Context, tops ...streaming.Topology) error {
	for _, top := range tops {
		for _, t := range top.RequiredTopics() {
			if err := b.Create(ctx, t.Partitions, map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr("-1")}, t.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Create makes a topic. A broker that has just started may not count itself yet.
func (b *Broker) Create(ctx context.Context, partitions int32, configs map[string]*string, name string) error {
	return Eventually(ctx, "the broker to make topics", time.Minute, func() (bool, error) {
		got, err := b.Admin.CreateTopic(ctx, partitions, 1, configs, name)
		if err == nil {
			err = got.Err
		}
		if err != nil && !errors.Is(err, kerr.InvalidReplicationFactor) && !kerr.IsRetriable(err) {
			return false, fmt.Errorf("creating topic %s: %w", name, err)
		}
		return err == nil, nil
	})
}

// Inputs are the topics that the hot topology reads first.
func Inputs() []string {
	var out []string
	for _, t := range event.Topics() {
		if t.HotInput {
			out = append(out, t.Name)
		}
	}
	return out
}

// ends are where what is committed in topics ends. A broker that has just started or made a topic may not know of it yet.
func (b *Broker) ends(ctx context.Context, topics ...string) (ends kadm.ListedOffsets, err error) {
	err = Eventually(ctx, "the broker to know its topics", time.Minute, func() (bool, error) {
		if ends, err = b.Admin.ListCommittedOffsets(ctx, topics...); err == nil {
			err = ends.Error()
		}
		if err != nil && !kerr.IsRetriable(err) {
			return false, fmt.Errorf("asking where topics end: %w", err)
		}
		return err == nil, nil
	})
	return ends, err
}

// Position is how many records topics have, markers of transactions among them, and how many of them a group has not read.
func (b *Broker) Position(ctx context.Context, group string, topics ...string) (end, lag int64, err error) {
	ends, err := b.ends(ctx, topics...)
	if err != nil {
		return 0, 0, err
	}
	at, err := b.Admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) && !kerr.IsRetriable(err) { // it has not begun
		return 0, 0, fmt.Errorf("asking where %s is: %w", group, err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		end += o.Offset
		lag += o.Offset
		if x, ok := at.Lookup(o.Topic, o.Partition); ok && x.At > 0 {
			lag -= x.At
		}
	})
	return end, lag, nil
}

// Eventually repeats f until it says true, and says after limit what it waits for.
func Eventually(ctx context.Context, what string, limit time.Duration, f func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for %s: not within %s", what, limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Quiet waits until a worker of the hot topology has read everything and writes nothing any more for a while. Heartbeats between the stages never end.
func (b *Broker) Quiet(ctx context.Context, s Spec, limit time.Duration) error {
	var last int64
	since := time.Now()
	return Eventually(ctx, "the end of the work", limit, func() (bool, error) {
		_, lag, err := b.Position(ctx, s.Groups()[0], Inputs()...)
		if err != nil {
			return false, err
		}
		ends, err := b.ends(ctx, event.TopicKPIPartial, event.TopicAlerts)
		if err != nil {
			return false, err
		}
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		if lag > 0 || sum != last {
			last, since = sum, time.Now()
		}
		return time.Since(since) > 4*time.Second, nil
	})
}

// ReadCommitted reads topics from their start to where what is committed ends now.
func (b *Broker) ReadCommitted(ctx context.Context, topics []string, each func(*kgo.Record) error) error {
	ends, err := b.ends(ctx, topics...)
	if err != nil {
		return err
	}
	from, left := map[string]map[int32]kgo.Offset{}, map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset == 0 {
			return
		}
		if from[o.Topic] == nil {
			from[o.Topic], left[o.Topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		}
		from[o.Topic][o.Partition], left[o.Topic][o.Partition] = kgo.NewOffset().AtStart(), o.Offset
	})
	if len(left) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return fmt.Errorf("reading topics: %w", err)
	}
	defer cl.Close()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading topics: %w", err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			end, wanted := left[r.Topic][r.Partition]
			if wanted && r.Offset < end && failed == nil && !r.Attrs.IsControl() {
				failed = each(r)
			}
			if r.Offset+1 >= end {
				delete(left[r.Topic], r.Partition)
				if len(left[r.Topic]) == 0 {
					delete(left, r.Topic)
				}
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}
