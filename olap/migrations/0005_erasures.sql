CREATE TABLE IF NOT EXISTS {{table "erasures"}} (
    request_id String,
    part Int32,
    subject FixedString(32),
    requested_at DateTime64(6, 'UTC'),
    cut String CODEC(ZSTD(3)),
    key LowCardinality(String),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (request_id, part, subject);

{{distributed "erasures"}};

CREATE TABLE IF NOT EXISTS {{table "erasure_subjects"}} (
    request_id String,
    tenant LowCardinality(String),
    kind LowCardinality(String),
    id String,
    requested_at DateTime64(6, 'UTC')
) ENGINE = {{engine "ReplacingMergeTree" ""}}
PARTITION BY request_id
ORDER BY (tenant, kind, id)
TTL toDateTime(requested_at) + INTERVAL 30 DAY;

{{distributed "erasure_subjects"}};

CREATE TABLE IF NOT EXISTS {{table "erasure_certificates"}} (
    request_id String,
    phase LowCardinality(String),
    issued_at DateTime64(6, 'UTC'),
    body String CODEC(ZSTD(3)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (request_id, phase);

{{distributed "erasure_certificates"}};
