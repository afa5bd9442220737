package event

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	"github.com/zeebo/xxh3"
)

// MaxIDBytes bounds event_id, visitor_id, user_id and the other ids a producer may send.
const MaxIDBytes = 128

// Sep separates the parts of keys and hashed rows: ASCII unit separator, which no accepted id holds.
const Sep = 0x1F

// Kinds of key, in order of preference: the first present one keys the event.
const (
	KindVisitor = 'v'
	KindUser    = 'u'
	KindOrder   = 'o'
	KindEvent   = 'e'
	KindItem    = 'i' // inventory
)

// AppendKey writes the record key of e: tenant 0x1F kind 0x1F id. Inventory is keyed by item.
func (e *Event) AppendKey(dst []byte) []byte {
	kind, id := byte(KindEvent), e.ID
	switch {
	case e.Category() == Inventory && e.ItemID != "":
		kind, id = KindItem, e.ItemID
	case e.VisitorID != "":
		kind, id = KindVisitor, e.VisitorID
	case e.UserID != "":
		kind, id = KindUser, e.UserID
	case e.OrderID != "":
		kind, id = KindOrder, e.OrderID
	}
	dst = append(dst, e.Tenant...)
	dst = append(dst, Sep, kind, Sep)
	return append(dst, id...)
}

// Partition is the partition of a key among n: murmur2 as Kafka's own clients compute it, so that any producer agrees.
func Partition(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// murmur2 is Kafka's (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b)
		b = b[4:]
		k *= m
		k ^= k >> 24
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// ComputeRowHash is the event's row_hash: the bits of XXH64 (seed 0) over tenant, event_id, name, occurred_at µs, value micros, currency and
// order_id, separated by 0x1F, integers in decimal, absent = empty. A set of rows is summed by Checksum.
func (e *Event) ComputeRowHash() int64 {
	var buf [512]byte
	b := append(buf[:0], e.Tenant...)
	b = append(b, Sep)
	b = append(b, e.ID...)
	b = append(b, Sep)
	b = append(b, e.Name...)
	b = append(b, Sep)
	b = strconv.AppendInt(b, e.OccurredAt, 10)
	b = append(b, Sep)
	if e.Value != nil {
		b = strconv.AppendInt(b, *e.Value, 10)
	}
	b = append(b, Sep)
	b = append(b, e.Currency...)
	b = append(b, Sep)
	b = append(b, e.OrderID...)
	return int64(xxhash.Sum64(b))
}

// Checksum is the order-free checksum of a set of rows: how many, and the sums of the low and high halves of row_hash. They are plain integer sums,
// so every engine that holds the rows can compute them.
type Checksum struct {
	Count  int64
	HashLo int64 // Σ (row_hash & 0xffffffff)
	HashHi int64 // Σ ((row_hash >> 32) & 0xffffffff)
}

// Add counts one row.
func (c *Checksum) Add(rowHash int64) {
	c.Count++
	c.HashLo += rowHash & 0xffffffff
	c.HashHi += rowHash >> 32 & 0xffffffff
}

// DeriveID is the id of an event that was sent without one: a UUIDv8 of xxh128 over tenant, source, the decoded event including its times, and its
// ordinal among equal events of the request. A retry of the same request therefore is the same event.
func DeriveID(tenant, source string, decoded []byte, ordinal int) string {
	h := xxh3.New()
	sep := [1]byte{Sep}
	_, _ = h.WriteString(tenant) // a hash does not fail
	_, _ = h.Write(sep[:])
	_, _ = h.WriteString(source)
	_, _ = h.Write(sep[:])
	_, _ = h.Write(decoded)
	_, _ = h.Write(binary.BigEndian.AppendUint32(sep[:1:1], uint32(ordinal)))
	sum := h.Sum128().Bytes()
	u := uuid.UUID(sum)
	u[6] = u[6]&0x0f | 0x80 // version 8
	u[8] = u[8]&0x3f | 0x80 // RFC 9562 variant
	return u.String()
}

// FailedID is the identity of a failed event: xxh128 over tenant, source, reason and payload, in hex. The same bad bytes sent again are the same failure.
func FailedID(tenant, source, reason string, payload []byte) string {
	h := xxh3.New()
	sep := [1]byte{Sep}
	for _, s := range []string{tenant, source, reason} {
		_, _ = h.WriteString(s)
		_, _ = h.Write(sep[:])
	}
	_, _ = h.Write(payload)
	sum := h.Sum128().Bytes()
	return hex.EncodeToString(sum[:])
}

// Fingerprint is the 128-bit identity by which duplicates are found: (tenant, source, event_id).
func Fingerprint(tenant, source, id string) [16]byte {
	var buf [400]byte
	b := append(buf[:0], tenant...)
	b = append(b, Sep)
	b = append(b, source...)
	b = append(b, Sep)
	b = append(b, id...)
	return xxh3.Hash128(b).Bytes()
}
