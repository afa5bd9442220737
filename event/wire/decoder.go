package wire

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/go-faster/jx"

	"millrace/event"
)

// Source is what a decoder has to know of a write key's source.
type Source struct {
	Tenant   string
	Name     string
	Redactor *Redactor
	Secret   Secret
}

// Decoder makes events of texts. It belongs to one goroutine and is meant to be pooled: Reset gives it a source.
type Decoder struct {
	src     *Source
	sealers map[string]*Sealer // by key id and key
	sealer  *Sealer

	jx      jx.Decoder
	inner   jx.Decoder // for what was put aside
	members []func(*jx.Decoder, []byte) error
	onItem  func(*jx.Decoder) error

	t        target
	fail     *Failure
	named    bool // the name has been read, so cat is known
	cat      event.Category
	item     int // index of the item being read, -1 outside items
	deferred []aside
	extra    []aside
	props    []byte
	nums     []int64 // amounts of the event
	used     int     // of nums
	keys     map[string]int
	buf      []byte // properties being put together

	// The address and user agent seen last: those of a request are often all the same.
	lastIP, lastPrefix, lastHash string
	lastUA, lastDevice           string
	text                         []byte // the text after repairs
}

// aside is a member that is dealt with later.
type aside struct {
	f   *field
	key string
	raw []byte
}

// errStop ends decoding; the reason is in Decoder.fail.
var errStop = errors.New("stop")

// NewDecoder makes a decoder.
func NewDecoder() *Decoder {
	d := &Decoder{sealers: map[string]*Sealer{}, keys: map[string]int{}, nums: make([]int64, 64), item: -1}
	d.members = make([]func(*jx.Decoder, []byte) error, native.objects)
	var bind func(o *object)
	bind = func(o *object) {
		d.members[o.index] = func(j *jx.Decoder, key []byte) error { return d.member(o, j, key) }
		for _, f := range o.fields {
			if f.sub != nil {
				bind(f.sub)
			}
		}
	}
	bind(native.top)
	bind(native.item)
	d.onItem = d.oneItem
	return d
}

// Reset makes the decoder ready for texts of a source.
func (d *Decoder) Reset(src *Source) {
	if d.src == src {
		return
	}
	d.lastIP = "" // its HMAC is by the key of the source before
	id := src.Secret.ID + "\x00" + string(src.Secret.Key)
	if d.sealers[id] == nil {
		d.sealers[id] = NewSealer(src.Secret)
	}
	d.src, d.sealer = src, d.sealers[id]
}

// Text is the text of the last event decoded, as Clean makes it: what may be kept of it if the event failed. It is valid until the next call.
func (d *Decoder) Text() []byte { return d.blot(d.text) }

// Clean makes a payload fit to be kept as a failed event: valid UTF-8, redacted, addresses truncated and card numbers masked. It may work in place.
func (d *Decoder) Clean(payload []byte) []byte { return d.blot(d.repair(payload)) }

func (d *Decoder) blot(text []byte) []byte {
	text = kept.Apply(text, d.sealer)
	maskCardsJSON(text)
	return text
}

// kept holds what failed payloads are rid of beyond a source's own rules: what a decoded event holds in another form.
var kept = &Redactor{rules: map[string]Action{"ip": truncate, "pan": blank, "card_number": blank}, has: [256]bool{'i': true, 'p': true, 'c': true}}

func (d *Decoder) repair(text []byte) []byte {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	text = fixEscapes(text)
	return d.src.Redactor.Apply(text, d.sealer)
}

// Decode makes an event of one native text. All fields of e are overwritten; e.Items is reused. Tenant and Source are set; ReceivedAt and what the gateway
// knows of the request are left to Complete. e.ID is "" if the text has none.
//
// The strings of e are views of text and of the decoder's memory: they are valid until the next call and as long as text is not changed. text may be changed.
func (d *Decoder) Decode(text []byte, e *event.Event) *Failure {
	*e = event.Event{Items: e.Items[:0]}
	d.t = target{e: e}
	d.fail, d.named, d.item, d.props = nil, false, -1, nil
	d.deferred, d.extra, d.text = d.deferred[:0], d.extra[:0], text
	if len(text) > MaxEventBytes {
		return &Failure{Reason: event.ReasonSize, Message: "event of " + strconv.Itoa(len(text)) + " bytes is larger than 1 MiB"}
	}
	d.used = 0
	text = d.repair(text)
	d.text = text

	d.jx.ResetBytes(text)
	if d.jx.Next() != jx.Object {
		return d.malformed(text, "an event is a JSON object")
	}
	err := d.jx.ObjBytes(d.members[native.top.index])
	if err == nil {
		err = d.end()
	}
	if d.fail == nil && err == nil {
		err = d.finish()
	}
	if d.fail != nil {
		d.fail.EventID, d.fail.Path = strings.Clone(e.ID), strings.Clone(d.fail.Path) // they may be views
		return d.fail
	}
	if err != nil {
		return d.malformed(text, err.Error())
	}
	return nil
}

