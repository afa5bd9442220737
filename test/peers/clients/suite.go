package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/test/peers/clients/proxy"
)

// options are the command's flags.
type options struct {
	match  *regexp.Regexp
	jobs   int
	broker string
	seed   uint64
	keep   bool
}

// settle is how long the stores may take to agree after the last driver ended; quiet, how long they are watched after that for rows that should not come.
const (
	settle = 90 * time.Second
	quiet  = 5 * time.Second
)

// suite runs everything and says what passed.
func suite(ctx context.Context, o options, out io.Writer) (passed, failed int, err error) {
	root, err := checkout()
	if err != nil {
		return 0, 0, err
	}
	todo, err := plan(o, root)
	if err != nil {
		return 0, 0, err
	}
	t, err := install(ctx, root, out)
	if err != nil {
		return 0, 0, err
	}
	dir, err := os.MkdirTemp("", "millrace-peers-clients.")
	if err != nil {
		return 0, 0, err
	}
	if o.keep {
		say(out, "keeping %s", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }() // a folder of /tmp
	}
	if err := t.prepare(ctx, dir); err != nil {
		return 0, 0, err
	}
	p, err := start(ctx, root, dir, o.broker, todo, out)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, p.down()) }()
	s := stores{endpoints: p.endpoints, python: t.python, scripts: t.scripts, data: p.data}

	say(out, "%d runs, %d at a time", len(todo), o.jobs)
	group, runs := errgroup.WithContext(ctx)
	group.SetLimit(max(o.jobs, 1))
	for _, r := range todo {
		group.Go(func() error {
			if runs.Err() != nil {
				return runs.Err()
			}
			r.drive(runs, t, s, dir)
			say(out, "%s: %.1f s, %d requests, %d spoilt", r.name(), r.to.Sub(r.from).Seconds(), r.counts.Requests, r.counts.Spoilt)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	found, err := agree(ctx, s, todo, out)
	if err != nil {
		return 0, 0, err
	}
	passed, failed = report(out, todo, found)
	return passed, failed, nil
}

// plan is the list of runs, the slow ones first so that the others run beside them.
func plan(o options, root string) ([]*trial, error) {
	var slow, fast []*trial
	add := func(r *trial) {
		switch {
		case !o.match.MatchString(r.name()):
		case r.client.slow && r.fault != proxy.None:
			slow = append(slow, r)
		default:
			fast = append(fast, r)
		}
	}
	now := time.Now()
	for i, c := range clients() {
		for j, fault := range append([]proxy.Fault{proxy.None}, proxy.Faults()...) {
			r := &trial{client: c, fault: fault, session: newSession(o.seed*1_000_000+uint64(i*100+j), now)}
			r.wants, r.means = c.wants(r.session, fault)
			add(r)
		}
	}
	snippets, err := snippets(filepath.Join(root, "docs", "producers.md"))
	if err != nil {
		return nil, err
	}
	for _, sn := range snippets {
		add(sn.trial())
	}
	if len(slow)+len(fast) == 0 {
		return nil, fmt.Errorf("no run matches %s", o.match)
	}
	return append(slow, fast...), nil
}

// both are the contents of the two stores.
type both struct{ clickhouse, iceberg contents }

// agree waits until both stores hold what is wanted, then a little longer, and reads them once more.
func agree(ctx context.Context, s stores, todo []*trial, out io.Writer) (both, error) {
	started := time.Now()
	read := func() (both, int, error) {
		var b both
		var err error
		if b.clickhouse, err = s.clickhouse(ctx); err != nil {
			return b, 0, err
		}
		if b.iceberg, err = s.iceberg(ctx); err != nil {
			return b, 0, err
		}
		wrong := 0
		for _, r := range todo {
			if len(r.problems(b)) > 0 {
				wrong++
			}
		}
		return b, wrong, nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		_, wrong, err := read()
		if err != nil {
			return both{}, err
		}
		if wrong == 0 || time.Since(started) > settle {
			say(out, "the stores were read %.0f s after the last run: %d runs differ; watching for rows that come late", time.Since(started).Seconds(), wrong)
			break
		}
		if err := pause(ctx, tick.C); err != nil {
			return both{}, err
		}
	}
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	if err := pause(ctx, timer.C); err != nil {
		return both{}, err
	}
	b, _, err := read()
	return b, err
}

func pause(ctx context.Context, c <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c:
		return nil
	}
}

// report writes the table and what is wrong.
func report(out io.Writer, todo []*trial, b both) (passed, failed int) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(format string, a ...any) { _, _ = fmt.Fprintf(w, format+"\n", a...) } // a terminal or a pipe
	line("\t\tCLIENT\tVERSION\tFAULT\tREQUESTS\tSPOILT\tAT GATEWAY\tEVENTS\tCLICKHOUSE\tICEBERG\tOUTCOME")
	var details []string
	for _, r := range todo {
		verdict := "PASS"
		if problems := r.problems(b); len(problems) > 0 {
			failed++
			verdict = "FAIL"
			details = append(details, "FAIL "+r.name()+":\n    "+strings.Join(problems, "\n    ")+"\n"+indent(r.said))
		} else {
			passed++
		}
		line("%s\t\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s", verdict, r.label(), r.client.version, r.fault, r.counts.Requests, r.counts.Spoilt, r.counts.Forwarded,
			len(r.wants), len(b.clickhouse.rows[r.source()]), len(b.iceberg.rows[r.source()]), r.means)
	}
	_ = w.Flush() // a terminal or a pipe
	for _, d := range details {
		_, _ = fmt.Fprintln(out, d) // a terminal or a pipe
	}
	return passed, failed
}

func indent(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > 12 {
		lines = append(lines[:12], "…")
	}
	return "    | " + strings.Join(lines, "\n    | ")
}

func say(out io.Writer, format string, a ...any) {
	_, _ = fmt.Fprintf(out, "== "+format+"\n", a...) // a terminal or a pipe
}

// checkout finds the folder of go.mod.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("not in a checkout")
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
