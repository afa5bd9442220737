// Command engine is the drill of the streaming engine. By default the one worker of the hot topology is killed over and over while a shop writes, and what it finds must be what
// a worker finds that nobody kills. With -rolling four workers are restarted one after the other under load, with -keys the state is many times larger than its bound.
// Its last line is "N passed, N failed".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"millrace/internal/embedded"
	"millrace/streaming"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

type options struct {
	broker     string
	kills      int
	rate       float64
	atLeast    int64 // events, also where the kills take less long: an attack must be among them
	seed       uint64
	protocol   string
	partitions int
	limit      time.Duration
	rolling    bool
	rounds     int
	keys       int64
	stateBytes size
	local      bool
	keep       bool
}

func main() {
	embedded.MaybeChild()
	hotrun.MaybeChild(topologies)
	var o options
	flag.StringVar(&o.broker, "broker", "apache", "apache or kfake")
	flag.IntVar(&o.kills, "kills", 20, "how often the worker is killed")
	flag.Float64Var(&o.rate, "rate", 500, "events per second")
	flag.Int64Var(&o.atLeast, "at-least", 10_000, "events that are written even if the kills are over sooner: too few have no fraud to find")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the events and of the moments of the kills")
	flag.StringVar(&o.protocol, "protocol", streaming.ProtocolClassic, "of the consumer group: classic or consumer (KIP-848)")
	flag.IntVar(&o.partitions, "partitions", 4, "partitions of a topic, which is the number of tasks of a stage")
	flag.DurationVar(&o.limit, "limit", 30*time.Minute, "how long all kills may take")
	flag.BoolVar(&o.rolling, "rolling", false, "restart four workers one after the other in place of killing one")
	flag.IntVar(&o.rounds, "rounds", 1, "with -rolling: how often each worker is restarted")
	flag.Int64Var(&o.keys, "keys", 0, "keys of the state: fill it, restore it, and let a second worker take half of it over")
	o.stateBytes = 512 << 20
	flag.Var(&o.stateBytes, "state-bytes", "with -keys: bound of the state in memory, as in 512MiB")
	flag.BoolVar(&o.local, "local", true, "the workers have a state_dir, as those of the platform have; false: all state comes from the changelog at every start, which grows with the run")
	flag.BoolVar(&o.keep, "keep", false, "keep the data directory")
	flag.Parse()
	drill.Main(func(ctx context.Context, d *drill.Drill) error { return run(ctx, d, o) })
}

func run(ctx context.Context, d *drill.Drill, o options) (err error) {
	if o.broker != embedded.BrokerApache && o.broker != embedded.BrokerKfake {
		return fmt.Errorf("-broker %s: there are apache and kfake", o.broker)
	}
	dir, remove, err := drill.Folder("engine", o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	switch {
	case o.rolling:
		return rolling(ctx, d, o, dir)
	case o.keys > 0:
		return manyKeys(ctx, d, o, dir)
	}
	return kills(ctx, d, o, dir)
}

// spec is a worker's.
func (o options) spec(brokers, dir, instance string) hotrun.Spec {
	cfg := streaming.DefaultConfig()
	cfg.Group, cfg.InstanceID, cfg.TransactionalID, cfg.Protocol = "hot", instance, "", o.protocol
	if o.local {
		cfg.StateDir = filepath.Join(dir, "state")
	}
	return hotrun.Spec{Brokers: brokers, Dir: dir, Partitions: int32(o.partitions), Engine: cfg}
}
