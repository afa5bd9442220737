package workers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/activities"
	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
)

// forecast is the forecast of demand, and what closes its client of Kafka.
func (p *process) forecast(conn driver.Conn, cat *lakehouse.Catalog, runs *activities.Runs, erased activities.ErasedSource) (*activities.Forecast, func()) {
	topic := &productTopic{p: p}
	return activities.NewForecast(cat, runs, conn, topic, erased, p.cfg.Batch.Dir, p.reg, p.log), topic.close
}

// productTopic is the topic rekey.product, opened when forecasts are handed out: the batch role does everything else without Kafka.
type productTopic struct {
	p     *process
	mu    sync.Mutex
	cl    *kgo.Client
	topic *activities.ProductChanges
}

func (l *productTopic) open(ctx context.Context) (*activities.ProductChanges, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.topic != nil {
		return l.topic, nil
	}
	if len(l.p.cfg.Kafka.Brokers) == 0 || l.p.cfg.SchemaRegistry.URL == "" {
		return nil, errors.New("forecasts need kafka.brokers and schema_registry.url in the configuration of the batch role")
	}
	var opts []sr.ClientOpt
	if u := l.p.cfg.SchemaRegistry.Username; u != "" {
		opts = append(opts, sr.BasicAuth(u, l.p.cfg.SchemaRegistry.Password))
	}
	reg, err := sr.NewClient(append(opts, sr.URLs(l.p.cfg.SchemaRegistry.URL))...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	codecs, err := schema.NewCodecs()
	if err != nil {
		return nil, err
	}
	if err := codecs.Register(ctx, reg); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(l.p.kafka(), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return nil, fmt.Errorf("forecasts: %w", err)
	}
	l.cl, l.topic = cl, activities.NewProductChanges(cl, codecs)
	return l.topic, nil
}

// Send implements activities.ProductTopic.
func (l *productTopic) Send(ctx context.Context, changes []event.ProductChange) error {
	t, err := l.open(ctx)
	if err != nil {
		return err
	}
	return t.Send(ctx, changes)
}

func (l *productTopic) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cl != nil {
		l.cl.Close()
	}
}
