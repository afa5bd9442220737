package gateway

import (
	"net/http"
	"strings"

	"millrace/event"
	"millrace/event/schema"
	"millrace/event/wire"
)

// split splits the body into events and takes each; false if the request is answered already.
func (c *call) split(in *wire.Inbound) (answer, bool) {
	w, text := c.w, in.Body
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
	k := keeper{c: c}
	c.format.Split(text, func(one []byte) bool {
		k.keep(one)
		return true
	})
	k.flush()
}

// keeper puts events that are too many for a request into failed events of many each.
type keeper struct {
	c     *call
	chunk []byte
	n     int
	bytes int
}

func (k *keeper) keep(one []byte) {
	if len(k.chunk)+len(one)+1 > event.MaxFailedPayload {
		k.flush()
	}
	k.chunk = append(append(k.chunk, one...), '\n')
	k.n++
	k.bytes += len(one) + 1
}

func (k *keeper) flush() {
	if len(k.chunk) > 0 {
		k.c.fail(-1, &wire.Failure{Reason: event.ReasonSize, Message: "more than 10000 events in a request"}, k.c.w.dec.Clean(k.chunk), int64(len(k.chunk)))
		k.chunk = k.chunk[:0]
	}
}

// one decodes and encodes one event.
func (c *call) one(index int, text []byte) {
	g, w, e := c.g, c.w, &c.w.ev
	size := int64(len(text))
	if f := w.dec.Decode(text, e); f != nil {
		if c.misled(index, text, f) {
			return
		}
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
	body := schema.Original(cat, w.scratch[schemaID:])
	id := event.DeriveID(e.Tenant, e.Source, body, 0)
	n := w.ordinal[id]
	w.ordinal[id] = n + 1
	if n > 0 {
		id = event.DeriveID(e.Tenant, e.Source, body, n)
	}
	return id
}
