package gateway

import (
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"millrace/event"
	"millrace/event/wire"
)

// fail adds a failed event to the batch, or, in strict mode, a problem to the answer. payload is clean; size is its full length as sent.
func (c *call) fail(index int, f *wire.Failure, payload []byte, size int64) {
	if c.strict {
		c.problems = append(c.problems, problem{Index: max(index, 0), Reason: f.Reason, Path: f.Path})
		return
	}
	digest := ""
	if len(payload) > event.MaxFailedPayload || size > int64(len(payload)) && size > event.MaxFailedPayload {
		sum := xxh3.Hash128(payload).Bytes()
		digest = hex.EncodeToString(sum[:])
	}
	c.failWith(f, payload, size, digest)
}

// failWith adds a failed event.
func (c *call) failWith(f *wire.Failure, payload []byte, size int64, digest string) {
	g, b := c.g, c.b
	g.m.failed.WithLabelValues(f.Reason).Inc()
	kept := cut(payload)
	failed := event.Failed{
		ID:      event.FailedID(c.src.Tenant, c.src.Name, f.Reason, payload),
		EventID: f.EventID, FailedAt: c.req.ReceivedAt, ReceivedAt: c.req.ReceivedAt, Tenant: c.src.Tenant, Source: c.src.Name,
		Reason: f.Reason, Error: f.Message, ErrorPath: clip(f.Path, 256), Payload: strings.ToValidUTF8(string(kept), "\uFFFD"),
		PayloadBytes: size, PayloadDigest: digest, ContentType: c.ctype,
	}
	if len(kept) > event.MaxFailedPayload/2 { // repairs can make it longer; it has to fit a record in any case
		failed.Payload = clip(failed.Payload, event.MaxFailedPayload)
	}
	b.room(len(failed.Payload) + 2048)
	s := b.add()
	start := len(b.buf)
	b.buf = failed.AppendKey(b.buf)
	s.Key = b.buf[start:len(b.buf):len(b.buf)]
	start = len(b.buf)
	buf, err := g.codecs.Append(b.buf, event.TopicRawFailed, &failed)
	if err != nil { // the schema is ours and every string valid UTF-8
		b.n--
		c.err = errors.Join(c.err, err)
		return
	}
	b.buf = buf
	s.Value = b.buf[start:len(b.buf):len(b.buf)]
	lane := event.Live
	if c.req.Replay {
		lane = event.Replay
	}
	c.route(s, &g.failedTopic, lane)
}

// cut bounds a payload to what is kept of it, between characters.
func cut(b []byte) []byte {
	if len(b) <= event.MaxFailedPayload {
		return b
	}
	n := event.MaxFailedPayload
	for n > event.MaxFailedPayload-utf8.UTFMax && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}

// clip makes a text short and valid.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
