package gateway

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"millrace/event"
	"millrace/event/wire"
	"millrace/gateway/spool"
)

// worker is what one request needs to be read and decoded; workers are pooled.
type worker struct {
	readers
	dec     *wire.Decoder
	ev      event.Event
	texts   [][]byte
	scratch []byte
	ordinal map[string]int // equal events without an id in this request
}

func newWorker() *worker {
	w := &worker{dec: wire.NewDecoder(), ordinal: map[string]int{}}
	w.in = *bufio.NewReaderSize(nil, 16<<10)
	return w
}

// problem is one entry of a strict answer.
type problem struct {
	Index  int    `json:"index"`
	Reason string `json:"reason"`
	Path   string `json:"path"`
}

// call is one request on its way.
type call struct {
	g        *Gateway
	w        *worker
	b        *batch
	src      *source
	format   *wire.Format
	req      wire.Request
	ctype    string
	accepted int
	problems []problem
	strict   bool
	err      error // of ours; nothing is acknowledged
}

// ingest turns a request into records and gives the status to answer with.
func (g *Gateway) ingest(r *http.Request, format *wire.Format) answer {
	received := time.Now()
	w := g.workers.Get().(*worker)
	defer g.putWorker(w)
	b := g.batches.Get().(*batch)
	b.begin(received.UnixMicro())
	defer b.release()

	c := &call{g: g, w: w, b: b, format: format, strict: r.Header.Get("X-Strict-Mode") == "1", ctype: clip(r.Header.Get("Content-Type"), 200)}
	c.src = g.sources[writeKey(r)]
	if c.src == nil {
		if c.strict {
			return refusal(http.StatusUnauthorized, event.ReasonUnknownKey)
		}
		if !g.strangers.allow(remote(r)) {
			return later(event.ReasonUnknownKey, time.Second)
		}
		c.src = g.nobody
	}
	w.dec.Reset(&c.src.Source)

	body, err := w.readBody(r, &g.budget, &b.spent)
	switch {
	case errors.Is(err, errBusy):
		return later("busy", time.Second)
	case err != nil: // the client is gone or too slow: there is nobody to tell
		return refusal(http.StatusRequestTimeout, "unread")
	}
	g.m.bytes.Add(float64(len(body.text)))
	c.fill(r, received.UnixMicro())
	switch {
	case !c.src.known:
		c.fail(-1, &wire.Failure{Reason: event.ReasonUnknownKey, Message: "the write key is not known, or revoked"}, w.dec.Clean(cut(body.text)), body.size)
	case body.over:
		if c.strict {
			return refusal(http.StatusRequestEntityTooLarge, event.ReasonSize)
		}
		c.failWith(&wire.Failure{Reason: event.ReasonSize, Message: "request is larger than 20 MiB"}, w.dec.Clean(body.text), body.size, body.digest)
	case body.broken != nil:
		if c.strict {
			return refusal(http.StatusBadRequest, event.ReasonMalformed)
		}
		c.fail(-1, &wire.Failure{Reason: event.ReasonMalformed, Message: "damaged compression: " + clip(body.broken.Error(), 200)}, w.dec.Clean(cut(body.text)), body.size)
	default:
		if a, ok := c.split(body.text); !ok {
			return a
		}
	}
	if c.strict && len(c.problems) > 0 {
		return answer{code: http.StatusBadRequest, problems: c.problems}
	}
	if c.err != nil {
		g.log.Error("request not taken", "error", c.err)
		return answer{code: http.StatusServiceUnavailable, reason: "internal", retryAfter: 5 * time.Second}
	}
	return c.send(r.Context())
}

func (g *Gateway) putWorker(w *worker) {
	if cap(w.text) > 256<<10 {
		w.text = nil
	}
	if cap(w.scratch) > 64<<10 {
		w.scratch = nil
	}
	clear(w.texts)
	w.texts = w.texts[:0]
	if len(w.ordinal) > 0 {
		clear(w.ordinal)
	}
	w.in.Reset(nil)
	g.workers.Put(w)
}

// fill takes from the request what completes events.
func (c *call) fill(r *http.Request, received int64) {
	c.req = wire.Request{ReceivedAt: received, Replay: c.src.allowReplay && r.Header.Get("X-Millrace-Lane") == "replay"}
	for _, h := range c.g.cfg.CountryHeaders {
		if v := r.Header.Get(h); v != "" {
			c.req.Country = v
			break
		}
	}
	if ua := r.UserAgent(); strings.HasPrefix(ua, "Mozilla/") || strings.HasPrefix(ua, "Opera/") { // a browser; servers' SDKs have visitors of their own
		c.req.UserAgent = clip(ua, 1000)
	}
	if h := c.g.cfg.ClientIPHeader; h != "" {
		first, _, _ := strings.Cut(r.Header.Get(h), ",")
		c.req.IP = clip(strings.TrimSpace(first), 64)
		return
	}
	if a, err := netip.ParseAddr(remote(r)); err == nil && a.IsGlobalUnicast() && !a.IsPrivate() {
		c.req.IP = a.String()
	}
}

