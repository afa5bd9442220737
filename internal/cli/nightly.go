package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"millrace/internal/fault"
	"millrace/olap"
	"millrace/workers"
	"millrace/workflows/name"
)

func (a *app) nightly() *cobra.Command {
	c := &cobra.Command{Use: "nightly", Aliases: []string{"nights"}, Short: "List nights, find and fill those that are missing, and run past ones"}
	c.AddCommand(a.nightlyList(), a.nightlyRun(), a.nightlyBackfill(), a.nightlyGaps())
	return c
}

// maxNights is how many nights a list shows at most.
const maxNights = 3700

// nights reads the newest nights from workflow_runs.
func (a *app) nights(ctx context.Context, most int) ([]olap.Night, workers.Config, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, cfg, err
	}
	if len(cfg.ClickHouse.Addr) == 0 {
		return nil, cfg, fault.Newf("MR-CLI-003", "no ClickHouse is known for data directory %s", cfg.Data)
	}
	conn, err := olap.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return nil, cfg, err
	}
	defer func() { _ = conn.Close() }() // only reads
	out, err := olap.NewReader(conn, olap.DefaultReadLimits()).Nights(ctx, most)
	return out, cfg, err
}

// listedNight is a night as `list` gives it.
type listedNight struct {
	Night    string     `json:"night"`
	Outcome  string     `json:"outcome"` // missing: it never ran
	Started  *time.Time `json:"started_at,omitempty"`
	Finished *time.Time `json:"finished_at,omitempty"`
	Failed   []string   `json:"failed,omitempty"` // steps
	Input    string     `json:"input"`
}

func (a *app) nightlyList() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use: "list", Short: "List the newest nights: what they came to, and which are missing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if days < 1 || days > maxNights {
				return fault.Newf("MR-CLI-001", "--days %d: is not between 1 and %d", days, maxNights)
			}
			have, _, err := a.nights(c.Context(), days)
			if err != nil {
				return err
			}
			list := []listedNight{}
			for _, n := range have {
				l := listedNight{Night: n.Night, Outcome: n.Outcome, Started: &n.Started, Input: fmt.Sprintf(`{"day": %q}`, n.Night)}
				if !n.Finished.IsZero() {
					l.Finished = &n.Finished
				}
				for _, s := range n.Steps {
					if s.Outcome == name.Failed || s.Outcome == name.Skipped && strings.HasPrefix(s.Reason, "needs ") {
						l.Failed = append(l.Failed, s.Step)
					}
				}
				list = append(list, l)
			}
			for _, gap := range olap.NightGaps(have) {
				list = append(list, listedNight{Night: gap, Outcome: "missing", Input: fmt.Sprintf(`{"day": %q}`, gap)})
			}
			slices.SortStableFunc(list, func(a, b listedNight) int { return strings.Compare(b.Night, a.Night) })
			list = list[:min(days, len(list))]
			if a.output == "json" {
				return a.json(list)
			}
			rows := [][]string{{"NIGHT", "OUTCOME", "STARTED", "TOOK", "NOT DONE"}}
			for _, l := range list {
				took := ""
				if l.Finished != nil {
					took = l.Finished.Sub(*l.Started).Round(time.Second).String()
				}
				rows = append(rows, []string{l.Night, l.Outcome, when(l.Started), took, strings.Join(l.Failed, ", ")})
			}
			return a.table(rows)
		},
	}
	c.Flags().IntVar(&days, "days", 30, "nights at most")
	a.outputs(c, "table", "json")
	return c
}

