CREATE TABLE IF NOT EXISTS {{table "alerts"}} (
    alert_id String,
    kind LowCardinality(String),
    rule LowCardinality(String),
    rule_version Int32,
    tenant LowCardinality(String),
    entity LowCardinality(String),
    key String,
    severity LowCardinality(String),
    score Float64,
    reasons Array(String),
    trigger_event_id String,
    occurred_at DateTime64(6, 'UTC'),
    detected_at DateTime64(6, 'UTC'),
    confirmed Bool,
    details String,
    version UInt64,
    INDEX by_alert_id alert_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant, occurred_at, alert_id);

{{distributed "alerts"}};
