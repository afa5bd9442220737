CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER shop (version UInt32, name String, digest String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'))
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/{database}/{table}', '{replica}')
ORDER BY (version, digest);

CREATE TABLE IF NOT EXISTS events_page_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    `items.item_id` Array(String),
    `items.item_name` Array(Nullable(String)),
    `items.item_category` Array(LowCardinality(Nullable(String))),
    `items.item_brand` Array(LowCardinality(Nullable(String))),
    `items.item_variant` Array(Nullable(String)),
    `items.price` Array(Nullable(Decimal(18, 6))),
    `items.quantity` Array(Int64),
    `items.discount` Array(Nullable(Decimal(18, 6))),
    `items.coupon` Array(Nullable(String)),
    `items.position` Array(Nullable(Int64)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    item_list_id Nullable(String),
    item_list_name Nullable(String),
    promotion_id Nullable(String),
    promotion_name Nullable(String),
    creative_name Nullable(String),
    creative_slot Nullable(String),
    search_term Nullable(String),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_page ON CLUSTER shop AS events_page_local
ENGINE = Distributed(shop, currentDatabase(), events_page_local);

CREATE TABLE IF NOT EXISTS events_cart_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    `items.item_id` Array(String),
    `items.item_name` Array(Nullable(String)),
    `items.item_category` Array(LowCardinality(Nullable(String))),
    `items.item_brand` Array(LowCardinality(Nullable(String))),
    `items.item_variant` Array(Nullable(String)),
    `items.price` Array(Nullable(Decimal(18, 6))),
    `items.quantity` Array(Int64),
    `items.discount` Array(Nullable(Decimal(18, 6))),
    `items.coupon` Array(Nullable(String)),
    `items.position` Array(Nullable(Int64)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    coupon Nullable(String),
    shipping_tier LowCardinality(Nullable(String)),
    payment_type LowCardinality(Nullable(String)),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_cart ON CLUSTER shop AS events_cart_local
ENGINE = Distributed(shop, currentDatabase(), events_cart_local);

CREATE TABLE IF NOT EXISTS events_purchase_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    order_rank Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    `items.item_id` Array(String),
    `items.item_name` Array(Nullable(String)),
    `items.item_category` Array(LowCardinality(Nullable(String))),
    `items.item_brand` Array(LowCardinality(Nullable(String))),
    `items.item_variant` Array(Nullable(String)),
    `items.price` Array(Nullable(Decimal(18, 6))),
    `items.quantity` Array(Int64),
    `items.discount` Array(Nullable(Decimal(18, 6))),
    `items.coupon` Array(Nullable(String)),
    `items.position` Array(Nullable(Int64)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    coupon Nullable(String),
    shipping_tier LowCardinality(Nullable(String)),
    payment_type LowCardinality(Nullable(String)),
    affiliation LowCardinality(Nullable(String)),
    tax Nullable(Decimal(18, 6)),
    shipping Nullable(Decimal(18, 6)),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_purchase ON CLUSTER shop AS events_purchase_local
ENGINE = Distributed(shop, currentDatabase(), events_purchase_local);

CREATE TABLE IF NOT EXISTS events_inventory_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    item_id Nullable(String),
    warehouse_id LowCardinality(Nullable(String)),
    quantity_delta Nullable(Int64),
    stock_level Nullable(Int64),
    change_reason LowCardinality(Nullable(String)),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_inventory ON CLUSTER shop AS events_inventory_local
ENGINE = Distributed(shop, currentDatabase(), events_inventory_local);

CREATE TABLE IF NOT EXISTS events_exposure_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    experiment_id LowCardinality(Nullable(String)),
    variant_id LowCardinality(Nullable(String)),
    hash_attribute LowCardinality(Nullable(String)),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_exposure ON CLUSTER shop AS events_exposure_local
ENGINE = Distributed(shop, currentDatabase(), events_exposure_local);

CREATE TABLE IF NOT EXISTS events_identity_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    previous_id Nullable(String),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_identity ON CLUSTER shop AS events_identity_local
ENGINE = Distributed(shop, currentDatabase(), events_identity_local);

CREATE TABLE IF NOT EXISTS events_custom_local ON CLUSTER shop (
    event_id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    name LowCardinality(String),
    category LowCardinality(String),
    visitor_id String,
    user_id Nullable(String),
    session_id Nullable(String),
    occurred_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    ingested_at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    value Nullable(Decimal(18, 6)),
    currency LowCardinality(Nullable(String)),
    order_id Nullable(String),
    product_ids Array(String),
    properties String CODEC(ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    row_hash Int64,
    lane Int32,
    country LowCardinality(Nullable(String)),
    device_type LowCardinality(Nullable(String)),
    client_session_id Nullable(String),
    schema_version Int32,
    ip Nullable(String),
    ip_hash Nullable(String),
    payment_method LowCardinality(Nullable(String)),
    card_fingerprint Nullable(String),
    card_bin Nullable(String),
    card_last4 Nullable(String),
    page_url Nullable(String) CODEC(ZSTD(1)),
    page_path Nullable(String) CODEC(ZSTD(1)),
    page_title Nullable(String) CODEC(ZSTD(1)),
    page_referrer Nullable(String) CODEC(ZSTD(1)),
    campaign_source LowCardinality(Nullable(String)),
    campaign_medium LowCardinality(Nullable(String)),
    campaign_name Nullable(String),
    campaign_term Nullable(String),
    campaign_content Nullable(String),
    device_os LowCardinality(Nullable(String)),
    device_browser LowCardinality(Nullable(String)),
    user_agent Nullable(String) CODEC(ZSTD(1)),
    region LowCardinality(Nullable(String)),
    city Nullable(String),
    locale LowCardinality(Nullable(String)),
    time_zone LowCardinality(Nullable(String)),
    INDEX by_occurred_at occurred_at TYPE minmax GRANULARITY 1,
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, name, toStartOfHour(occurred_at), visitor_id, event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS events_custom ON CLUSTER shop AS events_custom_local
ENGINE = Distributed(shop, currentDatabase(), events_custom_local);

CREATE TABLE IF NOT EXISTS failed_events_local ON CLUSTER shop (
    failed_id String CODEC(ZSTD(1)),
    event_id Nullable(String) CODEC(ZSTD(1)),
    failed_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    tenant LowCardinality(String),
    reason LowCardinality(String),
    error String CODEC(ZSTD(1)),
    error_path LowCardinality(String),
    payload String CODEC(ZSTD(1)),
    source LowCardinality(String),
    payload_bytes Int64,
    payload_digest String,
    content_type LowCardinality(String),
    ingested_at DateTime64(6, 'UTC'),
    raw_topic LowCardinality(String),
    raw_partition Int32,
    raw_offset Int64 CODEC(T64, LZ4),
    kafka_topic LowCardinality(String),
    kafka_partition Int32,
    kafka_offset Int64 CODEC(T64, LZ4),
    INDEX by_offset (kafka_partition, kafka_offset) TYPE minmax GRANULARITY 1,
    INDEX by_raw_offset (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, reason, toStartOfHour(failed_at), failed_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS failed_events ON CLUSTER shop AS failed_events_local
ENGINE = Distributed(shop, currentDatabase(), failed_events_local);

CREATE TABLE IF NOT EXISTS kpi_1s_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_1s ON CLUSTER shop AS kpi_1s_local
ENGINE = Distributed(shop, currentDatabase(), kpi_1s_local);

CREATE TABLE IF NOT EXISTS kpi_1m_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_1m ON CLUSTER shop AS kpi_1m_local
ENGINE = Distributed(shop, currentDatabase(), kpi_1m_local);

CREATE TABLE IF NOT EXISTS kpi_1h_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_1h ON CLUSTER shop AS kpi_1h_local
ENGINE = Distributed(shop, currentDatabase(), kpi_1h_local);

CREATE TABLE IF NOT EXISTS kpi_1d_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_1d ON CLUSTER shop AS kpi_1d_local
ENGINE = Distributed(shop, currentDatabase(), kpi_1d_local);

CREATE TABLE IF NOT EXISTS kpi_items_1s_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_items_1s ON CLUSTER shop AS kpi_items_1s_local
ENGINE = Distributed(shop, currentDatabase(), kpi_items_1s_local);

CREATE TABLE IF NOT EXISTS kpi_items_1m_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_items_1m ON CLUSTER shop AS kpi_items_1m_local
ENGINE = Distributed(shop, currentDatabase(), kpi_items_1m_local);

CREATE TABLE IF NOT EXISTS kpi_items_1h_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_items_1h ON CLUSTER shop AS kpi_items_1h_local
ENGINE = Distributed(shop, currentDatabase(), kpi_items_1h_local);

CREATE TABLE IF NOT EXISTS kpi_items_1d_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYear(window_start)
ORDER BY (tenant, window_start, product_id, item_category, currency, country, device, kafka_partition);

CREATE TABLE IF NOT EXISTS kpi_items_1d ON CLUSTER shop AS kpi_items_1d_local
ENGINE = Distributed(shop, currentDatabase(), kpi_items_1d_local);

CREATE TABLE IF NOT EXISTS kpi_late_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, raw_topic, raw_partition, raw_offset);

CREATE TABLE IF NOT EXISTS kpi_late ON CLUSTER shop AS kpi_late_local
ENGINE = Distributed(shop, currentDatabase(), kpi_late_local);

CREATE TABLE IF NOT EXISTS event_ledger_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(ingested_from)
ORDER BY (raw_topic, raw_partition, raw_from, out_topic);

CREATE TABLE IF NOT EXISTS event_ledger ON CLUSTER shop AS event_ledger_local
ENGINE = Distributed(shop, currentDatabase(), event_ledger_local);

CREATE TABLE IF NOT EXISTS sink_topics_local ON CLUSTER shop (
    topic String,
    topic_id String,
    noted_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY (topic, topic_id);

CREATE TABLE IF NOT EXISTS sink_topics ON CLUSTER shop AS sink_topics_local
ENGINE = Distributed(shop, currentDatabase(), sink_topics_local);

CREATE OR REPLACE VIEW events ON CLUSTER shop AS
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_page
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_cart
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_purchase
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_inventory
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_exposure
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_identity
UNION ALL
SELECT event_id, tenant, name, category, visitor_id, user_id, session_id, occurred_at, received_at, ingested_at, source, value, currency, order_id, product_ids, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset, row_hash, lane FROM events_custom;

CREATE TABLE IF NOT EXISTS workflow_runs_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (id, run);

CREATE TABLE IF NOT EXISTS workflow_runs ON CLUSTER shop AS workflow_runs_local
ENGINE = Distributed(shop, currentDatabase(), workflow_runs_local);

CREATE TABLE IF NOT EXISTS maintenance_runs_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (table_name, run, step);

CREATE TABLE IF NOT EXISTS maintenance_runs ON CLUSTER shop AS maintenance_runs_local
ENGINE = Distributed(shop, currentDatabase(), maintenance_runs_local);

CREATE TABLE IF NOT EXISTS erasures_local ON CLUSTER shop (
    request_id String,
    part Int32,
    subject FixedString(32),
    requested_at DateTime64(6, 'UTC'),
    cut String CODEC(ZSTD(3)),
    key LowCardinality(String),
    version UInt64
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (request_id, part, subject);

CREATE TABLE IF NOT EXISTS erasures ON CLUSTER shop AS erasures_local
ENGINE = Distributed(shop, currentDatabase(), erasures_local);

CREATE TABLE IF NOT EXISTS erasure_subjects_local ON CLUSTER shop (
    request_id String,
    tenant LowCardinality(String),
    kind LowCardinality(String),
    id String,
    requested_at DateTime64(6, 'UTC')
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY request_id
ORDER BY (tenant, kind, id)
TTL toDateTime(requested_at) + INTERVAL 30 DAY;

CREATE TABLE IF NOT EXISTS erasure_subjects ON CLUSTER shop AS erasure_subjects_local
ENGINE = Distributed(shop, currentDatabase(), erasure_subjects_local);

CREATE TABLE IF NOT EXISTS erasure_certificates_local ON CLUSTER shop (
    request_id String,
    phase LowCardinality(String),
    issued_at DateTime64(6, 'UTC'),
    body String CODEC(ZSTD(3)),
    version UInt64
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (request_id, phase);

CREATE TABLE IF NOT EXISTS erasure_certificates ON CLUSTER shop AS erasure_certificates_local
ENGINE = Distributed(shop, currentDatabase(), erasure_certificates_local);

CREATE TABLE IF NOT EXISTS bigquery_loads_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (table_name, revision, from_snapshot, to_snapshot, run);

CREATE TABLE IF NOT EXISTS bigquery_loads ON CLUSTER shop AS bigquery_loads_local
ENGINE = Distributed(shop, currentDatabase(), bigquery_loads_local);

CREATE TABLE IF NOT EXISTS reconcile_runs_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (topic, hour, store, run);

CREATE TABLE IF NOT EXISTS reconcile_runs ON CLUSTER shop AS reconcile_runs_local
ENGINE = Distributed(shop, currentDatabase(), reconcile_runs_local);

CREATE TABLE IF NOT EXISTS reconcile_differences_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (topic, hour, store, kind, raw_partition, raw_from);

CREATE TABLE IF NOT EXISTS reconcile_differences ON CLUSTER shop AS reconcile_differences_local
ENGINE = Distributed(shop, currentDatabase(), reconcile_differences_local);

CREATE TABLE IF NOT EXISTS publications_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (table_name, run);

CREATE TABLE IF NOT EXISTS publications ON CLUSTER shop AS publications_local
ENGINE = Distributed(shop, currentDatabase(), publications_local);

CREATE TABLE IF NOT EXISTS workflow_steps_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (id, run, step);

CREATE TABLE IF NOT EXISTS workflow_steps ON CLUSTER shop AS workflow_steps_local
ENGINE = Distributed(shop, currentDatabase(), workflow_steps_local);

CREATE TABLE IF NOT EXISTS lineage_events_local ON CLUSTER shop (
    event_time DateTime64(6, 'UTC'),
    event_type LowCardinality(String),
    run_id String,
    job LowCardinality(String),
    inputs Array(String),
    outputs Array(String),
    body String,
    sent UInt8,
    version UInt64
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (job, run_id, event_type);

CREATE TABLE IF NOT EXISTS lineage_events ON CLUSTER shop AS lineage_events_local
ENGINE = Distributed(shop, currentDatabase(), lineage_events_local);

CREATE TABLE IF NOT EXISTS models_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (model, tenant, model_version);

CREATE TABLE IF NOT EXISTS models ON CLUSTER shop AS models_local
ENGINE = Distributed(shop, currentDatabase(), models_local);

CREATE TABLE IF NOT EXISTS alerts_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant, occurred_at, alert_id);

CREATE TABLE IF NOT EXISTS alerts ON CLUSTER shop AS alerts_local
ENGINE = Distributed(shop, currentDatabase(), alerts_local);

CREATE TABLE IF NOT EXISTS forecasts_local ON CLUSTER shop (
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
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (tenant, product_id);

CREATE TABLE IF NOT EXISTS forecasts ON CLUSTER shop AS forecasts_local
ENGINE = Distributed(shop, currentDatabase(), forecasts_local);

CREATE TABLE IF NOT EXISTS demand_hourly_local ON CLUSTER shop (
    tenant LowCardinality(String),
    product_id String,
    hour DateTime('UTC'),
    units Float64,
    version UInt64
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, product_id, hour)
TTL hour + INTERVAL 400 DAY;

CREATE TABLE IF NOT EXISTS demand_hourly ON CLUSTER shop AS demand_hourly_local
ENGINE = Distributed(shop, currentDatabase(), demand_hourly_local);

CREATE TABLE IF NOT EXISTS rule_sets_local ON CLUSTER shop (
    rules_version Int32,
    hash String,
    text String,
    applied_at DateTime64(6, 'UTC'),
    forced Bool,
    replay_from DateTime64(6, 'UTC'),
    replay_to DateTime64(6, 'UTC'),
    replay_events UInt64,
    replay String,
    version UInt64
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)
ORDER BY (rules_version, hash, applied_at);

CREATE TABLE IF NOT EXISTS rule_sets ON CLUSTER shop AS rule_sets_local
ENGINE = Distributed(shop, currentDatabase(), rule_sets_local);

ALTER TABLE events_page_local ON CLUSTER shop ADD COLUMN IF NOT EXISTS new_one Nullable(String) CODEC(ZSTD(1));

ALTER TABLE events_page ON CLUSTER shop ADD COLUMN IF NOT EXISTS new_one Nullable(String);