// split splits the body into events and takes each; false if the request is answered already.
func (c *call) split(text []byte) (answer, bool) {
	w := c.w
	rest := -1 // index in text behind the last event that is within the bound
	c.format.Split(text, func(one []byte) bool {
		if len(w.texts) == MaxEvents {
			rest = cap(text) - cap(one)
			return false
		}
		w.texts = append(w.texts, one)
		return true
	})
	if wait, ok := c.src.allow(len(w.texts)); !ok {
		return later(event.ReasonRate, wait), false
	}
	if c.strict && (len(w.texts) == 0 || rest >= 0) {
		if rest >= 0 {
			return refusal(http.StatusRequestEntityTooLarge, event.ReasonSize), false
		}
		return refusal(http.StatusBadRequest, event.ReasonMalformed), false
	}
	// Behind the bound nothing is lost: it is kept in failed events, cut between events.
	if rest >= 0 {
		c.surplus(text[rest:])
	}
	for i, one := range w.texts {
		c.one(i, one)
	}
	return answer{}, true
}

// surplus keeps the events behind MaxEvents as failed events of many each.
func (c *call) surplus(text []byte) {
	f := &wire.Failure{Reason: event.ReasonSize, Message: "more than 10000 events in a request"}
	var chunk []byte
	flush := func() {
		if len(chunk) > 0 {
			c.fail(-1, f, c.w.dec.Clean(chunk), int64(len(chunk)))
			chunk = chunk[:0]
		}
	}
	c.format.Split(text, func(one []byte) bool {
		if len(chunk)+len(one)+1 > event.MaxFailedPayload {
			flush()
		}
		chunk = append(append(chunk, one...), '\n')
		return true
	})
	flush()
}

// one decodes and encodes one event.
func (c *call) one(index int, text []byte) {
	g, w, e := c.g, c.w, &c.w.ev
	size := int64(len(text))
	if f := c.format.Decode(w.dec, text, e); f != nil {
		if f.Reason == event.ReasonSize && f.Path == "" {
			c.fail(index, f, w.dec.Clean(cut(text)), size)
		} else {
			c.fail(index, f, w.dec.Text(), size)
		}
		return
	}
	cat := e.Category()
	if c.src.categories != nil && !c.src.categories[cat] {
		c.fail(index, &wire.Failure{Reason: event.ReasonCategory, Path: "name", Message: "the write key may not send category " + cat.String(), EventID: strings.Clone(e.ID)}, w.dec.Text(), size)
		return
	}
	if e.ID == "" {
		e.ID = c.derive(cat)
	}
	if f := w.dec.Complete(&c.req); f != nil {
		c.fail(index, f, w.dec.Text(), size)
		return
	}
	b := c.b
	b.room(len(text) + len(text)/4 + 1024)
	s := b.add()
	start := len(b.buf)
	b.buf = e.AppendKey(b.buf)
	s.Key = b.buf[start:len(b.buf):len(b.buf)]
	start = len(b.buf)
	b.buf = g.codecs.AppendRaw(b.buf, cat, e)
	s.Value = b.buf[start:len(b.buf):len(b.buf)]
	if len(s.Key)+len(s.Value) > maxRecordBytes {
		b.n--
		c.fail(index, &wire.Failure{Reason: event.ReasonSize, Message: "the encoded event is larger than 990000 bytes", EventID: strings.Clone(e.ID)}, w.dec.Text(), size)
		return
	}
	lane := event.Replay
	if !c.req.Replay {
		lane = event.LaneOf(e.OccurredAt, e.ReceivedAt)
	}
	c.route(s, &g.topics[cat], lane)
	c.accepted++
}

// derive gives an event without an id one of its own, which a repetition of the request gives it again: times are as sent, and what the gateway knows of the
// client is not in it.
func (c *call) derive(cat event.Category) string {
	w, e := c.w, &c.w.ev
	occurred := e.OccurredAt
	if !w.dec.OccurredAsSent() {
		e.OccurredAt = 0
	}
	w.scratch = c.g.codecs.AppendRaw(w.scratch[:0], cat, e)
	e.OccurredAt = occurred
	const schemaID = 5 // bytes, not part of the event
	id := event.DeriveID(e.Tenant, e.Source, w.scratch[schemaID:], 0)
	n := w.ordinal[id]
	w.ordinal[id] = n + 1
	if n > 0 {
		id = event.DeriveID(e.Tenant, e.Source, w.scratch[schemaID:], n)
	}
	return id
}

// topic is what the gateway needs of a raw topic.
type topic struct {
	name     string
	category []byte // header ca
	class    event.ShedClass
}

var lanes = [2][]byte{{0}, {1}}

