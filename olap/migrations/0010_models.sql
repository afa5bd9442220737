CREATE TABLE IF NOT EXISTS {{table "models"}} (
    model LowCardinality(String),
    tenant LowCardinality(String),
    model_version String,
    state LowCardinality(String),
    reason String,
    input_at DateTime64(6, 'UTC'),
    trained_at DateTime64(6, 'UTC'),
    noted_at DateTime64(6, 'UTC'),
    snapshots Map(String, Int64),
    metrics Map(String, Float64),
    rows Int64,
    items Int64,
    keys Int64,
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (model, tenant, model_version);

{{distributed "models"}};
