package wire

import (
	"bytes"

	"github.com/go-faster/jx"
)

var utf8BOM = []byte{0xEF, 0xBB, 0xBF}

// Split finds the texts of the single events of a native body, whatever its Content-Type says: one object, an array of objects, or objects one after the other
// with or without newlines between them (NDJSON). A text that is no JSON is yielded too, cut where the next event seems to begin, so that one broken event
// does not take its siblings with it. Texts are views of body; yield says whether to go on.
func Split(body []byte, yield func(text []byte) bool) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, utf8BOM))
	if len(body) == 0 {
		return
	}
	if body[0] == '[' {
		splitArray(body, yield)
		return
	}
	splitSequence(body, yield)
}

// splitSequence yields values that follow each other. Values may span lines. Reading ahead over lines is bounded by twice the body altogether; beyond that,
// which only made-up bodies reach, every line is taken for a text of its own.
func splitSequence(body []byte, yield func([]byte) bool) {
	budget := 2 * len(body)
	var d jx.Decoder
	for len(body) > 0 {
		var text []byte
		var read int
		if budget > 0 {
			text, read = nextValue(&d, body)
		} else {
			text, read = line(body), 0
		}
		if read > 0 {
			budget -= read
		}
		if !yield(text) {
			return
		}
		body = bytes.TrimLeft(body[len(text):], " \t\r\n,")
	}
}

// nextValue gives the value at the start of body, or, if there is no whole value, what is up to the next line that begins with a brace. It also gives the
// number of bytes it may have read in vain.
func nextValue(d *jx.Decoder, body []byte) (text []byte, vain int) {
	d.ResetBytes(body)
	raw, err := d.Raw()
	if err == nil {
		rest := body[len(raw):]
		// Something that follows on the same line makes both parts of one broken text, unless it is another value.
		if after := bytes.TrimLeft(rest, " \t\r,"); len(after) == 0 || after[0] == '\n' || after[0] == '{' || after[0] == '[' {
			return raw, 0
		}
		return line(body), 0
	}
	if i := bytes.Index(body, []byte("\n{")); i >= 0 {
		return bytes.TrimRight(body[:i], " \t\r\n"), len(body)
	}
	return body, len(body)
}

func line(body []byte) []byte {
	if i := bytes.IndexByte(body, '\n'); i >= 0 {
		return body[:i]
	}
	return body
}

// splitArray yields the elements of the array at the start of body, and of what follows it: perhaps another one.
func splitArray(body []byte, yield func([]byte) bool) {
	if rest := arrayElements(body, yield); len(rest) > 0 {
		Split(rest, yield)
	}
}

// arrayElements yields the elements of the array at the start of body and gives what follows it; nil if the array was cut off, of which what was whole counts, or
// yield has had enough.
func arrayElements(body []byte, yield func([]byte) bool) []byte {
	rest := bytes.TrimLeft(body[1:], " \t\r\n")
	var d jx.Decoder
	for len(rest) > 0 && rest[0] != ']' {
		text := element(&d, rest)
		if len(text) > 0 && !yield(text) {
			return nil
		}
		rest = bytes.TrimLeft(rest[len(text):], " \t\r\n")
		switch {
		case len(rest) == 0:
			return nil
		case rest[0] == ',':
			rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		}
	}
	if len(rest) > 1 {
		return bytes.TrimLeft(rest[1:], " \t\r\n")
	}
	return nil
}

// element gives the array element at the start of body.
func element(d *jx.Decoder, body []byte) []byte {
	if text := scan(body); text != nil {
		return text
	}
	return carefulElement(d, body)
}

// carefulElement gives the array element at the start of body: strictly if it is JSON, else by brackets and quotes alone.
func carefulElement(d *jx.Decoder, body []byte) []byte {
	d.ResetBytes(body)
	if raw, err := d.Raw(); err == nil {
		if after := bytes.TrimLeft(body[len(raw):], " \t\r\n"); len(after) == 0 || after[0] == ',' || after[0] == ']' {
			return raw
		}
	}
	var open []byte    // brackets not closed
	var count [256]int // of each kind among them
	quoted := false
	for i := 0; i < len(body); i++ {
		c := body[i]
		if quoted {
			switch c {
			case '\\':
				i++
			case '"', '\n': // no JSON string spans lines
				quoted = false
			}
			continue
		}
		inner := byte(0)
		if len(open) > 0 {
			inner = open[len(open)-1]
		}
		switch c {
		case '"':
			quoted = true
		case '{', '[':
			open = append(open, c)
			count[c]++
		case '}', ']':
			opening := c - 2
			if count[opening] == 0 {
				if c == ']' { // the array's own
					return bytes.TrimRight(body[:i], " \t\r\n")
				}
				continue
			}
			for { // close what was forgotten inside, too
				last := open[len(open)-1]
				open = open[:len(open)-1]
				count[last]--
				if last == opening {
					break
				}
			}
			if len(open) == 0 {
				return body[:i+1]
			}
		case ',':
			// In an object a comma is followed by a name: a brace means that the element was not finished and the next one begins.
			if next := skipSpace(body, i+1); inner == 0 || inner == '{' && next < len(body) && body[next] == '{' {
				return bytes.TrimRight(body[:i], " \t\r\n")
			}
		}
	}
	return body
}

// tooDeep says whether a text nests deeper than most, whether or not it is JSON otherwise.
func tooDeep(text []byte, most int) bool {
	if len(text) <= most {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
