package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"millrace/internal/embedded"
	"millrace/internal/embedded/install"
	"millrace/internal/embedded/supervisor"
	"millrace/internal/fault"
	"millrace/lakehouse"
	"millrace/workers"
)

// platform is a whole platform on one data directory: the embedded servers, and our roles as further children.
type platform struct {
	*embedded.Platform
	cfg      workers.Config
	self     string
	gateway  int // port
	registry int
	api      int
	admin    map[string]int // by role
	key      string
	saving   sync.Mutex
}

func startPlatform(ctx context.Context, cfg workers.Config, broker string, emulator bool, log *slog.Logger, progress install.Progress) (*platform, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's own file: %w", err)
	}
	if err := lakeOf(cfg).Validate(); err != nil { // else every role would say so, again and again
		return nil, fault.New("MR-ICE-001", fmt.Errorf("iceberg: %w", err))
	}
	p := &platform{cfg: cfg, self: self, admin: map[string]int{}}
	p.Platform, err = embedded.Start(ctx, embedded.Options{
		DataDir: cfg.Data, Broker: broker, BigQuery: emulator, Self: self, Log: log, Progress: progress,
		Kafka: strings.Join(cfg.Kafka.Brokers, ","), ClickHouse: strings.Join(cfg.ClickHouse.Addr, ","), Redis: strings.Join(cfg.Redis.Addr, ","), Temporal: cfg.Temporal.Address,
	})
	if err != nil {
		return nil, err
	}
	if err := p.addRoles(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *platform) addRoles(ctx context.Context) error {
	var err error
	if p.key, err = writeKey(p.cfg); err != nil {
		return err
	}
	if p.gateway, err = p.Port(ctx, "gateway"); err != nil {
		return err
	}
	if p.registry, err = p.Port(ctx, "registry"); err != nil {
		return err
	}
	if p.api, err = p.Port(ctx, "api"); err != nil {
		return err
	}
	for _, r := range workers.Roles() { // all of them first: a role that starts reads them
		if r.Name == "registry" && p.cfg.SchemaRegistry.URL != "" {
			continue
		}
		if p.admin[r.Name], err = p.Port(ctx, "admin-"+r.Name); err != nil {
			return err
		}
	}
	running := map[string]bool{}
	for _, s := range p.Servers() {
		running[s] = true
	}
	for _, r := range workers.Roles() {
		if r.Name == "registry" && p.cfg.SchemaRegistry.URL != "" {
			continue
		}
		child := embedded.Child{Name: r.Name, Ports: []string{"admin-" + r.Name}, Grace: roleGrace}
		for _, n := range r.Needs {
			if n == "schema_registry" {
				n = "registry"
			}
			if running[n] {
				child.Deps = append(child.Deps, n)
			}
		}
		running[r.Name] = true
		switch r.Name {
		case "gateway", "registry", "api":
			child.Ports = append(child.Ports, r.Name)
		}
		ready := fmt.Sprintf("http://127.0.0.1:%d/readyz", p.admin[r.Name])
		child.Healthy = func(ctx context.Context) error { return supervisor.GetOK(ctx, ready) }
		child.HealthTimeout = roleHealthTimeout
		if slices.Contains(r.Needs, embedded.TemporalChild) && p.cfg.Temporal.Address == "" {
			// Temporal is built for minutes on a fresh machine: nobody waits for what needs it.
			child.Optional = true
			child.Deps = append(child.Deps, embedded.TemporalChild)
		}
		child.Command = func(context.Context) (embedded.Command, error) { return p.command(r.Name) }
		if err := p.AddRole(child); err != nil {
			return err
		}
	}
	return nil
}

// command runs a role with the addresses of this platform. Secrets go by the environment, not by arguments.
func (p *platform) command(role string) (embedded.Command, error) {
	kind, err := p.BrokerKind()
	if err != nil {
		return embedded.Command{}, err
	}
	e := p.endpoints(p.Endpoints())
	env := map[string]string{
		"kafka.brokers":       e.Kafka.Brokers,
		"schema_registry.url": e.SchemaRegistry,
		"clickhouse.addr":     e.ClickHouse.Native, "clickhouse.user": e.ClickHouse.User, "clickhouse.password": e.ClickHouse.Password, "clickhouse.database": e.ClickHouse.Database,
		"redis.addr":          e.Redis,
		"iceberg.catalog_uri": e.Iceberg.CatalogURI, "iceberg.catalog_name": e.Iceberg.CatalogName, "iceberg.warehouse": e.Iceberg.Warehouse, "iceberg.namespace": e.Iceberg.Namespace,
		"temporal.address": e.Temporal.Address, "temporal.namespace": e.Temporal.Namespace, "temporal.ui": e.Temporal.UI,
		"admin.listen": fmt.Sprintf("127.0.0.1:%d", p.admin[role]),
	}
	if kind == embedded.BrokerKfake {
		env["kafka.compaction"] = "false"
	}
	if e.BigQuery.Endpoint != "" {
		env["bigquery.project"], env["bigquery.dataset"], env["bigquery.endpoint"], env["bigquery.grpc_endpoint"] = e.BigQuery.Project, e.BigQuery.Dataset, e.BigQuery.Endpoint, e.BigQuery.GRPC
		env["bigquery.min_interval"] = "10s" // it counts no changes
	}
	switch role {
	case "gateway":
		env["gateway.listen"] = fmt.Sprintf("127.0.0.1:%d", p.gateway)
		env["write_key"] = p.key
	case "api":
		env["api.listen"] = fmt.Sprintf("127.0.0.1:%d", p.api)
		env["api.metrics"] = strings.Join(p.metrics(), ",")
	case "registry":
		env["registry.listen"] = fmt.Sprintf("127.0.0.1:%d", p.registry)
	}
	for k, v := range p.cfg.Flags { // what this command was told, the role is told; but the platform chooses addresses and ports
		if _, ours := env[k]; !ours && k != "data" {
			env[k] = fmt.Sprint(v)
		}
	}
	c := embedded.Command{Path: p.self, Args: []string{"run", role, "--data", p.cfg.Data}, Dir: p.cfg.Data}
	if p.cfg.File != "" {
		c.Args = append(c.Args, "--config", p.cfg.File)
	}
	for k, v := range env {
		if v != "" {
			c.Env = append(c.Env, workers.EnvPrefix+strings.ToUpper(strings.ReplaceAll(k, ".", "__"))+"="+v)
		}
	}
	return c, nil
}

