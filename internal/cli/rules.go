package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/features/rules"
	"millrace/internal/fault"
	"millrace/olap"
	"millrace/streaming/hot"
	"millrace/workers"
)

func (a *app) rules() *cobra.Command {
	c := &cobra.Command{Use: "rules", Short: "Rules by which fraud is looked for: check, replay on the past, apply, status"}
	c.AddCommand(a.checkRules(), a.replayRules(), a.applyRules(), a.rulesStatus())
	return c
}

// readRuleFile reads and checks a file; - is standard input.
func readRuleFile(path string) (*rules.Set, error) {
	var data []byte
	var err error
	if path == "default" {
		return rules.Default()
	}
	if data, err = os.ReadFile(path); err != nil {
		return nil, fault.Newf("MR-RUL-001", "%w", err)
	}
	set, err := rules.Parse(data)
	if err != nil {
		return nil, fault.Newf("MR-RUL-001", "%s:\n%w", path, err)
	}
	return set, nil
}

func (a *app) checkRules() *cobra.Command {
	c := &cobra.Command{
		Use: "check FILE", Short: "Check a file of rules and list what is in it; every problem is told with its line", Args: cobra.ExactArgs(1),
		Long: "Check a file of rules. FILE may be the word default: the rules that are in force until others are applied.",
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := readRuleFile(args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(map[string]any{"version": set.Version, "hash": set.Hash, "rules": len(set.Rules)})
			}
			rows := [][]string{{"RULE", "KIND", "ENTITY", "ON", "WINDOW", "THRESHOLD", "SEVERITY", "SCORE"}}
			for _, r := range set.Rules {
				on := strings.Join(r.On, ",")
				if len(r.Sequence) > 0 {
					on = strings.Join(r.Sequence, " → ")
				}
				rows = append(rows, []string{r.Name, string(r.Kind), r.Entity, on, r.Window.String(), strconv.FormatFloat(r.Threshold, 'g', 6, 64), r.Severity, strconv.FormatFloat(r.Score, 'g', 3, 64)})
			}
			if err := a.table(rows); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(a.err, "version %d, hash %s: no problem\n", set.Version, set.Hash) // progress
			return nil
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// replayed is the answer of a replay.
type replayed struct {
	Version int             `json:"version"`
	Hash    string          `json:"hash"`
	From    time.Time       `json:"from"`
	To      time.Time       `json:"to"`
	Events  int64           `json:"events"`
	Rules   []rules.Outcome `json:"rules"`
}

func (r *replayed) tooMuch() (names []string) {
	for _, o := range r.Rules {
		if o.TooMuch {
			names = append(names, fmt.Sprintf("%s (%d alerts in %d events)", o.Rule, o.Alerts, o.Events))
		}
	}
	return names
}

const maxReplayDays = 90

func (a *app) replayRules() *cobra.Command {
	days := 7
	c := &cobra.Command{
		Use: "replay FILE", Short: "Show what rules would have alerted in the past days, and change nothing", Args: cobra.ExactArgs(1),
		Example: "  millrace rules replay rules.yaml --days 7\n  millrace rules replay default -o json",
		RunE: func(c *cobra.Command, args []string) error {
			set, err := readRuleFile(args[0])
			if err != nil {
				return err
			}
			out, err := a.replay(c.Context(), set, days)
			if err != nil {
				return err
			}
			return a.showReplay(out)
		},
	}
	c.Flags().IntVar(&days, "days", days, "how many days back, at most "+strconv.Itoa(maxReplayDays))
	a.outputs(c, "table", "json")
	return c
}

// replay runs a set over the events of the last days, six hours at a time.
func (a *app) replay(ctx context.Context, set *rules.Set, days int) (*replayed, error) {
	if days < 1 || days > maxReplayDays {
		return nil, fault.Newf("MR-CLI-001", "days: %d is not from 1 to %d", days, maxReplayDays)
	}
	out := &replayed{Version: set.Version, Hash: set.Hash, To: time.Now().UTC()}
	out.From = out.To.Add(-time.Duration(days) * 24 * time.Hour)
	run := rules.NewReplay(set)
	bar := newRunBar(a.err)
	defer bar.end()
	err := a.withClickHouse(ctx, func(conn driver.Conn, _ workers.Config) error {
		const slice = 6 * time.Hour
		done, total := int64(0), int64(days*4)
		for from := out.From; from.Before(out.To); from = from.Add(slice) {
			to := from.Add(slice)
			if to.After(out.To) {
				to = out.To
			}
			if err := olap.Payments(ctx, conn, set.Names(rules.Entities()...), from, to, rules.Device, func(e *event.Rekeyed) error { run.Add(e); return nil }); err != nil {
				return err
			}
			done++
			p := progress{Done: done, Total: total, ID: "rules replay"}
			bar.show(p)
		}
		return nil
	})
	out.Events, out.Rules = run.Events, run.Outcomes()
	return out, err
}

func (a *app) showReplay(r *replayed) error {
	if a.output == "json" {
		return a.json(r)
	}
	rows := [][]string{{"RULE", "KIND", "ENTITY", "EVENTS", "ALERTS", "SHARE", "", "FIRST EXAMPLE"}}
	for _, o := range r.Rules {
		mark, first := "", ""
		if o.TooMuch {
			mark = "too many"
		}
		if len(o.Examples) > 0 {
			first = o.Examples[0].Key + ": " + o.Examples[0].Reason
		}
		rows = append(rows, []string{o.Rule, string(o.Kind), o.Entity, strconv.FormatInt(o.Events, 10), strconv.FormatInt(o.Alerts, 10), strconv.FormatFloat(100*o.Share, 'f', 3, 64) + " %", mark, first})
	}
	if err := a.table(rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.err, "version %d on %d events that came from %s to %s; nothing was changed\n", r.Version, r.Events, r.From.Format(time.DateTime), r.To.Format(time.DateTime)) // progress
	return nil
}

func (a *app) applyRules() *cobra.Command {
	days, force := 7, false
	c := &cobra.Command{
		Use: "apply FILE", Short: "Put a set of rules in force, after a replay on the past days", Args: cobra.ExactArgs(1),
		Long: "Check the file, replay it on the past days, and write it to the topic control: every task takes it over within a second, between two records.\n" +
			"A set that matches too much in the replay is refused unless --force is given. The version must be above the one in force.",
		RunE: func(c *cobra.Command, args []string) error {
			set, err := readRuleFile(args[0])
			if err != nil {
				return err
			}
			var current *hot.RulesRecord
			if err := a.withControl(c.Context(), func(cl *kgo.Client) error {
				current, err = readRules(c.Context(), cl)
				return err
			}); err != nil {
				return err
			}
			if current != nil && set.Version <= current.Version {
				return fault.Newf("MR-RUL-003", "%s is version %d, version %d is in force since %s", args[0], set.Version, current.Version, current.AppliedAt.Format(time.RFC3339))
			}
			r, err := a.replay(c.Context(), set, days)
			if err != nil {
				return err
			}
			if err := a.showReplay(r); err != nil {
				return err
			}
			if names := r.tooMuch(); len(names) > 0 && !force {
				return fault.Newf("MR-RUL-002", "%s", strings.Join(names, "; "))
			}
			rec := hot.RulesRecord{Version: set.Version, Hash: set.Hash, YAML: string(set.Source()), AppliedAt: time.Now().UTC(), Forced: force}
			if err := a.withControl(c.Context(), func(cl *kgo.Client) error { return writeRules(c.Context(), cl, rec) }); err != nil {
				return err
			}
			return a.withClickHouse(c.Context(), func(conn driver.Conn, _ workers.Config) error {
				found, err := json.Marshal(r.Rules)
				if err != nil {
					return fmt.Errorf("noting a set of rules: %w", err)
				}
				_, _ = fmt.Fprintf(a.err, "version %d with %d rules is on the topic control; tasks apply it within a second\n", set.Version, len(set.Rules)) // progress
				return olap.KeepRuleSet(c.Context(), conn, olap.RuleSet{
					Version: int32(set.Version), Hash: set.Hash, Text: rec.YAML, AppliedAt: rec.AppliedAt, Forced: force, From: r.From, To: r.To, Events: uint64(r.Events), Replay: string(found),
				})
			})
		},
	}
	c.Flags().IntVar(&days, "days", days, "how many days the replay goes back")
	c.Flags().BoolVar(&force, "force", false, "apply it even if it matches too much")
	a.outputs(c, "table", "json")
	return c
}

// writeRules puts rules on the topic control.
func writeRules(ctx context.Context, cl *kgo.Client, rec hot.RulesRecord) error {
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("writing rules: %w", err)
	}
	if _, err := hot.ReadRules(value); err != nil { // as every task will
		return err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: event.TopicControl, Key: []byte(hot.RulesKey), Value: value}).FirstErr(); err != nil {
		return fmt.Errorf("writing to topic %s: %w", event.TopicControl, err)
	}
	return nil
}

