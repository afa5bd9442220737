// Command nights is a drill: the platform's nights are a minute long; it is off for three of them. When it is back, each must have run once, in order. Then a night is made to
// fail in one of its steps, and repaired as the Temporal UI does it: the same input is started again. With -shots DIR the pages of the Temporal UI are photographed on the
// way. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	bin    string
	broker string
	period time.Duration
	shots  string
	keep   bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/millrace", "the program")
	flag.StringVar(&o.broker, "broker", "kfake", "kfake or apache")
	flag.DurationVar(&o.period, "period", time.Minute, "how long a night is")
	flag.StringVar(&o.shots, "shots", "", "folder for pictures of the Temporal UI; needs Chromium and test/ui/node_modules")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		d.failed++
	}
	fmt.Printf("%d passed, %d failed\n", d.passed, d.failed)
	if d.failed > 0 || d.passed == 0 {
		os.Exit(1)
	}
}

// drill counts what held and what did not.
type drill struct{ passed, failed int }

func (d *drill) check(ok bool, format string, a ...any) {
	word := "PASS"
	if ok {
		d.passed++
	} else {
		d.failed++
		word = "FAIL"
	}
	fmt.Printf("%s %s\n", word, fmt.Sprintf(format, a...))
}

func run(ctx context.Context, o options) (d drill, err error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return d, fmt.Errorf("finding %s: %w", o.bin, err)
	}
	dir, err := os.MkdirTemp("", "millrace-nights-")
	if err != nil {
		return d, fmt.Errorf("making a data directory: %w", err)
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	p := &platform{bin: bin, data: dir, broker: o.broker, period: o.period, env: []string{
		"MILLRACE_BATCH__NIGHTLY_EVERY=" + o.period.String(), "MILLRACE_BATCH__MAINTAIN_EVERY=0s",
	}}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, p.down(down))
	}()
	if err := away(ctx, &d, p, o); err != nil {
		return d, err
	}
	return d, repair(ctx, &d, p, o)
}
