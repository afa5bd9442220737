package wire

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-faster/jx"

	"millrace/event"
)

// translateCloudEvents translates CloudEvents 1.0 over HTTP in its three modes: binary, where the attributes are headers and the body is the data; structured, one
// JSON object; and batched, an array of those. Which one it is follows from the content type, and from the body where that says nothing.
func translateCloudEvents(in *Inbound, yield func(text []byte, f *Failure) bool) {
	media, _, _ := mime.ParseMediaType(in.Header.Get("Content-Type"))
	if !strings.HasPrefix(media, "application/cloudevents") {
		if attributes := attributesOf(in.Header); len(attributes) > 0 {
			binaryEvent(in.Body, media, attributes, yield)
			return
		}
	}
	body := clientJSON(in.Body)
	if len(body) == 0 {
		return
	}
	if body[0] != '{' && body[0] != '[' {
		yield(body, unreadable(body))
		return
	}
	var b builder
	Split(body, func(text []byte) bool {
		if len(text) > MaxEventBytes {
			return yield(text, &Failure{Reason: event.ReasonSize, Message: "event is larger than 1 MiB"})
		}
		ms, ok := parse(text)
		if !ok {
			return yield(text, unreadable(text))
		}
		b.reset()
		cloudEvent(&b, ms)
		return yield(b.done(), nil)
	})
}

// attributesOf makes members of the headers that are attributes; nil if there are none.
func attributesOf(header map[string][]string) members {
	var ms members
	for _, key := range slices.Sorted(maps.Keys(header)) {
		if len(key) > 3 && strings.EqualFold(key[:3], "ce-") {
			ms = append(ms, stringMember(strings.ToLower(key[3:]), headerText(strings.Join(header[key], ","))))
		}
	}
	return ms
}

func stringMember(key, text string) member {
	var w jx.Writer
	w.Str(validUTF8(text))
	return member{key: key, raw: clientJSON(w.Buf)}
}

// headerText undoes what senders do to text in a header: quotes around it, percent-encoding, or bytes of UTF-8 or Latin-1 as they are. A percent sign that encodes
// nothing stands for itself.
func headerText(v string) string {
	if !utf8.ValidString(v) {
		runes := make([]rune, len(v))
		for i := range len(v) {
			runes[i] = rune(v[i])
		}
		v = string(runes)
	}
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = unquoted(v[1 : len(v)-1])
	}
	if !strings.Contains(v, "%") {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			var c [1]byte
			if _, err := hex.Decode(c[:], []byte(v[i+1:i+3])); err == nil {
				out = append(out, c[0])
				i += 2
				continue
			}
		}
		out = append(out, v[i])
	}
	if !utf8.Valid(out) {
		return v
	}
	return string(out)
}

// unquoted takes the backslashes out of a quoted string's inside.
func unquoted(v string) string {
	var out strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			i++
		}
		out.WriteByte(v[i])
	}
	return out.String()
}

// binaryEvent makes of an event in binary mode what it would have been in structured mode, and translates that.
func binaryEvent(body []byte, media string, ms members, yield func([]byte, *Failure) bool) {
	if len(body) > MaxEventBytes {
		yield(body, &Failure{Reason: event.ReasonSize, Message: "event is larger than 1 MiB"})
		return
	}
	if media != "" {
		ms = append(ms, stringMember("datacontenttype", media))
	}
	text := clientJSON(body)
	var broken *Failure
	switch {
	case len(text) == 0:
	case jx.Valid(text) && (isJSON(media) || text[0] == '{'):
		ms = append(ms, member{key: "data", raw: text})
	case utf8.Valid(body):
		if isJSON(media) {
			broken = unreadable(text)
		}
		ms = append(ms, stringMember("data", string(body)))
	default:
		ms = append(ms, stringMember("data_base64", base64.StdEncoding.EncodeToString(body)))
	}
	var b builder
	b.reset()
	if broken == nil {
		cloudEvent(&b, ms)
		yield(b.done(), nil)
		return
	}
	broken.Path, broken.EventID = "data", clipped(ms.peek("id"))
	for _, m := range ms { // as in structured mode: with its attributes the payload can be mended and sent again
		b.raw(m.key, m.raw)
	}
	yield(b.done(), broken)
}

