package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/test/bench/child"
)

//go:embed flink
var flinkSources embed.FS

const (
	flinkName = "Apache Flink 2.2"
)

// benchFlink measures the engine beside Flink: the same job (KPIs by second, country and device; cards that are used too often) over the same topics of the same
// Apache Kafka. What starting Flink costs, measured on an empty topic, is taken off its side, and nothing off ours. Both must find exactly what the events hold.
func benchFlink(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	home, err := installFlink(ctx, say)
	if err != nil {
		return nil, err
	}
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerApache, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	b := &flinkBench{s: s, say: say, dir: dir, home: home, brokers: servers.Endpoints().Kafka, truth: flinkTruth(s.flink)}
	if err := b.topics(ctx, "shop.avro", "shop.json", "shop.empty"); err != nil {
		return nil, err
	}
	formats := map[string]func(*shopEvent, []byte) []byte{"shop.avro": (*shopEvent).appendAvro, "shop.json": (*shopEvent).appendJSON}
	if err := fillFlink(ctx, b.brokers, s.flink, formats); err != nil {
		return nil, err
	}
	say("  %d events in each topic; %d rows of KPIs and %d alerts are to be found", s.flink, b.truth.Rows, len(b.truth.Alerts))
	return b.run(ctx)
}

type flinkBench struct {
	s                  settings
	say                func(string, ...any)
	dir, home, brokers string
	truth              findings
	n                  int // runs so far
}

func (b *flinkBench) run(ctx context.Context) ([]result, error) {
	empty, err := b.theirs(ctx, "avro", "shop.empty", findings{Alerts: map[alertKey]int64{}})
	if err != nil {
		return nil, fmt.Errorf("Flink's start: %w", err)
	}
	b.say("  starting and ending Flink costs %.1f CPU s, which are not counted", empty.CPU)
	var all []result
	for _, format := range []string{"avro", "json"} {
		var rows, enriched, memory []turn
		for range b.s.reps {
			peer, err := b.theirs(ctx, format, "shop."+format, b.truth)
			if err != nil {
				return all, fmt.Errorf("Flink: %w", err)
			}
			peer.CPU -= empty.CPU
			ours, err := b.ours(ctx, child.FlinkRun{Format: format, Interval: child.FlinkCheckpoint})
			if err != nil {
				return all, err
			}
			more, err := b.ours(ctx, child.FlinkRun{Format: format, Interval: child.FlinkCheckpoint, Enriched: true})
			if err != nil {
				return all, err
			}
			b.say("  %s: ours %.2f (peak %.0f MiB), with every event again %.2f (%.0f MiB), Flink %.2f CPU s per million events (%.0f MiB)", format,
				perMillion(ours), ours.Peak, perMillion(more), more.Peak, perMillion(peer), peer.Peak)
			rows, enriched, memory = append(rows, turn{ours, peer}), append(enriched, turn{more, peer}), append(memory, turn{ours, peer})
		}
		all = append(all,
			atMost(compareBy("flink, KPIs and fraud, "+format, "CPU s per 1M events", flinkName, rows, perMillion), 0.33),
			atMost(compareBy("flink, with every event again, "+format, "CPU s per 1M events", flinkName, enriched, perMillion), 0.70),
			atMost(compareBy("flink, memory, "+format, "peak MiB", flinkName, memory, func(c cost) float64 { return c.Peak }), 0.25))
	}
	return all, nil
}

func perMillion(c cost) float64 { return 1e6 * c.CPU / float64(c.N) }

// atMost sets a goal that the ratio is not to exceed.
func atMost(r result, goal float64) result {
	r.Goal, r.OK = fmt.Sprintf("<=%g", goal), r.Ratio <= goal
	return r
}

// topics makes topics.
func (b *flinkBench) topics(ctx context.Context, names ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers))
	if err != nil {
		return fmt.Errorf("making topics: %w", err)
	}
	defer cl.Close()
	// Flink stamps its rows with event time, which is long ago: the broker would drop them while they are being read.
	res, err := kadm.NewClient(cl).CreateTopics(ctx, child.FlinkPartitions, 1, map[string]*string{"retention.ms": kadm.StringPtr("-1")}, names...)
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		return fmt.Errorf("making topics: %w", err)
	}
	return nil
}

// remove drops the topics of a run, since disks are finite.
func (b *flinkBench) remove(ctx context.Context, names ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers))
	if err != nil {
		return fmt.Errorf("dropping topics: %w", err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).DeleteTopics(ctx, names...); err != nil {
		return fmt.Errorf("dropping topics: %w", err)
	}
	return nil
}