// metrics are the addresses of the other roles' metrics, as api.metrics has them.
func (p *platform) metrics() []string {
	var out []string
	for _, r := range workers.Roles() {
		if admin, ok := p.admin[r.Name]; ok && r.Name != "api" {
			out = append(out, fmt.Sprintf("%s=http://127.0.0.1:%d/metrics", r.Name, admin))
		}
	}
	return out
}

// endpoints is the platform's endpoints.json for the given servers.
func (p *platform) endpoints(s embedded.Endpoints) workers.Endpoints {
	c := p.cfg
	e := workers.Endpoints{
		Version: 1, WriteKey: p.key,
		Gateway:        fmt.Sprintf("http://127.0.0.1:%d", p.gateway),
		API:            fmt.Sprintf("http://127.0.0.1:%d", p.api),
		Dashboard:      fmt.Sprintf("http://127.0.0.1:%d/", p.api),
		Kafka:          workers.KafkaEndpoint{Brokers: s.Kafka},
		SchemaRegistry: c.SchemaRegistry.URL,
		Redis:          s.Redis,
		ClickHouse:     workers.ClickHouseEndpoint{HTTP: s.ClickHouse.HTTP, Native: s.ClickHouse.Native, User: s.ClickHouse.User, Password: s.ClickHouse.Password, Database: s.ClickHouse.Database},
		Iceberg:        workers.IcebergEndpointOf(lakeOf(c)),
		BigQuery:       workers.BigQueryEndpoint{Endpoint: s.BigQuery.Endpoint, GRPC: s.BigQuery.GRPC, Project: s.BigQuery.Project, Dataset: c.BigQuery.Dataset},
		Temporal:       workers.TemporalEndpoint{Address: s.Temporal.Address, Namespace: s.Temporal.Namespace, UI: s.Temporal.UI},
		PIDs:           map[string]int{},
	}
	if e.SchemaRegistry == "" {
		e.SchemaRegistry = fmt.Sprintf("http://127.0.0.1:%d", p.registry)
	}
	if c.BigQuery.Enabled() {
		e.BigQuery = workers.BigQueryEndpoint{Endpoint: c.BigQuery.Endpoint, GRPC: c.BigQuery.GRPCEndpoint, Project: c.BigQuery.Project, Dataset: c.BigQuery.Dataset}
	}
	if c.Temporal.Address != "" {
		e.Temporal = workers.TemporalEndpoint{Address: c.Temporal.Address, Namespace: c.Temporal.Namespace, UI: c.Temporal.UI}
	}
	if e.ClickHouse.User == "" {
		e.ClickHouse.User, e.ClickHouse.Password, e.ClickHouse.Database = c.ClickHouse.User, c.ClickHouse.Password, c.ClickHouse.Database
	}
	return e
}

// lakeOf is the configured lakehouse; what is not configured of its catalog and warehouse is in the data directory.
func lakeOf(c workers.Config) lakehouse.Config {
	lake, dir := c.Iceberg, filepath.Join(c.Data, "iceberg")
	if lake.CatalogURI == "" {
		lake.CatalogURI = "sqlite:///" + filepath.Join(dir, "catalog.db")
	}
	if lake.Warehouse == "" {
		lake.Warehouse = (&url.URL{Scheme: "file", Path: filepath.Join(dir, "warehouse")}).String()
	}
	return lake
}

// save writes endpoints.json as things are now.
func (p *platform) save() error {
	p.saving.Lock()
	defer p.saving.Unlock()
	e := p.endpoints(p.Running())
	states := map[string]embedded.State{}
	for _, s := range p.Status() {
		states[s.Name] = s
		if s.PID > 0 {
			e.PIDs[s.Name] = s.PID
		}
	}
	for _, r := range workers.Roles() {
		if states[r.Name].Phase == supervisor.Healthy {
			e.Metrics = append(e.Metrics, fmt.Sprintf("http://127.0.0.1:%d/metrics", p.admin[r.Name]))
			continue
		}
		switch r.Name {
		case "gateway":
			e.Gateway = ""
		case "api":
			e.API, e.Dashboard = "", ""
		case "registry":
			e.SchemaRegistry = p.cfg.SchemaRegistry.URL
		}
	}
	return e.Save(p.cfg.Data)
}

// writeKey is the key of this data directory: the first configured source's, else one chosen once and kept.
func writeKey(cfg workers.Config) (string, error) {
	for _, s := range cfg.Gateway.Sources {
		if !s.Disabled {
			return s.Key, nil
		}
	}
	path := filepath.Join(cfg.Data, "write_key")
	if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	key, err := newWriteKey()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keeping the write key: %w", err)
	}
	return key, nil
}
