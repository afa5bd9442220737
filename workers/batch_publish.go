package workers

import (
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/activities"
	"millrace/lakehouse"
)

// publish is what PublishTable does. Gates of other parts, such as suites of expectations, are added here.
func (p *process) publish(conn driver.Conn, cat *lakehouse.Catalog, runs *activities.Runs, erased activities.ErasedSource) *activities.Publish {
	return activities.NewPublish(cat, conn, runs, erased, p.cfg.Batch.Dir, p.reg, p.log)
}
