package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleEnv makes the test binary a child of its own tests.
const roleEnv = "SUPERVISOR_TEST_ROLE"

func TestMain(m *testing.M) {
	role, arg, _ := strings.Cut(os.Getenv(roleEnv), "=")
	if role == "" {
		goleak.VerifyTestMain(m)
		return
	}
	code := 0
	if err := roles[role](arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 3
	}
	os.Exit(code)
}

var roles = map[string]func(string) error{
	"sleep":    func(string) error { return sleepUntilSignalled(syscall.SIGTERM) },
	"stubborn": func(string) error { signal.Ignore(syscall.SIGTERM); select {} },
	"die":      func(reason string) error { return fmt.Errorf("dying of %s", reason) },
	"listen":   listenRole,
	"append":   appendRole,
	"platform": platformRole,
}

func sleepUntilSignalled(sigs ...os.Signal) error {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sigs...)
	<-ch
	return nil
}

func listenRole(port string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	return sleepUntilSignalled(syscall.SIGTERM)
}

// appendRole writes to a shared file when it starts and when it stops: "path,name".
func appendRole(arg string) error {
	path, name, _ := strings.Cut(arg, ",")
	write := func(word string) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, word+" "+name+"\n")
		if err != nil {
			return err
		}
		return f.Close()
	}
	if err := write("start"); err != nil {
		return err
	}
	if err := sleepUntilSignalled(syscall.SIGTERM); err != nil {
		return err
	}
	return write("stop")
}

// platformRole is a whole supervisor with one child in a process of its own: "dir,child role".
func platformRole(arg string) error {
	dir, role, _ := strings.Cut(arg, ",")
	ctx := context.Background()
	folder, err := OpenFolder(ctx, dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	s := New(folder, Config{})
	if err := s.Add(testChild("only", role)); err != nil {
		return err
	}
	control, err := Serve(ctx, s)
	if err != nil {
		return err
	}
	<-control.Down()
	s.Stop()
	if err := control.Close(); err != nil {
		return err
	}
	return folder.Close()
}

func testChild(name, role string) Child {
	return Child{
		Name: name,
		Command: func(context.Context) (Command, error) {
			return Command{Path: "/proc/self/exe", Env: []string{roleEnv + "=" + role}}, nil
		},
	}
}

func openFolder(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := OpenFolder(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// start runs a supervisor with quick backoff until the test ends.
func start(t *testing.T, dir string, children ...Child) *Supervisor {
	t.Helper()
	f := openFolder(t, dir)
	s := New(f, Config{BackoffMin: 10 * time.Millisecond, BackoffMax: 80 * time.Millisecond, CheckInterval: 20 * time.Millisecond})
	t.Cleanup(func() {
		s.Stop()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range children {
		if err := s.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// eventually waits for cond, asking again after every change of s, or every 10 ms without one.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func waitHealthy(t *testing.T, s *Supervisor, names ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.WaitHealthy(ctx, names...); err != nil {
		t.Fatalf("waiting for health: %v (status %+v)", err, s.Status())
	}
}

func state(t *testing.T, s *Supervisor, name string) State {
	t.Helper()
	st, ok := s.State(name)
	if !ok {
		t.Fatalf("no child %s", name)
	}
	return st
}

func isAlive(pid int) bool { _, ok := identity(pid); return ok }

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
