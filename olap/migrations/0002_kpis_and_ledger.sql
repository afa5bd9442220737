CREATE TABLE IF NOT EXISTS {{table "kpi_1s"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

{{distributed "kpi_1s"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_1m"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

{{distributed "kpi_1m"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_1h"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

{{distributed "kpi_1h"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_1d"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

{{distributed "kpi_1d"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_items_1s"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    product_id String,
    item_category LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

{{distributed "kpi_items_1s"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_items_1m"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    product_id String,
    item_category LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

{{distributed "kpi_items_1m"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_items_1h"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    product_id String,
    item_category LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

{{distributed "kpi_items_1h"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_items_1d"}} (
    tenant LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    country LowCardinality(String),
    device LowCardinality(String),
    product_id String,
    item_category LowCardinality(String),
    kafka_partition Int32,
    final Bool,
    events Int64,
    page_views Int64,
    item_views Int64,
    searches Int64,
    cart_adds Int64,
    checkouts Int64,
    orders Int64,
    units Int64,
    revenue Decimal(38, 6),
    refunds Int64,
    refund_value Decimal(38, 6),
    visitors Int64,
    visitors_sketch String CODEC(ZSTD(1)),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

{{distributed "kpi_items_1d"}};

CREATE TABLE IF NOT EXISTS {{table "kpi_late"}} (
    tenant LowCardinality(String),
    event_id String CODEC(ZSTD(1)),
    source LowCardinality(String),
    name LowCardinality(String),
    occurred_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    watermark DateTime64(6, 'UTC'),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, raw_topic, raw_partition, raw_offset);

{{distributed "kpi_late"}};

CREATE TABLE IF NOT EXISTS {{table "event_ledger"}} (
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_from Int64,
    raw_to Int64,
    out_topic LowCardinality(String),
    count Int64,
    hash_lo Int64,
    hash_hi Int64,
    duplicates Int64,
    failed Int64,
    erased Int64,
    ingested_from DateTime64(6, 'UTC'),
    ingested_to DateTime64(6, 'UTC'),
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
PARTITION BY toYYYYMM(ingested_from)
ORDER BY (raw_topic, raw_partition, raw_from, out_topic);

{{distributed "event_ledger"}};

CREATE TABLE IF NOT EXISTS {{table "sink_topics"}} (
    topic String,
    topic_id String,
    noted_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = {{engine "ReplacingMergeTree" ""}}
ORDER BY (topic, topic_id);

{{distributed "sink_topics"}};
