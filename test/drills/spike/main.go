// Command spike is the drill of a sudden crowd: a platform takes a steady rate, then many times as much for a while, then the steady rate again. Nothing may be lost, no producer may
// see a 5xx, what the gateway puts off it must put off in the stated order, and the stream must catch up. Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"millrace/internal/simulate"
	"millrace/test/drills/drill"
	"millrace/workers"
)

// steadyFor is how long the steady rate lasts before and after the spike.
const steadyFor = 15 * time.Second

// behind is the lag from which on the stream is behind.
const behind = 5 * time.Second

type options struct {
	bin         string
	broker      string
	rate        float64
	spike       string
	spikeFor    time.Duration
	seed        uint64
	connections int
	memory      int64
	patience    time.Duration
	keep        bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/millrace", "the program")
	flag.StringVar(&o.broker, "broker", "kfake", "kfake or apache")
	flag.Float64Var(&o.rate, "rate", 300, "events per second before and after the spike")
	flag.StringVar(&o.spike, "spike", "10x", "rate during the spike")
	flag.DurationVar(&o.spikeFor, "spike-for", 30*time.Second, "length of the spike")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the events")
	flag.IntVar(&o.connections, "connections", 64, "requests under way at once")
	flag.Int64Var(&o.memory, "memory", 40, "MiB that the gateway's requests may take: with little it puts events off sooner (40 is the least)")
	flag.DurationVar(&o.patience, "patience", 10*time.Minute, "how long the stream may take to catch up, and the stores to agree")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	factor, err := simulate.ParseSpike(o.spike)
	if err != nil {
		return err
	}
	dir, remove, err := drill.Folder("spike", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, err := drill.NewProgram(o.bin, dir, fmt.Sprintf("MILLRACE_GATEWAY__MAX_IN_FLIGHT_BYTES=%d", o.memory<<20))
	if err != nil {
		return err
	}
	stop, err := p.Up(ctx, "--broker", o.broker, "--no-simulate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	w, err := newWatch(dir)
	if err != nil {
		return err
	}
	defer w.close()
	fmt.Printf("%g events/s for %s, %g times as many for %s, and again %g events/s for %s (%s)\n", o.rate, steadyFor, factor, o.spikeFor, o.rate, steadyFor, o.broker)
	var sum simulate.Summary
	sent := make(chan error, 1)
	began := time.Now()
	go func() {
		sent <- p.Into(ctx, &sum, "simulate", "--rate", fmt.Sprint(o.rate), "--for", (2*steadyFor + o.spikeFor).String(), "--spike", o.spike, "--spike-after", steadyFor.String(), "--spike-for", o.spikeFor.String(),
			"--seed", strconv.FormatUint(o.seed, 10), "--connections", strconv.Itoa(o.connections), "--patience", o.patience.String())
	}()
	over := began.Add(steadyFor + o.spikeFor)
	if err := w.follow(ctx, sent, over, o.patience); err != nil {
		return err
	}
	fmt.Printf("     %d events acknowledged in %.0f s, %d requests sent again; lag at most %s\n", sum.Acknowledged, sum.ElapsedSeconds, sum.Retries, w.most.Round(100*time.Millisecond))
	d.Check(sum.Acknowledged > int64(o.rate*(2*steadyFor.Seconds()+factor*o.spikeFor.Seconds())*0.9), "the spike was sent: %d events", sum.Acknowledged)
	d.Check(!w.caught.IsZero(), "the lag is below %s again %s after the end of the spike", behind, max(0, w.caught.Sub(over)).Round(100*time.Millisecond))
	return verdict(ctx, d, o, w, sum)
}

// verdict is what the gateway's metrics and ClickHouse say.
func verdict(ctx context.Context, d *drill.Drill, o options, w *watch, sum simulate.Summary) error {
	m, err := gatewayMetrics(ctx, w.dir)
	if err != nil {
		return err
	}
	d.Check(m.requests > 0 && m.serverErrors == 0, "of %.0f requests none was answered 5xx (%.0f were, %.0f were told to come again)", m.requests, m.serverErrors, m.tooMany)
	page, rest, purchase := m.put["page"], m.other(), m.put["purchase"]
	fmt.Printf("     put off to the spool: page %s, cart and all others %s, purchase %s; for want of memory %.0f, behind others %.0f, broker away %.0f\n", page, rest, purchase, m.shed["memory"], m.shed["behind"], m.shed["broker"])
	d.Check(page.share() >= rest.share() && rest.share() >= purchase.share(), "the order of putting off is page, then cart and all others, then purchase")
	if m.forMemory() {
		d.Check(purchase.spool == 0, "no purchase was put off for want of memory")
	}
	cfg, err := workers.Load("", map[string]any{"data": w.dir})
	if err != nil {
		return err
	}
	e, err := workers.LoadEndpoints(w.dir)
	if err != nil {
		return err
	}
	cfg.Fill(e)
	rows, distinct, hash, took, err := stored(ctx, cfg, sum, o.patience)
	if err != nil {
		return err
	}
	d.Check(sum.Unacknowledged == 0 && rows == sum.DistinctIDs && distinct == sum.DistinctIDs && hash == sum.IDHash,
		"0 lost, 0 twice: ClickHouse has %d rows of %d ids, acknowledged were %d ids (hash %s and %s); they agree %s after the traffic", rows, distinct, sum.DistinctIDs, hash, sum.IDHash, took.Round(100*time.Millisecond))
	return nil
}