// ours runs the job on the engine, in a process of its own.
func (b *flinkBench) ours(ctx context.Context, r child.FlinkRun) (cost, error) {
	b.n++
	r.Name, r.Topic, r.Events, r.Partitions = "ours"+strconv.Itoa(b.n), "shop."+r.Format, int64(b.s.flink), child.FlinkPartitions
	if err := b.topics(ctx, r.KPIs(), r.Alerts(), r.Cards(), r.Again()); err != nil {
		return cost{}, err
	}
	c, err := b.engine(ctx, "flink", child.Engine{Brokers: b.brokers, Profile: b.s.profile("flink-" + r.Format), Flink: r}, r.Events)
	if err != nil {
		return cost{}, err
	}
	if err := b.check(ctx, r.KPIs(), r.Alerts(), b.truth); err != nil {
		return cost{}, fmt.Errorf("ours: %w", err)
	}
	return c, b.remove(ctx, r.KPIs(), r.Alerts(), r.Cards(), r.Again())
}

// engine runs a job on the engine in a program that holds nothing else: the pages of a program's file count as its memory.
func (b *flinkBench) engine(ctx context.Context, kind string, j child.Engine, n int64) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	path := filepath.Join(b.dir, "engine")
	if _, err := os.Stat(path); err != nil {
		root, err := checkout()
		if err != nil {
			return cost{}, err
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./test/bench/engine")
		cmd.Dir = root
		if said, err := cmd.CombinedOutput(); err != nil {
			return cost{}, fmt.Errorf("building the engine's program: %w: %s", err, said)
		}
	}
	p, err := tell(ctx, path, []string{kind}, j)
	if err != nil {
		return cost{}, err
	}
	return p.cost(kind, n)
}

// theirs runs it on Flink, whose process ends with the topic.
func (b *flinkBench) theirs(ctx context.Context, format, topic string, truth findings) (cost, error) {
	b.n++
	name := "flink" + strconv.Itoa(b.n)
	kpis, alerts := name+".kpi", name+".alerts"
	if err := b.topics(ctx, kpis, alerts); err != nil {
		return cost{}, err
	}
	began := time.Now()
	p, err := b.flink(ctx, "millrace.bench.KpiAndFraud", "brokers="+b.brokers, "topic="+topic, "format="+format, "kpi="+kpis, "alerts="+alerts, "run="+name,
		"guarantee=exactly-once", "checkpoint_ms="+strconv.FormatInt(child.FlinkCheckpoint.Milliseconds(), 10), "dir="+filepath.Join(b.dir, name))
	if err != nil {
		return cost{}, err
	}
	c := processCost(p, time.Since(began).Seconds(), int64(b.s.flink))
	if err := b.check(ctx, kpis, alerts, truth); err != nil {
		return cost{}, err
	}
	return c, b.remove(ctx, kpis, alerts)
}

// check compares what a run wrote with what it had to.
func (b *flinkBench) check(ctx context.Context, kpis, alerts string, truth findings) error {
	got, err := found(ctx, b.brokers, kpis, alerts)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(truth, got); diff != "" {
		return fmt.Errorf("it did not find what there is (-want +got):\n%.2000s", diff)
	}
	return nil
}

// flink runs one of Flink's jobs to its end. The opened packages are those that Flink's own launcher opens.
func (b *flinkBench) flink(ctx context.Context, class string, args ...string) (*os.ProcessState, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	java := []string{"-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-Duser.timezone=UTC", "-Dlog4j2.configurationFile=" + filepath.Join(b.home, "log4j2.properties")}
	for _, p := range []string{"java.lang", "java.util", "java.util.concurrent", "java.time", "java.nio", "java.net"} {
		java = append(java, "--add-opens=java.base/"+p+"=ALL-UNNAMED")
	}
	java = append(java, "-cp", filepath.Join(b.home, "target", "flink-bench.jar")+":"+filepath.Join(b.home, "libs", "*"), class)
	p, err := start(ctx, "java", append(java, args...))
	if err != nil {
		return nil, err
	}
	if err := p.wait(); err != nil {
		return nil, err
	}
	return p.cmd.ProcessState, nil
}

// processCost is what a process took that has ended.
func processCost(p *os.ProcessState, wall float64, n int64) cost {
	c := cost{CPU: (p.UserTime() + p.SystemTime()).Seconds(), Wall: wall, N: n}
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		c.Peak = float64(u.Maxrss) / 1024
	}
	return c
}

// installFlink brings Flink into the cache and builds the jobs, once for each version of them.
func installFlink(ctx context.Context, say func(string, ...any)) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	files := map[string][]byte{}
	err = fs.WalkDir(flinkSources, "flink", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := flinkSources.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("flink", path)
		files[rel] = text
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", rel, len(text), text) // a hash takes everything
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the jobs for Flink: %w", err)
	}
	home := filepath.Join(cache, fmt.Sprintf("flink-2.2.0-%x", sum.Sum(nil)[:6]))
	done := filepath.Join(home, ".complete")
	if _, err := os.Stat(done); err == nil {
		return home, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for Flink: %w", err)
	}
	say("  installing Flink and its Kafka connector (145 MB) into %s", home)
	for rel, text := range files {
		path := filepath.Join(home, rel)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			return "", fmt.Errorf("installing Flink: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", filepath.Join(home, "pom.xml"), "package", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(home, "libs"))
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("installing Flink (needed are mvn and a JDK of 17 or later): %w: %s", err, said)
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		return "", fmt.Errorf("installing Flink: %w", err)
	}
	return home, nil
}
