package wire

import (
	"strings"

	"millrace/event"
)

// translateSegment translates calls of Segment's and RudderStack's clients: track, page, screen, identify, group and alias, single or in a batch.
func translateSegment(in *Inbound, yield func(text []byte, f *Failure) bool) {
	env := in.envelope()
	if in.last() == "m" { // the clients' own metrics
		env.each(yield, func(b *builder, ms members) {
			b.str("name", "client_metrics")
			ms.rest(b, "")
		})
		return
	}
	kind := segmentKinds[in.last()]
	env.mixed = kind == ""
	sent := env.text("sentAt")
	if sent == "" {
		sent = in.Header.Get("SentAt")
	}
	env.each(yield, func(b *builder, ms members) { segmentCall(b, ms, kind, sent, env.shared("context")) }, "writeKey", "sentAt", "context")
}

// segmentKinds is what a path says of a call that does not say it itself.
var segmentKinds = map[string]string{
	"track": "track", "t": "track", "page": "page", "p": "page", "screen": "screen", "s": "screen", "identify": "identify", "i": "identify",
	"group": "group", "g": "group", "alias": "alias", "a": "alias",
}

// translatePixel translates a call that is in the query as a whole.
func translatePixel(in *Inbound, yield func(text []byte, f *Failure) bool) {
	in.captured()
	translateSegment(in, yield)
}

func pixelKeys(in *Inbound) []string {
	in.captured()
	return bodyKeys(in)
}

// segmentCall writes one call.
func segmentCall(b *builder, ms members, kind, sent string, shared members) {
	if t := ms.text("type"); t != "" {
		if kind = t; segmentKinds[strings.ToLower(t)] != "" {
			kind = segmentKinds[strings.ToLower(t)]
		}
	}
	ms.take("writeKey")
	b.str("event_id", ms.text("messageId"))
	b.str("visitor_id", ms.text("anonymousId"))
	b.str("user_id", ms.text("userId"))
	// Where both are there, timestamp is what the user said (RudderStack Node) and originalTimestamp when the call was made.
	b.time("occurred_at", ms.text("timestamp", "originalTimestamp"))
	if own := ms.text("sentAt"); own != "" {
		sent = own
	}
	b.time("sent_at", sent)

	props := ms.sub("properties")
	name, call := "", ms.text("event")
	switch kind {
	case "track":
		name = commerceName(call, props)
	case "page":
		name, call = event.NamePageView, kind
	case "screen":
		name, call = event.NameScreenView, kind
	case "identify":
		name, call = event.NameIdentify, kind
	case "alias": // two ids are one person, as an identify with the id before says
		name, call = event.NameIdentify, kind
		b.str("previous_id", ms.text("previousId"))
	case "":
		name = call
	default: // group, and what is to come
		name, call = kind, kind
	}
	if name == call {
		b.name(name)
	} else {
		b.typed(name, call)
	}
	if kind == "track" {
		commerce(b, name, props, "USD") // by Segment's specification
	}
	context := ms.sub("context")
	if context == nil {
		context = shared
	}
	var own members
	if kind == "page" || kind == "screen" {
		own = props
	}
	segmentContext(b, context, own)
	props.rest(b, "")
	ms.rest(b, "")
}

// segmentContext writes what a call says about where it was made. page is the properties of a page call, which say more than the context.
func segmentContext(b *builder, context, page members) {
	b.str("session_id", context.text("sessionId"))
	own, campaign, device, system, place := context.sub("page"), context.sub("campaign"), context.sub("device"), context.sub("os"), context.sub("location")
	b.obj("context", func() {
		b.obj("page", func() {
			for _, key := range []string{"url", "path", "title", "referrer"} {
				pick(b, key, page, own)
			}
		})
		b.obj("campaign", func() {
			for _, key := range []string{"source", "medium", "name", "term", "content"} {
				b.str(key, campaign.text(key))
			}
		})
		b.obj("device", func() {
			b.str("type", device.text("type"))
			b.str("os", system.text("name"))
		})
		b.str("ip", context.text("ip"))
		b.str("user_agent", context.text("userAgent"))
		b.str("locale", context.text("locale"))
		b.str("time_zone", context.text("timezone"))
		b.str("country", place.text("country"))
		b.str("region", place.text("region"))
		b.str("city", place.text("city"))
	})
	own.rest(b, "context.page.")
	campaign.rest(b, "context.campaign.")
	device.rest(b, "context.device.")
	system.rest(b, "context.os.")
	place.rest(b, "context.location.")
	context.rest(b, "context.")
}

// pick writes a text that can be in two objects, from the first that has it; the other's is forgotten if it says the same.
func pick(b *builder, key string, first, second members) {
	v := first.peek(key)
	if v == "" {
		v = second.peek(key)
	}
	if v == "$direct" { // RudderStack's and PostHog's word for no referrer stays a property
		return
	}
	b.str(key, v)
	for _, ms := range []members{first, second} {
		if ms.peek(key) == v {
			ms.take(key)
		}
	}
}
