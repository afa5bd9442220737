package lakehouse

import (
	"encoding/json"
	"fmt"
	"maps"
)

// OffsetsProperty is the key in a snapshot's summary under which the offset vector is kept. It is a promise to other programs.
const OffsetsProperty = "millrace.offsets"

// Vector says how far topics have been stored: topic id → partition → the next offset to be read. A partition that is absent starts at its beginning.
// Its JSON form is {"topic id":{"0":123}}.
type Vector map[string]map[int32]int64

// ParseVector reads the JSON form.
func ParseVector(s string) (Vector, error) {
	v := Vector{}
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return nil, fmt.Errorf("offset vector %.80q: %w", s, err)
	}
	for topic, parts := range v {
		for p, next := range parts {
			if p < 0 || next < 0 {
				return nil, fmt.Errorf("offset vector: topic %s partition %d is at %d", topic, p, next)
			}
		}
	}
	return v, nil
}

// String is the JSON form, with sorted keys.
func (v Vector) String() string {
	b, err := json.Marshal(v)
	if err != nil { // maps of integers always marshal
		panic(err)
	}
	return string(b)
}

// At is the next offset of a partition, 0 if the vector does not have it.
func (v Vector) At(topicID string, partition int32) int64 { return v[topicID][partition] }

// Has says whether the vector has a partition.
func (v Vector) Has(topicID string, partition int32) bool {
	_, ok := v[topicID][partition]
	return ok
}

// Set puts one partition.
func (v Vector) Set(topicID string, partition int32, next int64) {
	if v[topicID] == nil {
		v[topicID] = map[int32]int64{}
	}
	v[topicID][partition] = next
}

// With is v with the partitions of o replaced by o's; neither is changed.
func (v Vector) With(o Vector) Vector {
	out := make(Vector, len(v)+len(o))
	for topic, parts := range v {
		out[topic] = maps.Clone(parts)
	}
	for topic, parts := range o {
		for p, next := range parts {
			out.Set(topic, p, next)
		}
	}
	return out
}
