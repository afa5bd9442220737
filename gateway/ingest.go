package gateway

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"millrace/event"
	"millrace/event/wire"
)

// worker is what one request needs to be read and decoded; workers are pooled.
type worker struct {
	readers
	dec     *wire.Decoder
	ev      event.Event
	texts   [][]byte
	found   []found // of a foreign format
	scratch []byte
	ordinal map[string]int // equal events without an id in this request
}

// found is one event of a foreign format: its native text, or the text that none could be made of.
type found struct {
	text []byte
	fail *wire.Failure
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

	guessed, guessedBytes int // events of a foreign format on the native path

	trace []byte // header tp of the records, if the request is sampled
	err   error  // of ours; nothing is acknowledged
}

// ingest turns a request into records and gives the status to answer with.
func (g *Gateway) ingest(r *http.Request, path string, format *wire.Format) (a answer) {
	received := g.now()
	w := g.workers.Get().(*worker)
	defer g.putWorker(w)
	b := g.batches.Get().(*batch)
	b.begin(received.UnixMicro())
	defer b.release()

	c := &call{g: g, w: w, b: b, format: format, strict: r.Header.Get("X-Strict-Mode") == "1", ctype: clip(r.Header.Get("Content-Type"), 200)}
	span := g.cfg.Tracer.Request(r, format.Name)
	c.trace = span.Header()
	defer func() { span.EndRequest(a.code, a.accepted, a.failed) }()
	var query url.Values
	if r.URL.RawQuery != "" {
		query = r.URL.Query()
	}
	c.src = g.known(requestKeys(r, query))
	if c.src == nil && format.Keys == nil {
		if a, ok := c.stranger(r); !ok {
			return a
		}
	}
	body, err := w.readBody(r, &g.budget, &b.spent)
	switch {
	case errors.Is(err, errBusy):
		return later("busy", time.Second)
	case err != nil: // the client is gone or too slow: there is nobody to tell
		return refusal(http.StatusRequestTimeout, "unread")
	}
	g.m.bytes.Add(float64(len(body.text)))
	in := &wire.Inbound{Path: path, Query: query, Header: r.Header, Body: body.text, ReceivedAt: received.UnixMicro()}
	if c.src == nil { // the key is in the body, if anywhere
		if c.src = g.known(format.Keys(in)); c.src == nil {
			if a, ok := c.stranger(r); !ok {
				return a
			}
		}
	}
	w.dec.Reset(&c.src.Source)
	c.fill(r, received.UnixMicro())
	if format.Translate != nil {
		in.Redact(w.dec)
	}
	switch {
	case !c.src.known:
		c.unknown(in, &body)
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
		events := c.split
		if format.Translate != nil {
			events = c.translate
		}
		if a, ok := events(in); !ok {
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

// known gives the source of the first key that is one.
func (g *Gateway) known(keys []string) *source {
	for _, k := range keys {
		if s := g.sources[k]; s != nil {
			return s
		}
	}
	return nil
}

// stranger lets a request without a known key on, to be kept as a failed event; false if it is answered already.
func (c *call) stranger(r *http.Request) (answer, bool) {
	if c.strict {
		return refusal(http.StatusUnauthorized, event.ReasonUnknownKey), false
	}
	if !c.g.strangers.allow(remote(r)) {
		return later(event.ReasonUnknownKey, time.Second), false
	}
	c.src = c.g.nobody
	return answer{}, true
}

// unknown keeps what came with an unknown key: as native events, one a line, if it can be read, so that it can be sent again with the right one.
func (c *call) unknown(in *wire.Inbound, body *body) {
	text := cut(body.text)
	if c.format.Translate != nil && !body.over && body.broken == nil {
		var lines []byte
		c.format.Translate(in, func(one []byte, _ *wire.Failure) bool {
			if len(lines)+len(one)+1 > event.MaxFailedPayload {
				return false
			}
			lines = append(append(lines, one...), '\n')
			return true
		})
		if len(lines) > 0 {
			text = lines
		}
	}
	f := &wire.Failure{Reason: event.ReasonUnknownKey, Message: "the write key is not known, or revoked"}
	c.fail(-1, f, c.w.dec.Clean(text), body.size)
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
	clear(w.found)
	w.found = w.found[:0]
	if len(w.ordinal) > 0 {
		clear(w.ordinal)
	}
	w.in.Reset(nil)
	g.workers.Put(w)
}

// fill takes from the request what completes events.
func (c *call) fill(r *http.Request, received int64) {
	c.req = wire.Request{
		ReceivedAt: received, Replay: c.src.allowReplay && r.Header.Get("X-Millrace-Lane") == "replay", Foreign: c.format.Translate != nil,
	}
	for _, h := range c.g.cfg.CountryHeaders {
		if v := r.Header.Get(h); v != "" {
			c.req.Country = v
			break
		}
	}
	ua := r.UserAgent()
	browser := strings.HasPrefix(ua, "Mozilla/") || strings.HasPrefix(ua, "Opera/")
	if browser { // servers' SDKs have visitors of their own
		c.req.UserAgent = clip(ua, 1000)
	} else if c.req.Foreign && !onDevice(ua) { // and their address is not that of a visitor: a thousand of them would seem to be one
		return
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

// onDevice says whether a user agent that is no browser's is of an app on a visitor's device.
func onDevice(ua string) bool {
	for _, word := range [...]string{"CFNetwork", "Darwin", "Dalvik", "Android", "iOS"} {
		if strings.Contains(ua, word) {
			return true
		}
	}
	return false
}

// remote is the address a request came from, without its port.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
