package sink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
)

const icebergDrill = "MILLRACE_TEST_ICEBERG"

// TestIcebergChild is the process that drills kill: a sink that runs until its standard input ends, or a failpoint kills it.
func TestIcebergChild(t *testing.T) {
	brokers, dir, ok := strings.Cut(os.Getenv(icebergDrill), "|")
	if !ok {
		return // not a drill
	}
	cfg := icebergFast()
	cfg.CommitInterval = 30 * time.Millisecond
	s, err := NewIceberg(cfg, icebergOpen(t, dir), icebergCodecs(t), []kgo.Opt{kgo.SeedBrokers(brokers)}, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // the end of the drill
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// life runs the child until it is killed by its failpoint or, if it lives, the tables are exact. It says whether it was killed.
func (b *icebergBench) life(failpoints string) bool {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), os.Args[0], "-test.run=^TestIcebergChild$")
	cmd.Env = append(os.Environ(), icebergDrill+"="+b.cluster.ListenAddrs()[0]+"|"+b.dir, failpoint.Env+"="+failpoints)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline, tick := time.After(40*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	var diff error
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == -1 {
				return true
			}
			b.t.Fatalf("child: %v\n%s", err, out)
		case <-deadline:
			err := errors.Join(cmd.Process.Kill(), <-ended)
			b.t.Fatalf("no end: %v: %v\n%s", diff, err, out)
		case <-tick.C:
			if diff = b.difference(); diff != nil {
				continue
			}
			closed := in.Close()
			err := <-ended
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == -1 { // killed after all
				return true
			}
			if err := errors.Join(closed, err); err != nil {
				b.t.Errorf("child: %v\n%s", err, out)
			}
			return false
		}
	}
}

func TestIcebergKilledAnywhereTheSinkLosesAndDoublesNothing(t *testing.T) {
	for _, point := range []string{lakehouse.FailMidWrite, lakehouse.FailBeforeCommit, lakehouse.FailAfterCommit} {
		t.Run(point, func(t *testing.T) {
			b := newIcebergBench(t)
			killed := 0
			for i := range 4 {
				b.all(80, event.Purchase, event.Page)
				if b.life(fmt.Sprintf("%s=kill@%d", point, 1+i%2)) {
					killed++
				}
			}
			if killed < 3 {
				t.Errorf("killed %d times", killed)
			}
			if b.life("") {
				t.Fatal("killed without a failpoint")
			}
			if err := b.difference(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIcebergALostReplyToACommitIsSettledByTheHead(t *testing.T) {
	b := newIcebergBench(t)
	for i := range 3 {
		b.all(80, event.Purchase)
		if b.life(fmt.Sprintf("%s=error@%d,%s=error@%d", lakehouse.FailAfterCommit, 1+i, lakehouse.FailBeforeCommit, 2)) {
			t.Fatal("killed")
		}
	}
}

func TestIcebergWhileTheCatalogIsAwayTheSinkWaitsWithBoundedMemoryAndThenGoesOn(t *testing.T) {
	b := newIcebergBench(t)
	cfg := icebergFast()
	cfg.CommitBytes, cfg.MaxBuffered = 64<<10, 128<<10
	r := b.start(cfg)
	b.all(50, event.Purchase, event.Page)
	b.exact()
	unlock := icebergLock(t, b.dir)
	for range 10 {
		b.all(150, event.Purchase, event.Page)
	}
	icebergEventually(t, "the sink says that it cannot commit", func() error {
		if r.Ready() == nil {
			return errors.New("it is ready")
		}
		return nil
	})
	icebergEventually(t, "fetching stops", func() error {
		if n := len(r.cl.PauseFetchTopics()); n < 2 {
			b.all(50, event.Purchase, event.Page) // a slow machine may have put much of it into the files that wait already
			return fmt.Errorf("%d topics are paused", n)
		}
		return nil
	})
	r.mu.Lock()
	for _, t := range r.order {
		if n := t.bytes(); n > 2*cfg.MaxBuffered+icebergPollRows*1024 {
			b.t.Errorf("table %s holds %d bytes", t.name, n)
		}
	}
	r.mu.Unlock()
	if n := icebergValue(t, r.m.failures.WithLabelValues("events_purchase")); n == 0 {
		t.Error("no failure was counted")
	}
	unlock()
	b.exact()
	icebergEventually(t, "the sink is ready again", r.Ready)
	b.end(r)
}

func TestIcebergStartsWhileTheCatalogIsAway(t *testing.T) {
	b := newIcebergBench(t)
	b.all(50, event.Purchase)
	unlock := icebergLock(t, b.dir)
	r := b.start(icebergFast())
	icebergEventually(t, "the sink finds the catalog away", func() error {
		if n := icebergValue(t, r.m.failures.WithLabelValues("events_purchase")); n == 0 {
			return errors.New("no failure was counted")
		}
		return nil
	})
	unlock()
	b.exact()
	b.end(r)
}

// icebergLock takes the catalog's file for itself, as another process would.
func icebergLock(t *testing.T, dir string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+dir+"/catalog.db?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		_, err := conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
		if err := errors.Join(err, conn.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// icebergFiles writes a row that no sink knows of.
func icebergFiles(b *icebergBench) ([]iceberg.DataFile, error) {
	w, err := b.cat.NewWriter(b.t.Context(), "events_purchase")
	if err != nil {
		return nil, err
	}
	if err := w.WriteEvent(b.t.Context(), icebergEvent(event.Purchase, 7), lakehouse.Provenance{Topic: "elsewhere"}); err != nil {
		return nil, err
	}
	return w.Finish(b.t.Context())
}

func icebergAddColumn(b *icebergBench, name, column string) error {
	tbl, err := b.cat.LoadForMaintenance(b.t.Context(), name)
	if err != nil {
		return err
	}
	tx := tbl.NewTransaction()
	if err := tx.UpdateSchema(true, false).AddColumn([]string{column}, iceberg.PrimitiveTypes.String, "", false, nil).Commit(); err != nil {
		return err
	}
	_, err = tx.Commit(b.t.Context())
	return err
}
