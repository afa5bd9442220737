// Package hot is the topology that turns what the gateway accepted into clean events and live numbers: it stands between raw.* and everything that reads
// events.*, kpi.partial and events.ledger.
//
// One task has one partition of all raw topics, which are co-partitioned by visitor, and makes one pass over each record:
//
//	raw.<category> ─decode─> lane, watermark ─> dedup ─> order rank ─> enrich ─> events.<category>
//	                  │                           │                       └─live─> KPI windows ─> kpi.partial
//	                  │ corrupt                   │ seen before                        └─too late─> kpi.late
//	                  ▼                           ▼
//	raw.failed ──> events.failed           control totals of every range of raw offsets ─> events.ledger
//
// Each job is a file: decode.go, dedup.go (with idset.go, filter.go, run.go), enrich.go, failed.go, kpis.go, ledger.go. The engine (package streaming) gives all of
// them one transaction, so what is emitted, counted, remembered and committed as read is always the same set of records.
//
// All of it is commutative: records are handled in the order of their arrival. For the same input, final KPI values, emitted events and control totals do not
// depend on batching, aborts or crashes. The one thing that does is which of two copies, or which of two orders with one id, is the first one, when they arrived at the
// same time in different topics; and copies that are a dedup window apart are found or not within one bucket of ten minutes.
package hot
