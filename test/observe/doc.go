// Command observe holds deploy/observability to what the platform really serves: its tests compare the metrics, labels and anchors that dashboards and alert rules name
// with the catalogue of metrics and with docs/operate.md; the program (`make observability-check`) starts a platform, has a real Prometheus scrape it for a minute
// and asks every question of the dashboard.
package main
