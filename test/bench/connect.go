package main

import (
	"bytes"
	"context"
	_ "embed" // what Maven brings
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
)

//go:embed connect/pom.xml
var connectPOM []byte

const (
	connectFolder = "connect-4.3.1-iceberg-1.12.0"
	connectWarm   = 20_000 // rows of the warm-up
	connectTime   = 10 * time.Minute
)

// benchConnect measures our Iceberg sink beside Kafka Connect's on the same rows, each in its own format: ours reads Avro, and Connect the rows that ours has stored, as JSON
// without nulls. Both write zstd 3 into a table partitioned by day, and commit every ten seconds. Connect's start and a warm-up are not counted. Each table must
// hold every row once.
func benchConnect(ctx context.Context, s settings, say func(string, ...any)) (_ []result, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	libs, err := installConnect(ctx, say)
	if err != nil {
		return nil, err
	}
	servers, err := embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerApache, embedded.KafkaChild)
	if err != nil {
		return nil, err
	}
	defer servers.Stop()
	j := job{Brokers: servers.Endpoints().Kafka}
	if j.Rows, err = eventTopics(ctx, j.Brokers, s.connect); err != nil {
		return nil, err
	}
	var turns []turn
	for i := range s.reps {
		var one turn
		j.Group = groupName("connect", i)
		j.Dir, j.Profile = filepath.Join(dir, j.Group), s.profile("iceberg-beside-connect")
		if one.ours, err = do(ctx, "iceberg", j); err != nil {
			return nil, err
		}
		if one.peer, err = connectTurn(ctx, j, libs, i); err != nil {
			return nil, fmt.Errorf("Kafka Connect: %w", err)
		}
		turns = append(turns, one)
		say("  ours %.0f (%s), Connect %.0f (%s) rows per CPU s", float64(j.Rows)/one.ours.CPU, one.ours.Note, float64(j.Rows)/one.peer.CPU, one.peer.Note)
	}
	return []result{compare("iceberg sink, beside Connect", "rows", "Kafka Connect 4.3.1, Iceberg sink 1.12", 2, turns)}, nil
}

