package workers

import (
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"

	"millrace/activities"
	"millrace/lakehouse"
)

// train is the training of recommendations, and what closes its client of Redis.
func (p *process) train(conn driver.Conn, cat *lakehouse.Catalog, runs *activities.Runs, erased activities.ErasedSource) (*activities.Train, func() error) {
	rdb := redis.NewUniversalClient(RedisOptions(p.cfg.Redis))
	return activities.NewTrain(cat, runs, conn, rdb, erased, p.cfg.Batch.Dir, p.reg, p.log), rdb.Close
}
