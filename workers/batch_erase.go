package workers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/activities"
	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
	"millrace/olap"
)

// subjectKey is the key of the ledger of erasures, made where there is none.
func (p *process) subjectKey() (*event.SubjectKey, error) {
	key, err := activities.LoadSubjectKey(p.cfg.Erasure.Dir)
	if err != nil {
		return nil, err
	}
	return &key, nil
}

// erased is the ledger of erasures for what writes rows that are not fresh from Kafka's head.
func (p *process) erased(conn driver.Conn) (*activities.ErasedLedger, error) {
	key, err := p.subjectKey()
	if err != nil {
		return nil, err
	}
	return activities.NewErasedLedger(conn, *key), nil
}

// erasure is what EraseSubject and ExportSubject do. bq is nil where BigQuery is not configured. The function that it gives closes its clients.
func (p *process) erasure(conn driver.Conn, cat *lakehouse.Catalog, bq activities.EraseWarehouse) (*activities.Erase, func() error, error) {
	ledger, err := p.erased(conn)
	if err != nil {
		return nil, nil, err
	}
	if _, err := activities.LoadSigningKey(p.cfg.Erasure.Dir); err != nil {
		return nil, nil, err
	}
	log := &eraseLog{p: p}
	parts := activities.EraseParts{Rows: olap.NewEraser(conn, p.cfg.ClickHouse.Cluster), Ledger: ledger, Log: log, Lake: cat, BigQuery: bq, Cluster: p.cfg.ClickHouse.Cluster}
	closers := []func() error{log.close}
	if len(p.cfg.Redis.Addr) > 0 {
		rdb := redis.NewUniversalClient(RedisOptions(p.cfg.Redis))
		parts.Redis = rdb
		closers = append(closers, rdb.Close)
	}
	return activities.NewErase(p.cfg.Erasure, parts, p.reg), func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}, nil
}

// eraseLog is the topic erasures, opened when a request comes: the batch role does everything else without Kafka.
type eraseLog struct {
	p     *process
	mu    sync.Mutex
	cl    *kgo.Client
	topic *activities.EraseTopic
}

func (l *eraseLog) open(ctx context.Context) (*activities.EraseTopic, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.topic != nil {
		return l.topic, nil
	}
	if len(l.p.cfg.Kafka.Brokers) == 0 || l.p.cfg.SchemaRegistry.URL == "" {
		return nil, errors.New("the ledger of erasures needs kafka.brokers and schema_registry.url in the configuration of the batch role")
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
		return nil, fmt.Errorf("the ledger of erasures: %w", err)
	}
	l.cl, l.topic = cl, activities.NewEraseTopic(cl, codecs)
	return l.topic, nil
}

// Cut implements activities.EraseLog.
func (l *eraseLog) Cut(ctx context.Context) (event.Cut, error) {
	t, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return t.Cut(ctx)
}

// Append implements activities.EraseLog.
func (l *eraseLog) Append(ctx context.Context, entries []event.Erasure) error {
	t, err := l.open(ctx)
	if err != nil {
		return err
	}
	return t.Append(ctx, entries)
}

func (l *eraseLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cl != nil {
		l.cl.Close()
	}
	return nil
}

// ErasureDir is the folder of the keys, certificates and exports of erasures.
func (c Config) ErasureDir() string { return c.complete().Erasure.Dir }