// connectTurn puts the rows of our tables into topics as JSON and has Connect write them.
func connectTurn(ctx context.Context, j job, libs string, turn int) (_ cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	rows, err := newJSONRows(ctx, j)
	if err != nil {
		return cost{}, err
	}
	defer rows.close()
	warm, all := fmt.Sprintf("json.warm.%d", turn), fmt.Sprintf("json.events.%d", turn)
	sum, err := rows.fill(ctx, warm, all)
	if err != nil {
		return cost{}, err
	}
	if sum.Count != j.Rows {
		return cost{}, fmt.Errorf("our tables have %d of %d rows", sum.Count, j.Rows)
	}
	c, err := startConnect(ctx, j, libs)
	if err != nil {
		return cost{}, err
	}
	defer c.p.stop()
	if err := c.sink(ctx, rows, warm, "warm", min(connectWarm, j.Rows)); err != nil {
		return cost{}, fmt.Errorf("warming up: %w: %s", err, c.log())
	}
	before, err := processCPU(c.p.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	if err := c.sink(ctx, rows, all, "events", j.Rows); err != nil {
		return cost{}, fmt.Errorf("%w: %s", err, c.log())
	}
	wall := time.Since(start).Seconds()
	after, err := processCPU(c.p.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	got, err := rows.stored(ctx, "events")
	if err == nil && got != sum {
		err = fmt.Errorf("its table has %+v, ours %+v", got, sum)
	}
	return cost{CPU: after - before, Wall: wall, N: j.Rows, Note: "every row once in both tables"}, err
}

// connect is a worker of Kafka Connect.
type connect struct {
	p       *process
	url     string
	dir     string
	brokers string
	cfg     lakehouse.Config
}

func startConnect(ctx context.Context, j job, libs string) (*connect, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, fmt.Errorf("finding a port: %w", err)
	}
	dir := filepath.Join(j.Dir, "connect")
	worker, logging := filepath.Join(dir, "worker.properties"), filepath.Join(dir, "log4j2.properties")
	for path, text := range map[string]string{
		worker: fmt.Sprintf("bootstrap.servers=%s\nkey.converter=org.apache.kafka.connect.converters.ByteArrayConverter\nvalue.converter=org.apache.kafka.connect.json.JsonConverter\n"+
			"value.converter.schemas.enable=false\noffset.storage.file.filename=%s/offsets\noffset.flush.interval.ms=10000\nplugin.discovery=only_scan\nlisteners=http://%s\n"+
			"consumer.auto.offset.reset=earliest\nconsumer.max.poll.records=5000\nconsumer.max.partition.fetch.bytes=4194304\n", j.Brokers, dir, address),
		logging: "rootLogger.level = WARN\nrootLogger.appenderRef.c.ref = c\nappender.c.type = Console\nappender.c.name = c\nappender.c.target = SYSTEM_ERR\nappender.c.layout.type = PatternLayout\nappender.c.layout.pattern = %p %c{1} %m%n\n",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making a folder: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("configuring Connect: %w", err)
		}
	}
	p, err := start(ctx, "java", []string{"-Xms1g", "-Xmx1g", "-Dlog4j2.configurationFile=" + logging, "-cp", filepath.Join(libs, "*"), "org.apache.kafka.connect.cli.ConnectStandalone", worker})
	if err != nil {
		return nil, err
	}
	c := &connect{p: p, url: "http://" + address, dir: dir, brokers: j.Brokers, cfg: connectConfig(j)}
	err = eventually(ctx, "Connect to answer", func() (bool, error) {
		select {
		case <-p.ended:
			return false, fmt.Errorf("it ended: %w", errors.Join(p.err, errors.New(c.log())))
		default:
		}
		return c.call(ctx, http.MethodGet, "/connectors", nil) == nil, nil
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return c, nil
}

func (c *connect) log() string { return c.p.said.text() }

// sink runs a connector from a topic to a table until the table has so many rows.
func (c *connect) sink(ctx context.Context, rows *jsonRows, topic, table string, n int64) error {
	control := "control-" + topic
	if err := rows.topic(ctx, control, 1); err != nil {
		return err
	}
	config := map[string]string{
		"connector.class": "org.apache.iceberg.connect.IcebergSinkConnector", "tasks.max": "1", "topics": topic,
		"iceberg.tables": c.cfg.Namespace + "." + table, "iceberg.control.topic": control, "iceberg.control.commit.interval-ms": "10000", "iceberg.control.commit.timeout-ms": "30000",
		"iceberg.catalog": c.cfg.CatalogName, "iceberg.catalog.catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog", "iceberg.catalog.uri": "jdbc:sqlite:" + strings.TrimPrefix(c.cfg.CatalogURI, "sqlite:///"),
		"iceberg.catalog.jdbc.schema-version": "V1", "iceberg.catalog.warehouse": c.cfg.Warehouse, "iceberg.catalog.io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
	}
	body, err := json.Marshal(map[string]any{"name": table, "config": config})
	if err != nil {
		return fmt.Errorf("configuring connector %s: %w", table, err)
	}
	if err := c.call(ctx, http.MethodPost, "/connectors", body); err != nil {
		return err
	}
	err = eventually(ctx, fmt.Sprintf("connector %s to store %d rows", table, n), func() (bool, error) {
		if err := c.failed(ctx, table); err != nil {
			return false, err
		}
		have, err := rows.count(ctx, table)
		if have > n {
			return false, fmt.Errorf("table %s has %d rows of %d", table, have, n)
		}
		return have == n, err
	})
	return errors.Join(err, c.call(ctx, http.MethodDelete, "/connectors/"+table, nil))
}

// failed says whether the connector or its task has failed.
func (c *connect) failed(ctx context.Context, name string) error {
	var status struct {
		Tasks []struct {
			State string `json:"state"`
			Trace string `json:"trace"`
		} `json:"tasks"`
	}
	body, err := c.ask(ctx, http.MethodGet, "/connectors/"+name+"/status", nil)
	if err != nil || json.Unmarshal(body, &status) != nil {
		return nil // not there yet
	}
	for _, t := range status.Tasks {
		if t.State == "FAILED" {
			return fmt.Errorf("its task failed: %.1500s", t.Trace)
		}
	}
	return nil
}

func (c *connect) call(ctx context.Context, method, path string, body []byte) error {
	_, err := c.ask(ctx, method, path, body)
	return err
}

func (c *connect) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking Connect: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Connect: %w", err)
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.500s", method, path, res.Status, text)
	}
	return text, err
}

// eventually asks twice a second.
func eventually(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// installConnect brings Kafka Connect and the sink into the cache, once.
func installConnect(ctx context.Context, say func(string, ...any)) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, connectFolder)
	done, libs, pom := filepath.Join(home, ".complete"), filepath.Join(home, "libs"), filepath.Join(home, "pom.xml")
	if _, err := os.Stat(done); err == nil {
		return libs, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for Kafka Connect: %w", err)
	}
	say("  installing Kafka Connect and its Iceberg sink (125 MB) into %s", home)
	err = os.MkdirAll(home, 0o755)
	if err == nil {
		err = os.WriteFile(pom, connectPOM, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("installing Kafka Connect: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+libs)
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("installing Kafka Connect (needed are mvn and a JDK of 17 or later): %w: %s", err, said)
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		return "", fmt.Errorf("installing Kafka Connect: %w", err)
	}
	return libs, nil
}

func connectConfig(j job) lakehouse.Config {
	cfg := compactionConfig(filepath.Join(j.Dir, "peer"))
	cfg.Namespace = "peer"
	return cfg
}
