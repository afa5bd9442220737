// Package proxy is a flawed road between an SDK and the gateway: a loopback listener that passes requests on and spoils some of them in one stated way, so
// that a test can tell what a client does about it and what has reached the gateway all the same.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is what becomes of a spoilt request.
type Fault string

// The faults. Reset and Timeout are the mean ones: the gateway has the events, and the client cannot know.
const (
	None            Fault = "none"
	TooManyRequests Fault = "429"     // answered 429 with Retry-After: 1, not passed on
	ServerError     Fault = "500"     // answered 500, not passed on
	Reset           Fault = "reset"   // passed on and answered by the gateway; the client sees its connection reset
	Timeout         Fault = "timeout" // passed on and answered by the gateway; the client never sees an answer
)

// Faults are those that do something.
func Faults() []Fault { return []Fault{TooManyRequests, ServerError, Reset, Timeout} }

// Reaches says whether a request with this fault has reached the gateway.
func (f Fault) Reaches() bool { return f != TooManyRequests && f != ServerError }

// Plan says which requests are spoilt. Only those that carry events are counted, from 1: POST, and GET /i of Snowplow. Preflights and settings pass.
type Plan struct {
	Fault Fault
	// Every n-th request from the first on is spoilt: 1, 1+Every, 1+2·Every, …
	Every int
}

func (p Plan) spoils(n int) bool { return p.Fault != None && (n-1)%p.Every == 0 }

// Counts are what happened so far.
type Counts struct {
	Requests  int       // that carry events
	Spoilt    int       // of them
	Forwarded int       // that the gateway has answered with a 2xx
	Refused   []string  // by the gateway: status and path of answers that were no 2xx
	Withheld  [][]byte  // bodies that were not passed on
	InFlight  int       // not answered yet
	Last      time.Time // when the last one came or was answered
}

// hold is how long a Timeout is kept waiting: longer than clients with a timeout of their own do, and then the connection of the others dies, as a load balancer would end it.
const hold = 12 * time.Second

// Proxy is one listener with one plan. It is safe for use by several goroutines.
type Proxy struct {
	plan    Plan
	gateway *url.URL
	client  *http.Client
	server  *http.Server
	addr    string
	served  chan struct{}

	mu     sync.Mutex
	counts Counts
}

// Start listens on a free loopback port in front of a gateway. The caller closes the proxy.
func Start(ctx context.Context, gateway string, plan Plan) (*Proxy, error) {
	u, err := url.Parse(gateway)
	if err != nil {
		return nil, fmt.Errorf("reading the gateway's address: %w", err)
	}
	if plan.Fault == "" {
		plan.Fault = None
	}
	plan.Every = max(plan.Every, 1)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	p := &Proxy{
		plan: plan, gateway: u, addr: "http://" + l.Addr().String(), served: make(chan struct{}),
		client: &http.Client{
			Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 30 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { defer close(p.served); _ = p.server.Serve(l) }() // it says that it was closed
	return p, nil
}

// URL is where clients send to.
func (p *Proxy) URL() string { return p.addr }

// Counts gives what happened so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Refused, c.Withheld = slices.Clone(c.Refused), slices.Clone(c.Withheld)
	return c
}

// Close ends the listener and every connection.
func (p *Proxy) Close() error {
	err := p.server.Close()
	<-p.served
	p.client.CloseIdleConnections()
	return err
}

// ServeHTTP passes a request on, or spoils it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	fault := None
	if carriesEvents(r) {
		fault = p.begin()
		defer p.end()
	}
	switch fault {
	case TooManyRequests, ServerError:
		p.mu.Lock()
		p.counts.Withheld = append(p.counts.Withheld, body)
		p.mu.Unlock()
		refuse(w, r, fault)
		return
	}
	// What the client gave up is passed on to its end all the same: the gateway may have it.
	answer, err := p.forward(context.WithoutCancel(r.Context()), r, body)
	if err != nil {
		http.Error(w, "the gateway did not answer", http.StatusBadGateway)
		return
	}
	switch fault {
	case Reset:
		reset(w)
	case Timeout:
		select {
		case <-r.Context().Done():
		case <-time.After(hold):
		}
		reset(w)
	default:
		copyHeader(w.Header(), answer.header)
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body) // a client that has gone does not want it
	}
}

// carriesEvents tells requests that carry events from preflights and settings.
func carriesEvents(r *http.Request) bool {
	return r.Method == http.MethodPost || r.Method == http.MethodGet && r.URL.Path == "/i"
}

func (p *Proxy) begin() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Requests++
	p.counts.InFlight++
	p.counts.Last = time.Now()
	if !p.plan.spoils(p.counts.Requests) {
		return None
	}
	p.counts.Spoilt++
	return p.plan.Fault
}

func (p *Proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.InFlight--
	p.counts.Last = time.Now()
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (p *Proxy) forward(ctx context.Context, r *http.Request, body []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	to := *r.URL
	to.Scheme, to.Host = p.gateway.Scheme, p.gateway.Host
	// A body without length (CloudEvents JS) stays one: a reader whose type net/http does not know is sent in chunks.
	var from io.Reader = bytes.NewReader(body)
	if r.ContentLength < 0 {
		from = struct{ io.Reader }{from}
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, to.String(), from)
	if err != nil {
		return answer{}, err
	}
	copyHeader(req.Header, r.Header)
	req.Host = r.Host
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	out := answer{status: resp.StatusCode, header: resp.Header}
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		return answer{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case resp.StatusCode/100 != 2:
		p.counts.Refused = append(p.counts.Refused, fmt.Sprintf("%d to %s %s", resp.StatusCode, r.Method, r.URL.Path))
	case carriesEvents(r):
		p.counts.Forwarded++
	}
	return out, nil
}

// refuse answers as an overloaded or broken server does, readable for a page of any origin.
func refuse(w http.ResponseWriter, r *http.Request, fault Fault) {
	h := w.Header()
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "Retry-After")
	}
	h.Set("Content-Type", "application/json")
	status := http.StatusInternalServerError
	if fault == TooManyRequests {
		h.Set("Retry-After", "1")
		status = http.StatusTooManyRequests
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"success":false}`) // a client that has gone does not want it
}

// reset ends the client's connection with an RST instead of an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 is not served; this ends the connection as well
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it the client would see an orderly end
	}
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(http.ErrAbortHandler)
	}
}

// hops are headers of a connection, not of a request.
var hops = []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Te", "Trailer", "Upgrade"}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		skip := false
		for _, hop := range hops {
			skip = skip || strings.EqualFold(name, hop)
		}
		if !skip {
			to[name] = values
		}
	}
}
