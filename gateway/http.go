package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sony/gobreaker/v2"

	"millrace/event/wire"
)

// ServeHTTP routes by hand, because http.ServeMux redirects unclean paths and producers do not follow redirects.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if len(path) > 1 {
		path = strings.TrimRight(path, "/")
	}
	if f := g.formats[path]; f != nil {
		g.serveEvents(w, r, path, f)
		return
	}
	switch path {
	case "/healthz":
		writeState(w, true, map[string]any{"ok": true})
	case "/readyz":
		g.readyz(w, r)
	case "/routez":
		g.routez(w)
	case "/metrics":
		g.metricsHandler.ServeHTTP(w, r)
	default:
		g.elsewhere(w, r, path)
	}
}

// serveEvents answers on a path that takes events.
func (g *Gateway) serveEvents(w http.ResponseWriter, r *http.Request, path string, f *wire.Format) {
	g.cors(w, r)
	picture := false
	switch {
	case r.Method == http.MethodPost, r.Method == http.MethodPut:
	case r.Method == http.MethodGet && f.Get && r.URL.RawQuery != "":
		picture = f.GIF
	case r.Method == http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Allow", "POST, OPTIONS")
		answer{code: http.StatusMethodNotAllowed, reason: "method"}.write(w)
		return
	}
	start := time.Now()
	if err := g.slots.Acquire(r.Context(), 1); err != nil {
		return // the client is gone
	}
	a := g.ingest(r, path, f)
	g.slots.Release(1)
	g.m.request(a.code, start)
	g.m.format(f.Name, r.Header.Get("X-Retry-Count"))
	if picture {
		a.picture(w)
		return
	}
	a.write(w)
}

// elsewhere answers on paths that are no fixed ones: settings that SDKs ask for, and paths with names of the client's own.
func (g *Gateway) elsewhere(w http.ResponseWriter, r *http.Request, path string) {
	if s, key := wire.RouteSetting(g.settings, path); s != nil {
		g.cors(w, r)
		switch {
		case r.Method == http.MethodOptions:
			w.WriteHeader(http.StatusNoContent)
		case !slices.Contains(s.Methods, r.Method):
			w.Header().Set("Allow", strings.Join(s.Methods, ", ")+", OPTIONS")
			answer{code: http.StatusMethodNotAllowed, reason: "method"}.write(w)
		default:
			g.serveSetting(w, r, s, key)
		}
		return
	}
	if f := wire.Route(g.table, path); f != nil {
		g.serveEvents(w, r, path, f)
		return
	}
	answer{code: http.StatusNotFound, reason: "path"}.write(w)
}

// serveSetting tells an SDK where to send. It says nothing of whether the key is known: what comes with a wrong one is kept as failed events.
func (g *Gateway) serveSetting(w http.ResponseWriter, r *http.Request, s *wire.Setting, key string) {
	if key == "" {
		if keys := requestKeys(r, r.URL.Query()); len(keys) > 0 {
			key = keys[0]
		}
	}
	if len(key) > 256 || strings.ContainsFunc(key, notKeyRune) {
		answer{code: http.StatusNotFound, reason: "key"}.write(w)
		return
	}
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	ctype, body := s.Make(scheme+"://"+r.Host, key)
	h := w.Header()
	h.Set("Content-Type", ctype)
	h.Set("Cache-Control", "private, max-age=300") // it holds the host that this client asked
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body) // if the client is gone there is nobody to tell
}

// cors lets browsers send from the allowed origins.
func (g *Gateway) cors(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(g.cfg.CORSOrigins, "*") && !slices.Contains(g.cfg.CORSOrigins, origin) {
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Credentials", "true") // Snowplow's tracker and sendBeacon ask for them
	h.Set("Access-Control-Expose-Headers", "Retry-After")
	if r.Method != http.MethodOptions {
		return
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, OPTIONS")
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Access-Control-Allow-Headers", allowHeaders(r.Header.Get("Access-Control-Request-Headers")))
}

// usualHeaders are what SDKs send in browsers; they are allowed whether or not a preflight asks for them, so that one preflight does for all calls.
var usualHeaders = []string{"authorization", "content-type", "anonymousid", "sentat", "x-write-key", "x-retry-count"}

// allowHeaders is what was asked for and what is usual.
func allowHeaders(asked string) string {
	out := clip(strings.TrimSpace(asked), 2000)
	have := strings.Split(strings.ToLower(strings.ReplaceAll(out, " ", "")), ",")
	for _, h := range usualHeaders {
		if !slices.Contains(have, h) {
			if out != "" {
				out += ","
			}
			out += h
		}
	}
	return out
}

// readyz says whether the gateway is to get traffic: 503 at the start until the spool of ended processes is drained (at most ReadyWait, so that a broker that
// is away does not keep producers out), and from the beginning of the shutdown on. With ?empty=1 it says whether the process may be taken away for good: 200
// only while nothing waits in the spool.
func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	st := g.spool.Status()
	ok := g.Ready() == nil
	if r.URL.Query().Get("empty") != "" {
		ok = st.Empty()
	}
	writeState(w, ok, map[string]any{"ready": ok, "stopping": g.stopping.Load(), "spool_bytes": st.Bytes, "spool_records": st.Records, "adopted_folders": st.Adopted})
}

// Ready says why the gateway is not to get traffic, nil when it is: what /readyz answers by.
func (g *Gateway) Ready() error {
	switch {
	case g.stopping.Load():
		return errors.New("stopping")
	case g.ready.Load():
		return nil
	}
	if st := g.spool.Status(); st.Adopted > 0 && time.Since(g.started) <= g.cfg.ReadyWait {
		return fmt.Errorf("the spool of %d ended processes is being drained", st.Adopted)
	}
	g.ready.Store(true)
	return nil
}

// routez is for DNS and load balancers that can send producers to another region: 503 while the broker cannot be reached, the spool is four fifths full or
// acknowledgements take more than half of AckTimeout.
func (g *Gateway) routez(w http.ResponseWriter) {
	st := g.spool.Status()
	latency := time.Duration(g.brokers.latency.Load())
	state := g.brokers.breaker.State()
	fill := float64(st.Bytes) / float64(st.MaxBytes)
	ok := state == gobreaker.StateClosed && fill < 0.8 && latency < g.cfg.AckTimeout/2 && !g.stopping.Load()
	writeState(w, ok, map[string]any{"ok": ok, "breaker": state.String(), "spool_fill": fill, "ack_seconds": latency.Seconds()})
}

func writeState(w http.ResponseWriter, ok bool, state map[string]any) {
	w.Header()["Content-Type"] = jsonType
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(state) // if the client is gone there is nobody to tell
}

// metricsHandler serves the registry if it can be asked, else the process-wide one.
func metricsHandler(reg prometheus.Registerer) http.Handler {
	if gatherer, ok := reg.(prometheus.Gatherer); ok {
		return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{})
	}
	return promhttp.Handler()
}
