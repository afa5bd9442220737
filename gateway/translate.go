package gateway

import (
	"bytes"
	"net/http"
	"strconv"

	"millrace/event"
	"millrace/event/wire"
)

// What a request of a foreign format may become: SDKs send a few hundred events, and what an envelope says of all its events is written into each.
const (
	maxForeignBytes  = 2 * MaxBodyBytes
	maxForeignEvents = 10 * MaxEvents
)

// translate makes native events of a foreign request and takes each; false if the request is answered already.
func (c *call) translate(in *wire.Inbound) (answer, bool) {
	w, total, surplus, stopped := c.w, 0, [][]byte(nil), false
	c.format.Translate(in, func(text []byte, f *wire.Failure) bool {
		if total += len(text); total > maxForeignBytes || len(w.found)+len(surplus) >= maxForeignEvents {
			stopped = true
			return false
		}
		c.g.budget.force(int64(len(text)), &c.b.spent)
		if len(w.found) < MaxEvents {
			w.found = append(w.found, found{text, f})
		} else {
			surplus = append(surplus, text)
		}
		return true
	})
	if c.strict && (stopped || len(surplus) > 0) {
		return refusal(http.StatusRequestEntityTooLarge, event.ReasonSize), false
	}
	if c.strict && len(w.found) == 0 {
		return refusal(http.StatusBadRequest, event.ReasonMalformed), false
	}
	if wait, ok := c.src.allow(len(w.found)); !ok {
		if !c.format.Once || c.strict || !c.src.spare(len(w.found)) {
			return later(event.ReasonRate, wait), false
		}
		for i, one := range w.found {
			c.fail(i, &wire.Failure{Reason: event.ReasonRate, Message: "over the key's rate, from a client that does not send again"}, w.dec.Clean(one.text), int64(len(one.text)))
		}
		return answer{}, true
	}
	for i, one := range w.found {
		if one.fail != nil {
			c.fail(i, one.fail, w.dec.Clean(cut(one.text)), int64(len(one.text)))
		} else {
			c.one(i, one.text)
		}
	}
	k := keeper{c: c}
	for _, text := range surplus {
		k.keep(text)
	}
	k.flush()
	if stopped {
		f := &wire.Failure{Reason: event.ReasonSize, Message: "more than " + strconv.Itoa(maxForeignEvents) + " events, or more than 40 MiB of them, in a request: those behind it were not read"}
		c.fail(-1, f, w.dec.Clean(cut(in.Body)), int64(len(in.Body)))
	}
	return answer{}, true
}

// misled takes the events of a foreign client that was given the native path, of which the native decoder says that they have no name, or that they are too many
// for one event; false if the text is not of such a client.
func (c *call) misled(index int, text []byte, f *wire.Failure) bool {
	if c.format.Translate != nil || f.Path != "name" && f.Reason != event.ReasonSize {
		return false
	}
	format, path := wire.Guess(c.g.table, text)
	if format == nil {
		return false
	}
	native, n := c.format, 0
	c.format, c.req.Foreign = format, true
	defer func() { c.format, c.req.Foreign = native, false }()
	in := &wire.Inbound{Path: path, Header: http.Header{}, Body: bytes.Clone(text), ReceivedAt: c.req.ReceivedAt}
	format.Translate(in, func(one []byte, f *wire.Failure) bool {
		n++
		c.guessed++
		c.guessedBytes += len(one)
		switch {
		case c.guessed > MaxEvents || c.guessedBytes > maxForeignBytes:
			f := &wire.Failure{Reason: event.ReasonSize, Message: "more than 10000 events, or more than 40 MiB of them, in a request"}
			c.fail(index, f, c.w.dec.Clean(cut(text)), int64(len(text)))
			return false
		case f != nil:
			c.fail(index, f, c.w.dec.Clean(cut(one)), int64(len(one)))
		default:
			c.one(index, one)
		}
		return true
	})
	return n > 0
}
