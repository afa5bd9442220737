package wire

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-faster/jx"
)

// Inbound is a request of a client that speaks a foreign format.
type Inbound struct {
	Path       string // without a trailing slash
	Query      url.Values
	Header     http.Header
	Body       []byte // decompressed
	ReceivedAt int64  // µs

	opened *envelope // the body taken apart
	redact func(text []byte) []byte
}

// Redact applies the rules of the decoder's source to what was sent, by the names it was sent with: a translation may give members others. It comes before
// Translate; the native decoder applies the rules again, by the names that native events have.
func (in *Inbound) Redact(d *Decoder) {
	in.redact = func(text []byte) []byte { return d.src.Redactor.Apply(text, d.sealer) }
	in.Body, in.opened = in.redact(in.Body), nil
}

// last is the last segment of the path.
func (in *Inbound) last() string { return in.Path[strings.LastIndexByte(in.Path, '/')+1:] }

// Every foreign format is translated into native JSON, which the native decoder reads: masks, personal data, exact money and bounds are the same for all, and
// what failed is kept in a form that can be sent again. The helpers below take client JSON apart.

// clientJSON makes a body readable as JSON: no byte order mark, valid UTF-8, whole surrogate pairs.
func clientJSON(body []byte) []byte {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, utf8BOM))
	if !utf8.Valid(body) {
		body = bytes.ToValidUTF8(body, []byte("\uFFFD"))
	}
	return fixEscapes(body)
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// member is one member of a client's object.
type member struct {
	key  string
	raw  []byte
	used bool
}

// members is a client's object, of which a translation takes what it knows; the rest is kept as properties.
type members []member

// maxMembers bounds the members of an object that is taken apart. No client comes near; what has more is kept in one piece.
const maxMembers = 10_000

// parse reads an object; nil and false if raw is none, or has more than maxMembers members. raw is expected to be clientJSON.
func parse(raw []byte) (members, bool) {
	var d jx.Decoder
	d.ResetBytes(raw)
	if d.Next() != jx.Object {
		return nil, false
	}
	ms := members{}
	err := d.ObjBytes(func(d *jx.Decoder, key []byte) error {
		v, err := d.Raw()
		if ms = append(ms, member{key: string(key), raw: v}); len(ms) > maxMembers {
			return errStop
		}
		return err
	})
	if err != nil {
		return nil, false
	}
	return ms, true
}

// find gives the first member with one of the names, in the order of the names, that is not null and has not been taken.
func (ms members) find(keys ...string) *member {
	for _, k := range keys {
		for i := range ms {
			if m := &ms[i]; m.key == k && !m.used && string(m.raw) != "null" {
				return m
			}
		}
	}
	return nil
}

// take gives the value of the first of the names that is there and marks it as taken; nil if there is none.
func (ms members) take(keys ...string) []byte {
	if m := ms.find(keys...); m != nil {
		m.used = true
		return m.raw
	}
	return nil
}

// text takes a string, or a number by its literal; a value of another type stays where it is. Empty strings are as good as absent.
func (ms members) text(keys ...string) string {
	for _, k := range keys {
		if m := ms.find(k); m != nil {
			if s, ok := textOf(m.raw); ok {
				m.used = true
				if s != "" {
					return s
				}
			}
		}
	}
	return ""
}

// peek is text without taking it.
func (ms members) peek(keys ...string) string {
	for _, k := range keys {
		if m := ms.find(k); m != nil {
			if s, ok := textOf(m.raw); ok && s != "" {
				return s
			}
		}
	}
	return ""
}

// sub takes an object; nil if there is none. Its members are then the caller's to keep.
func (ms members) sub(key string) members {
	if m := ms.find(key); m != nil {
		if sub, ok := parse(m.raw); ok {
			m.used = true
			return sub
		}
	}
	return nil
}

// rest keeps what was not taken as properties named prefix + key. null is as good as absent.
func (ms members) rest(b *builder, prefix string) {
	for i := range ms {
		if m := &ms[i]; !m.used {
			m.used = true
			if string(m.raw) != "null" {
				b.prop(prefix+m.key, m.raw)
			}
		}
	}
}

// textOf is the text of a JSON string, or the literal of a number.
func textOf(raw []byte) (string, bool) {
	var d jx.Decoder
	d.ResetBytes(raw)
	switch d.Next() {
	case jx.String:
		s, err := d.Str()
		return s, err == nil
	case jx.Number:
		return string(raw), true
	}
	return "", false
}

// elements gives the elements of a JSON array; false if raw is none.
func elements(raw []byte) ([][]byte, bool) {
	var d jx.Decoder
	d.ResetBytes(raw)
	if d.Next() != jx.Array {
		return nil, false
	}
	var out [][]byte
	err := d.Arr(func(d *jx.Decoder) error {
		v, err := d.Raw()
		out = append(out, v)
		return err
	})
	return out, err == nil
}
