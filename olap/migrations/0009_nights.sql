CREATE TABLE IF NOT EXISTS {{table "workflow_steps"}} (
    id String,
    run String,
    type LowCardinality(String),
    step LowCardinality(String),
    input_digest String,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    numbers Map(String, Int64),
    workflow_run String,
    started_at DateTime64(6, 'UTC'),
    finished_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (id, run, step);

{{distributed "workflow_steps"}};

CREATE TABLE IF NOT EXISTS {{table "lineage_events"}} (
    event_time DateTime64(6, 'UTC'),
    event_type LowCardinality(String),
    run_id String,
    job LowCardinality(String),
    inputs Array(String),
    outputs Array(String),
    body String,
    sent UInt8,
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (job, run_id, event_type);

{{distributed "lineage_events"}};
