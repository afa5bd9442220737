package workers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/activities"
	"millrace/event"
	"millrace/event/schema"
	"millrace/kpi"
	"millrace/lakehouse"
	"millrace/olap"
)

// reconcile is the comparison of the stores with the control totals, the recomputation of KPIs, and what closes their clients.
func (p *process) reconcile(conn driver.Conn, cat *lakehouse.Catalog, erased activities.ErasedSource) ([]registers, func(), error) {
	defs, err := kpi.New(p.cfg.KPI)
	if err != nil {
		return nil, nil, err
	}
	log := EventLog(p.cfg, p.readCodecs())
	repair := olap.NewRepair(conn, p.cfg.ClickHouse.Cluster)
	stores := []activities.ReconcileStore{
		activities.NewClickHouseStore(repair, p.cfg.Sink.ClickHouse.Group, log),
		activities.NewIcebergStore(cat, log),
	}
	return []registers{
		activities.NewReconcile(conn, p.cfg.ClickHouse.Cluster, stores, log, erased, p.reg, p.log),
		activities.NewRecompute(conn, p.cfg.ClickHouse.Cluster, defs, erased, p.reg),
	}, log.Close, nil
}

// EventLog reads events.* where a broker is configured; nil where there is none.
func EventLog(cfg Config, codecs func(ctx context.Context) (*schema.Codecs, error)) *activities.EventLog {
	if len(cfg.Kafka.Brokers) == 0 || cfg.SchemaRegistry.URL == "" {
		return nil
	}
	return activities.NewEventLog(cfg.Kafka.Options(), codecs)
}

// readCodecs gives the codecs when they are needed first: the batch role starts without a schema registry.
func (p *process) readCodecs() func(ctx context.Context) (*schema.Codecs, error) {
	var mu sync.Mutex
	return func(ctx context.Context) (*schema.Codecs, error) {
		mu.Lock()
		defer mu.Unlock()
		if p.codecs == nil {
			if err := p.openCodecs(ctx); err != nil {
				return nil, fmt.Errorf("schemas of events: %w", err)
			}
		}
		return p.codecs, nil
	}
}

// eventTopics are the topics that stores are fed from.
func eventTopics() []string {
	out := []string{event.TopicEventsFailed}
	for _, c := range event.Categories() {
		out = append(out, c.EventsTopic())
	}
	return out
}

// RegisteredCodecs gives the codecs of the configured registry when they are needed first, for one command.
func RegisteredCodecs(cfg Config) func(ctx context.Context) (*schema.Codecs, error) {
	p := &process{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	return p.readCodecs()
}
