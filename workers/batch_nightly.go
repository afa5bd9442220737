package workers

import (
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/activities"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// nightly is what Nightly asks: the steps that this platform has, over which tables and topics.
func (p *process) nightly(conn driver.Conn, cat *lakehouse.Catalog) *activities.Nightly {
	has := activities.NightHas{Off: map[string]string{}, Loads: p.cfg.loads(), Topics: eventTopics(), Repair: p.cfg.Batch.ReconcileRepair}
	if !p.cfg.BigQuery.Enabled() {
		has.Off[name.LoadBigQuery] = "bigquery.project is not set"
	}
	if len(p.cfg.Redis.Addr) == 0 {
		has.Off[name.TrainRecommendations] = "redis.addr is not set"
	}
	if len(p.cfg.Kafka.Brokers) == 0 || p.cfg.SchemaRegistry.URL == "" {
		has.Off[name.ForecastDemand] = "kafka.brokers or schema_registry.url is not set"
	}
	return activities.NewNightly(conn, cat, has)
}

// clock reads a time of day as the time since midnight.
func clock(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time of day such as 02:00", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// lineage tells what runs read and wrote, by the addresses of this platform's stores.
func (p *process) lineage(conn driver.Conn) *activities.Lineage {
	places := activities.LineagePlaces{
		Iceberg:    activities.LineageNamespace("iceberg", p.cfg.Iceberg.CatalogName),
		ClickHouse: activities.LineageNamespace("clickhouse", p.cfg.ClickHouse.Addr...),
		BigQuery:   activities.LineageNamespace("bigquery", p.cfg.BigQuery.Project),
		Redis:      activities.LineageNamespace("redis", p.cfg.Redis.Addr...),
		Database:   p.cfg.ClickHouse.Database,
	}
	return activities.NewLineage(p.cfg.Lineage, conn, p.cfg.ClickHouse.Cluster, places, p.reg, p.log)
}
