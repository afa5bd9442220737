package registry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Config is what a Registry needs beside its Kafka connection. The zero value of a field means its default.
type Config struct {
	// Topic holds the schemas; it has one partition. Default "_schemas".
	Topic string
	// TopicConfigs are given to Kafka when Run creates a missing topic; an existing topic is left as it is. Default
	// cleanup.policy=compact; on kfake, whose compaction loses data, use cleanup.policy=delete and retention.ms=-1.
	TopicConfigs map[string]string
	// ReplicationFactor of a topic that Run creates. Default 1.
	ReplicationFactor int16
	// Compatibility is the global level until one is set by PUT /config. Default FULL_TRANSITIVE.
	Compatibility string
	// WriteTimeout bounds how long a request waits for its write; past it the answer is error 50002, outcome unknown.
	// Default 5 s, at least 100 ms.
	WriteTimeout time.Duration
	// MaxBodyBytes bounds a request body. Default and maximum 1 MiB.
	MaxBodyBytes int64
	// MaxSubjects bounds the subjects (soft-deleted ones included). Default 10 000.
	MaxSubjects int
	// MaxVersions bounds the versions of one subject (soft-deleted ones included). Default 1 000.
	MaxVersions int
}

const (
	maxBody        = 1 << 20
	maxSubjectLen  = 255     // Kafka's bound on a topic name is 249; "-value" follows it
	maxRecordBytes = 1000000 // below the broker's default message.max.bytes with batch overhead
	maxReferences  = 100     // direct references of one schema
	maxRefClosure  = 1000    // schemas reached through references
)

// Defaults returns c with every zero field set to its default.
func (c Config) Defaults() Config {
	if c.Topic == "" {
		c.Topic = "_schemas"
	}
	if c.TopicConfigs == nil {
		c.TopicConfigs = map[string]string{"cleanup.policy": "compact"}
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = 1
	}
	if c.Compatibility == "" {
		c.Compatibility = string(FullTransitive)
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 5 * time.Second
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = maxBody
	}
	if c.MaxSubjects == 0 {
		c.MaxSubjects = 10_000
	}
	if c.MaxVersions == 0 {
		c.MaxVersions = 1_000
	}
	return c
}

// Validate reports every problem of c, after defaults.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, bound string) {
		errs = append(errs, fmt.Errorf("registry.%s = %v: must be %s", field, value, bound))
	}
	if len(c.Topic) > 249 || strings.ContainsFunc(c.Topic, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r)
	}) {
		bad("Topic", c.Topic, "at most 249 of [a-zA-Z0-9._-]")
	}
	if c.ReplicationFactor < 1 {
		bad("ReplicationFactor", c.ReplicationFactor, "at least 1")
	}
	if _, err := ParseLevel(c.Compatibility); err != nil {
		bad("Compatibility", c.Compatibility, "one of "+strings.Join(levelNames(), ", "))
	}
	if c.WriteTimeout < 100*time.Millisecond {
		bad("WriteTimeout", c.WriteTimeout, "at least 100ms")
	}
	if c.MaxBodyBytes < 1 || c.MaxBodyBytes > maxBody {
		bad("MaxBodyBytes", c.MaxBodyBytes, fmt.Sprintf("from 1 to %d", maxBody))
	}
	if c.MaxSubjects < 1 {
		bad("MaxSubjects", c.MaxSubjects, "at least 1")
	}
	if c.MaxVersions < 1 {
		bad("MaxVersions", c.MaxVersions, "at least 1")
	}
	return errors.Join(errs...)
}

// clientOpts are the options of the registry's own Kafka client, over those of the connection.
func (c Config) clientOpts(conn []kgo.Opt) []kgo.Opt {
	return append(append([]kgo.Opt(nil), conn...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.Topic: {0: kgo.NewOffset().AtStart()}}),
		// A topic that was truncated or made anew under us must end Run, so that the next one builds its view from nothing.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(max(4*c.WriteTimeout, time.Second)),
	)
}
