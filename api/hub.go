package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// clientBuffer is how many messages a client may be behind before it is dropped.
	clientBuffer = 8
	// maxPollers bounds the different questions of streams: each has one poller, however many clients it has.
	maxPollers = 32
	// writeTimeout is how long one write to a client may take: one that is gone without a word, or does not read.
	writeTimeout = 10 * time.Second
	// streamRetry is what a browser waits before it comes back.
	streamRetry = 2 * time.Second
	pollEvery   = time.Second
)

// message is one server-sent event, encoded.
type message []byte

// encodeMessage makes a message; JSON has no line breaks, so the data is one line.
func encodeMessage(event, id string, data []byte) message {
	out := make([]byte, 0, len(data)+len(event)+len(id)+32)
	if id != "" {
		out = append(append(append(out, "id: "...), id...), '\n')
	}
	out = append(append(append(out, "event: "...), event...), '\n')
	return append(append(append(out, "data: "...), data...), "\n\n"...)
}

// subscriber is one client of a channel. out is closed when it is dropped or the hub ends.
type subscriber struct {
	out     chan message
	dropped bool // it did not read
}

// channel is one question and all who listen to its answers.
type channel struct {
	subscribers map[*subscriber]struct{}
	welcome     message // for those who come later
	cancel      context.CancelFunc
}

// hub shares pollers among the clients of streams. A slow client is dropped and never waited for.
type hub struct {
	ctx        context.Context //nolint:containedctx // pollers belong to the hub, not to the request that happens to start them
	cancel     context.CancelFunc
	maxClients int

	mu       sync.Mutex
	clients  int
	closed   bool
	channels map[string]*channel
	wg       sync.WaitGroup
}

func newHub(maxClients int) *hub {
	ctx, cancel := context.WithCancel(context.Background())
	return &hub{ctx: ctx, cancel: cancel, maxClients: maxClients, channels: map[string]*channel{}}
}

// errClosing says that the server ends.
var errClosing = errors.New("the API is shutting down")

// poller is called each second. It gives what is to be said now, if anything, and what whoever comes later is to be told first.
type poller func(ctx context.Context) (now, welcome message)

// subscribe listens to the channel of a key. The first one starts its poller, which ends with the last one.
func (h *hub) subscribe(key string, newPoller func() poller) (*subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosing
	}
	c := h.channels[key]
	if h.clients >= h.maxClients || c == nil && len(h.channels) >= maxPollers {
		return nil, errBusy
	}
	if c == nil {
		ctx, cancel := context.WithCancel(h.ctx)
		c = &channel{subscribers: map[*subscriber]struct{}{}, cancel: cancel}
		h.channels[key] = c
		poll := newPoller()
		h.wg.Go(func() { h.run(ctx, c, poll) })
	}
	s := &subscriber{out: make(chan message, clientBuffer)}
	if c.welcome != nil {
		s.out <- c.welcome
	}
	c.subscribers[s] = struct{}{}
	h.clients++
	return s, nil
}

// unsubscribe is to be called once for each subscriber.
func (h *hub) unsubscribe(key string, s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients--
	c := h.channels[key]
	if c == nil {
		return
	}
	delete(c.subscribers, s)
	if len(c.subscribers) == 0 {
		c.cancel()
		delete(h.channels, key)
	}
}

func (h *hub) run(ctx context.Context, c *channel, poll poller) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if now, welcome := poll(ctx); ctx.Err() == nil {
			h.publish(c, now, welcome)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hub) publish(c *channel, m, welcome message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if welcome != nil {
		c.welcome = welcome
	}
	if h.closed || m == nil {
		return
	}
	for s := range c.subscribers {
		if s.dropped {
			continue
		}
		select {
		case s.out <- m:
		default:
			s.dropped = true
			close(s.out)
		}
	}
}

// close ends all streams and waits for the pollers.
func (h *hub) close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		for _, c := range h.channels {
			for s := range c.subscribers {
				if !s.dropped {
					s.dropped = true
					close(s.out)
				}
			}
		}
	}
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
}

// serve sends a channel's messages to a client until one of them ends.
func (a *API) serveStream(w http.ResponseWriter, r *http.Request, key string, newPoller func() poller) {
	s, err := a.hub.subscribe(key, newPoller)
	if err != nil {
		if errors.Is(err, errClosing) {
			err = newProblem(idBusy, errClosing.Error())
		}
		a.fail(w, r, err)
		return
	}
	defer a.hub.unsubscribe(key, s)
	a.m.streams.Inc()
	defer a.m.streams.Dec()
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store, no-transform")
	head.Set("X-Accel-Buffering", "no") // nginx, and whoever follows it, would collect the messages
	control := http.NewResponseController(w)
	send := func(b []byte) error {
		// A handler under test has no deadlines; a connection without them has other bounds.
		if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("setting a deadline: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("writing to a stream: %w", err)
		}
		return control.Flush()
	}
	if err := send([]byte("retry: " + strconv.FormatInt(streamRetry.Milliseconds(), 10) + "\n: welcome\n\n")); err != nil {
		return // the client has gone away
	}
	beat := time.NewTicker(a.cfg.Heartbeat)
	defer beat.Stop()
	for {
		var b []byte
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			b = []byte(": ping\n\n")
		case m, ok := <-s.out:
			if !ok {
				a.m.dropped.Inc()
				return
			}
			b = m
		}
		if err := send(b); err != nil {
			return // the client has gone away
		}
	}
}
