package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace/internal/embedded/install"
	"millrace/internal/fault"
)

// KfakeLimits is what a user of the stand-in must know.
const KfakeLimits = "kfake: no replication or quotas; topics written by transactions must not be compacted; kill -9 of the broker may commit half a transaction"

const missingToolID fault.ID = "MR-EMB-003"

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// kafka describes the broker. Which kind it is, is decided when it is installed
// and kept, for the events of a data folder are in one of them.
func (p *Platform) kafka(ctx context.Context) (Child, error) {
	kept, err := p.keptBroker()
	if err != nil {
		return Child{}, err
	}
	kind := p.opts.Broker
	if kept != "" {
		if kind != BrokerAuto && kind != kept {
			return Child{}, fault.Newf(brokerKindID, "data folder %s holds the events of broker %s, asked for is %s", p.opts.DataDir, kept, kind)
		}
		kind = kept
	}
	ports, err := p.folder.Ports.Range(ctx, "kafka", "kafka-controller")
	if err != nil {
		return Child{}, err
	}
	internal, err := p.folder.Ports.Get(ctx, "kafka-internal")
	if err != nil {
		return Child{}, err
	}
	p.endpoints.Kafka = local(ports[0])
	node := install.Node{Dir: filepath.Join(p.opts.DataDir, "kafka"), Port: ports[0], Controller: ports[1], Internal: internal}
	var apache *install.Kafka
	return Child{
		Name:  KafkaChild,
		Ports: []string{"kafka", "kafka-controller", "kafka-internal"},
		Prepare: func(ctx context.Context, note func(string)) (err error) {
			if kind != BrokerKfake {
				apache, err = p.installer(note).Kafka(ctx)
			}
			switch id, _ := fault.IDOf(err); {
			case err == nil:
			case kind == BrokerAuto && id == missingToolID:
				p.opts.Log.Warn("Apache Kafka is not to be had here, using kfake", "error", err)
			default:
				return err
			}
			if apache == nil {
				note(KfakeLimits)
				return p.keepBroker(BrokerKfake)
			}
			if p.waitroom == nil {
				if p.waitroom, err = openWaitroom(ctx, local(0), local(internal), p.opts.Log); err != nil {
					return err
				}
			}
			node.Wait = p.waitroom.port()
			note("formatting")
			if err := apache.Prepare(ctx, node); err != nil {
				return err
			}
			note("Apache Kafka")
			return p.keepBroker(BrokerApache)
		},
		Command: func(context.Context) (Command, error) {
			if apache == nil {
				return p.self("kfake", "-dir", filepath.Join(p.opts.DataDir, "kfake"), "-port", strconv.Itoa(node.Port)), nil
			}
			path, args := apache.Command(node)
			return Command{Path: path, Args: args, Dir: node.Dir}, nil
		},
		Healthy:       func(ctx context.Context) error { return install.Answers(ctx, local(node.Port)) },
		HealthTimeout: 2 * time.Minute, // recovery after a kill, on a busy machine
		Grace:         30 * time.Second,
	}, nil
}

func (p *Platform) brokerFile() string { return filepath.Join(p.opts.DataDir, "broker") }

func (p *Platform) keptBroker() (string, error) {
	b, err := os.ReadFile(p.brokerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the kind of broker: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (p *Platform) keepBroker(kind string) error {
	if err := os.WriteFile(p.brokerFile(), []byte(kind+"\n"), 0o600); err != nil {
		return fmt.Errorf("keeping the kind of broker: %w", err)
	}
	return nil
}
