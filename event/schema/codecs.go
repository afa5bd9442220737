package schema

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unsafe"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"millrace/event"
	"millrace/internal/fault"
)

// headerBytes is the length of Confluent's wire header: magic 0 and the schema id.
const headerBytes = 5

// Codecs encodes and decodes the values of all topics. It is made once a process; Register (or AssignLocal) gives it the schema ids, after which it is
// safe for concurrent use.
type Codecs struct {
	subjects map[string]*subject // by topic
	raw      [7]*subject         // by category
	enriched [7]*subject
	client   *sr.Client

	mu      sync.RWMutex
	foreign map[uint32]*foreign // writer schemas that are not the current one
}

type subject struct {
	Subject
	parsed *avro.Schema // current
	id     uint32
	byID   map[uint32]int // id → version (0-based)
	olds   []*avro.Schema // by version
}

// foreign is a writer schema with other fields than ours.
type foreign struct {
	schema  *avro.Schema
	unknown []string        // fields that we do not know
	amounts map[string]bool // those of them that are amounts
}

// NewCodecs parses the committed schemas. The ids are unknown until Register or AssignLocal.
func NewCodecs() (*Codecs, error) {
	c := &Codecs{subjects: map[string]*subject{}, foreign: map[uint32]*foreign{}}
	for _, s := range Subjects() {
		versions, err := Versions(s.Topic)
		if err != nil {
			return nil, err
		}
		sub := &subject{Subject: s, byID: map[uint32]int{}}
		for i, text := range versions {
			parsed, err := avro.Parse(text)
			if err != nil {
				return nil, fmt.Errorf("parsing schema %s version %d: %w", s.Name(), i+1, err)
			}
			sub.olds = append(sub.olds, parsed)
		}
		sub.parsed = sub.olds[len(sub.olds)-1]
		c.subjects[s.Topic] = sub
	}
	for _, cat := range event.Categories() {
		c.raw[cat], c.enriched[cat] = c.subjects[cat.RawTopic()], c.subjects[cat.EventsTopic()]
	}
	return c, nil
}

// Register registers every committed version of every subject, in order, and learns their ids. It is idempotent.
func (c *Codecs) Register(ctx context.Context, client *sr.Client) error {
	c.client = client
	for _, topic := range slices.Sorted(maps.Keys(c.subjects)) {
		sub := c.subjects[topic]
		versions, err := Versions(topic)
		if err != nil {
			return err
		}
		for i, text := range versions {
			got, err := client.CreateSchema(ctx, sub.Name(), sr.Schema{Schema: text, Type: sr.TypeAvro})
			if err != nil {
				return fault.Newf("MR-EVT-001", "registering schema %s version %d: %w", sub.Name(), i+1, err)
			}
			sub.id = uint32(got.ID)
			sub.byID[sub.id] = i
		}
	}
	return nil
}

// AssignLocal gives the schemas ids without a registry: for tests and for programs that write files.
func (c *Codecs) AssignLocal() *Codecs {
	var id uint32
	for _, topic := range slices.Sorted(maps.Keys(c.subjects)) {
		sub := c.subjects[topic]
		for i := range sub.olds {
			id++
			sub.id = id
			sub.byID[id] = i
		}
	}
	return c
}

// AppendRaw encodes e as a value of its category's raw topic.
func (c *Codecs) AppendRaw(dst []byte, cat event.Category, e *event.Event) []byte {
	return appendBody(c.raw[cat].header(dst), cat, e)
}

// AppendEnriched encodes a value of the category's events topic: the enriched prefix of e, then body, which are the bytes of the raw value that DecodeRaw
// gave back. A nil body is encoded from e.
func (c *Codecs) AppendEnriched(dst []byte, cat event.Category, e *event.Event, body []byte) []byte {
	dst = appendPrefix(c.enriched[cat].header(dst), cat, e)
	if body == nil {
		return appendBody(dst, cat, e)
	}
	return append(dst, body...)
}

