package workers

import (
	"context"
	"errors"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/lakehouse"
	"millrace/streaming/sink"
	"millrace/workflows/name"
)

// laneRun polls the queues lake-commit.<table> in the process that commits the stream's rows, so that prepared commits of maintenance are applied between two of its own.
// Without Temporal nothing is polled, and workflows commit by themselves: the sink never waits for it.
func (p *process) laneRun(ctx context.Context, s *sink.Iceberg, cat *lakehouse.Catalog) {
	if p.cfg.Temporal.Address == "" {
		return
	}
	between := func(ctx context.Context, table string, f func(context.Context) error) error {
		err := s.Between(ctx, table, f)
		if errors.Is(err, sink.ErrNotCommitter) {
			return activities.NotCommitter(err)
		}
		return err
	}
	maintain := activities.NewMaintain(cat, p.cfg.Batch.Dir, p.cfg.Batch.HeavyBytes, p.reg, p.log).Lane(between)
	ignore := func(error) {}
	withTemporal(ctx, p.cfg.Temporal, p.log, ignore, func(ctx context.Context, cl client.Client, up func()) error {
		return serveWorkers(ctx, cl, func(err error) {
			if err == nil {
				up()
			}
		}, func(fatal func(error)) []worker.Worker {
			var out []worker.Worker
			for _, table := range lakehouse.StreamTables() {
				w := worker.New(cl, name.CommitQueue(table), worker.Options{
					MaxConcurrentActivityExecutionSize: 1, MaxConcurrentActivityTaskPollers: 1, DisableWorkflowWorker: true, WorkerStopTimeout: workerStop, OnFatalError: fatal, DisableRegistrationAliasing: true,
				})
				maintain.RegisterLane(w)
				out = append(out, w)
			}
			return out
		})
	})
}
