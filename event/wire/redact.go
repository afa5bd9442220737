package wire

import (
	"bytes"
	"encoding/hex"
	"slices"

	"github.com/go-faster/jx"
)

// Rule says what becomes of every member with a name, at any depth of what a source sends.
type Rule struct {
	Key    string // member name
	Action Action
}

// Action is what a rule does to a value.
type Action string

// The actions.
const (
	Drop Action = "drop" // the value becomes null
	Hash Action = "hash" // the value becomes the HMAC-SHA256/128 of its text by the tenant key, with the key id as prefix: equal values stay equal

	truncate Action = "truncate" // an address becomes its network
	blank    Action = "blank"    // all digits but the last four become *
)

// never are members that may not be stored at all, whoever sends them: card verification values (PCI DSS 3.3).
var never = []string{"cvv", "cvc", "cvv2", "cvc2", "card_cvv", "card_cvc", "security_code", "card_verification_value"}

// Redactor applies a source's rules to JSON text. It goes by tokens and does not need the text to be whole, so failed payloads are redacted too.
type Redactor struct {
	rules map[string]Action
	has   [256]bool // first bytes of the rules' keys
	plain bool      // no rules of its own
}

// NewRedactor makes a redactor of a source's rules; card verification values are dropped in any case.
func NewRedactor(rules []Rule) *Redactor {
	r := &Redactor{rules: map[string]Action{}, plain: len(rules) == 0}
	for _, k := range never {
		r.rules[k] = Drop
	}
	for _, one := range rules {
		r.rules[one.Key] = one.Action
	}
	for k := range r.rules {
		if k != "" {
			r.has[k[0]] = true
		}
	}
	return r
}

// touches says cheaply whether text may hold a member that a rule names. Quotes are everywhere in JSON, so it goes by what is rare: a 'v' behind a 'c' or behind "d_"
// (cvv, card_cvc, card_verification_value) and "y_c" (security_code).
func (r *Redactor) touches(text []byte) bool {
	if !r.plain {
		return true
	}
	for i := next(text, 0, 'v'); i >= 0; i = next(text, i+1, 'v') {
		if i > 0 && text[i-1] == 'c' || i > 1 && text[i-1] == '_' && text[i-2] == 'd' {
			return true
		}
	}
	for i := next(text, 0, 'y'); i >= 0; i = next(text, i+1, 'y') {
		if i+2 < len(text) && text[i+1] == '_' && text[i+2] == 'c' {
			return true
		}
	}
	return bytes.Contains(text, []byte(`\u`))
}

// next is the position of the first c from i on, -1 if there is none.
func next(text []byte, i int, c byte) int {
	if n := bytes.IndexByte(text[i:], c); n >= 0 {
		return i + n
	}
	return -1
}

// Apply gives text with the rules applied: text itself if none applied, else a changed copy.
func (r *Redactor) Apply(text []byte, s *Sealer) []byte {
	if !r.touches(text) {
		return text
	}
	var out []byte
	copied := 0
	for i := 0; i < len(text); {
		if text[i] != '"' {
			i++
			continue
		}
		end := stringEnd(text, i)
		colon := skipSpace(text, end)
		if colon >= len(text) || text[colon] != ':' || end-i < 2 {
			i = end
			continue
		}
		key := text[i+1 : end-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			key = unescape(key)
		}
		i = colon + 1
		action, ok := Action(""), false
		if len(key) > 0 && r.has[key[0]] {
			action, ok = r.rules[string(key)]
		}
		if !ok {
			continue
		}
		from := skipSpace(text, colon+1)
		to := valueEnd(text, from)
		out = append(out, text[copied:from]...)
		out = replacement(out, action, text[from:to], s)
		copied, i = to, to
	}
	if copied == 0 {
		return text
	}
	return append(out, text[copied:]...)
}

// replacement writes what a value becomes.
func replacement(out []byte, action Action, value []byte, s *Sealer) []byte {
	if len(value) == 0 || bytes.Equal(value, []byte("null")) {
		return append(out, value...)
	}
	plain := hashable(value)
	switch action {
	case Hash:
		if s == nil {
			break
		}
		if s.sealed(plain) { // the text was redacted before: a failed event that is sent again, or a foreign one before its translation
			return append(out, value...)
		}
		out = s.append(append(out, '"'), "redacted", plain)
		return append(out, '"')
	case truncate:
		if prefix, _, ok := network(string(plain)); ok {
			return append(append(append(out, '"'), prefix...), '"')
		}
	case blank:
		out = append(out, '"')
		for i, c := range plain {
			switch {
			case !isDigit(c) && c != ' ' && c != '-':
				c = '?'
			case isDigit(c) && i < len(plain)-4:
				c = '*'
			}
			out = append(out, c)
		}
		return append(out, '"')
	}
	return append(out, "null"...)
}

// hashable is the text of a value: of a string what it says.
func hashable(value []byte) []byte {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		return unescape(value[1 : len(value)-1])
	}
	return value
}

// stringEnd gives the position behind the string that starts at i, or the end of text.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r') {
		i++
	}
	return i
}

// valueEnd gives the position behind the value that starts at i, or the end of text.
func valueEnd(text []byte, i int) int {
	depth := 0
	for i < len(text) {
		switch c := text[i]; c {
		case '"':
			i = stringEnd(text, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		case '\n', '\r', ' ', '\t':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(text)
}

// unescape decodes the inside of a JSON string as far as it can be decoded.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	quoted := slices.Concat([]byte{'"'}, b, []byte{'"'})
	var d jx.Decoder
	d.ResetBytes(quoted)
	s, err := d.StrBytes()
	if err != nil {
		return b
	}
	return s
}

// fixEscapes rewrites what JSON escapes can hide: escaped ASCII digits and letters become plain, and half of a surrogate pair becomes U+FFFD, which every reader
// of JSON accepts. Other escapes stay. It gives text itself if nothing changed.
func fixEscapes(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	var out []byte
	copied := 0
	replace := func(from, to int, with string) {
		out = append(append(out, text[copied:from]...), with...)
		copied = to
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		r, ok := escapeAt(text, i)
		if !ok {
			i++ // a two-byte escape, the backslash included
			continue
		}
		switch {
		case r < 0x80 && alnum(byte(r)) || r == ' ' || r == '-' || r == '_':
			replace(i, i+6, string(r))
		case r >= 0xD800 && r < 0xDC00:
			if low, ok := escapeAt(text, i+6); ok && low >= 0xDC00 && low < 0xE000 {
				i += 6
			} else {
				replace(i, i+6, `\ufffd`)
			}
		case r >= 0xDC00 && r < 0xE000:
			replace(i, i+6, `\ufffd`)
		}
		i += 5
	}
	if copied == 0 {
		return text
	}
	return append(out, text[copied:]...)
}

// escapeAt reads the \uXXXX at i.
func escapeAt(text []byte, i int) (rune, bool) {
	if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
		return 0, false
	}
	var b [2]byte
	if _, err := hex.Decode(b[:], text[i+2:i+6]); err != nil {
		return 0, false
	}
	return rune(b[0])<<8 | rune(b[1]), true
}
