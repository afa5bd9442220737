CREATE OR REPLACE EXTERNAL TABLE `shop.millrace.events_page_lake`
OPTIONS (
  format = 'ICEBERG',
  uris = ['gs://acme-lake/millrace/events_page/metadata/00042-ab.metadata.json']
);
