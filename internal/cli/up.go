package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"millrace/internal/embedded"
	"millrace/internal/embedded/supervisor"
	"millrace/internal/fault"
	"millrace/internal/simulate"
	"millrace/workers"
)

const (
	roleGrace         = 30 * time.Second
	roleHealthTimeout = 3 * time.Minute // a restore on a busy machine
	// startLimit is how long a start may take, downloads and builds included.
	startLimit = 30 * time.Minute
	// gentleRate is the traffic, in events a second, while a part is still being built on this machine: enough to see the
	// platform live. 50 a second take more of two cores than the compiler of Temporal gets (docs/BENCHMARKS.md).
	gentleRate = 2
)

// bigQueryEmulator is the one kind of BigQuery that up starts.
const bigQueryEmulator = "emulator"

type upFlags struct {
	noSimulate bool
	rate       float64
	forTime    time.Duration
	broker     string
	bigQuery   string
	detach     bool
	gentle     bool // nobody chose the rate: what is still being built comes before the traffic
}

func (a *app) up() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Run the whole platform on this machine",
		Long: `Run the whole platform on this machine: Kafka, ClickHouse, Redis, Temporal and Iceberg, the roles, and a traffic simulator.

It stays in the foreground until Ctrl-C, SIGTERM or 'millrace down', and ends everything it started. All state is in the data directory and is
there again at the next start. A server whose address is configured is used instead of being started.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.detach {
				return a.upDetached(c.Context(), c.Flags().Changed)
			}
			f.gentle = !c.Flags().Changed("rate")
			return a.runUp(c.Context(), f)
		},
	}
	c.Flags().BoolVar(&f.noSimulate, "no-simulate", false, "send no simulated traffic")
	c.Flags().Float64Var(&f.rate, "rate", 50, "simulated events per second; unless given, 2 until Temporal's first build is done")
	c.Flags().DurationVar(&f.forTime, "for", 0, "stop the simulated traffic after this time (0: never)")
	c.Flags().StringVar(&f.broker, "broker", embedded.BrokerAuto, "auto (Apache Kafka where Java can be had, else kfake), apache or kfake")
	c.Flags().BoolVar(&f.detach, "detach", false, "return when everything is healthy and leave the platform running")
	c.Flags().StringVar(&f.bigQuery, "bigquery", "", "emulator: start a stand-in for BigQuery too (it needs Python 3.13 or 3.14), and load into it what is published")
	_ = c.RegisterFlagCompletionFunc("bigquery", cobra.FixedCompletions([]string{bigQueryEmulator}, cobra.ShellCompDirectiveNoFileComp))                                               // the flag exists
	_ = c.RegisterFlagCompletionFunc("broker", cobra.FixedCompletions([]string{embedded.BrokerAuto, embedded.BrokerApache, embedded.BrokerKfake}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

func (a *app) runUp(ctx context.Context, f upFlags) (err error) {
	if f.broker != embedded.BrokerAuto && f.broker != embedded.BrokerApache && f.broker != embedded.BrokerKfake {
		return fault.Newf("MR-CLI-001", "--broker %s: is not auto, apache or kfake", f.broker)
	}
	if f.bigQuery != "" && f.bigQuery != bigQueryEmulator {
		return fault.Newf("MR-CLI-001", "--bigquery %s: is not emulator; a project is configured as bigquery.project", f.bigQuery)
	}
	if f.rate < 0 {
		return fault.Newf("MR-CLI-001", "--rate %g: is below 0", f.rate)
	}
	cfg, err := a.load(false)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Data, "logs"), 0o755); err != nil {
		return fault.Newf("MR-CLI-004", "data directory: %w", err)
	}
	logFile, err := os.OpenFile(filepath.Join(cfg.Data, "logs", "up.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fault.Newf("MR-CLI-004", "data directory: %w", err)
	}
	defer func() { _ = logFile.Close() }() // only logs
	log := slog.New(slog.NewJSONHandler(logFile, nil))
	if f.bigQuery == bigQueryEmulator && cfg.BigQuery.Enabled() {
		return fault.Newf("MR-CLI-001", "--bigquery emulator: bigquery.project is configured, as %s", cfg.BigQuery.Project)
	}
	p, err := startPlatform(ctx, cfg, f.broker, f.bigQuery == bigQueryEmulator, log, nil)
	if err != nil {
		return err
	}
	stopping := "stopping …"
	defer func() {
		_, _ = fmt.Fprintln(a.err, stopping) // progress
		if stopErr := p.Stop(); err == nil {
			err = stopErr
		}
	}()
	if err := p.save(); err != nil {
		return err
	}
	var watching sync.WaitGroup
	watchCtx, endWatch := context.WithCancel(ctx)
	defer watching.Wait()
	defer endWatch()
	watching.Go(func() { p.watch(watchCtx, log) })

	started := time.Now()
	board := newBoard(a.err, p.Platform)
	waitCtx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	healthy := make(chan error, 1)
	go func() { healthy <- p.WaitHealthy(waitCtx) }()
	if err := board.until(ctx, healthy, p.Down()); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-p.Down():
		return nil
	default:
	}
	if err := p.save(); err != nil {
		return err
	}
	a.addresses(p, time.Since(started))

	if !f.noSimulate && f.rate > 0 {
		watching.Go(func() { p.simulate(watchCtx, f, log) })
	}
	late := lateness(a.err, p)
	select {
	case <-ctx.Done():
	case <-p.Down():
	}
	late()
	return nil
}

// watch keeps endpoints.json current.
func (p *platform) watch(ctx context.Context, log *slog.Logger) {
	for {
		changed := p.Changed()
		if err := p.save(); err != nil {
			log.ErrorContext(ctx, "writing endpoints", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// simulate sends traffic until ctx ends: gently while a part is still being built, if nobody chose the rate. The summary
// goes to logs/simulate.json.
func (p *platform) simulate(ctx context.Context, f upFlags, log *slog.Logger) {
	begun := time.Now()
	if late := p.late(); f.gentle && f.rate > gentleRate && len(late) > 0 {
		gentle, end := context.WithCancel(ctx)
		go func() {
			defer end()
			for _, name := range late {
				_ = p.WaitHealthy(gentle, name) // up or failed for good: either way it builds no more
			}
		}()
		g := f
		g.rate = gentleRate
		p.send(gentle, g, log)
		end()
	}
	if f.forTime > 0 {
		if f.forTime -= time.Since(begun); f.forTime <= 0 {
			return
		}
	}
	if ctx.Err() == nil {
		p.send(ctx, f, log)
	}
}

// send is one run of the simulator.
func (p *platform) send(ctx context.Context, f upFlags, log *slog.Logger) {
	o := simulate.DefaultOptions()
	o.To, o.WriteKey, o.Rate, o.For = fmt.Sprintf("http://127.0.0.1:%d", p.gateway), p.key, f.rate, f.forTime
	o.Patience = 10 * 365 * 24 * time.Hour // it belongs to the platform: it waits for a held gateway
	sum, err := simulate.Run(ctx, o)
	if err != nil && ctx.Err() == nil {
		log.ErrorContext(ctx, "simulated traffic ended", "error", err)
	}
	b, err := json.MarshalIndent(sum, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(p.cfg.Data, "logs", "simulate.json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		log.ErrorContext(ctx, "writing the summary of the simulated traffic", "error", err)
	}
}

// addresses prints where everything is.
func (a *app) addresses(p *platform, took time.Duration) {
	a.printAddresses(p.endpoints(p.Running()), p.cfg.Data, took)
}

func (a *app) printAddresses(e workers.Endpoints, data string, took time.Duration) {
	ui := e.Temporal.UI
	if ui == "" {
		ui = "building (see `millrace status`)"
	}
	rows := [][2]string{
		{"dashboard", e.Dashboard},
		{"gateway", e.Gateway + "/v1/events"},
		{"write key", e.WriteKey},
		{"schema registry", e.SchemaRegistry},
		{"kafka", e.Kafka.Brokers},
		{"clickhouse", e.ClickHouse.HTTP + " (native " + e.ClickHouse.Native + ")"},
		{"redis", e.Redis},
		{"iceberg", e.Iceberg.Warehouse},
		{"temporal ui", ui},
		{"bigquery", e.BigQuery.Endpoint},
		{"all of it", workers.EndpointsFile(data)},
	}
	w := a.out
	_, _ = fmt.Fprintf(w, "\nMillrace is up (%.1f s).\n\n", took.Seconds()) // a closed stdout ends nothing
	for _, r := range rows {
		if r[1] == "" { // there is none
			continue
		}
		_, _ = fmt.Fprintf(w, "  %-16s %s\n", r[0], r[1]) // a closed stdout ends nothing
	}
	_, _ = fmt.Fprintf(w, "\nTry: curl -s %s/v1/events -H 'Authorization: Bearer %s' -d '{\"name\":\"page_view\",\"visitor_id\":\"me\"}'\n"+ // a closed stdout ends nothing
		"     millrace query --data %s 'SELECT name, count() FROM events GROUP BY name ORDER BY 2 DESC'\n", e.Gateway, e.WriteKey, data)
}

// late are the parts that may come after the rest and are not there yet.
func (p *platform) late() []string {
	var names []string
	for _, s := range p.Status() {
		if s.Optional && s.Phase != supervisor.Healthy {
			names = append(names, s.Name)
		}
	}
	return names
}

// lateness says when a part that came later than the rest (Temporal's first build) is there. The result ends the waiting.
func lateness(w io.Writer, p *platform) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, name := range p.late() {
		wg.Go(func() {
			if err := p.WaitHealthy(ctx, name); err == nil {
				_, _ = fmt.Fprintf(w, "%s is up too: see `millrace status`\n", name) // progress
			} else if ctx.Err() == nil {
				_, _ = fmt.Fprintf(w, "%s did not start: %v\n", name, err) // progress
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// upDetached starts this command again in a session of its own and waits until everything is healthy.
func (a *app) upDetached(ctx context.Context, _ func(string) bool) error {
	cfg, err := a.load(false)
	if err != nil {
		return err
	}
	if _, err := embedded.Dial(ctx, cfg.Data); err == nil {
		return fault.Newf("MR-EMB-001", "a platform is running on %s already", cfg.Data)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Data, "logs"), 0o755); err != nil {
		return fault.Newf("MR-CLI-004", "data directory: %w", err)
	}
	said, err := os.CreateTemp(filepath.Join(cfg.Data, "logs"), "up-*.out")
	if err != nil {
		return fault.Newf("MR-CLI-004", "data directory: %w", err)
	}
	defer func() { _ = said.Close(); _ = os.Remove(said.Name()) }() // its content was shown
	var args []string
	for _, arg := range os.Args[1:] {
		if arg != "--detach" && arg != "--detach=true" {
			args = append(args, arg)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's own file: %w", err)
	}
	cmd := exec.Command(self, args...) //nolint:noctx // it outlives this command
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the platform: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	started := time.Now()
	board := newBoard(a.err, nil)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM) // interrupted: nothing is left running
			return errors.Join(ctx.Err(), <-ended)
		case err := <-ended:
			text, _ := os.ReadFile(said.Name()) // shown if it can be
			_, _ = a.err.Write(text)            // progress
			if err == nil {
				err = fmt.Errorf("it ended")
			}
			return fmt.Errorf("the platform did not start (%w): %w", err, errSilent)
		case <-tick.C:
		}
		client, err := embedded.Dial(ctx, cfg.Data)
		if err != nil {
			continue
		}
		r, err := client.Status(ctx)
		if err != nil {
			continue
		}
		board.show(r.Children)
		if allHealthy(r.Children) {
			board.end()
			e, err := workers.LoadEndpoints(cfg.Data)
			if err != nil || e.Gateway == "" {
				continue
			}
			a.printAddresses(e, cfg.Data, time.Since(started))
			_, _ = fmt.Fprintf(a.out, "\nEnd it with: millrace down --data %s\n", cfg.Data) // a closed stdout ends nothing
			return nil
		}
	}
}

func allHealthy(states []embedded.State) bool {
	for _, s := range states {
		if !s.Optional && s.Phase != supervisor.Healthy {
			return false
		}
	}
	return len(states) >= len(workers.Roles())
}

func newWriteKey() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("choosing a write key: %w", err)
	}
	return "wk_" + strconv.FormatUint(uint64(time.Now().Unix()), 36) + hex.EncodeToString(b), nil
}
