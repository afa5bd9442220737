package wire

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-faster/jx"

	"millrace/event"
)

// value reads a member that is a field of the event. null is as good as absent.
func (d *Decoder) value(o *object, f *field, j *jx.Decoder) error {
	typ := j.Next()
	if typ == jx.Null {
		return j.Null()
	}
	switch f.kind {
	case kindObject:
		if typ != jx.Object {
			return d.wrongType(o, f, j, "an object")
		}
		return j.ObjBytes(d.members[f.sub.index])
	case kindItems:
		if typ != jx.Array {
			return d.wrongType(o, f, j, "an array")
		}
		d.t.e.Items = d.t.e.Items[:0]
		err := j.Arr(d.onItem)
		d.item = -1
		return err
	case kindAny:
		if typ != jx.Object {
			return d.wrongType(o, f, j, "an object")
		}
		raw, err := j.Raw()
		if err != nil {
			return err
		}
		if tooDeep(raw, MaxDepth-o.depth) {
			return d.wrong(event.ReasonDepth, o, f, "nested deeper than 64")
		}
		d.props = raw
		return nil
	case kindSum:
		raw, err := j.Raw()
		if err != nil {
			return err
		}
		return d.sum(o, f, raw)
	}
	return d.scalar(o, f, j, typ)
}

// sum reads an amount of a field that version 1 of the schemas did not have: then any value was a property, so what is no amount, or is negative without being a
// refund's, still is.
func (d *Decoder) sum(o *object, f *field, raw []byte) error {
	if text, ok := textOf(raw); ok {
		if v, err := event.ParseAmount(text); err == nil && (v >= 0 || d.t.e.Name == event.NameRefund) {
			*f.num(&d.t) = d.number(v)
			return nil
		}
	}
	return d.keep(o, f.name, raw)
}

// scalar reads a string, or a number by its digits.
func (d *Decoder) scalar(o *object, f *field, j *jx.Decoder, typ jx.Type) error {
	var b []byte
	var err error
	switch typ {
	case jx.String:
		b, err = j.StrBytes()
	case jx.Number:
		b, err = j.Raw()
	default:
		return d.wrongType(o, f, j, f.kind.wants())
	}
	if err != nil {
		return err
	}
	switch f.kind {
	case kindAmount:
		v, err := event.ParseAmount(view(b))
		if err != nil {
			return d.wrong(event.ReasonBadAmount, o, f, event.ErrAmount.Error())
		}
		*f.num(&d.t) = d.number(v)
		return nil
	case kindInteger, kindQuantity, kindVersion:
		return d.integer(o, f, b)
	case kindTime:
		return d.time(o, f, b, typ)
	case kindCard:
		return d.card(o, f, b)
	case kindIP:
		*f.text(&d.t) = view(b)
		return nil
	}
	maskCards(b)
	return d.str(o, f, b)
}

// wants is what a kind's error asks for.
func (k kind) wants() string {
	switch k {
	case kindAmount:
		return "a decimal number"
	case kindInteger, kindQuantity, kindVersion:
		return "a whole number"
	case kindTime:
		return "an RFC 3339 time or a number of milliseconds"
	}
	return "a string"
}

func (d *Decoder) str(o *object, f *field, b []byte) error {
	switch f.kind {
	case kindID:
		if msg := badID(b); msg != "" {
			return d.wrong(event.ReasonSchema, o, f, msg)
		}
	case kindName:
		return d.name(o, f, b)
	case kindCurrency:
		if len(b) == 0 {
			return nil
		}
		if len(b) != 3 || !event.WellFormedCurrency(view(upper(b))) {
			return d.wrong(event.ReasonSchema, o, f, "a currency code of ISO 4217 is expected")
		}
	case kindDevice:
		class := deviceClass(view(b))
		if class == "" && len(b) > 0 {
			if err := d.keepText(o, f, b); err != nil {
				return err
			}
			class = "other"
		}
		*f.text(&d.t) = class
		return nil
	case kindCountry:
		if len(b) != 2 || !letters(b) {
			if len(b) == 0 {
				return nil
			}
			return d.keepText(o, f, b)
		}
		upper(b)
	case kindCardPrint:
		if len(b) > 0 && d.t.e.CardFingerprint == "" {
			d.t.e.CardFingerprint = d.sealer.seal("card_fingerprint", b)
		}
		return nil
	case kindBIN:
		if len(b) < 6 || len(b) > 8 || !digitsOnly(b) {
			return d.wrong(event.ReasonSchema, o, f, "six to eight digits are expected")
		}
		b = b[:6]
	case kindLast4:
		if len(b) != 4 || !digitsOnly(b) {
			return d.wrong(event.ReasonSchema, o, f, "four digits are expected")
		}
	}
	*f.text(&d.t) = view(b)
	return nil
}

