package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzhttp"
)

// minCompressed is the size below which compression costs more than it saves.
const minCompressed = 2048

// route is one path that answers with JSON.
type route struct {
	path  string
	serve func(a *API, r *http.Request) ([]byte, error)
}

// answersJSON is the table of paths that answer once.
var answersJSON = []route{
	{"/api/v1/kpis/live", (*API).serveLive},
	{"/api/v1/kpis/series", (*API).serveSeries},
	{"/api/v1/products/top", (*API).serveProducts},
	{"/api/v1/events/recent", (*API).serveRecent},
	{"/api/v1/recommendations", (*API).serveRecommendations},
	{"/api/v1/demand", (*API).serveDemand},
	{"/api/v1/failed", (*API).serveFailed},
	{"/api/v1/alerts", (*API).serveAlerts},
	{"/api/v1/fraud", (*API).serveFraud},
	{"/api/v1/rules", (*API).serveRules},
	{"/api/v1/models", (*API).serveModels},
	{"/api/v1/alerts/{alert_id}", (*API).serveAlert},
	{"/api/v1/health", (*API).serveHealth},
	{"/api/v1/tables", (*API).serveTables},
	{"/api/v1/tables/{table}/refs", (*API).serveRefs},
	{"/api/v1/workflows", (*API).serveWorkflows},
	{"/api/v1/nights", (*API).serveNights},
	{"/api/v1/reconcile", (*API).serveReconcile},
	{"/api/v1/maintenance", (*API).serveMaintenance},
}

func (a *API) routes(ui http.Handler, spec []byte, metrics http.Handler) (http.Handler, error) {
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(minCompressed), gzhttp.EnableZstd(false))
	if err != nil {
		return nil, fmt.Errorf("making the compression of answers: %w", err)
	}
	mux := http.NewServeMux()
	for _, r := range answersJSON {
		mux.Handle(r.path, a.open(compress(a.answerJSON(r))))
	}
	mux.Handle("/api/v1/stream", a.open(http.HandlerFunc(a.streamLive)))
	mux.Handle("/api/v1/events/stream", a.open(http.HandlerFunc(a.streamEvents)))
	mux.Handle("/api/v1/alerts/stream", a.open(http.HandlerFunc(a.streamAlerts)))
	mux.Handle("/openapi.json", a.open(compress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := noParameters(r); err != nil {
			a.fail(w, r, err)
			return
		}
		writeJSON(w, spec)
	}))))
	mux.Handle("/api/", a.open(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, newProblem(idPath, "there is nothing at "+clean(r.URL.Path)))
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		say(w, "ready")
	})
	mux.Handle("GET /metrics", metrics)
	if ui == nil {
		ui = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			say(w, "Millrace analytics API: see /openapi.json")
		})
	}
	mux.Handle("/", ui)
	return mux, nil
}

func say(w io.Writer, text string) {
	_, _ = io.WriteString(w, text+"\n") // the client has gone away: nobody to tell
}

// open lets pages of the configured origins ask, and refuses what does not read.
func (a *API) open(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("X-Content-Type-Options", "nosniff")
		if len(a.cfg.CORSOrigins) > 0 {
			origin := r.Header.Get("Origin")
			head.Add("Vary", "Origin")
			switch {
			case slices.Contains(a.cfg.CORSOrigins, "*"):
				head.Set("Access-Control-Allow-Origin", "*")
			case origin != "" && slices.Contains(a.cfg.CORSOrigins, origin):
				head.Set("Access-Control-Allow-Origin", origin)
			}
			if r.Method == http.MethodOptions && head.Get("Access-Control-Allow-Origin") != "" {
				head.Set("Access-Control-Allow-Methods", "GET, HEAD")
				head.Set("Access-Control-Allow-Headers", "Last-Event-ID, Cache-Control")
				head.Set("Access-Control-Max-Age", "86400")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			head.Set("Allow", "GET, HEAD")
			a.fail(w, r, newProblem(idMethod, "this path does not answer "+clean(r.Method)))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) answerJSON(route route) http.Handler {
	seconds := a.m.seconds.WithLabelValues(route.path)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		b, err := route.serve(a, r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		// A handler under test has no deadlines.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			a.fail(w, r, defectError{err})
			return
		}
		writeJSON(w, b)
		seconds.Observe(time.Since(started).Seconds())
	})
}

func writeJSON(w http.ResponseWriter, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client has gone away: nobody to tell
}

// noParameters refuses whatever a client thinks this path knows.
func noParameters(r *http.Request) error {
	if len(r.URL.RawQuery) > 0 {
		q, err := newQuery(r.URL.RawQuery, time.Time{})
		if err != nil {
			return err
		}
		return q.err()
	}
	return nil
}

func (a *API) serveHealth(r *http.Request) ([]byte, error) {
	if err := noParameters(r); err != nil {
		return nil, err
	}
	h, err := a.health.report(r.Context())
	return encode(h, err)
}