func (a *app) nightlyRun() *cobra.Command {
	var in name.NightlyInput
	var wait bool
	c := &cobra.Command{
		Use: "run DAY", Short: "Run the night of a day now: what of it is not done, or the steps that are named", Args: cobra.ExactArgs(1),
		Long:    "Run the night of a day now. What it has done before is not done again: after a failure this is how it is repaired. With --steps only these are done, with --force also if they are done already.",
		Example: "  millrace nightly run 2026-10-22 --wait\n  millrace nightly run 2026-10-22 --steps publish,load --force --wait",
		RunE: func(c *cobra.Command, args []string) error {
			in.Day = args[0]
			if over := in.Over(); in.Validate() == nil && over.After(time.Now()) {
				return fault.Newf("MR-NIT-005", "night %s: it is not over before %s", in.Day, over.Format(time.RFC3339))
			}
			cl, _, err := a.temporal(c.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			return a.startOne(c.Context(), cl, name.Nightly, in, wait)
		},
	}
	c.Flags().StringSliceVar(&in.Steps, "steps", nil, "steps to do, of "+strings.Join(name.NightlySteps(), ", ")+"; what they need must be done already (default all)")
	c.Flags().BoolVar(&in.Force, "force", false, "do steps again that are done")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end")
	return c
}

func (a *app) nightlyBackfill() *cobra.Command {
	var from, to string
	var dry bool
	var most int
	c := &cobra.Command{
		Use: "backfill", Short: "Run the nights of a range of days that are not done, one after the other", Args: cobra.NoArgs,
		Long: "Run the nights of a range of days that are not done, one after the other, the oldest first. The schedule of Nightly starts them, so they go on when this command has ended,\n" +
			"and one that falls into a running night waits for its end. What a night has done before is not done again.",
		Example: "  millrace nightly backfill --from 2026-10-01 --to 2026-10-07 --dry-run",
		RunE: func(c *cobra.Command, _ []string) error {
			days, err := dayRange(from, to, time.Now().UTC())
			if err != nil {
				return err
			}
			if len(days) > most {
				return fault.Newf("MR-NIT-004", "%d nights from %s to %s, at most %d at once", len(days), from, to, most)
			}
			have, cfg, err := a.nights(c.Context(), maxNights)
			if err != nil {
				return err
			}
			days = slices.DeleteFunc(days, func(d string) bool {
				return slices.ContainsFunc(have, func(n olap.Night) bool { return n.Night == d && n.Outcome == name.Done })
			})
			return a.backfill(c.Context(), cfg, days, dry)
		},
	}
	c.Flags().StringVar(&from, "from", "", "first day, as in 2026-10-01")
	c.Flags().StringVar(&to, "to", "", "last day, included")
	c.Flags().BoolVar(&dry, "dry-run", false, "say which nights would run, and start none")
	c.Flags().IntVar(&most, "max", 31, "nights at once at most")
	_, _ = c.MarkFlagRequired("from"), c.MarkFlagRequired("to") // the flags exist
	a.outputs(c, "text", "json")
	return c
}

// dayRange lists the days from the first to the last, both included.
func dayRange(from, to string, now time.Time) ([]string, error) {
	var errs []error
	parse := func(flag, text string) time.Time {
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %.60q is not a day such as 2026-10-22", flag, text))
		}
		return t
	}
	first, last := parse("from", from), parse("to", to)
	if len(errs) == 0 {
		if last.Before(first) {
			errs = append(errs, fmt.Errorf("--to %s is before --from %s", to, from))
		}
		if !last.Before(now.Truncate(24 * time.Hour)) {
			errs = append(errs, fmt.Errorf("--to %s: the day is not over", to))
		}
		if first.Year() < 1990 {
			errs = append(errs, fmt.Errorf("--from %s: there are no events before 1990", from))
		}
	}
	if len(errs) > 0 {
		return nil, fault.New("MR-NIT-005", errors.Join(errs...))
	}
	var out []string
	for d := first; !d.After(last); d = d.AddDate(0, 0, 1) {
		out = append(out, d.Format(time.DateOnly))
	}
	return out, nil
}