// Append encodes v, a pointer to the topic's struct in package event, as a value of a topic other than raw.* and events.*.
func (c *Codecs) Append(dst []byte, topic string, v any) ([]byte, error) {
	sub := c.subjects[topic]
	if sub == nil {
		return nil, fmt.Errorf("no schema for topic %s", topic)
	}
	out, err := sub.parsed.AppendEncode(sub.header(dst), v)
	if err != nil {
		return nil, fmt.Errorf("encoding a value of %s: %w", topic, err)
	}
	return out, nil
}

// Original is an encoded body of cat's raw topic without the fields that later versions added and that are absent: the bytes that version 1 had for the same
// event. What is derived from them (the id of an event that was sent without one) is the same before, during and after an upgrade.
func Original(cat event.Category, body []byte) []byte {
	for range laterFields[cat] {
		if n := len(body); n == 0 || body[n-1] != 0 {
			break
		}
		body = body[:len(body)-1]
	}
	return body
}

// laterFields is how many fields version 1 of each raw topic did not have. They are the last ones, nullable, and absent they are one zero byte each.
var laterFields = func() (n [7]int) {
	for _, c := range event.Categories() {
		for _, f := range EventFields(c, FromProducer) {
			if f.Since > 1 {
				n[c]++
			}
		}
	}
	return n
}()

func (s *subject) header(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), s.id)
}

// EventDecoder decodes values of raw.* and events.* topics. It belongs to one goroutine.
type EventDecoder struct {
	c     *Codecs
	r     reader
	alias bool
}

// NewEventDecoder makes a decoder whose events share one copy of the value.
func (c *Codecs) NewEventDecoder() *EventDecoder { return &EventDecoder{c: c} }

// NewAliasingDecoder makes a decoder whose events' strings are the value's own bytes: they are valid only as long as the value is not changed, and keep
// all of it alive. It saves the copy where an event is done with before its record is.
func (c *Codecs) NewAliasingDecoder() *EventDecoder { return &EventDecoder{c: c, alias: true} }

// DecodeRaw decodes a value of cat's raw topic into e, all of whose fields are overwritten; e.Items is reused. It gives back the encoded body for
// AppendEnriched, nil if the value was written with another schema than ours, when unknown fields have gone to e.Properties. The strings of e share one
// copy of value; value may be reused after the call.
func (d *EventDecoder) DecodeRaw(ctx context.Context, cat event.Category, value []byte, e *event.Event) (body []byte, err error) {
	current, err := d.begin(ctx, d.c.raw[cat], value, e)
	if err != nil || !current {
		return nil, err
	}
	d.r.readBody(cat, e)
	if d.r.err != nil || d.r.src != "" {
		return nil, fault.Newf("MR-EVT-002", "decoding a value of %s: %w", cat.RawTopic(), errShort)
	}
	return value[headerBytes:], nil
}

// DecodeEnriched decodes a value of cat's events topic into e as DecodeRaw does.
func (d *EventDecoder) DecodeEnriched(ctx context.Context, cat event.Category, value []byte, e *event.Event) error {
	current, err := d.begin(ctx, d.c.enriched[cat], value, e)
	if err != nil || !current {
		return err
	}
	d.r.readPrefix(cat, e)
	d.r.readBody(cat, e)
	if d.r.err != nil || d.r.src != "" {
		return fault.Newf("MR-EVT-002", "decoding a value of %s: %w", cat.EventsTopic(), errShort)
	}
	return nil
}

// begin reads the header. A value of the current schema is left to the generated reader; any other is decoded here.
func (d *EventDecoder) begin(ctx context.Context, sub *subject, value []byte, e *event.Event) (current bool, err error) {
	*e = event.Event{Items: e.Items[:0]}
	id, err := IDOf(value)
	if err != nil {
		return false, err
	}
	if id == sub.id {
		d.r.err = nil
		if body := value[headerBytes:]; d.alias && len(body) > 0 {
			d.r.src = unsafe.String(&body[0], len(body))
		} else {
			d.r.src = string(body)
		}
		return true, nil
	}
	return false, d.c.decodeForeign(ctx, sub.Topic, id, value[headerBytes:], e)
}

// IDOf reads the schema id of a value.
func IDOf(value []byte) (uint32, error) {
	if len(value) < headerBytes || value[0] != 0 {
		return 0, fault.Newf("MR-EVT-002", "value of %d bytes has no schema id", len(value))
	}
	return binary.BigEndian.Uint32(value[1:]), nil
}

