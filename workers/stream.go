package workers

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
)

// topologies are the stages of the hot topology: what is keyed by visitor, and behind a change of keys what is keyed by card, address, user and product. Without codecs
// they serve to name their topics.
func (p *process) topologies(cfg hot.Config, reg prometheus.Registerer) ([]streaming.Topology, error) {
	defs, err := kpi.New(p.cfg.KPI)
	if err != nil {
		return nil, err
	}
	cfg.Tracer = p.traces.Tracer("hot")
	cfg.Anomaly.Zone = defs.Zone
	visitor, err := hot.Topology(cfg, p.cfg.Kafka.Partitions, p.codecs, defs, reg)
	if err != nil {
		return nil, err
	}
	entity, err := hot.EntityTopology(cfg, p.cfg.Kafka.Partitions, p.codecs, reg)
	return []streaming.Topology{visitor, entity}, err
}

// stage is the configuration of a stage's worker: the first one's is as given, later ones have names of their own.
func (p *process) stage(top streaming.Topology, first bool) streaming.Config {
	cfg := p.cfg.Stream
	cfg.Generation = uint32(p.cfg.Kafka.Generation)
	if !first {
		cfg.Group += "." + top.Stage
		cfg.TransactionalID = "" // follows from the group
	}
	return cfg
}

// startStream runs a worker of each stage beside the reader of the rules that they apply.
func startStream(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	if err := p.ensureTopics(ctx); err != nil {
		return nil, nil, err
	}
	models, err := hot.NewModels(p.cfg.Hot.Model, p.reg, p.log)
	if err != nil {
		return nil, nil, err
	}
	rules, err := hot.NewRules(p.reg, models, p.log)
	if err != nil {
		return nil, nil, err
	}
	fast, err := kgo.NewClient(append(p.kafka(), kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(10_000))...)
	if err != nil {
		return nil, nil, err
	}
	cfg := p.cfg.Hot
	cfg.Fraud.Rules, cfg.Fraud.Fast = rules, hot.FastAlerts(fast, p.codecs, p.reg)
	tops, err := p.topologies(cfg, p.reg)
	if err != nil {
		fast.Close()
		return nil, nil, err
	}
	var workers []*streaming.Worker
	for i, top := range tops {
		w, err := streaming.NewWorker(p.stage(top, i == 0), top, p.kafka(), p.reg, p.log)
		if err != nil {
			fast.Close()
			return nil, nil, err
		}
		workers = append(workers, w)
	}
	run := func(ctx context.Context) error {
		defer fast.Close()
		g, ctx := errgroup.WithContext(ctx)
		read := make(chan struct{})
		g.Go(func() error { return models.Run(ctx) })
		g.Go(func() error { return rules.Run(ctx, p.kafka(), func() { close(read) }) })
		for _, w := range workers {
			g.Go(func() error {
				select {
				case <-read:
				case <-ctx.Done():
				}
				return w.Run(ctx)
			})
		}
		return g.Wait()
	}
	ready := func() error {
		var errs []error
		for _, w := range workers {
			errs = append(errs, w.Ready())
		}
		return errors.Join(errs...)
	}
	return run, ready, nil
}
