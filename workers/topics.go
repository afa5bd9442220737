package workers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/streaming"
)

// topic is one topic to be made.
type topic struct {
	name       string
	partitions int32
	configs    map[string]*string
}

// segmentBytes is small enough that retention and compaction work on one machine, and no smaller than Apache Kafka allows.
const segmentBytes = 64 << 20

// topics lists what the platform needs: the table of package event, and the engine's state.
func (c KafkaConfig) topics(state []streaming.TopicSpec) []topic {
	var out []topic
	for _, t := range event.Topics() {
		n := int32(1)
		if t.Partitioned {
			n = c.Partitions
		}
		configs := c.configs(t.Compacted, t.Retention)
		if t.LogAppendTime {
			configs["message.timestamp.type"] = kadm.StringPtr("LogAppendTime")
		}
		out = append(out, topic{t.Name, n, configs})
	}
	for _, t := range state {
		out = append(out, topic{t.Name, t.Partitions, c.configs(t.Compacted, t.Retention)})
	}
	return out
}

func (c KafkaConfig) configs(compacted bool, retention time.Duration) map[string]*string {
	ms := int64(-1)
	if retention > 0 {
		ms = retention.Milliseconds()
	}
	out := map[string]*string{
		"segment.bytes":       kadm.StringPtr(strconv.Itoa(segmentBytes)),
		"max.message.bytes":   kadm.StringPtr(strconv.Itoa(c.MaxMessageBytes)),
		"min.insync.replicas": kadm.StringPtr(strconv.Itoa(max(1, int(c.Replication)-1))),
	}
	switch {
	case compacted && c.Compaction:
		out["cleanup.policy"] = kadm.StringPtr("compact")
		out["delete.retention.ms"] = kadm.StringPtr(strconv.FormatInt((24 * time.Hour).Milliseconds(), 10))
	default: // kfake's compaction loses what transactions wrote: there compacted topics keep everything
		out["cleanup.policy"] = kadm.StringPtr("delete")
		out["retention.ms"] = kadm.StringPtr(strconv.FormatInt(ms, 10))
	}
	return out
}

// ensureTopics creates the topics that are missing and checks the partition counts of those that are there; it succeeds once the broker shows all of them.
// Several processes may do so at once. It is to be called again until it succeeds.
func (c KafkaConfig) ensureTopics(ctx context.Context, opts []kgo.Opt, want []topic) error {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	have, err := adm.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	var errs []error
	made := 0
	for _, t := range want {
		if d, ok := have[t.name]; ok && d.Err == nil {
			if n := int32(len(d.Partitions)); n != t.partitions {
				errs = append(errs, fault.Newf("MR-CFG-002", "topic %s has %d partitions, kafka.partitions asks for %d", t.name, n, t.partitions))
			}
			continue
		}
		if !c.CreateTopics {
			errs = append(errs, fault.Newf("MR-CFG-003", "topic %s is missing", t.name))
			continue
		}
		got, err := adm.CreateTopic(ctx, t.partitions, c.Replication, t.configs, t.name)
		if err == nil {
			err = got.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("creating topic %s: %w", t.name, err))
		}
		made++
	}
	if made > 0 && len(errs) == 0 {
		return fmt.Errorf("%d topics were just made and may not be seen everywhere yet", made) // the caller comes again
	}
	return errors.Join(errs...)
}
