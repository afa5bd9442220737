// Package sink takes what the hot topology wrote to Kafka into the stores: ClickHouse, Redis and Iceberg, each a consumer of its own, each exactly-once by
// its own store's commit record.
//
// The rule of all three: how far a store has got is recorded in the same atomic step as the data, in the store. Kafka's group offsets say who owns which
// partition and how far behind we are; they are never the truth about what was stored, and a position never goes backwards unless the store lost data.
// Offsets have gaps (transaction markers, aborts, compaction); the next position is the last offset read plus one.
package sink
