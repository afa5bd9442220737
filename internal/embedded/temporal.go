package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"millrace/internal/embedded/install"
	"millrace/internal/embedded/supervisor"
)

const temporalNamespace = "default"

func (p *Platform) temporal(ctx context.Context) (Child, error) {
	// The first five must be consecutive, for the child counts them from one.
	names := []string{"temporal", "temporal-history", "temporal-matching", "temporal-worker", "temporal-http", "temporal-ui", "temporal-metrics"}
	ports, err := p.folder.Ports.Range(ctx, names...)
	if err != nil {
		return Child{}, err
	}
	frontend, ui, metrics := ports[0], ports[5], ports[6]
	p.endpoints.Temporal = Temporal{
		Address: local(frontend), Namespace: temporalNamespace,
		UI: "http://" + local(ui), Metrics: "http://" + local(metrics) + "/metrics",
	}
	// A build waits for the other servers, so that it takes nothing from their start.
	deps := p.servers
	if built, err := p.cache.TemporalBuilt(p.opts.SourceDir); err == nil && built {
		deps = nil
	}
	var program string
	return Child{
		Name:     TemporalChild,
		Deps:     deps,
		Optional: true,
		Ports:    names,
		Prepare: func(ctx context.Context, note func(string)) (err error) {
			program, err = p.installer(note).Temporal(ctx, p.opts.SourceDir)
			if err == nil {
				note("")
			}
			return err
		},
		Command: func(context.Context) (Command, error) {
			return Command{Path: program, Args: []string{
				"-dir", filepath.Join(p.opts.DataDir, "temporal"),
				"-port", strconv.Itoa(frontend), "-ui-port", strconv.Itoa(ui), "-metrics-port", strconv.Itoa(metrics),
				"-retention", "720h", "-stop-on-eof",
			}}, nil
		},
		Healthy: func(ctx context.Context) error {
			return errors.Join(frontendServes(ctx, local(frontend)), supervisor.GetOK(ctx, "http://"+local(ui)+"/healthz"))
		},
		HealthTimeout: 2 * time.Minute,
		Grace:         15 * time.Second,
	}, nil
}

// frontendServes asks Temporal's frontend by the standard health protocol.
func frontendServes(ctx context.Context, addr string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("dialling Temporal: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is under way
	answer, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: "temporal.api.workflowservice.v1.WorkflowService"})
	if err != nil {
		return fmt.Errorf("asking Temporal for its health: %w", err)
	}
	if answer.GetStatus() != health.HealthCheckResponse_SERVING {
		return fmt.Errorf("the frontend of Temporal is %s", answer.GetStatus())
	}
	return nil
}

// TemporalBuilt tells whether the Temporal child is in the cache, so that its start takes no build.
func TemporalBuilt() (bool, error) {
	var o Options
	if err := o.setDefaults(); err != nil {
		return false, err
	}
	cache, err := install.New(o.CacheDir, nil, nil)
	if err != nil {
		return false, err
	}
	return cache.TemporalBuilt(o.SourceDir)
}
