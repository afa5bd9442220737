package workers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"millrace/activities"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows"
	"millrace/workflows/name"
)

// BatchConfig is the batch role: Temporal workers and schedules.
type BatchConfig struct {
	Dir           string        `koanf:"dir" desc:"folder of plans and results, outside of the warehouse; all batch workers and Iceberg sinks must see the same one"`
	Slots         int           `koanf:"slots" desc:"activities of the queue millrace that run at a time in this process; a tick that waits holds one"`
	HeavySlots    int           `koanf:"heavy_slots" desc:"activities of the queue millrace-heavy that run at a time in this process"`
	HeavyBytes    int64         `koanf:"heavy_bytes" desc:"bytes of input that these hold at a time; a larger one runs alone"`
	MaintainEvery time.Duration `koanf:"maintain_every" desc:"how often each Iceberg table is maintained by schedule; 0: never"`
}

// DefaultBatchConfig has values for one machine.
func DefaultBatchConfig() BatchConfig {
	return BatchConfig{Slots: 64, HeavySlots: 2, HeavyBytes: 1 << 30, MaintainEvery: 10 * time.Minute}
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
	bad(c.Slots < 16 || c.Slots > 10_000, "slots: %d is not between 16, so that waiting ticks leave some for what they wait for, and 10000", c.Slots)
	bad(c.HeavySlots < 1 || c.HeavySlots > 1000, "heavy_slots: %d is not between 1 and 1000", c.HeavySlots)
	bad(c.HeavyBytes < 1<<20, "heavy_bytes: %d is below 1 MiB", c.HeavyBytes)
	bad(c.MaintainEvery != 0 && c.MaintainEvery < 10*time.Second, "maintain_every: %s is neither 0 nor at least 10s", c.MaintainEvery)
	return errors.Join(errs...)
}

// Schedules are those that the configuration asks for.
func (c Config) Schedules() []workflows.Schedule {
	return workflows.Schedules(lakehouse.StreamTables(), c.Batch.MaintainEvery)
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
	maintain := activities.NewMaintain(cat, p.cfg.Batch.Dir, p.cfg.Batch.HeavyBytes, p.reg, p.log)
	runs := activities.NewRuns(conn, cat, p.cfg.ClickHouse.Cluster)
	st := &status{}
	st.set(fmt.Errorf("waiting for temporal at %s", p.cfg.Temporal.Address))
	run := func(ctx context.Context) error {
		withTemporal(ctx, p.cfg.Temporal, p.log, st.set, func(ctx context.Context, cl client.Client, up func()) error {
			if err := workflows.PrepareNamespace(ctx, cl, p.cfg.Temporal.Namespace, p.cfg.Temporal.Retention); err != nil {
				return err
			}
			applied, err := workflows.Apply(ctx, cl, p.cfg.Schedules())
			if err != nil {
				return err
			}
			p.log.InfoContext(ctx, "temporal is there", "address", p.cfg.Temporal.Address, "schedules_created", len(applied.Created), "schedules_updated", len(applied.Updated), "schedules_removed", len(applied.Removed))
			return serveWorkers(ctx, cl, func(err error) {
				if err == nil {
					up()
				}
				st.set(err)
			}, func(fatal func(error)) []worker.Worker {
				light := worker.New(cl, name.Queue, worker.Options{
					MaxConcurrentActivityExecutionSize: p.cfg.Batch.Slots, MaxHeartbeatThrottleInterval: heartbeatEvery, WorkerStopTimeout: workerStop, OnFatalError: fatal, DisableRegistrationAliasing: true,
				})
				workflows.Register(light)
				maintain.Register(light)
				runs.Register(light)
				activities.NewStarter(cl).Register(light)
				heavy := worker.New(cl, name.HeavyQueue, worker.Options{
					MaxConcurrentActivityExecutionSize: p.cfg.Batch.HeavySlots, DisableWorkflowWorker: true, MaxHeartbeatThrottleInterval: heartbeatEvery, WorkerStopTimeout: workerStop,
					OnFatalError: fatal, DisableRegistrationAliasing: true,
				})
				maintain.RegisterHeavy(heavy)
				return []worker.Worker{light, heavy}
			})
		})
		return errors.Join(conn.Close(), cat.Close())
	}
	return run, st.get, nil
}

const (
	heartbeatEvery = 2 * time.Second // so that the UI shows progress as it is
	workerStop     = 5 * time.Second // after which running activities are cancelled; their next attempt goes on
)
