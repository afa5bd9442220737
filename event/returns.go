package event

// Returning is what keeps an erased person from coming back by a path that writes.
type Returning string

// The ways.
const (
	ByLedger  Returning = "takes the ledger" // and drops rows of erased subjects below their cut
	SameRows  Returning = "moves rows"       // that are in the store already: what was erased is not among them
	NoRows    Returning = "writes none"      // nothing that is about a person
	ByErasing Returning = "is the erasure itself"
)

// Return is a path by which rows come into a store.
type Return struct {
	File string // of the code that writes, below the project's folder
	Path string
	How  Returning
	Test string // a test that runs it against erased subjects, or the drill; "": nothing to run
}

// Returns is every path by which an erased person could come back. A file that writes to a store and is not listed fails a test.
func Returns() []Return {
	return []Return{
		{"streaming/sink/clickhouse_insert.go", "ClickHouse sink, from whatever offsets: replay of a topic, lost group, doubt", ByLedger, "TestClickHouseErasedRowsDoNotComeBackWithATopicReadAgain"},
		{"streaming/sink/clickhouse_columns.go", "its blocks", ByLedger, "TestClickHouseErasedRowsDoNotComeBackWithATopicReadAgain"},
		{"streaming/sink/clickhouse_group.go", "its note of topic ids", NoRows, ""},
		{"streaming/sink/iceberg_table.go", "Iceberg sink, after a rollback or a rewind", ByLedger, "TestIcebergErasedRowsDoNotComeBackWithARollback"},
		{"streaming/sink/redis.go", "Redis sink and `millrace redis rebuild`: KPIs, alerts, and what jobs serve that is not over yet", ByLedger, "TestARedisBuiltAgainHoldsNothingOfWhoWasErased"},
		{"activities/forecast_fit.go", "ForecastDemand: sums of orders by product", ByLedger, ""},
		{"live/recommend.go", "recommendations: items for items, from what training read", NoRows, ""},
		{"lakehouse/commit.go", "the sink's commit of files that it wrote", ByLedger, "TestIcebergErasedRowsDoNotComeBackWithARollback"},
		{"lakehouse/writer_stream.go", "the sink's files", ByLedger, "TestIcebergErasedRowsDoNotComeBackWithARollback"},
		{"lakehouse/maintain_commit.go", "compaction", SameRows, "TestAnErasureAndTheStreamCommitBesideEachOther"},
		{"lakehouse/maintain_rewrite.go", "compaction", SameRows, "TestAnErasureAndTheStreamCommitBesideEachOther"},
		{"lakehouse/moverows.go", "quarantine, and release from it", ByLedger, "TestWhatWasErasedInTheMeantimeIsNotReleased"},
		{"lakehouse/repair.go", "Reconcile's repair of Iceberg", ByLedger, "TestReconcileNamesWhatIsWrongAndMendsIt"},
		{"lakehouse/erase.go", "the erasure of Iceberg", ByErasing, "TestErasedRowsLeaveMainAndNothingElseDoes"},
		{"lakehouse/bigquery/load.go", "BigQuery's load", ByLedger, "TestAnErasedPersonIsNotLoadedAndIsDeleted"},
		{"lakehouse/bigquery/stage.go", "BigQuery's load", ByLedger, "TestAnErasedPersonIsNotLoadedAndIsDeleted"},
		{"olap/stored.go", "Reconcile's repair of ClickHouse", ByLedger, "TestReconcileNamesWhatIsWrongAndMendsIt"},
		{"olap/recompute.go", "RecomputeKPIs: sums", ByLedger, ""},
		{"olap/query_rules.go", "which sets of rules were applied", NoRows, ""},
		{"olap/migrate.go", "the list of migrations", NoRows, ""},
		{"olap/erase.go", "the ids of a request, dropped at its end", ByErasing, "TestRowsOfErasedSubjectsBelowTheCutAreDeletedAndNoOthers"},
		{"activities/erase_notes.go", "the ledger and certificates", NoRows, ""},
		{"activities/runs.go", "what ran", NoRows, ""},
		{"activities/reconcile.go", "what was compared", NoRows, ""},
		{"activities/lineage.go", "what read and wrote what", NoRows, ""},
	}
}
