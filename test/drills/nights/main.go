// Command nights is a drill: the platform's nights are a minute long; it is off for three of them. When it is back, each must have run once, in order. Then a night is made to
// fail in one of its steps, and repaired as the Temporal UI does it: the same input is started again. With -shots DIR the pages of the Temporal UI are photographed on the
// way. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"millrace/test/drills/drill"
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
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	dir, remove, err := drill.Folder("nights", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	program, err := drill.NewProgram(o.bin, dir, "MILLRACE_BATCH__NIGHTLY_EVERY="+o.period.String(), "MILLRACE_BATCH__MAINTAIN_EVERY=0s")
	if err != nil {
		return err
	}
	p := &platform{program: program, broker: o.broker, period: o.period}
	defer func() { err = errors.Join(err, p.down()) }()
	if err := away(ctx, d, p, o); err != nil {
		return err
	}
	return repair(ctx, d, p, o)
}
