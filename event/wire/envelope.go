package wire

import (
	"bytes"
	"regexp"
	"slices"

	"github.com/go-faster/jx"

	"millrace/event"
)

// envelope is a body of a format that puts events into "batch" beside what holds for all of them; a body without one is events alone.
type envelope struct {
	members
	events  []byte // JSON array, object or objects one after the other
	mixed   bool   // an event with a name and none of the format's own marks is a native one that took the wrong path
	builder builder
}

// maxCommon bounds what an envelope may say of each of its events, which is written into every one of them.
const maxCommon = 4 << 10

// envelope takes the request's body apart, once.
func (in *Inbound) envelope() *envelope {
	if in.opened == nil {
		in.opened = open(clientJSON(in.Body))
	}
	return in.opened
}

var (
	batchMember = regexp.MustCompile(`"batch"\s*:\s*\[`)
	keyMember   = regexp.MustCompile(`"(?:writeKey|api_key|token)"\s*:\s*"([^"\\]{1,256})"`)
)

func open(body []byte) *envelope {
	ms, ok := parse(body)
	if ok {
		if batch := ms.find("batch"); batch != nil && batch.raw[0] == '[' {
			batch.used = true
			return &envelope{members: ms, events: batch.raw}
		}
		return &envelope{events: body}
	}
	// Of a damaged batch what is whole still counts: its elements are found by their brackets.
	if at := batchMember.FindIndex(body); at != nil && bytes.HasPrefix(body, []byte("{")) {
		array := body[at[1]-1:]
		n := 0
		rest := arrayElements(array, func([]byte) bool { n++; return n < maxMembers })
		around := slices.Concat(body[:at[0]], []byte(`"batch":null`), rest)
		ms, _ := parse(around)
		return &envelope{members: ms, events: array[:len(array)-len(rest)]}
	}
	return &envelope{events: body}
}

// shared gives an object of the envelope that holds for all events; every call gives a fresh one.
func (e *envelope) shared(key string) members {
	for i := range e.members {
		if m := &e.members[i]; m.key == key && len(m.raw) <= maxCommon {
			ms, _ := parse(m.raw)
			return ms
		}
	}
	return nil
}

// each yields what write makes of every event. What else the envelope says is kept with each event; if that is too much, once as a failed event.
func (e *envelope) each(yield func([]byte, *Failure) bool, write func(b *builder, ms members), known ...string) {
	var rest members
	size := 0
	for _, m := range e.members {
		switch {
		case m.used || string(m.raw) == "null" || slices.Contains(known, m.key) && len(m.raw) <= maxCommon:
		case size+len(m.raw) > maxCommon:
			if !yield(m.raw, &Failure{Reason: event.ReasonSize, Path: clipped(m.key), Message: "what a batch says of all its events is larger than 4 KiB"}) {
				return
			}
		default:
			rest = append(rest, m)
			size += len(m.raw)
		}
	}
	Split(e.events, func(text []byte) bool {
		return e.one(text, yield, func(b *builder, ms members) {
			write(b, ms)
			slices.Clone(rest).rest(b, "batch.")
		})
	})
}

func clipped(s string) string { return s[:min(len(s), 100)] }

func (e *envelope) one(text []byte, yield func([]byte, *Failure) bool, write func(b *builder, ms members)) bool {
	if len(text) > MaxEventBytes {
		return yield(text, &Failure{Reason: event.ReasonSize, Message: "event is larger than 1 MiB"})
	}
	ms, ok := parse(text)
	if !ok {
		return yield(text, unreadable(text))
	}
	if e.mixed && ms.find("name") != nil && ms.find("event", "type") == nil {
		return yield(text, nil)
	}
	e.builder.reset()
	write(&e.builder, ms)
	return yield(e.builder.done(), nil)
}

// unreadable says what is wrong with a text that is no JSON object.
func unreadable(text []byte) *Failure {
	switch {
	case tooDeep(text, MaxDepth):
		return &Failure{Reason: event.ReasonDepth, Message: "nested deeper than 64"}
	case jx.Valid(text):
		if text[0] == '{' {
			return &Failure{Reason: event.ReasonSize, Message: "an event has at most 10000 members"}
		}
		return &Failure{Reason: event.ReasonMalformed, Message: "an event is a JSON object"}
	}
	return &Failure{Reason: event.ReasonMalformed, Message: "not valid JSON"}
}

// bodyKeys finds write keys in a body: of the envelope, of its events, or, where the JSON is damaged, wherever they seem to be.
func bodyKeys(in *Inbound) []string {
	env := in.envelope()
	var out []string
	add := func(ms members) {
		if k := ms.peek("writeKey", "api_key", "token"); k != "" {
			out = append(out, k)
		}
	}
	add(env.members)
	if len(out) > 0 {
		return out
	}
	Split(env.events, func(text []byte) bool { // the first event says it for all
		ms, ok := parse(text)
		if !ok {
			return false
		}
		add(ms)
		if m := ms.find("properties"); m != nil {
			if props, ok := parse(m.raw); ok {
				add(props)
			}
		}
		return false
	})
	if len(out) == 0 {
		if m := keyMember.FindSubmatch(in.Body); m != nil {
			out = append(out, string(m[1]))
		}
	}
	return out
}
