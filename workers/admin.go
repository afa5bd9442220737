package workers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"millrace/internal/fault"
)

// admin is the HTTP server of health and metrics that every process has.
type admin struct {
	reg metricsRegistry

	mu    sync.Mutex
	ready map[string]func() error
}

// newAdmin makes the server of a process with the given roles; none is ready before it is added.
func newAdmin(reg metricsRegistry, roles []string) *admin {
	a := &admin{reg: reg, ready: map[string]func() error{}}
	for _, role := range roles {
		a.ready[role] = func() error { return errStarting }
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "millrace_ready", Help: "1 while the role is ready to do its work, as /readyz says, else 0.", ConstLabels: prometheus.Labels{"role": role},
		}, func() float64 {
			if a.of(role) != nil {
				return 0
			}
			return 1
		}))
	}
	return a
}

var errStarting = errors.New("starting")

// add says how to ask a role, once it has been made, whether it is ready; nil: it is from now on.
func (a *admin) add(role string, ready func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready[role] = ready
}

// of says why a role is not ready.
func (a *admin) of(role string) error {
	a.mu.Lock()
	f := a.ready[role]
	a.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	return nil
}

// check says why the process is not ready.
func (a *admin) check() error {
	a.mu.Lock()
	roles := slices.Sorted(maps.Keys(a.ready))
	a.mu.Unlock()
	var errs []error
	for _, role := range roles {
		errs = append(errs, a.of(role))
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
