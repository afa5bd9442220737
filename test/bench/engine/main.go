// Command engine runs one job of bench-flink on the stream engine: "engine flink" and "engine nexmark", told on standard input, say on standard output what the job cost.
// The bench builds and starts it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
	"millrace/test/bench/child"
)

var jobs = map[string]func(context.Context, child.Engine) (child.Cost, error){"flink": flinkOurs, "nexmark": nexmarkOurs}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 || jobs[args[0]] == nil {
		return fmt.Errorf("want flink or nexmark, got %q", args)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var j child.Engine
	if err := child.Told(in, &j, cancel); err != nil {
		return err
	}
	c, err := jobs[args[0]](ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(c)
}

// createTopics makes the topics of an engine's state.
func createTopics(ctx context.Context, brokers string, state ...streaming.TopicSpec) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for _, t := range state {
		got, err := adm.CreateTopic(ctx, t.Partitions, 1, nil, t.Name)
		if err := errors.Join(err, got.Err); err != nil {
			return fmt.Errorf("creating topic %s: %w", t.Name, err)
		}
	}
	return nil
}
