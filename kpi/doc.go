// Package kpi is the one definition of every number that a shop is steered by: what an event adds to it, how partial results add up, and how a ratio is
// computed when it is read.
//
// It stands between the events and everything that shows numbers. The hot topology folds events into Values and emits them as event.KPIPartial; the sinks
// store those rows; the analytics API, experiments and quality checks read them and compute ratios, in Go (Ratio.Of) or in SQL (Ratio.SQL). No other package
// says what a KPI is.
//
//	events ─AddShop, AddLine─> Values ─Fill─> kpi.partial ─> kpi_1s kpi_1m kpi_1h kpi_1d, kpi_items_* ─Ratio─> dashboards
//
// There are two families. Family shop has one row per (window, tenant, currency, country, device); an event belongs to exactly one row. Family items has one row
// per (window, tenant, currency, product, category) and one per (window, tenant, currency, "", category) for the category as a whole; the lines of one event
// spread over several rows, so rows of products and rows of categories must not be added to each other.
//
// Measures are additive over windows, dimensions and source partitions, except visitors: a visitor's events all come from one partition, so distinct visitors
// add up over partitions, but not over windows or dimensions. For those the rows carry sketches to be merged (MergeSketches).
package kpi
