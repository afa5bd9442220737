package wire

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/url"
	"strings"

	"github.com/klauspost/compress/gzip"

	"millrace/event"
)

// maxUnpacked bounds a body that is compressed within a form.
const maxUnpacked = 20 << 20

// translatePostHog translates what PostHog's clients capture: one event, a list of events, or a batch; as JSON, or as JSON in the field data of a form, encoded
// and compressed as the library of the time did it.
func translatePostHog(in *Inbound, yield func(text []byte, f *Failure) bool) {
	env := in.captured()
	env.mixed = true
	sent := env.text("sent_at")
	if sent == "" {
		sent = in.Query.Get("sent_at")
	}
	env.each(yield, func(b *builder, ms members) { posthogEvent(b, ms, sent, in.ReceivedAt) }, "api_key", "token", "sent_at")
}

// posthogKeys finds the write keys of a request.
func posthogKeys(in *Inbound) []string {
	in.captured()
	return bodyKeys(in)
}

// captured takes the request's events apart, once.
func (in *Inbound) captured() *envelope {
	if in.opened != nil {
		return in.opened
	}
	data := in.Body
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte(in.Query.Get("data"))
	} else if form, ok := bytes.CutPrefix(bytes.TrimSpace(data), []byte("data=")); ok {
		raw, _, _ := strings.Cut(string(form), "&")
		if plain, err := url.QueryUnescape(raw); err == nil {
			data = []byte(plain)
		}
	}
	in.Body = unpacked(data)
	if in.redact != nil {
		in.Body = in.redact(in.Body)
	}
	return in.envelope()
}

// unpacked undoes base64 and gzip where a text is no JSON. What cannot be undone stays as it is.
func unpacked(data []byte) []byte {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] == '{' || data[0] == '[' {
		return data
	}
	text := strings.ReplaceAll(string(data), " ", "+") // a plus that was not escaped in a form
	plain, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		if plain, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "=")); err != nil {
			return data
		}
	}
	if !bytes.HasPrefix(plain, []byte{0x1F, 0x8B}) {
		return plain
	}
	z, err := gzip.NewReader(bytes.NewReader(plain))
	if err != nil {
		return data
	}
	out, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	if err != nil || len(out) > maxUnpacked {
		return data
	}
	return out
}

// posthogEvent writes one captured event.
func posthogEvent(b *builder, ms members, sent string, received int64) {
	for _, key := range []string{"api_key", "token"} {
		ms.take(key)
	}
	props := ms.sub("properties")
	props.take("token")
	b.str("event_id", ms.text("uuid", "$insert_id"))
	if !b.has["event_id"] {
		b.str("event_id", props.text("$insert_id"))
	}
	when := ms.text("timestamp")
	if offset := ms.peek("offset"); when == "" && offset != "" { // milliseconds since it happened
		if ms, ok := parseTime([]byte(offset), true); ok {
			b.int("occurred_at", (received-ms)/1000)
		}
	}
	b.time("occurred_at", when)
	if own := ms.text("sent_at"); own != "" {
		sent = own
	}
	b.time("sent_at", sent)

	call := ms.text("event")
	var name string
	switch call {
	case "$pageview":
		name = event.NamePageView
	case "$screen":
		name = event.NameScreenView
	case "$identify":
		name = event.NameIdentify
		b.str("previous_id", props.peek("$anon_distinct_id"))
	case "$create_alias": // two ids are one person, as an identify with the id before says
		name = event.NameIdentify
		b.str("previous_id", props.text("alias"))
	case "$feature_flag_called":
		name = event.NameExperimentExposure
	default:
		name = commerceName(call, props)
	}
	if name == call {
		b.name(name)
	} else {
		b.typed(name, call)
	}
	person(b, call, ms, props)
	commerce(b, name, props, "")
	posthogContext(b, props)
	props.rest(b, "")
	ms.rest(b, "")
}

// person writes who it was. distinct_id is the visitor until somebody signs in; from then on it is the user, and the visitor is the device.
func person(b *builder, call string, ms, props members) {
	distinct := ms.text("distinct_id", "$distinct_id")
	if own := props.peek("distinct_id"); distinct == "" || own == distinct {
		props.take("distinct_id")
		distinct = own
	}
	device := props.peek("$device_id")
	if device == "" && call == "$identify" {
		device = props.peek("$anon_distinct_id")
	}
	user := props.text("$user_id")
	switch device {
	case "":
		b.str("visitor_id", distinct)
	case distinct:
		b.str("visitor_id", distinct)
		props.take("$device_id")
	default:
		b.str("visitor_id", device)
		props.take("$device_id")
		if user == "" {
			user = distinct
		} else if user != distinct {
			b.propStr("distinct_id", distinct)
		}
	}
	b.str("user_id", user)
	b.str("session_id", props.text("$session_id"))
}

// posthogContext writes what an event's properties say about where it was made.
func posthogContext(b *builder, props members) {
	b.obj("context", func() {
		b.obj("page", func() {
			b.str("url", props.text("$current_url"))
			b.str("path", props.text("$pathname"))
			b.str("title", props.text("title", "$title"))
			if props.peek("$referrer") != "$direct" {
				b.str("referrer", props.text("$referrer"))
			}
		})
		b.obj("campaign", func() {
			b.str("source", props.text("utm_source"))
			b.str("medium", props.text("utm_medium"))
			b.str("name", props.text("utm_campaign"))
			b.str("term", props.text("utm_term"))
			b.str("content", props.text("utm_content"))
		})
		b.obj("device", func() {
			b.str("type", props.text("$device_type"))
			b.str("os", props.text("$os"))
			b.str("browser", props.text("$browser"))
		})
		b.str("ip", props.text("$ip"))
		b.str("user_agent", props.text("$raw_user_agent", "$user_agent"))
		b.str("locale", props.text("$browser_language", "$locale"))
		b.str("time_zone", props.text("$timezone"))
		b.str("country", props.text("$geoip_country_code"))
		b.str("region", props.text("$geoip_subdivision_1_name"))
		b.str("city", props.text("$geoip_city_name"))
	})
}