func (d *Decoder) malformed(text []byte, message string) *Failure {
	if tooDeep(text, MaxDepth) {
		return &Failure{Reason: event.ReasonDepth, Message: "nested deeper than 64", EventID: strings.Clone(d.t.e.ID)}
	}
	if len(message) > 200 {
		message = message[:200]
	}
	b := []byte(message)
	maskCards(b)
	return &Failure{Reason: event.ReasonMalformed, Message: "not valid JSON: " + string(bytes.ToValidUTF8(b, []byte("?"))), EventID: strings.Clone(d.t.e.ID)}
}

// member reads one member of one of our objects.
func (d *Decoder) member(o *object, j *jx.Decoder, key []byte) error {
	f := o.find(key)
	if f == nil {
		return d.unknown(o, j, key)
	}
	if f.cats != nil {
		switch {
		case !d.named:
			raw, err := j.Raw()
			if err != nil {
				return err
			}
			d.deferred = append(d.deferred, aside{f: f, raw: raw})
			return nil
		case !f.in(d.cat):
			return d.unknown(o, j, key)
		}
	}
	return d.value(o, f, j)
}

// unknown keeps a member that is no field of the event for its properties.
func (d *Decoder) unknown(o *object, j *jx.Decoder, key []byte) error {
	raw, err := j.Raw()
	if err != nil {
		return err
	}
	maskCards(key)
	return d.keep(o, view(key), raw)
}

// keep puts raw among the properties as prefix + key; within items the prefix is items[N].
func (d *Decoder) keep(o *object, key string, raw []byte) error {
	path := d.path(o.prefix, key)
	if tooDeep(raw, MaxDepth-o.depth) {
		d.fail = &Failure{Reason: event.ReasonDepth, Path: path, Message: "nested deeper than 64"}
		return errStop
	}
	maskCardsJSON(raw)
	d.extra = append(d.extra, aside{key: path, raw: raw})
	return nil
}

func (d *Decoder) path(prefix, key string) string {
	if prefix == "" {
		return key
	}
	if d.item >= 0 {
		prefix = "items[" + strconv.Itoa(d.item) + "]."
	}
	return prefix + key
}

// wrong ends decoding with a failure of a member.
func (d *Decoder) wrong(reason string, o *object, f *field, message string) error {
	d.fail = &Failure{Reason: reason, Path: d.path(o.prefix, f.name), Message: message}
	return errStop
}

func (d *Decoder) oneItem(j *jx.Decoder) error {
	d.item++
	items := &d.t.e.Items
	if d.item >= MaxItems {
		d.fail = &Failure{Reason: event.ReasonSize, Path: "items", Message: "more than 10000 items"}
		return errStop
	}
	if j.Next() != jx.Object {
		d.fail = &Failure{Reason: event.ReasonSchema, Path: "items[" + strconv.Itoa(d.item) + "]", Message: "an object is expected"}
		return d.syntax(j)
	}
	*items = append(*items, event.Item{Quantity: 1})
	d.t.item = &(*items)[len(*items)-1]
	return j.ObjBytes(d.members[native.item.index])
}

// syntax is what a value of a wrong type ends with: text that is no JSON at all is reported as that.
func (d *Decoder) syntax(j *jx.Decoder) error {
	if err := j.Skip(); err != nil {
		d.fail = nil
		return err
	}
	return errStop
}

func (d *Decoder) wrongType(o *object, f *field, j *jx.Decoder, want string) error {
	_ = d.wrong(event.ReasonSchema, o, f, want+" is expected")
	return d.syntax(j)
}

// number gives a place for an amount that lives as long as the event.
func (d *Decoder) number(v int64) *int64 {
	if d.used == len(d.nums) { // the old ones stay where they are
		d.nums, d.used = make([]int64, 2*len(d.nums)), 0
	}
	p := &d.nums[d.used]
	d.used++
	*p = v
	return p
}

// view is b as a string without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// end says whether nothing but space follows the event. Next tells a value that begins from the end and from what is no JSON; only Skip tells those two apart.
func (d *Decoder) end() error {
	if d.jx.Next() == jx.Invalid {
		if err := d.jx.Skip(); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
	}
	return errors.New("something follows the event")
}