func isJSON(media string) bool {
	return media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// cloudEvent writes one event. The last part of its type is the name.
func cloudEvent(b *builder, ms members) {
	media, _, _ := mime.ParseMediaType(ms.peek("datacontenttype"))
	if media == "application/json" {
		ms.take("datacontenttype")
	}
	if ms.peek("specversion") == "1.0" {
		ms.take("specversion")
	}
	data := dataOf(ms, media)

	sent := ms.text("type")
	last := sent[strings.LastIndexByte(sent, '.')+1:]
	name := commerceName(last, data)
	b.str("name", wellFormed(name))
	b.propStr("type", sent)
	b.str("event_id", ms.text("id"))
	b.str("source_suffix", ms.text("source"))
	b.time("occurred_at", ms.text("time"))
	b.str("visitor_id", either(ms.text("visitorid", "anonymousid"), data, "visitor_id", "anonymous_id", "anonymousId"))
	b.str("user_id", either(ms.text("userid"), data, "user_id", "userId"))
	b.str("session_id", either(ms.text("sessionid"), data, "session_id", "sessionId"))
	// The subject of a shop's event is who it is about: the visitor, or the user where the visitor is given besides.
	switch subject := ms.peek("subject"); {
	case !b.has["visitor_id"]:
		b.str("visitor_id", subject)
	case !b.has["user_id"]:
		b.str("user_id", subject)
	}
	commerce(b, name, data, "")
	cloudContext(b, name, data)
	data.rest(b, "")
	ms.rest(b, "")
}

// either gives a text, or the first of the members that has one.
func either(text string, ms members, keys ...string) string {
	if text != "" {
		return text
	}
	return ms.text(keys...)
}

// dataOf takes an event's data if it is an object, which may have come as such, as text or in base64. Any other stays where it is.
func dataOf(ms members, media string) members {
	if data := ms.sub("data"); data != nil {
		return data
	}
	if text, ok := textOf(ms.find("data").value()); ok && isJSON(media) {
		if data, ok := parse(clientJSON([]byte(text))); ok {
			ms.take("data")
			return data
		}
	}
	if text, ok := textOf(ms.find("data_base64").value()); ok {
		if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
			if data, ok := parse(clientJSON(plain)); ok {
				ms.take("data_base64")
				return data
			}
		}
	}
	return nil
}

// value is a member's value; nil of none.
func (m *member) value() []byte {
	if m == nil {
		return nil
	}
	return m.raw
}

// cloudContext writes what data says in native words, or as pages do, beyond the sale.
func cloudContext(b *builder, name string, data members) {
	var same []string
	switch event.CategoryOf(name) {
	case event.Inventory:
		same = []string{"item_id", "warehouse_id", "quantity_delta", "stock_level", "reason", "change_reason"}
	case event.Exposure:
		same = []string{"hash_attribute"}
	case event.Identity:
		same = []string{"previous_id"}
	}
	for _, key := range same {
		b.raw(key, data.take(key))
	}
	if m := data.find("payment"); m != nil && m.raw[0] == '{' {
		b.raw("payment", data.take("payment"))
	}
	if m := data.find("context"); m != nil && m.raw[0] == '{' {
		b.raw("context", data.take("context"))
		return
	}
	if event.CategoryOf(name) != event.Page || name == event.NameViewItem || name == event.NameSelectItem {
		return // the url of a product is not the page's
	}
	b.obj("context", func() {
		b.obj("page", func() {
			b.str("url", data.text("url", "page_location"))
			b.str("path", data.text("path", "page_path"))
			b.str("title", data.text("title", "page_title"))
			b.str("referrer", data.text("referrer", "page_referrer"))
		})
	})
}
