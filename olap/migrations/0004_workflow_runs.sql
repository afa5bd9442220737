CREATE TABLE IF NOT EXISTS {{table "workflow_runs"}} (
    id String,
    run String,
    type LowCardinality(String),
    input_digest String,
    day Date,
    table_name LowCardinality(String),
    input_snapshot Int64,
    trigger LowCardinality(String),
    workflow_run String,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    numbers Map(String, Int64),
    started_at DateTime64(6, 'UTC'),
    finished_at Nullable(DateTime64(6, 'UTC')),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (id, run);

{{distributed "workflow_runs"}};

CREATE TABLE IF NOT EXISTS {{table "maintenance_runs"}} (
    table_name LowCardinality(String),
    run String,
    step LowCardinality(String),
    input_digest String,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    numbers Map(String, Int64),
    id String,
    workflow_run String,
    started_at DateTime64(6, 'UTC'),
    finished_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (table_name, run, step);

{{distributed "maintenance_runs"}};
