package wire

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-faster/jx"

	"millrace/event"
)

// builder writes one event as native JSON. What has no native field is given to prop and ends up in the event's properties.
//
// The first value of a member counts: a second one of the same name at the top level is put among the properties, so that a translation may go from the most
// to the least specific place a value can be in. Amounts keep the literal that was sent.
type builder struct {
	w     jx.Writer
	has   map[string]bool // members of the top level
	depth int
	props jx.Writer
	names map[string]int // of props, how often
	first map[string]string
}

// reset begins an event.
func (b *builder) reset() {
	b.w.Buf = append(make([]byte, 0, 1024), '{') // the text of the event before has been handed out
	b.props.Buf = b.props.Buf[:0]
	b.depth = 1
	if b.has == nil {
		b.has, b.names, b.first = map[string]bool{}, map[string]int{}, map[string]string{}
	}
	clear(b.first)
	clear(b.has)
	clear(b.names)
}

// done gives the text of the event.
func (b *builder) done() []byte {
	if len(b.props.Buf) > 0 {
		b.comma()
		b.w.RawStr(`"properties":`)
		b.w.Raw(b.props.Buf)
		b.w.RawStr("}")
	}
	b.w.RawStr("}")
	return b.w.Buf
}

// comma separates a member or element from the one before it.
func (b *builder) comma() {
	if last := b.w.Buf[len(b.w.Buf)-1]; last != '{' && last != '[' {
		b.w.RawStr(",")
	}
}

// key begins a member; false if the top level has it already.
func (b *builder) key(key string) bool {
	if b.depth == 1 {
		if b.has[key] {
			return false
		}
		b.has[key] = true
	}
	b.comma()
	b.w.Str(key)
	b.w.RawStr(":")
	return true
}

// str writes a string member; an empty one is left out.
func (b *builder) str(key, v string) {
	if v == "" {
		return
	}
	if !b.key(key) {
		b.propStr(key, v)
		return
	}
	b.w.Str(validUTF8(v))
}

// num writes an amount or number as it was sent, whether as a JSON number or as text: no float ever sees it. Text that is no number stays text, which the native
// decoder refuses with the reason.
func (b *builder) num(key, literal string) {
	if literal == "" {
		return
	}
	b.raw(key, numeral(literal))
}

// numeral is a literal as JSON: a number if JSON can say it so, else a string.
func numeral(literal string) []byte {
	if raw := []byte(literal); jx.DecodeBytes(raw).Next() == jx.Number && jx.Valid(raw) {
		return raw
	}
	var w jx.Writer
	w.Str(validUTF8(literal))
	return w.Buf
}

// time writes a time in any of the forms clients send: RFC 3339, the same without a zone (UTC), or seconds or milliseconds since the epoch. Of what is no time the
// native decoder says so; a time of sending that is none is a property like others.
func (b *builder) time(key, literal string) {
	literal = strings.TrimSpace(literal)
	if literal == "" {
		return
	}
	if raw := numeral(literal); raw[0] != '"' {
		if v, err := strconv.ParseFloat(literal, 64); err == nil && v > 0 && v < 1e11 { // seconds; milliseconds of 1973 would be as many
			raw = strconv.AppendFloat(nil, v*1000, 'f', 3, 64)
		}
		b.raw(key, raw)
		return
	}
	if _, ok := parseTime([]byte(literal), false); !ok {
		if _, ok := parseTime([]byte(literal+"Z"), false); ok {
			literal += "Z"
		} else if key == "sent_at" {
			b.propStr(key, literal)
			return
		}
	}
	b.str(key, literal)
}

// int writes a whole number.
func (b *builder) int(key string, v int64) { b.raw(key, strconv.AppendInt(nil, v, 10)) }

// raw writes a member of which the value is JSON already. null is left out.
func (b *builder) raw(key string, json []byte) {
	if len(json) == 0 || string(json) == "null" {
		return
	}
	if !b.key(key) {
		b.prop(key, json)
		return
	}
	b.w.Raw(json)
}

// obj writes an object member. One without members is left out.
func (b *builder) obj(key string, members func()) { b.nested(key, '{', '}', members) }

// arr writes an array member; its elements are written with elem. One without elements is left out.
func (b *builder) arr(key string, elements func()) { b.nested(key, '[', ']', elements) }

func (b *builder) nested(key string, open, end byte, inner func()) {
	start := len(b.w.Buf)
	if !b.key(key) {
		return
	}
	b.w.Buf = append(b.w.Buf, open)
	at := len(b.w.Buf)
	b.depth++
	inner()
	b.depth--
	if len(b.w.Buf) == at {
		b.w.Buf = b.w.Buf[:start]
		if b.depth == 1 {
			delete(b.has, key)
		}
		return
	}
	b.w.Buf = append(b.w.Buf, end)
}

// elem writes an object as an element of the array that is being written.
func (b *builder) elem(members func()) {
	b.comma()
	b.w.RawStr("{")
	b.depth++
	members()
	b.depth--
	b.w.RawStr("}")
}

// prop keeps a value among the event's properties. A name that is taken gets "#2", "#3" and so on, unless it is for the same value.
func (b *builder) prop(key string, json []byte) {
	if len(json) == 0 {
		return
	}
	key = validUTF8(key)
	if b.names[key] > 0 && b.first[key] == string(json) {
		return
	}
	name := key
	for b.names[name] > 0 {
		b.names[key]++
		name = key + "#" + strconv.Itoa(b.names[key])
	}
	if b.names[name]++; name == key {
		b.first[key] = view(json)
	}
	if len(b.props.Buf) == 0 {
		b.props.RawStr("{")
	} else {
		b.props.RawStr(",")
	}
	b.props.Str(name)
	b.props.RawStr(":")
	b.props.Raw(json)
}

// propStr is prop of a string; an empty one is left out.
func (b *builder) propStr(key, v string) {
	if v == "" {
		return
	}
	var w jx.Writer
	w.Str(validUTF8(v))
	b.prop(key, w.Buf)
}

// name writes the event's name, made well-formed if it is not; the one that was sent is then kept as the property "event".
func (b *builder) name(name string) {
	good := wellFormed(name)
	b.str("name", good)
	if good != name {
		b.propStr("event", name)
	}
}

// typed writes a name of ours for an event that the client calls otherwise, which is kept as the property "event".
func (b *builder) typed(name, sent string) {
	b.str("name", name)
	if sent != name {
		b.propStr("event", sent)
	}
}

// wellFormed makes an event name of anything: what a name cannot hold becomes '_'. "" stays "", which is a missing name.
func wellFormed(name string) string {
	if name == "" || event.WellFormedName(name) {
		return name
	}
	out := make([]byte, 0, min(len(name)+1, event.MaxNameBytes))
	for _, r := range name {
		c := byte('_')
		if r < utf8.RuneSelf && event.WellFormedName("a"+string(r)+"a") {
			c = byte(r)
		}
		if c == ' ' && (len(out) == 0 || out[len(out)-1] == ' ') {
			continue
		}
		if len(out) == 0 && !event.WellFormedName(string(c)) {
			out = append(out, '_')
		}
		if len(out) >= event.MaxNameBytes {
			break
		}
		out = append(out, c)
	}
	for len(out) > 0 && out[len(out)-1] == ' ' {
		out = out[:len(out)-1]
	}
	if len(out) == 0 {
		return "_"
	}
	return string(out)
}
