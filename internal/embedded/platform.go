package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"millrace/internal/embedded/install"
	"millrace/internal/embedded/supervisor"
)

// What a caller needs of the supervisor, under this package's name.
type (
	// Child describes one supervised process.
	Child = supervisor.Child
	// Command is what a child executes.
	Command = supervisor.Command
	// State is a snapshot of one child.
	State = supervisor.State
	// Phase is where a child is in its life.
	Phase = supervisor.Phase
	// Client speaks to a running platform from another process.
	Client = supervisor.Client
)

// Dial finds the platform that runs on a data folder.
func Dial(ctx context.Context, dataDir string) (*Client, error) { return supervisor.Dial(ctx, dataDir) }

// Platform is a set of running servers on one data folder.
type Platform struct {
	opts    Options
	cache   *install.Cache
	folder  *supervisor.Folder
	sup     *supervisor.Supervisor
	control *supervisor.Control
	secrets Secrets
	servers []string
	// waitroom is opened by Kafka's Prepare, which runs once and has ended when Stop reads it.
	waitroom *waitroom

	endpoints Endpoints // as they are known when Start returns

	stopOnce sync.Once
	stopErr  error
}

// Start takes the data folder and begins to start every server for which no
// address is given. It returns at once; WaitHealthy waits. Temporal, whose first
// build takes minutes, comes last and is not waited for.
func Start(ctx context.Context, opts Options) (*Platform, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	p := &Platform{opts: opts}
	var err error
	if p.folder, err = supervisor.OpenFolder(ctx, opts.DataDir, opts.Log); err != nil {
		return nil, err
	}
	p.sup = supervisor.New(p.folder, supervisor.Config{Log: opts.Log})
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Platform) start(ctx context.Context) error {
	if err := os.MkdirAll(p.opts.CacheDir, 0o755); err != nil {
		return fmt.Errorf("creating the cache folder: %w", err)
	}
	if err := supervisor.CheckSpace(p.opts.CacheDir); err != nil {
		return err
	}
	var err error
	if p.cache, err = install.New(p.opts.CacheDir, p.opts.Log, p.opts.Progress); err != nil {
		return err
	}
	if p.secrets, err = loadSecrets(p.opts.DataDir); err != nil {
		return err
	}
	p.endpoints = Endpoints{
		Kafka:      p.opts.Kafka,
		ClickHouse: ClickHouse{Native: p.opts.ClickHouse},
		Redis:      p.opts.Redis,
		Temporal:   Temporal{Address: p.opts.Temporal, Namespace: temporalNamespace},
	}
	makers := map[string]func(context.Context) (Child, error){
		KafkaChild: p.kafka, ClickHouseChild: p.clickHouse, RedisChild: p.redis, TemporalChild: p.temporal, BigQueryChild: p.bigQuery,
	}
	for _, name := range p.opts.children() {
		child, err := makers[name](ctx)
		if err != nil {
			return fmt.Errorf("describing %s: %w", name, err)
		}
		if err := p.sup.Add(child); err != nil {
			return err
		}
		if !child.Optional {
			p.servers = append(p.servers, name)
		}
	}
	p.control, err = supervisor.Serve(ctx, p.sup)
	return err
}

// Endpoints are the addresses of all servers; a server need not answer yet.
func (p *Platform) Endpoints() Endpoints { return p.endpoints }

// Running are the addresses of the servers that are healthy now, or configured.
func (p *Platform) Running() Endpoints {
	e := p.Endpoints()
	for _, state := range p.sup.Status() {
		if state.Phase == supervisor.Healthy {
			continue
		}
		switch state.Name {
		case KafkaChild:
			e.Kafka = ""
		case ClickHouseChild:
			e.ClickHouse = ClickHouse{}
		case RedisChild:
			e.Redis = ""
		case TemporalChild:
			e.Temporal = Temporal{}
		case BigQueryChild:
			e.BigQuery = BigQuery{}
		}
	}
	return e
}

// Servers names the children that roles should depend on: those started here that
// are there from the beginning. Temporal is not among them.
func (p *Platform) Servers() []string { return p.servers }

// AddRole puts one more process under the same supervision.
func (p *Platform) AddRole(c Child) error { return p.sup.Add(c) }

// Port gives the port of that name, chosen once for the data folder and free now.
// A child that listens on it names it in Child.Ports.
func (p *Platform) Port(ctx context.Context, name string) (int, error) {
	return p.folder.Ports.Get(ctx, name)
}

// Status is a snapshot of all children, servers first.
func (p *Platform) Status() []State { return p.sup.Status() }

// Changed gives a channel that is closed at the next change of Status.
func (p *Platform) Changed() <-chan struct{} { return p.sup.Changed() }

// WaitHealthy returns when the named children are healthy, without names all but
// Temporal. It fails as soon as one of them cannot be installed or keeps dying.
func (p *Platform) WaitHealthy(ctx context.Context, names ...string) error {
	return p.sup.WaitHealthy(ctx, names...)
}

// Hold stops a child and keeps it down until Release.
func (p *Platform) Hold(ctx context.Context, name string) error { return p.sup.Hold(ctx, name) }

// Release lets a held child run again.
func (p *Platform) Release(name string) error { return p.sup.Release(name) }

// Down is closed when another process asks the platform to end; Stop is then due.
func (p *Platform) Down() <-chan struct{} { return p.control.Down() }

// Stop ends all children in reverse order of their dependencies and gives the data
// folder back. A second call changes nothing.
func (p *Platform) Stop() error {
	p.stopOnce.Do(func() {
		p.sup.Stop()
		if p.waitroom != nil {
			p.stopErr = p.waitroom.Close()
		}
		if p.control != nil {
			p.stopErr = errors.Join(p.stopErr, p.control.Close())
		}
		p.stopErr = errors.Join(p.stopErr, p.folder.Close())
	})
	return p.stopErr
}

// self is the command by which this program becomes one of its own children.
func (p *Platform) self(kind string, args ...string) Command {
	return Command{Path: p.opts.Self, Args: append([]string{childWord, kind}, args...)}
}

// installer is the cache with progress also noted in the child's state.
func (p *Platform) installer(note func(string)) *install.Cache {
	c := *p.cache
	report := c.Progress
	c.Progress = func(name, step string, done, total int64) {
		report(name, step, done, total)
		if total > 0 {
			step = fmt.Sprintf("%s %d%%", step, 100*done/total)
		}
		note(step)
	}
	return &c
}
