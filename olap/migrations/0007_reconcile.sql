CREATE TABLE IF NOT EXISTS {{table "reconcile_runs"}} (
    topic LowCardinality(String),
    hour DateTime64(6, 'UTC'),
    run String,
    store LowCardinality(String),
    outcome LowCardinality(String),
    expected Int64,
    found Int64,
    ranges Int64,
    missing Int64,
    duplicate Int64,
    surplus Int64,
    changed Int64,
    unexplained Int64,
    uncounted Int64,
    late Int64,
    erased Int64,
    refused Int64,
    repeated Int64,
    order_copy Int64,
    repaired Int64,
    started_at DateTime64(6, 'UTC'),
    finished_at Nullable(DateTime64(6, 'UTC')),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (topic, hour, store, run);

{{distributed "reconcile_runs"}};

CREATE TABLE IF NOT EXISTS {{table "reconcile_differences"}} (
    topic LowCardinality(String),
    hour DateTime64(6, 'UTC'),
    run String,
    store LowCardinality(String),
    kind LowCardinality(String),
    raw_partition Int32,
    raw_from Int64,
    raw_to Int64,
    count Int64,
    state LowCardinality(String),
    noted_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (topic, hour, store, kind, raw_partition, raw_from);

{{distributed "reconcile_differences"}};
