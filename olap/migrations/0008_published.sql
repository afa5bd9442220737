CREATE TABLE IF NOT EXISTS {{table "publications"}} (
    table_name LowCardinality(String),
    run String,
    day Date,
    from_snapshot Int64,
    to_snapshot Int64,
    outcome LowCardinality(String),
    rows Int64,
    checks Map(String, Int64),
    problems Array(String),
    full Bool,
    covered Map(String, Int64),
    reason String,
    approved_by String,
    tag String,
    started_at DateTime64(6, 'UTC'),
    finished_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (table_name, run);

{{distributed "publications"}};
