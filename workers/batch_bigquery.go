package workers

import (
	"context"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/activities"
	"millrace/event/schema"
	"millrace/lakehouse"
	"millrace/lakehouse/bigquery"
)

// loads lists the tables that are loaded into BigQuery; none where it is not configured.
func (c Config) loads() []string {
	if !c.BigQuery.Enabled() {
		return nil
	}
	return schema.BigQueryTables()
}

// warehouse connects to BigQuery; nil where it is not configured.
func (p *process) warehouse(ctx context.Context, cat *lakehouse.Catalog) (*bigquery.Store, func() error, error) {
	if !p.cfg.BigQuery.Enabled() {
		return nil, func() error { return nil }, nil
	}
	s, err := bigquery.Open(ctx, p.cfg.BigQuery, cat, p.log)
	if err != nil {
		return nil, nil, err
	}
	return s, s.Close, nil
}

// erasedIn is BigQuery for erasures.
func erasedIn(s *bigquery.Store) activities.EraseWarehouse {
	if s == nil {
		return nil
	}
	return s
}

// bigQuery is what LoadBigQuery does.
func (p *process) bigQuery(conn driver.Conn, s *bigquery.Store, ledger activities.ErasedSource) *activities.BigQuery {
	var store activities.Warehouse
	if s != nil {
		store = s
	}
	return activities.NewBigQuery(store, ledger, conn, p.cfg.ClickHouse.Cluster, p.reg)
}
