// Package embeddedtest is servers for tests: the same children that a platform
// starts on one machine, and a broker inside the test's own process. It stands
// beside the data flow and is imported by test files and by the programs in test/.
//
// A test binary that starts ClickHouse, kfake as a child, or miniredis becomes that
// child itself, so its TestMain calls Main or embedded.MaybeChild first.
package embeddedtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/internal/embedded"
	"millrace/internal/embedded/supervisor"
)

// startTimeout covers a first installation: 180 MB from a package registry.
const startTimeout = 10 * time.Minute

// Servers are running servers on a data folder of their own.
type Servers struct {
	*embedded.Platform
	dir  string
	temp bool
}

// Start starts the named servers (embedded.KafkaChild …) on dir, or on a
// temporary folder if dir is "", and waits until they are healthy. The broker is
// the given kind.
func Start(ctx context.Context, dir, broker string, names ...string) (*Servers, error) {
	s := &Servers{dir: dir}
	if dir == "" {
		var err error
		if s.dir, err = os.MkdirTemp("", "millrace-servers-"); err != nil {
			return nil, fmt.Errorf("making a data folder: %w", err)
		}
		s.temp = true
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	s.Platform, err = embedded.Start(ctx, embedded.Options{
		DataDir: s.dir, Broker: broker, Only: names,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err == nil {
		if err = s.WaitHealthy(ctx, names...); err != nil {
			s.Stop()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", strings.Join(names, ", "), err)
	}
	return s, nil
}

// Stop ends the servers and removes a temporary folder.
func (s *Servers) Stop() {
	if err := s.Platform.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping test servers:", err)
	}
	if s.temp {
		if err := os.RemoveAll(s.dir); err != nil {
			fmt.Fprintln(os.Stderr, "removing test servers' data:", err)
		}
	}
}

// Kill ends a server as kill -9 does and returns when it is gone. Its supervisor
// starts it again.
func (s *Servers) Kill(ctx context.Context, name string) error {
	for _, state := range s.Status() {
		if state.Name != name {
			continue
		}
		if state.PID == 0 {
			return fmt.Errorf("killing %s: it is %s", name, state.Phase)
		}
		if err := syscall.Kill(state.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("killing %s: %w", name, err)
		}
		return s.awaitRestart(ctx, state)
	}
	return fmt.Errorf("killing %s: there is no such server", name)
}

// awaitRestart waits until the supervisor has seen the death.
func (s *Servers) awaitRestart(ctx context.Context, before embedded.State) error {
	for {
		changed := s.Changed()
		for _, now := range s.Status() {
			if now.Name == before.Name && now.PID != before.PID {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of %s: %w", before.Name, ctx.Err())
		}
	}
}

// Dir is the data folder.
func (s *Servers) Dir() string { return s.dir }

// LogFile is where the named server writes what it says.
func (s *Servers) LogFile(name string) string { return supervisor.LogFile(s.dir, name) }

// Main is the TestMain of a package whose tests share servers: it stores them in
// *servers, runs the tests, stops the servers, looks for leaked goroutines, and
// returns the exit code.
func Main(m *testing.M, servers **Servers, broker string, names ...string) int {
	embedded.MaybeChild()
	s, err := Start(context.Background(), "", broker, names...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*servers = s
	code := m.Run()
	s.Stop()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// Database makes an empty database with a name of its own, dropped when the test ends.
func (s *Servers) Database(tb testing.TB) embedded.ClickHouse {
	tb.Helper()
	c := s.Endpoints().ClickHouse
	c.Database = Name("millrace_test")
	if _, err := c.Query(tb.Context(), "CREATE DATABASE "+c.Database+" ENGINE = Atomic"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// The test's own context has ended.
		if _, err := c.Query(context.Background(), "DROP DATABASE "+c.Database+" SYNC"); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Name is prefix with a random ending: for topics, groups, databases and keys on shared servers.
func Name(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()[:12]) }

// Kfake starts a broker inside this process, with its data on disk, until the test ends.
func Kfake(tb testing.TB) string {
	tb.Helper()
	brokers, stop, err := StartKfake(filepath.Join(tb.TempDir(), "kfake"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(stop)
	return brokers
}

// StartKfake starts a broker inside this process on dir.
func StartKfake(dir string) (brokers string, stop func(), err error) {
	cluster, err := embedded.StartKfake(embedded.KfakeChildOptions{Dir: dir})
	if err != nil {
		return "", nil, err
	}
	return strings.Join(cluster.ListenAddrs(), ","), cluster.Close, nil
}
