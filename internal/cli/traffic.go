package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"millrace/internal/fault"
	"millrace/internal/simulate"
	"millrace/workers"
)

// targetFlags adds what simulate and import share.
func targetFlags(f *pflag.FlagSet, t *simulate.Target) {
	f.StringVar(&t.To, "to", "", "address of the gateway (default: that of the platform on --data)")
	f.StringVar(&t.WriteKey, "write-key", "", "write key (default: that of the platform on --data)")
	f.IntVar(&t.Connections, "connections", t.Connections, "requests under way at once")
	f.IntVar(&t.Batch, "batch", t.Batch, "events in a request")
	f.StringVar((*string)(&t.Format), "format", string(t.Format), "array or ndjson")
	f.StringVar((*string)(&t.Compression), "compression", string(t.Compression), "none, gzip or zstd")
	f.DurationVar(&t.Patience, "patience", t.Patience, "how long to go on without any success")
	f.StringVar(&t.Ledger, "ledger", "", "file to which the acknowledged valid ids are written, one a line")
}

// aim fills the target from the platform on the data directory.
func (a *app) aim(t *simulate.Target) error {
	if t.To != "" && t.WriteKey != "" {
		return nil
	}
	cfg, err := a.load(false)
	if err != nil {
		return err
	}
	e, err := workers.LoadEndpoints(cfg.Data)
	if err != nil {
		return err
	}
	if t.To == "" {
		t.To = e.Gateway
	}
	if t.WriteKey == "" {
		t.WriteKey = e.WriteKey
	}
	if t.To == "" {
		return fault.Newf("MR-CLI-003", "the platform on %s has no running gateway", cfg.Data)
	}
	return nil
}

func (a *app) simulate() *cobra.Command {
	o := simulate.DefaultOptions()
	var spike string
	c := &cobra.Command{
		Use: "simulate", Short: "Send seeded, realistic shop traffic to a gateway", Args: cobra.NoArgs,
		Long: `Send seeded, realistic shop traffic to a gateway, with stated shares of duplicates, late, out-of-order, malformed and fraudulent events.

At the end, also when interrupted, one JSON object on stdout says what was acknowledged.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if spike != "" {
				var err error
				if o.Spike, err = simulate.ParseSpike(spike); err != nil {
					return err
				}
			}
			if err := a.aim(&o.Target); err != nil {
				return err
			}
			o.Progress = a.meter()
			return a.summary(simulate.Run(c.Context(), o))
		},
	}
	f := c.Flags()
	targetFlags(f, &o.Target)
	f.Float64Var(&o.Rate, "rate", o.Rate, "events per second (0: as fast as possible)")
	f.DurationVar(&o.For, "for", o.For, "end after this time (0: never)")
	f.Int64Var(&o.Events, "events", o.Events, "end after so many events, copies and malformed ones included (0: never)")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "the events are a function of it (0: chosen at random)")
	f.StringVar(&spike, "spike", "", "rate during spikes, as in 10x")
	f.DurationVar(&o.SpikeAfter, "spike-after", o.SpikeAfter, "until the first spike")
	f.DurationVar(&o.SpikeFor, "spike-for", o.SpikeFor, "length of a spike; one begins every 5 minutes")
	f.IntVar(&o.Shoppers, "shoppers", o.Shoppers, "sessions open at once")
	f.Float64Var(&o.Duplicates, "duplicates", o.Duplicates, "share of events sent again")
	f.Float64Var(&o.Late, "late", o.Late, "share of events that happened a minute to --max-late ago")
	f.DurationVar(&o.MaxLate, "max-late", o.MaxLate, "how late late events are at most")
	f.Float64Var(&o.OutOfOrder, "out-of-order", o.OutOfOrder, "share of events that happened seconds before their predecessors")
	f.Float64Var(&o.Malformed, "malformed", o.Malformed, "share of events that must become failed events")
	f.Float64Var(&o.Fraud, "fraud", o.Fraud, "share of events of card testing attacks")
	return c
}

func (a *app) importCmd() *cobra.Command {
	o := simulate.DefaultImportOptions()
	c := &cobra.Command{
		Use: "import FILE...", Short: "Send native events from NDJSON, CSV or Parquet files, on the replay lane", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Files = args
			if err := a.aim(&o.Target); err != nil {
				return err
			}
			o.Progress = a.meter()
			return a.summary(simulate.Import(c.Context(), o))
		},
	}
	f := c.Flags()
	targetFlags(f, &o.Target)
	f.StringVar((*string)(&o.Source), "source", "", "kind of the files: ndjson, csv or parquet (default: by name)")
	f.StringVar(&o.Rejects, "rejects", "", "file to which rows that are no events are written")
	return c
}

// summary prints what was acknowledged, whatever the error.
func (a *app) summary(s simulate.Summary, err error) error {
	if id, ok := fault.IDOf(err); ok && id == "MR-SIM-001" {
		return err // wrong options: nothing was sent
	}
	if jsonErr := a.json(s); jsonErr != nil {
		return jsonErr
	}
	return err
}

// meter shows progress on stderr: one line redrawn on a terminal, a line every ten seconds elsewhere.
func (a *app) meter() func(simulate.Progress) {
	live := terminal(a.err)
	var last time.Time
	return func(p simulate.Progress) {
		if !live && !p.Done && time.Since(last) < 10*time.Second {
			return
		}
		last = time.Now()
		line := fmt.Sprintf("%8s  %d acknowledged  %.0f/s", p.Elapsed.Round(time.Second), p.Acknowledged, p.Rate)
		if p.Total > 0 {
			done := float64(p.Bytes) / float64(p.Total)
			line = bar(done) + line
		}
		if p.Retries > 0 {
			line += fmt.Sprintf("  %d retries", p.Retries)
		}
		if p.Outage > time.Second {
			line += fmt.Sprintf("  nothing acknowledged for %s: %v", p.Outage.Round(time.Second), p.LastError)
		}
		draw(a.err, line, live, p.Done)
	}
}

func bar(done float64) string {
	const width = 24
	n := min(width, max(0, int(done*width)))
	b := make([]rune, width)
	for i := range b {
		b[i] = '░'
		if i < n {
			b[i] = '█'
		}
	}
	return fmt.Sprintf("%s %3.0f%%", string(b), 100*min(done, 1))
}

func draw(w io.Writer, line string, live, done bool) {
	switch {
	case live && done:
		_, _ = fmt.Fprintf(w, "\r\x1b[2K%s\n", line) // progress
	case live:
		_, _ = fmt.Fprintf(w, "\r\x1b[2K%s", line) // progress
	default:
		_, _ = fmt.Fprintln(w, line) // progress
	}
}