// backfill lets the schedule of Nightly start nights of days, which ascend.
func (a *app) backfill(ctx context.Context, cfg workers.Config, days []string, dry bool) error {
	if !dry && len(days) > 0 {
		if err := a.startNights(ctx, cfg, days); err != nil {
			return err
		}
	}
	if a.output == "json" {
		if days == nil {
			days = []string{}
		}
		return a.json(map[string]any{"nights": days, "started": !dry && len(days) > 0})
	}
	verb := "started, one after the other"
	switch {
	case len(days) == 0:
		_, err := fmt.Fprintln(a.out, "nothing to do: every night is done")
		return err
	case dry:
		verb = "would run"
	}
	_, err := fmt.Fprintf(a.out, "%d nights %s: %s\n", len(days), verb, strings.Join(days, ", "))
	return err
}

func (a *app) startNights(ctx context.Context, cfg workers.Config, days []string) error {
	if cfg.Batch.NightlyEvery != 24*time.Hour {
		return fault.Newf("MR-NIT-006", "batch.nightly_every is %s", cfg.Batch.NightlyEvery)
	}
	at, err := time.Parse("15:04", cfg.Batch.NightlyAt)
	if err != nil {
		return fault.Newf("MR-CFG-001", "batch.nightly_at: %w", err)
	}
	cl, _, err := a.temporal(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var fills []client.ScheduleBackfill
	for _, d := range days {
		day, err := time.Parse(time.DateOnly, d)
		if err != nil {
			return fmt.Errorf("night %s: %w", d, err)
		}
		due := day.AddDate(0, 0, 1).Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute) // a day is completed by the night after it
		fills = append(fills, client.ScheduleBackfill{Start: due.Add(-time.Second), End: due.Add(time.Second), Overlap: enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL})
	}
	ctx, cancel := context.WithTimeout(ctx, temporalWait)
	defer cancel()
	err = cl.ScheduleClient().GetHandle(ctx, name.NightlySchedule).Backfill(ctx, client.ScheduleBackfillOptions{Backfill: fills})
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return fault.Newf("MR-NIT-006", "there is no schedule %s", name.NightlySchedule)
	}
	return fault.New("MR-CLI-005", err)
}

func (a *app) nightlyGaps() *cobra.Command {
	var fill bool
	var days, most int
	c := &cobra.Command{
		Use: "gaps", Short: "Find days without a night between the first night and yesterday", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if days < 1 || days > maxNights {
				return fault.Newf("MR-CLI-001", "--days %d: is not between 1 and %d", days, maxNights)
			}
			have, cfg, err := a.nights(c.Context(), maxNights)
			if err != nil {
				return err
			}
			gaps := gapsUntil(have, time.Now().UTC().AddDate(0, 0, -1), days)
			if fill {
				if len(gaps) > most {
					return fault.Newf("MR-NIT-004", "%d nights are missing, at most %d at once", len(gaps), most)
				}
				return a.backfill(c.Context(), cfg, gaps, false)
			}
			if a.output == "json" {
				return a.json(map[string]any{"gaps": gaps})
			}
			if len(gaps) == 0 {
				_, err = fmt.Fprintln(a.out, "no night is missing")
				return err
			}
			_, err = fmt.Fprintf(a.out, "%d nights are missing: %s\n`millrace nightly gaps --fill` runs them, the oldest first\n", len(gaps), strings.Join(gaps, ", "))
			return err
		},
	}
	c.Flags().BoolVar(&fill, "fill", false, "run them, the oldest first")
	c.Flags().IntVar(&days, "days", 30, "days to look back")
	c.Flags().IntVar(&most, "max", 31, "nights at once at most")
	a.outputs(c, "text", "json")
	return c
}

// gapsUntil are the days without a night since the first one, up to last, at most days of them back. Oldest first.
func gapsUntil(have []olap.Night, last time.Time, days int) []string {
	gaps := olap.NightGaps(append([]olap.Night{{Night: last.AddDate(0, 0, 1).Format(time.DateOnly)}}, have...))
	oldest := last.AddDate(0, 0, -days).Format(time.DateOnly)
	gaps = slices.DeleteFunc(gaps, func(d string) bool { return d <= oldest })
	slices.Sort(gaps)
	if gaps == nil {
		gaps = []string{}
	}
	return gaps
}
