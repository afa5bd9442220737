package embedded

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KfakeChildOptions are the flags of the kfake child.
type KfakeChildOptions struct {
	Dir  string // data folder; empty keeps everything in memory
	Port int    // 0 chooses one
}

func (o *KfakeChildOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.Dir, "dir", "", "data folder")
	f.IntVar(&o.Port, "port", 0, "port to listen on")
}

// RunKfakeChild runs the broker until ctx is done.
func RunKfakeChild(ctx context.Context, o KfakeChildOptions) error {
	if o.Dir == "" || o.Port == 0 {
		return errors.New("flags -dir and -port are required")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("creating the data folder: %w", err)
	}
	cluster, err := StartKfake(o)
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := wakeRetention(ctx, cluster.ListenAddrs()); err != nil {
		return fmt.Errorf("waking retention: %w", err)
	}
	<-ctx.Done()
	return nil
}

// StartKfake starts the broker in this process: what tests use, and what the child runs.
func StartKfake(o KfakeChildOptions) (*kfake.Cluster, error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.Ports(o.Port),
		kfake.BrokerConfigs(map[string]string{
			// Otherwise retention is looked at once an hour.
			"log.cleaner.backoff.ms": "30000",
		}),
	}
	if o.Dir != "" {
		opts = append(opts, kfake.DataDir(o.Dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("starting kfake: %w", err)
	}
	return cluster, nil
}

// wakeRetention creates and deletes a topic. After a restart kfake looks at
// retention only once some topic has been created, deleted or altered.
func wakeRetention(ctx context.Context, addrs []string) error {
	const topic = "__wake"
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("creating topic %s: %w", topic, err)
	}
	if _, err := admin.DeleteTopic(ctx, topic); err != nil {
		return fmt.Errorf("deleting topic %s: %w", topic, err)
	}
	return nil
}