// keepText keeps a string that its field cannot hold among the properties.
func (d *Decoder) keepText(o *object, f *field, b []byte) error {
	var w jx.Writer
	w.ByteStr(b)
	return d.keep(o, f.name, w.Buf)
}

func (d *Decoder) name(o *object, f *field, b []byte) error {
	if d.named {
		return d.wrong(event.ReasonSchema, o, f, "the name is given twice")
	}
	if len(b) == 0 {
		return nil // missing
	}
	name := view(b)
	if !event.WellFormedName(name) {
		return d.wrong(event.ReasonBadName, o, f, "a name is 1 to 100 letters, digits, '_', '-', '.', ':', '/', '$' and single spaces, and begins with a letter, '$' or '_'")
	}
	d.t.e.Name, d.cat, d.named = name, event.CategoryOf(name), true
	return nil
}

func (d *Decoder) integer(o *object, f *field, b []byte) error {
	v, err := strconv.ParseInt(view(b), 10, 64)
	if err != nil { // 2.0 and 2e3 are whole numbers too
		micros, aerr := event.ParseAmount(view(b))
		if aerr != nil || micros%event.MicrosPerUnit != 0 {
			return d.wrong(event.ReasonSchema, o, f, "a whole number is expected")
		}
		v = micros / event.MicrosPerUnit
	}
	switch f.kind {
	case kindQuantity:
		if v < 0 {
			return d.wrong(event.ReasonSchema, o, f, "0 or more is expected")
		}
		d.t.item.Quantity = v
	case kindVersion:
		if v < 1 || v > math.MaxInt32 {
			return d.wrong(event.ReasonSchema, o, f, "1 or more is expected")
		}
		d.t.e.SchemaVersion = int32(v)
	default:
		*f.num(&d.t) = d.number(v)
	}
	return nil
}

func (d *Decoder) time(o *object, f *field, b []byte, typ jx.Type) error {
	us, ok := parseTime(b, typ == jx.Number)
	if !ok {
		return d.wrong(event.ReasonSchema, o, f, kindTime.wants()+" is expected")
	}
	if f.name == "sent_at" {
		d.t.sentAt, d.t.sent = us, true
	} else {
		d.t.e.OccurredAt, d.t.occurred = us, true
	}
	return nil
}

// maxMillis bounds times given as numbers: the year 9999.
const maxMillis = 253402300799999

// parseTime reads an RFC 3339 time with any offset, or milliseconds since the epoch, to microseconds.
func parseTime(b []byte, number bool) (int64, bool) {
	if number {
		if ms, err := strconv.ParseInt(view(b), 10, 64); err == nil {
			return ms * 1000, ms >= -maxMillis && ms <= maxMillis
		}
		ms, err := strconv.ParseFloat(view(b), 64)
		return int64(math.Round(ms * 1000)), err == nil && math.Abs(ms) <= maxMillis
	}
	t, err := time.Parse(time.RFC3339, view(b))
	if err != nil {
		if len(b) < 20 || b[10] != ' ' && b[10] != 't' && b[len(b)-1] != 'z' {
			return 0, false
		}
		if t, err = time.Parse(time.RFC3339, strings.ToUpper(view(b[:10])+"T"+view(b[11:]))); err != nil {
			return 0, false
		}
	}
	return t.UnixMicro(), true
}

// card takes a card number apart: what stays is an HMAC, the first six and the last four digits.
func (d *Decoder) card(o *object, f *field, b []byte) error {
	digits := make([]byte, 0, maxCard)
	for _, c := range b {
		switch {
		case isDigit(c) && len(digits) < maxCard:
			digits = append(digits, c)
		case c == ' ' || c == '-':
		default:
			digits = nil
		}
		if digits == nil {
			break
		}
	}
	if len(b) == 0 {
		return nil
	}
	if len(digits) < 12 {
		clear(b) // whatever it is, it was meant to be a card number
		for i := range b {
			b[i] = '*'
		}
		return d.wrong(event.ReasonSchema, o, f, "a card number of 12 to 19 digits is expected")
	}
	e := d.t.e
	e.CardFingerprint = d.sealer.seal("card", digits)
	e.CardBIN, e.CardLast4 = string(digits[:6]), string(digits[len(digits)-4:])
	for i := range b {
		b[i] = '*'
	}
	return nil
}

func badID(b []byte) string {
	if len(b) > event.MaxIDBytes {
		return "an id has at most 128 bytes"
	}
	for _, c := range b {
		if c < 0x20 || c == 0x7F {
			return "an id holds no control characters"
		}
	}
	return ""
}

func upper(b []byte) []byte {
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 0x20
		}
	}
	return b
}

func letters(b []byte) bool {
	for _, c := range b {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return true
}

func digitsOnly(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return r < '0' || r > '9' }) < 0
}
