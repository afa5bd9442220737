package workers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows"
	"millrace/workflows/name"
)

// leastSlots leaves some activities to what waits: a tick of each table's maintenance and load, of each topic's reconciliation and of the night may wait at a time, and the parts of a night and
// of a missing one that it makes up for.
const leastSlots = 48

// BatchConfig is the batch role: Temporal workers and schedules.
type BatchConfig struct {
	Dir           string        `koanf:"dir" desc:"folder of plans and results, outside of the warehouse; all batch workers and Iceberg sinks must see the same one"`
	Slots         int           `koanf:"slots" desc:"activities of the queue millrace that run at a time in this process; a tick that waits holds one"`
	HeavySlots    int           `koanf:"heavy_slots" desc:"activities of the queue millrace-heavy that run at a time in this process"`
	HeavyBytes    int64         `koanf:"heavy_bytes" desc:"bytes of input that these hold at a time; a larger one runs alone"`
	MaintainEvery time.Duration `koanf:"maintain_every" desc:"how often each Iceberg table is maintained by schedule; 0: never"`
	// Reconcile of each topic.
	ReconcileEvery  time.Duration `koanf:"reconcile_every" desc:"how often the hour that is over is reconciled by schedule, for each topic: 1h, or a multiple of it; 0: never"`
	ReconcileRepair bool          `koanf:"reconcile_repair" desc:"what scheduled reconciliations find is mended, and not only named"`
	NightlyEvery    time.Duration `koanf:"nightly_every" desc:"how often Nightly runs by schedule: 24h, or less for drills, where a night is that long; 0: never"`
	NightlyAt       string        `koanf:"nightly_at" desc:"time of day, UTC, at which Nightly completes the day before, where nightly_every is 24h"`
}

// DefaultBatchConfig has values for one machine.
func DefaultBatchConfig() BatchConfig {
	return BatchConfig{Slots: 64, HeavySlots: 2, HeavyBytes: 1 << 30, MaintainEvery: 10 * time.Minute, ReconcileEvery: time.Hour, ReconcileRepair: true, NightlyEvery: 24 * time.Hour, NightlyAt: "02:00"}
}

// Validate reports every problem.
func (c BatchConfig) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(!filepath.IsAbs(c.Dir), "dir: %q is not an absolute path", c.Dir)
	bad(c.Slots < leastSlots || c.Slots > 10_000, "slots: %d is not between %d, so that waiting ticks leave some for what they wait for, and 10000", c.Slots, leastSlots)
	bad(c.HeavySlots < 1 || c.HeavySlots > 1000, "heavy_slots: %d is not between 1 and 1000", c.HeavySlots)
	bad(c.HeavyBytes < 1<<20, "heavy_bytes: %d is below 1 MiB", c.HeavyBytes)
	bad(c.MaintainEvery != 0 && c.MaintainEvery < 10*time.Second, "maintain_every: %s is neither 0 nor at least 10s", c.MaintainEvery)
	bad(c.ReconcileEvery < 0 || c.ReconcileEvery%time.Hour != 0, "reconcile_every: %s is neither 0 nor a multiple of 1h", c.ReconcileEvery)
	bad(c.NightlyEvery != 0 && c.NightlyEvery != 24*time.Hour && (c.NightlyEvery < 10*time.Second || c.NightlyEvery > 12*time.Hour), "nightly_every: %s is neither 0 nor 24h nor, for drills, between 10s and 12h", c.NightlyEvery)
	if _, err := clock(c.NightlyAt); err != nil {
		bad(true, "nightly_at: %q is not a time of day such as 02:00", c.NightlyAt)
	}
	return errors.Join(errs...)
}

// Schedules are those that the configuration asks for.
func (c Config) Schedules() []workflows.Schedule {
	at, err := clock(c.Batch.NightlyAt)
	if err != nil {
		at = 0 // Validate has said so
	}
	return slices.Concat(
		workflows.Schedules(lakehouse.StreamTables(), c.Batch.MaintainEvery),
		workflows.NightlySchedule(c.Batch.NightlyEvery, at),
		workflows.ReconcileSchedules(eventTopics(), c.Batch.ReconcileEvery, c.Batch.ReconcileRepair),
		workflows.BigQuerySchedules(c.loads(), c.BigQuery.Every),
	)
}

// registers is what adds its activities to the worker of the queue millrace, and registersHeavy to that of millrace-heavy.
type registers interface {
	Register(w worker.ActivityRegistry)
}

type registersHeavy interface {
	RegisterHeavy(w worker.ActivityRegistry)
}

// status is why a role is not at work, for its readiness.
type status struct {
	mu  sync.Mutex
	err error
}