// route completes a record whose key and value are set.
func (c *call) route(s *slot, t *topic, lane event.Lane) {
	g, b := c.g, c.b
	start := len(b.buf)
	b.buf = event.AppendGateway(b.buf, g.instance, atomic.AddUint64(&g.sequence, 1))
	s.Topic, s.class, s.client = t.name, t.class, g.brokers.byTopic[t.name]
	s.part = event.Partition(s.Key, g.cfg.Partitions)
	s.Partition = s.part
	h := s.headers[:5]
	h[0].Key, h[0].Value = event.HeaderCategory, t.category
	h[1].Key, h[1].Value = event.HeaderTenant, c.src.tenant
	h[2].Key, h[2].Value = event.HeaderReceived, b.rx
	h[3].Key, h[3].Value = event.HeaderLane, lanes[lane]
	h[4].Key, h[4].Value = event.HeaderGateway, b.buf[start:len(b.buf):len(b.buf)]
	s.Record.Headers = h
}

// send makes the batch durable and says how it went.
//
// A record goes to the broker unless the breaker is open, older records of its partition wait in the spool, or memory is short and its class is shed. What the
// broker has not acknowledged within AckTimeout goes to the spool, whatever becomes of the copy in flight.
func (c *call) send(ctx context.Context) answer {
	g, b := c.g, c.b
	slots := b.used()
	if len(slots) == 0 {
		return c.done()
	}
	var size int64
	for _, s := range slots {
		size += int64(len(s.Key) + len(s.Value) + 128)
	}
	g.budget.force(size, &b.spent)

	start := time.Now()
	fill := g.budget.fill()
	direct := 0
	leave := g.spool.Enter(func(waits func(string, int32) bool) bool {
		for _, s := range slots {
			switch {
			case s.class == event.ShedFirst && fill > 0.5, s.class == event.ShedLater && fill > 0.75:
				g.m.shedMemory.Inc()
			case waits(s.Topic, s.part):
				g.m.shedBehind.Inc()
			default:
				s.direct = true
				direct++
			}
		}
		return direct < len(slots)
	})
	var report func(error)
	if direct > 0 {
		var err error
		if report, err = g.brokers.breaker.Allow(); err != nil {
			g.m.shedBroker.Add(float64(direct))
			direct = 0
			for _, s := range slots {
				s.direct = false
			}
		}
	}
	deadline, stop := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.AckTimeout)
	b.stop = stop
	if direct > 0 {
		b.refs.Add(int64(direct))
		b.left.Store(int64(direct))
		for _, s := range slots {
			if s.direct {
				s.client.TryProduce(deadline, &s.Record, s.promise)
			}
		}
	}
	full, broken := c.toSpool(func(s *slot) bool { return !s.direct })
	leave()
	if direct > 0 {
		select {
		case <-b.done:
		case <-deadline.Done():
		}
	}
	missed := 0
	for _, s := range slots {
		if s.direct && s.state.Load() != acked {
			missed++
		}
	}
	if direct > 0 {
		if missed > 0 {
			report(errUnacknowledged)
		} else {
			report(nil)
		}
	}
	if direct > 0 && missed == 0 {
		took := time.Since(start)
		g.brokers.observe(took)
		g.m.produce.Observe(took.Seconds())
	}
	if missed > 0 {
		f, e := c.toSpool(func(s *slot) bool { return s.direct && s.state.Load() != acked })
		full, broken = full || f, errors.Join(broken, e)
	}
	switch {
	case broken != nil:
		g.log.Error("spool failed", "error", broken)
		return answer{code: http.StatusServiceUnavailable, reason: "spool", retryAfter: 5 * time.Second}
	case full:
		return later("full", 10*time.Second)
	}
	return c.done()
}

var errUnacknowledged = errors.New("records not acknowledged in time")

// The share of the spool that a class may fill: what matters more finds room for longer.
var shares = map[event.ShedClass]float64{event.ShedFirst: 0.8, event.ShedLater: 0.9, event.ShedNever: 1}

// toSpool spools the records that which chooses.
func (c *call) toSpool(which func(*slot) bool) (full bool, broken error) {
	byClass := map[event.ShedClass][]spool.Record{}
	any := false
	for _, s := range c.b.used() {
		if which(s) {
			byClass[s.class] = append(byClass[s.class], s.spooled())
			any = true
		}
	}
	if !any {
		return false, nil
	}
	for _, class := range []event.ShedClass{event.ShedNever, event.ShedLater, event.ShedFirst} {
		recs := byClass[class]
		if len(recs) == 0 {
			continue
		}
		err := c.g.spool.Append(recs, shares[class])
		switch {
		case errors.Is(err, spool.ErrFull):
			full = true
		case err != nil:
			broken = errors.Join(broken, err)
		default:
			for _, r := range recs {
				c.g.m.events[strings.TrimPrefix(r.Topic, "raw.")][outSpool].Inc()
			}
		}
	}
	return full, broken
}

func (c *call) done() answer {
	for _, s := range c.b.used() {
		if s.direct && s.state.Load() == acked {
			c.g.m.events[strings.TrimPrefix(s.Topic, "raw.")][outKafka].Inc()
		}
	}
	return answer{code: http.StatusOK, accepted: c.accepted, failed: c.b.n - c.accepted}
}

// remote is the address a request came from, without its port.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
