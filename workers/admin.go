package workers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"millrace/internal/fault"
)

// admin is the HTTP server of health and metrics that every process has.
type admin struct {
	reg *prometheus.Registry

	mu    sync.Mutex
	ready map[string]func() error
}

func newAdmin(reg *prometheus.Registry) *admin {
	return &admin{reg: reg, ready: map[string]func() error{}}
}

func (a *admin) add(role string, ready func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready[role] = ready
}

// check says why the process is not ready.
func (a *admin) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ready) == 0 {
		return errors.New("starting")
	}
	var errs []error
	for role, f := range a.ready {
		if f == nil {
			continue
		}
		if err := f(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", role, err))
		}
	}
	return errors.Join(errs...)
}

func (a *admin) run(ctx context.Context, addr string) error {
	if addr == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{Registry: a.reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") }) // the client is gone otherwise
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready") // the client is gone otherwise
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fault.Newf("MR-CFG-004", "admin.listen %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // health answers need no grace
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}
