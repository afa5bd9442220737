// Package schema holds every schema of the platform and the codec that speaks them: the Avro schemas of all topics, with every version ever committed, and
// the columns of all event tables with their field ids.
//
// One Go table (fields.go) is the source. From it come the Avro schemas (avsc/<subject>/<version>.avsc, committed, compared by a test), the columns that
// ClickHouse, Iceberg and BigQuery create, and the field ids (ids.json, append-only). To add a field: append it to the table with Null set, run
// `go test ./event/schema -update`, commit the new version.
//
// A value on a topic is Confluent's wire format: 0x00, schema id (4 bytes, big-endian), Avro binary. An events.* record is the enriched prefix followed by
// exactly the fields of raw.* in their order, so the hot topology copies a raw value's bytes instead of encoding them again.
package schema
