// Package olap is ClickHouse: the connection, the tables with their migrations, and the read-only query that the command line and tests ask.
//
// It stands at the end of the hot path: streaming/sink writes the tables that are made here, api and the command line read them. The columns of events_* and
// failed_events are those of event/schema; what ClickHouse adds (types, codecs, order, indexes) is in ddl.go, and the committed result in migrations/.
package olap
