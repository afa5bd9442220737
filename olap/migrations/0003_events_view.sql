CREATE OR REPLACE VIEW events{{on_cluster}} AS
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