// Decode decodes a value of a topic other than raw.* and events.* into v, a pointer to the topic's struct in package event.
func (c *Codecs) Decode(ctx context.Context, topic string, value []byte, v any) error {
	id, err := IDOf(value)
	if err != nil {
		return err
	}
	sub := c.subjects[topic]
	if sub == nil {
		return fmt.Errorf("no schema for topic %s", topic)
	}
	if id != sub.id {
		return c.decodeForeign(ctx, topic, id, value[headerBytes:], v)
	}
	if _, err := sub.parsed.Decode(value[headerBytes:], v); err != nil {
		return fault.Newf("MR-EVT-002", "decoding a value of %s: %w", topic, err)
	}
	return nil
}

// decodeForeign decodes a value of an older or newer schema. What our schema does not know of an event goes to its properties, unchanged.
func (c *Codecs) decodeForeign(ctx context.Context, topic string, id uint32, body []byte, v any) error {
	f, err := c.writer(ctx, topic, id)
	if err != nil {
		return err
	}
	if _, err := f.schema.Decode(body, v, avro.SkipUnknown()); err != nil {
		return fault.Newf("MR-EVT-002", "decoding a value of %s with schema %d: %w", topic, id, err)
	}
	e, ok := v.(*event.Event)
	if !ok || len(f.unknown) == 0 {
		return nil
	}
	all := map[string]any{}
	if _, err := f.schema.Decode(body, &all); err != nil {
		return fault.Newf("MR-EVT-002", "decoding a value of %s with schema %d: %w", topic, id, err)
	}
	props := map[string]any{}
	if e.Properties != "" {
		if err := json.Unmarshal([]byte(e.Properties), &props); err != nil {
			return fmt.Errorf("properties of event %s: %w", e.ID, err)
		}
	}
	for _, name := range f.unknown {
		v := all[name]
		if micros, ok := v.(int64); ok && f.amounts[name] {
			v = json.Number(event.FormatAmount(micros)) // as the producer sent it
		}
		if v != nil {
			props[name] = v
		}
	}
	text, err := json.Marshal(props)
	if err != nil {
		return fmt.Errorf("properties of event %s: %w", e.ID, err)
	}
	e.Properties = string(text)
	return nil
}

// writer finds the schema a value was written with: a committed version, else the registry's.
func (c *Codecs) writer(ctx context.Context, topic string, id uint32) (*foreign, error) {
	c.mu.RLock()
	f := c.foreign[id]
	c.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	sub := c.subjects[topic]
	f = &foreign{amounts: map[string]bool{}}
	if v, ok := sub.byID[id]; ok {
		f.schema = sub.olds[v]
	} else {
		if c.client == nil {
			return nil, fault.New("MR-EVT-003", fmt.Errorf("topic %s: schema id %d is not one of ours", topic, id))
		}
		got, err := c.client.SchemaByID(ctx, int(id))
		if err != nil {
			return nil, fault.Newf("MR-EVT-003", "topic %s: schema id %d: %w", topic, id, err)
		}
		parsed, err := avro.Parse(got.Schema)
		if err != nil {
			return nil, fault.Newf("MR-EVT-003", "topic %s: schema id %d: %w", topic, id, err)
		}
		f.schema = parsed
	}
	known := map[string]bool{}
	for _, one := range sub.Fields {
		known[one.Name] = true
	}
	root := f.schema.Root()
	if root.Type != "record" {
		return nil, fault.New("MR-EVT-003", errors.New("schema "+topic+" is no record"))
	}
	for _, one := range root.Fields {
		if !known[one.Name] {
			f.unknown = append(f.unknown, one.Name)
			if isAmount(&one.Type) {
				f.amounts[one.Name] = true
			}
		}
	}
	c.mu.Lock()
	c.foreign[id] = f
	c.mu.Unlock()
	return f, nil
}

// isAmount says whether a field's type is that of an amount, nullable or not.
func isAmount(t *avro.SchemaNode) bool {
	if t.Props["millrace"] == "micros" {
		return true
	}
	for i := range t.Branches {
		if isAmount(&t.Branches[i]) {
			return true
		}
	}
	return false
}
