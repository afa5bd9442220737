// Package api is the analytics API: what people and the dashboard ask the platform. It stands at the end of the data flow and only reads.
//
//	Redis (live KPIs) ──┐
//	ClickHouse ─────────┼─> api ─HTTP, server-sent events─> dashboard (api/ui), anybody
//	Kafka, /metrics … ──┘
//
// openapi.yaml is the contract. Live values come from Redis, and from ClickHouse where Redis is away; everything else is a typed query of package olap. Work is
// bounded: equal questions share one flight and its cached answer, few queries run at once, few wait, and a client that leaves takes its query with it.
package api
