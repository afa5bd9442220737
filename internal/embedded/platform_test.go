package embedded_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/embedded"
	"millrace/internal/embedded/supervisor"
	"millrace/internal/fault"
)

func startPlatform(t *testing.T, o embedded.Options) *embedded.Platform {
	t.Helper()
	p, err := embedded.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestConfiguredAddressReplacesTheChild(t *testing.T) {
	t.Parallel()
	p := startPlatform(t, embedded.Options{
		DataDir: t.TempDir(), CacheDir: t.TempDir(),
		Kafka: "kafka:9092", ClickHouse: "ch:9000", Redis: "redis:6379", Temporal: "temporal:7233",
	})
	if got := p.Status(); len(got) != 0 {
		t.Errorf("children are %+v", got)
	}
	want := embedded.Endpoints{
		Kafka: "kafka:9092", ClickHouse: embedded.ClickHouse{Native: "ch:9000"}, Redis: "redis:6379",
		Temporal: embedded.Temporal{Address: "temporal:7233", Namespace: "default"},
	}
	if diff := cmp.Diff(want, p.Running()); diff != "" {
		t.Error(diff)
	}
}

func TestRoleIsSupervisedBesideTheServersAndEndsBeforeThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startPlatform(t, embedded.Options{DataDir: dir, Broker: embedded.BrokerKfake, Only: []string{embedded.KafkaChild}})
	if diff := cmp.Diff([]string{embedded.KafkaChild}, p.Servers()); diff != "" {
		t.Error(diff)
	}
	port, err := p.Port(t.Context(), "standin")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	err = p.AddRole(embedded.Child{
		Name: "standin", Deps: p.Servers(), Ports: []string{"standin"},
		Command: func(context.Context) (embedded.Command, error) {
			return embedded.Command{Path: self, Args: []string{"internal-child", "miniredis", "-addr", addr}}, nil
		},
		Healthy: func(ctx context.Context) error { return supervisor.DialTCP(ctx, addr) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := embedded.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Hold(t.Context(), embedded.KafkaChild); err != nil {
		t.Fatal(err)
	}
	if got := p.Running().Kafka; got != "" {
		t.Errorf("a broker that is held down has address %s", got)
	}
	report, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	phases := map[string]embedded.Phase{}
	for _, c := range report.Children {
		phases[c.Name] = c.Phase
	}
	if diff := cmp.Diff(map[string]embedded.Phase{"kafka": supervisor.Held, "standin": supervisor.Healthy}, phases); diff != "" {
		t.Error(diff)
	}
}

func TestBadOptionsAreAllReported(t *testing.T) {
	t.Parallel()
	_, err := embedded.Start(t.Context(), embedded.Options{Broker: "rabbit", Only: []string{"mongo"}})
	for _, want := range []string{"DataDir", "rabbit", "mongo"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not contain %q", err, want)
		}
	}
}

func TestSecondPlatformOnADataFolderIsRefused(t *testing.T) {
	t.Parallel()
	o := embedded.Options{DataDir: t.TempDir(), CacheDir: t.TempDir(), Kafka: "k:1", ClickHouse: "c:1", Redis: "r:1", Temporal: "t:1"}
	startPlatform(t, o)
	_, err := embedded.Start(t.Context(), o)
	if id, _ := fault.IDOf(err); id != "MR-EMB-001" {
		t.Errorf("error is %v", err)
	}
}

func TestChildEndsWhenItsParentsPipeDoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	port := startPlatform(t, embedded.Options{DataDir: filepath.Join(dir, "ports"), CacheDir: dir, Kafka: "k:1", ClickHouse: "c:1", Redis: "r:1", Temporal: "t:1"})
	n, err := port.Port(t.Context(), "free") // stays held; one above it will do for the child
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "internal-child", "miniredis", "-addr", "127.0.0.1:"+strconv.Itoa(n+1))
	cmd.Env = append(os.Environ(), supervisor.Env+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "ignored\n"); err != nil {
		t.Fatal(err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v", err)
	}
}

func TestUnknownChildIsRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"mongo"}, {"kfake"}, {"kfake", "-no-such-flag"}, {"clickhouse"}, {"miniredis"}} {
		if err := embedded.ChildMain(t.Context(), args); err == nil {
			t.Errorf("arguments %q were taken", args)
		}
	}
}
