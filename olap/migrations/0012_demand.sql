CREATE TABLE IF NOT EXISTS {{table "forecasts"}} (
    tenant LowCardinality(String),
    product_id String,
    forecast_version String,
    state LowCardinality(String),
    method LowCardinality(String),
    mase Float64,
    naive_mase Float64,
    mase_hourly Float64,
    held_back_days UInt16,
    bias Float64,
    units Float64,
    days UInt16,
    price_state LowCardinality(String),
    currency LowCardinality(String),
    elasticity Float64,
    elasticity_low Float64,
    elasticity_high Float64,
    price_current Float64,
    price_low Float64,
    price_high Float64,
    price_floor Float64,
    price_reason String,
    input_at DateTime64(6, 'UTC'),
    fitted_at DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (tenant, product_id);

{{distributed "forecasts"}};

CREATE TABLE IF NOT EXISTS {{table "demand_hourly"}} (
    tenant LowCardinality(String),
    product_id String,
    hour DateTime('UTC'),
    units Float64,
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, product_id, hour)
TTL hour + INTERVAL 400 DAY;

{{distributed "demand_hourly"}};
