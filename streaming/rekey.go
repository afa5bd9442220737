package streaming

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Rekey writes a record to the partition of topic that its key belongs to: murmur2(key) mod N, as Kafka's own clients partition, so that everything about one key meets
// in one task of a later stage whoever wrote it. topic has as many partitions as the topology, and is named in Topology.Rekeys.
//
// The record is part of the task's transaction, with whatever else it does: the later stage, which reads committed, sees it exactly once. It carries the task's watermark
// (HeaderWatermark), from which the later stage knows how far event time is. key, value and headers must last until the transaction has ended (Task.Copy).
func Rekey(t *Task, topic string, key, value []byte, headers ...kgo.RecordHeader) {
	r := t.Record()
	p := PartitionOf(key, t.top.Partitions)
	r.Topic, r.Key, r.Value = topic, key, value
	r.Headers = append(append(make([]kgo.RecordHeader, 0, 1+len(headers)), headers...), t.down.header(topic, p))
	t.EmitTo(p, r)
}

// PartitionOf is the partition of a key among n: murmur2 as org.apache.kafka.common.utils.Utils computes it, without its sign, mod n.
func PartitionOf(key []byte, n int32) int32 {
	const m = 0x5bd1e995
	h := 0x9747b28c ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		h = h*m ^ (k^k>>24)*m
	}
	for i := len(key) - 1; i >= 0; i-- {
		h ^= uint32(key[i]) << (8 * i)
		if i == 0 {
			h *= m
		}
	}
	h = (h ^ h>>13) * m
	h ^= h >> 15
	return int32(h&0x7fffffff) % n
}
