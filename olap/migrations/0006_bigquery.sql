CREATE TABLE IF NOT EXISTS {{table "bigquery_loads"}} (
    table_name LowCardinality(String),
    from_snapshot Int64,
    to_snapshot Int64,
    revision Int64,
    job_id String,
    method LowCardinality(String),
    outcome LowCardinality(String),
    reason LowCardinality(String),
    count Int64,
    hash_lo Int64,
    hash_hi Int64,
    held Int64,
    parts Int64,
    bytes Int64,
    replaced Array(Date),
    differing Array(Date),
    vector_from String,
    vector_to String,
    run String,
    started_at DateTime64(6, 'UTC'),
    finished_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (table_name, revision, from_snapshot, to_snapshot, run);

{{distributed "bigquery_loads"}};
