// Command temporal is one machine's workflow server: Temporal's four services and
// its web UI in one process, with all state in one SQLite file.
//
// It is a module of its own because the server cannot be compiled with the
// versions of OpenTelemetry that the product needs. The product builds it into
// its cache and runs it as a supervised child; where a Temporal address is
// configured this program is not used at all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line. All listeners are on the loopback interface.
type options struct {
	dir         string
	port        int // frontend; history, matching, worker and the frontend's HTTP API are the next four
	uiPort      int
	metricsPort int
	retention   time.Duration
	stopOnEOF   bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder of the SQLite file (required)")
	flag.IntVar(&o.port, "port", 7233, "frontend port; the four ports after it are used as well")
	flag.IntVar(&o.uiPort, "ui-port", 8233, "web UI port")
	flag.IntVar(&o.metricsPort, "metrics-port", 0, "Prometheus port; 0 means none")
	flag.DurationVar(&o.retention, "retention", 30*24*time.Hour, "how long closed workflows are kept")
	flag.BoolVar(&o.stopOnEOF, "stop-on-eof", false, "stop when standard input ends, so that no orphan outlives its parent")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if o.stopOnEOF {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		// Owned by the process: a blocked read of stdin cannot be interrupted.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // any end of the pipe means that the parent is gone
			cancel()
		}()
	}
	if err := run(ctx, o); err != nil {
		slog.Error("temporal stopped", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx is done. The UI is started last, when the namespace is as
// the product needs it, so an answering UI means that everything is ready.
func run(ctx context.Context, o options) error {
	if o.dir == "" {
		return errors.New("flag -dir is required")
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("creating the state folder: %w", err)
	}
	// The file's name goes into a URI unescaped; a relative one has no odd characters.
	if err := os.Chdir(o.dir); err != nil {
		return fmt.Errorf("entering the state folder: %w", err)
	}
	db, err := openStore(databaseFile)
	if err != nil {
		return err
	}
	srv, err := newServer(o, db)
	if err != nil {
		return fmt.Errorf("assembling the server: %w", err)
	}
	if err := srv.Start(); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	if err := prepareNamespace(ctx, o); err != nil {
		return errors.Join(fmt.Errorf("preparing namespace %s: %w", namespace, err), srv.Stop())
	}
	ui := newUI(o)
	uiDone := make(chan error, 1)
	go func() { uiDone <- ui.Start() }()

	select {
	case <-ctx.Done():
		err = nil
	case err = <-uiDone:
		err = fmt.Errorf("the web UI ended: %w", err)
	}
	ui.Stop()
	return errors.Join(err, srv.Stop())
}
