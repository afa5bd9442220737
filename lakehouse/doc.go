// Package lakehouse is the Iceberg store: catalog, tables as policy, the writer that turns events into Parquet, and the committer that makes them visible.
//
// It stands at the end of the stream, behind streaming/sink, and under everything that reads whole days: maintenance, quality, training sets, BigQuery.
//
// A snapshot of ours always says how far Kafka has been stored: its summary holds the offset vector (OffsetsProperty). Data and vector become visible in one
// atomic commit, which is a compare-and-swap on the head of main. So the table itself is the authority on what it holds, and a writer that finds the
// head elsewhere than it thought goes there.
//
// A commit survives the death of any process at any moment; what it can leave behind is files that no snapshot names. Files on a local disk are not synced
// one by one: after a power failure a local warehouse is as good as its file system.
package lakehouse