// readRules finds the newest usable rules on the topic control, nil if there are none.
func readRules(ctx context.Context, cl *kgo.Client) (*hot.RulesRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, promotionWait)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, event.TopicControl)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("reading topic %s: %w", event.TopicControl, err)
	}
	end, _ := ends.Lookup(event.TopicControl, 0)
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{event.TopicControl: {0: kgo.NewOffset().AtStart()}})
	defer cl.RemoveConsumePartitions(map[string][]int32{event.TopicControl: {0}})
	var out *hot.RulesRecord
	for next := int64(0); next < end.Offset; {
		before := next
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		fetches := cl.PollFetches(wait)
		cancel()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("reading topic %s: %w", event.TopicControl, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if string(r.Key) != hot.RulesKey {
				return
			}
			var rec hot.RulesRecord
			if _, err := hot.ReadRules(r.Value); err == nil && json.Unmarshal(r.Value, &rec) == nil && (out == nil || rec.Version > out.Version) {
				out = &rec
			}
		})
		if next == before { // compaction may have removed the last record
			break
		}
	}
	return out, ctx.Err()
}

func (a *app) rulesStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the rules in force and the sets that were applied before", Args: cobra.NoArgs,
		Long: "Show the set of rules on the topic control and those that were applied before. Each task of a platform on this machine is listed with the version that it has in\nforce, and a set that was refused with the reason; elsewhere these are the metrics millrace_rules_version and millrace_rules_refused_version of the role stream.",
		RunE: func(c *cobra.Command, _ []string) error {
			var rec *hot.RulesRecord
			if err := a.withControl(c.Context(), func(cl *kgo.Client) (err error) {
				rec, err = readRules(c.Context(), cl)
				return err
			}); err != nil {
				return err
			}
			if rec == nil {
				set, err := rules.Default()
				if err != nil {
					return err
				}
				rec = &hot.RulesRecord{Version: set.Version, Hash: set.Hash, YAML: string(set.Source())}
			}
			var past []olap.RuleSet
			if err := a.withClickHouse(c.Context(), func(conn driver.Conn, _ workers.Config) (err error) {
				past, err = olap.RuleSets(c.Context(), conn, 20)
				return err
			}); err != nil {
				return err
			}
			var tasks []taskStatus
			var inForce rulesStatus // as roles say
			cfg, err := a.load(false)
			if err != nil {
				return err
			}
			if e, err := workers.LoadEndpoints(cfg.Data); err == nil { // of a platform on this machine
				said := streamOf(c.Context(), e)
				tasks, inForce = said.Tasks, said.Rules
			}
			rec = inForceOf(rec, inForce, past)
			tasks = slices.DeleteFunc(tasks, func(t taskStatus) bool { return t.RulesVersion == nil })
			if a.output == "json" {
				return a.json(map[string]any{"tasks": ruleTasks(tasks), "refused": inForce.Refused, "model": inForce.Model, "in_force": map[string]any{"version": rec.Version, "hash": rec.Hash, "applied_at": rec.AppliedAt, "forced": rec.Forced}, "applied": past})
			}
			rows := [][]string{{"VERSION", "HASH", "APPLIED", "FORCED", "REPLAYED EVENTS", ""}}
			if rec.AppliedAt.IsZero() {
				rows = append(rows, []string{strconv.Itoa(rec.Version), rec.Hash, "the default", "", "", "in force"})
			}
			for _, s := range past {
				now := ""
				if s.Hash == rec.Hash {
					now = "in force"
				}
				rows = append(rows, []string{strconv.Itoa(int(s.Version)), s.Hash, s.AppliedAt.UTC().Format(time.DateTime), strconv.FormatBool(s.Forced), strconv.FormatUint(s.Events, 10), now})
			}
			if err := a.table(rows); err != nil || len(tasks) == 0 {
				return err
			}
			rows = [][]string{{"TASK", "VERSION IN FORCE"}}
			for _, t := range ruleTasks(tasks) {
				rows = append(rows, []string{t.Task, strconv.Itoa(t.Version)})
			}
			if _, err := fmt.Fprintln(a.out); err != nil {
				return fmt.Errorf("writing a table: %w", err)
			}
			if err := a.table(rows); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(a.out, inForce.line()); err != nil {
				return fmt.Errorf("writing what rules are in force: %w", err)
			}
			return nil
		},
	}
	a.outputs(c, "table", "json")
	return c
}

// inForceOf is the set in force where the newest one can be read here and is refused by the roles, for want of its model: the one that they offer.
func inForceOf(newest *hot.RulesRecord, said rulesStatus, past []olap.RuleSet) *hot.RulesRecord {
	if said.Refused == nil || said.Refused.Version != newest.Version {
		return newest
	}
	for _, s := range past {
		if int(s.Version) == said.Offered {
			return &hot.RulesRecord{Version: said.Offered, Hash: s.Hash, YAML: s.Text, AppliedAt: s.AppliedAt, Forced: s.Forced}
		}
	}
	if set, err := rules.Default(); err == nil && set.Version == said.Offered {
		return &hot.RulesRecord{Version: set.Version, Hash: set.Hash, YAML: string(set.Source())}
	}
	return &hot.RulesRecord{Version: said.Offered}
}

// ruleTask is the version of the rules in force in a task.
type ruleTask struct {
	Task    string `json:"task"`
	Version int    `json:"version"`
}

func ruleTasks(tasks []taskStatus) []ruleTask {
	out := []ruleTask{}
	for _, t := range tasks {
		out = append(out, ruleTask{fmt.Sprintf("%s.%s/%d", t.Topology, t.Stage, t.Partition), *t.RulesVersion})
	}
	return out
}
