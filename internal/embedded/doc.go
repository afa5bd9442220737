// Package embedded is one machine: it starts real servers (broker, ClickHouse,
// Redis, Temporal) as supervised child processes wherever no address of a running
// one is configured. It stands under the data flow; the roles that events pass
// through are children of the same supervisor and get addresses from it, and do
// not see the difference from a cluster.
package embedded
