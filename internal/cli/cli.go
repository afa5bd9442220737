// Package cli is the command line: it parses, calls what does the work, and prints. Data goes to stdout; logs, progress and errors go to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"millrace/internal/embedded"
	"millrace/internal/fault"
	"millrace/workers"
)

// app is what all commands share.
type app struct {
	out, err io.Writer
	data     string
	config   string
	output   string
	overlay  map[string]string // --set key=value
}

// Main runs the command line and gives the exit code: 0, 1 for a failure, 2 for wrong usage.
func Main(args []string, out, errw io.Writer) int {
	embedded.MaybeChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: out, err: errw}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errSilent) {
		return 1
	}
	a.explain(err)
	if id, ok := fault.IDOf(err); ok && (id == "MR-CLI-001" || id == "MR-CFG-001") {
		return 2
	}
	return 1
}

// errSilent ends a command whose output already says what failed.
var errSilent = errors.New("failed")

// explain prints an error with its id and remedy.
func (a *app) explain(err error) {
	_, _ = fmt.Fprintln(a.err, "error:", err) // nowhere else to say it
	if id, ok := fault.IDOf(err); ok && fault.Remedy(id) != "" {
		_, _ = fmt.Fprintf(a.err, "remedy: %s\n", fault.Remedy(id)) // nowhere else to say it
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "millrace",
		Short:         "Commerce event platform: a stream-and-batch lakehouse",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.PersistentFlags().StringVar(&a.data, "data", "", "data directory (default $MILLRACE_DATA, else ./.millrace)")
	root.PersistentFlags().StringVar(&a.config, "config", "", "configuration file (default $MILLRACE_CONFIG, else ./millrace.yaml if there is one)")
	root.PersistentFlags().StringToStringVar(&a.overlay, "set", nil, "set a configuration key, as in --set kafka.partitions=12")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.Newf("MR-CLI-001", "%s: %w", c.CommandPath(), err)
	})
	root.AddCommand(a.up(), a.down(), a.status(), a.child(), a.run(), a.simulate(), a.importCmd(), a.query(), a.tables(), a.lake(), a.queryLake(), a.configCmd(), a.doctor(), a.redisCmd(), a.endpoints(), a.install(), a.workflows(), a.schedules(), a.nightly(), a.columns(), a.rules(), a.models(), a.bigQuery(), a.erase(), a.exportSubject(), a.reconcile(), a.where())
	root.SuggestionsMinimumDistance = 3
	wrapArgs(root)
	return root
}

// wrapArgs gives wrong arguments the id of wrong usage.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil && c.HasSubCommands() {
		check = cobra.NoArgs
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	if check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if c.HasSubCommands() && len(args) > 0 {
				msg := fmt.Sprintf("unknown command %q of %s", args[0], c.CommandPath())
				if near := c.SuggestionsFor(args[0]); len(near) > 0 {
					msg += ", did you mean " + strings.Join(near, " or ") + "?"
				}
				return fault.New("MR-CLI-001", errors.New(msg))
			}
			if err := errors.Join(check(c, args), c.ValidateRequiredFlags()); err != nil { // cobra itself looks at flags later, and says nothing of the command
				return fault.Newf("MR-CLI-001", "%s: %w", c.CommandPath(), err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "development"
	}
	return info.Main.Version
}

// load reads the configuration. With filled the addresses that are not configured are those of the platform on the data directory, if one has run there.
func (a *app) load(filled bool) (workers.Config, error) {
	over := map[string]any{}
	for k, v := range a.overlay {
		over[k] = v
	}
	if a.data != "" {
		over["data"] = a.data
	}
	cfg, err := workers.Load(a.config, over)
	if err != nil {
		return cfg, err
	}
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return cfg, fmt.Errorf("data directory: %w", err)
	}
	if filled {
		e, err := workers.LoadEndpoints(cfg.Data)
		if id, _ := fault.IDOf(err); err != nil && id != "MR-CLI-003" {
			return cfg, err
		}
		cfg.Fill(e)
	}
	return cfg, nil
}

// logger logs to stderr.
func (a *app) logger(cfg workers.Config) *slog.Logger {
	level, err := workers.ParseLevel(cfg.Log.Level)
	if err != nil {
		level = slog.LevelInfo // Validate has said so, or will
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "text" {
		return slog.New(slog.NewTextHandler(a.err, o))
	}
	return slog.New(slog.NewJSONHandler(a.err, o))
}

// terminal says whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