func (s *status) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *status) get() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// startBatch runs workflows and activities. It waits for Temporal as long as it takes: on a fresh machine that is built last.
func startBatch(ctx context.Context, p *process) (func(context.Context) error, func() error, error) {
	conn, err := olap.Open(ctx, p.cfg.ClickHouse)
	if err != nil {
		return nil, nil, err
	}
	err = p.until(ctx, "migrating ClickHouse", func(ctx context.Context) error {
		return olap.Migrate(ctx, conn, olap.Options{Cluster: p.cfg.ClickHouse.Cluster})
	})
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	cat, err := lakehouse.Open(ctx, p.cfg.Iceberg)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	if err := p.until(ctx, "creating Iceberg tables", func(ctx context.Context) error { return lakehouse.EnsureTables(ctx, cat) }); err != nil {
		return nil, nil, errors.Join(err, conn.Close(), cat.Close())
	}
	erased, err := p.erased(conn)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close(), cat.Close())
	}
	runs := activities.NewRuns(conn, cat, p.cfg.ClickHouse.Cluster)
	train, closeTrain := p.train(conn, cat, runs, erased)
	forecast, closeForecast := p.forecast(conn, cat, runs, erased)
	warehouse, closeWarehouse, err := p.warehouse(ctx, cat)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close(), cat.Close(), closeTrain())
	}
	erasure, closeErasure, err := p.erasure(conn, cat, erasedIn(warehouse))
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close(), cat.Close(), closeTrain(), closeWarehouse())
	}
	maintain := activities.NewMaintain(cat, p.cfg.Batch.Dir, p.cfg.Batch.HeavyBytes, p.reg, p.log)
	parts := []registers{ // a part that adds to both queues has RegisterHeavy too
		erasure,
		maintain,
		runs,
		p.nightly(conn, cat),
		p.publish(conn, cat, runs, erased),
		train,
		forecast,
		p.bigQuery(conn, warehouse, erased),
	}
	mending, closeLog, err := p.reconcile(conn, cat, erased)
	if err != nil {
		return nil, nil, errors.Join(err, closeErasure(), conn.Close(), cat.Close(), closeTrain())
	}
	parts = append(parts, mending...)
	lineage := p.lineage(conn)
	st := &status{}
	st.set(fmt.Errorf("waiting for temporal at %s", p.cfg.Temporal.Address))
	run := func(ctx context.Context) error {
		var beside sync.WaitGroup
		beside.Go(func() { _ = lineage.Run(ctx) }) // it ends with ctx, without an error
		withTemporal(ctx, p.cfg.Temporal, p.log, st.set, func(ctx context.Context, cl client.Client, up func()) error {
			if err := workflows.PrepareNamespace(ctx, cl, p.cfg.Temporal.Namespace, p.cfg.Temporal.Retention); err != nil {
				return err
			}
			applied, err := workflows.Apply(ctx, cl, p.cfg.Schedules())
			if err != nil {
				return err
			}
			p.log.InfoContext(ctx, "temporal is there", "address", p.cfg.Temporal.Address, "schedules_created", len(applied.Created), "schedules_updated", len(applied.Updated), "schedules_removed", len(applied.Removed))
			maintain.Committers(committers(cl))
			serving, stop := context.WithCancel(ctx)
			var becoming sync.WaitGroup
			becoming.Go(func() { p.cfg.Temporal.Deployment.become(serving, cl, p.log) })
			defer becoming.Wait()
			defer stop()
			return serveWorkers(ctx, cl, func(err error) {
				if err == nil {
					up()
				}
				st.set(err)
			}, func(fatal func(error)) []worker.Worker {
				light := worker.New(cl, name.Queue, p.cfg.Temporal.Deployment.versioned(worker.Options{
					Interceptors: []interceptor.WorkerInterceptor{lineage},

					MaxConcurrentActivityExecutionSize: p.cfg.Batch.Slots, MaxHeartbeatThrottleInterval: heartbeatEvery, WorkerStopTimeout: workerStop, OnFatalError: fatal, DisableRegistrationAliasing: true,
				}))
				p.cfg.Temporal.Deployment.register(light)
				activities.NewStarter(cl).Register(light)
				heavy := worker.New(cl, name.HeavyQueue, p.cfg.Temporal.Deployment.versioned(worker.Options{
					MaxConcurrentActivityExecutionSize: p.cfg.Batch.HeavySlots, DisableWorkflowWorker: true, MaxHeartbeatThrottleInterval: heartbeatEvery, WorkerStopTimeout: workerStop,
					OnFatalError: fatal, DisableRegistrationAliasing: true,
				}))
				for _, part := range parts {
					part.Register(light)
					if h, ok := part.(registersHeavy); ok {
						h.RegisterHeavy(heavy)
					}
				}
				return []worker.Worker{light, heavy}
			})
		})
		beside.Wait()
		closeLog()
		closeForecast()
		return errors.Join(closeErasure(), conn.Close(), cat.Close(), closeTrain(), closeWarehouse())
	}
	return run, st.get, nil
}

const (
	heartbeatEvery = 2 * time.Second // so that the UI shows progress as it is
	workerStop     = 5 * time.Second // after which running activities are cancelled; their next attempt goes on
)
