// Package streaming is the exactly-once stream engine: it stands between Kafka's input topics and Kafka's output topics and runs the
// code of a topology, one task per partition number.
//
// Kafka is the distributed engine: partitions, consumer groups and transactions do the placement, failover and atomicity. What is
// here is what runs inside one task: the merge of its inputs, event time, timers, keyed state, windows, and the transaction in which
// outputs, changelog of the state, logs and input offsets commit together.
//
//	inputs ─merge─> Operator.Process ─> Task.Emit ──────────┐
//	                 │        ▲                             ├─ one Kafka transaction per worker and commit interval
//	                 ▼        │ timers, ticks               │
//	              Store, Windows, AppendLog ─> changelog ───┘  (+ input offsets, with the member's generation)
//
// A record that Process sees is seen exactly once by what the transaction holds: an abort drops state, timers, watermarks and outputs
// together and reads the inputs again; an outcome that is unknown discards the tasks and restores them from the changelog. Effects
// outside of the transaction (a call to another system from an operator) are not covered; operators must not have any.
//
// The engine knows nothing of events: it moves records, and is told event times by the operator (Task.Observe).
package streaming
