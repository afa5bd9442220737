package wire

import (
	"bytes"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"millrace/event"
)

// ga4Commerce are the parameters that are members of native events under the same name.
var ga4Commerce = []string{
	"currency", "value", "transaction_id", "items", "tax", "shipping", "coupon", "affiliation", "shipping_tier", "payment_type", "item_list_id", "item_list_name",
	"promotion_id", "promotion_name", "creative_name", "creative_slot", "search_term", "experiment_id", "variant_id", "discount", "total",
}

var eventsMember = regexp.MustCompile(`"events"\s*:\s*\[`)

// translateGA4 translates batches of GA4's Measurement Protocol: events under one envelope that says who the visitor is. Native JSON has GA4's shape, so most of it
// is a copy. The protocol has no event ids: the gateway derives them from what was sent, times included.
func translateGA4(in *Inbound, yield func(text []byte, f *Failure) bool) {
	body := clientJSON(in.Body)
	if len(body) == 0 {
		return
	}
	env := &envelope{}
	ms, ok := parse(body)
	switch {
	case ok && ms.find("events") != nil:
		env.members, env.events = ms, ms.take("events")
	case ok:
		yield(body, &Failure{Reason: event.ReasonSchema, Path: "events", Message: "an array of events is expected"})
		return
	default: // of a damaged batch what is whole still counts
		at := eventsMember.FindIndex(body)
		if at == nil || body[0] != '{' {
			yield(body, unreadable(body))
			return
		}
		env.events = withoutBrace(body[at[1]-1:])
	}
	if events := bytes.TrimSpace(env.events); len(events) < 2 || events[0] != '[' || skipSpace(events, 1) == len(events)-1 {
		yield(body, &Failure{Reason: event.ReasonSchema, Path: "events", Message: "an array of events is expected"})
		return
	}
	said := []string{"client_id", "app_instance_id", "user_id", "timestamp_micros", "user_properties", "device", "user_location", "user_agent", "ip_override"}
	env.each(yield, func(b *builder, ms members) { ga4Event(b, in, env, ms) }, said...)
}

// ga4Keys finds the write key of a request.
func ga4Keys(in *Inbound) []string {
	if key := in.Query.Get("api_secret"); key != "" {
		return []string{key}
	}
	return nil
}

// once gives a text of the envelope that holds for all events.
func (e *envelope) once(keys ...string) string {
	if v := e.peek(keys...); len(v) <= maxCommon {
		return v
	}
	return ""
}

func ga4Event(b *builder, in *Inbound, env *envelope, ev members) {
	name := ev.text("name")
	b.name(name)
	params := ev.sub("params")
	b.str("event_id", params.text("event_id"))
	b.str("visitor_id", env.once("client_id", "app_instance_id"))
	user := ev.text("user_id")
	if user == "" {
		user = env.once("user_id")
	}
	b.str("user_id", user)
	b.str("session_id", params.text("session_id", "ga_session_id"))
	at := ev.text("timestamp_micros")
	if at == "" {
		at = env.once("timestamp_micros")
	}
	b.str("occurred_at", microTime(at))
	if event.CategoryOf(name) != event.Custom { // a custom event's own words may mean anything
		for _, key := range ga4Commerce {
			b.raw(key, params.take(key))
		}
	} else {
		commerce(b, name, params, "")
	}
	ga4Context(b, env, params)
	params.rest(b, "")
	ev.rest(b, "")
	for i := range env.members {
		if m := &env.members[i]; m.key == "user_properties" && len(m.raw) <= maxCommon {
			b.prop(m.key, m.raw)
		}
	}
	for _, key := range []string{"measurement_id", "firebase_app_id"} {
		b.propStr(key, clipped(in.Query.Get(key)))
	}
}

// ga4Context writes what parameters and envelope say about where the event was.
func ga4Context(b *builder, env *envelope, params members) {
	device, place := env.shared("device"), env.shared("user_location")
	b.obj("context", func() {
		b.obj("page", func() {
			b.str("url", params.text("page_location"))
			b.str("path", params.text("page_path"))
			b.str("title", params.text("page_title", "screen_name"))
			b.str("referrer", params.text("page_referrer"))
		})
		b.obj("campaign", func() {
			if params.find("campaign", "campaign_id", "medium") == nil {
				return // a source or a term alone may be of anything
			}
			b.str("source", params.text("source"))
			b.str("medium", params.text("medium"))
			b.str("name", params.text("campaign"))
			b.str("term", params.text("term"))
			b.str("content", params.text("content"))
		})
		b.obj("device", func() {
			b.str("type", device.text("category"))
			b.str("os", device.text("operating_system"))
			b.str("browser", device.text("browser"))
		})
		b.str("country", place.text("country_id"))
		b.str("region", place.text("region_id"))
		b.str("city", place.text("city"))
		locale := params.text("language")
		if locale == "" {
			locale = device.text("language")
		}
		b.str("locale", locale)
		b.str("user_agent", env.once("user_agent"))
		b.str("ip", env.once("ip_override"))
	})
	device.rest(b, "device.")
	place.rest(b, "user_location.")
}

// microTime writes microseconds since the epoch as a native time, in which a number says milliseconds. What is none stays, for the native decoder to refuse.
func microTime(us string) string {
	whole, fraction, _ := strings.Cut(us, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || strings.Trim(fraction, "0") != "" || math.Abs(float64(n)) > maxMillis*1000 {
		return us
	}
	return time.UnixMicro(n).UTC().Format(time.RFC3339Nano)
}
