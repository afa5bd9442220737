package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaClusterID is fixed: the cluster is one process.
const kafkaClusterID = "bWlsbHJhY2Uta2Fma2EtMQ"

// Node is one broker on this machine.
type Node struct {
	Dir        string // state; its server.properties is written anew at each start
	Port       int
	Controller int // port
	Internal   int // port of the broker's own listener
	Wait       int // port that is advertised for it: a connection there waits until Internal is open
}

func (n Node) properties() string { return filepath.Join(n.Dir, "server.properties") }
func (n Node) logs() string       { return filepath.Join(n.Dir, "logs") }

// Prepare writes the node's configuration and formats its folder the first time.
func (k *Kafka) Prepare(ctx context.Context, n Node) error {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return fmt.Errorf("creating Kafka's folder: %w", err)
	}
	t, err := template.New("").Parse(kafkaProperties)
	if err != nil {
		return fmt.Errorf("parsing Kafka's configuration: %w", err)
	}
	var b bytes.Buffer
	// In a properties file the backslash escapes.
	values := map[string]any{"Dir": strings.ReplaceAll(n.logs(), `\`, `\\`), "Port": n.Port, "Controller": n.Controller, "Internal": n.Internal, "Wait": n.Wait}
	if err := t.Execute(&b, values); err != nil {
		return fmt.Errorf("filling Kafka's configuration: %w", err)
	}
	if err := os.WriteFile(n.properties(), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing Kafka's configuration: %w", err)
	}
	if _, err := os.Stat(filepath.Join(n.logs(), "meta.properties")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for Kafka's state: %w", err)
	}
	// transaction.version=2 (the default) refuses markers of an epoch that a partition has seen, which is what a broker repeats that was killed while it wrote
	// the markers of a commit (KAFKA-19999). Version 1 has no such check, and it is what the drills run on.
	args := append(k.jvm(k.archive), "kafka.tools.StorageTool", "format", "-t", kafkaClusterID, "-c", n.properties(), "--ignore-formatted", "--feature", "transaction.version=1")
	if _, err := (command{dir: n.Dir}).run(ctx, k.java, args...); err != nil {
		return fmt.Errorf("formatting Kafka's folder: %w", err)
	}
	return nil
}

// Command is the program and arguments that run a prepared node.
func (k *Kafka) Command(n Node) (path string, args []string) {
	args = []string{"-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"}
	args = append(args, k.jvm(k.archive)...)
	return k.java, append(args, "kafka.Kafka", n.properties())
}

// jvm are the arguments up to the main class. The class path is spelled out, in
// order, because a class archive holds for that very path.
func (k *Kafka) jvm(archive string) []string {
	jars, _ := filepath.Glob(filepath.Join(k.dir, "libs", "*.jar")) // the pattern is well formed
	args := []string{
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + filepath.Join(k.dir, "log4j2.yaml"),
		"-cp", strings.Join(jars, ":"),
	}
	if archive != "" {
		// An archive that does not fit is passed over in silence.
		args = append([]string{"-Xshare:auto", "-XX:SharedArchiveFile=" + archive, "-Xlog:cds=off", "-Xlog:cds+dynamic=off"}, args...)
	}
	return args
}

// archiveClasses runs a node for a moment and has the JVM write down the classes it loaded.
func (k *Kafka) archiveClasses(ctx context.Context, file string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(filepath.Dir(file), "node")
	if err != nil {
		return fmt.Errorf("making a folder for a trial run: %w", err)
	}
	node := Node{Dir: dir}
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	node.Port, node.Controller, node.Internal, node.Wait = ports[0], ports[1], ports[2], ports[2]
	if err := k.Prepare(ctx, node); err != nil {
		return err
	}
	path, args := k.Command(node)
	cmd := exec.CommandContext(ctx, path, append([]string{"-XX:ArchiveClassesAtExit=" + file}, args...)...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting a trial run: %w", err)
	}
	served := waitAnswers(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(node.Port)))
	err = errors.Join(served, cmd.Process.Signal(syscall.SIGTERM))
	// Kafka ends with status 143 on SIGTERM; whether the archive is there tells all.
	_ = cmd.Wait()
	if err != nil {
		return fmt.Errorf("trial run: %w", err)
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("the JVM wrote no class archive: %w", err)
	}
	return os.RemoveAll(dir)
}

func freePorts(ctx context.Context, n int) ([]int, error) {
	var lc net.ListenConfig
	ports := make([]int, n)
	for i := range ports {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("choosing a port: %w", err)
		}
		defer func() { _ = l.Close() }() // all at the end, so that they differ
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("choosing a port: unexpected address %s", l.Addr())
		}
		ports[i] = addr.Port
	}
	return ports, nil
}

// Answers is a health check: a broker is registered and takes requests.
func Answers(ctx context.Context, broker string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RetryTimeout(time.Second), kgo.DialTimeout(time.Second))
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	cluster, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("asking Kafka for its brokers: %w", err)
	}
	if len(cluster.Brokers) == 0 {
		return errors.New("no broker has registered yet")
	}
	return nil
}

func waitAnswers(ctx context.Context, broker string) error {
	for {
		err := Answers(ctx, broker)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
