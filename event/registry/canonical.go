package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// canonical gives the string form under which a schema is stored, answered and compared: what Avro's Java Schema.toString
// gives, which is Confluent's rule. Two texts that differ only in white space, key order, spelled-out inherited namespaces or
// {"type":"string"} for "string" are one schema and get one id; texts that differ in defaults, docs, aliases or any other
// property are two.
//
// It is not Avro's Parsing Canonical Form: that strips defaults, docs, aliases and logical types, and two schemas which a
// reader resolves differently would get one id. Unlike Java, numbers keep the digits they were written with.
//
// With normalize, properties that are not Avro's own are sorted, so that their order does not matter either.
//
// The text must be a valid schema; canonical only rewrites. A duplicate key is an error: parsers differ on which one wins.
func canonical(text string, normalize bool) (string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	n, err := decodeNode(dec, 0)
	if err != nil {
		return "", err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("text after the schema")
	}
	w := writer{normalize: normalize}
	w.schema(n, "")
	if w.err != nil {
		return "", w.err
	}
	return w.b.String(), nil
}

// object is a JSON object that knows the order of its keys.
type object struct {
	keys []string
	vals map[string]any // string, json.Number, bool, nil, []any, *object
}

const maxNesting = 1000

func decodeNode(dec *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d", maxNesting)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := decodeNode(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	case json.Delim('{'):
		o := &object{vals: map[string]any{}}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string) // the decoder admits nothing else as a key
			if _, dup := o.vals[key]; dup {
				return nil, fmt.Errorf("duplicate key %q", key)
			}
			v, err := decodeNode(dec, depth+1)
			if err != nil {
				return nil, err
			}
			o.keys = append(o.keys, key)
			o.vals[key] = v
		}
		_, err := dec.Token()
		return o, err
	}
	return tok, nil
}

var primitives = []string{"null", "boolean", "int", "long", "float", "double", "bytes", "string"}

// Avro's own keys, which are never properties (Java: Schema.SCHEMA_RESERVED and FIELD_RESERVED).
var (
	schemaReserved = []string{"doc", "fields", "items", "name", "namespace", "size", "symbols", "values", "type", "aliases"}
	enumReserved   = append(slices.Clone(schemaReserved), "default")
	fieldReserved  = []string{"default", "doc", "name", "order", "type", "aliases"}
)

type writer struct {
	b         bytes.Buffer
	normalize bool
	err       error
}

func (w *writer) schema(n any, ns string) {
	switch n := n.(type) {
	case string:
		w.json(reference(n, ns))
	case []any:
		w.b.WriteByte('[')
		for i, branch := range n {
			if i > 0 {
				w.b.WriteByte(',')
			}
			w.schema(branch, ns)
		}
		w.b.WriteByte(']')
	case *object:
		w.object(n, ns)
	default:
		w.err = fmt.Errorf("%v is not a schema", n)
	}
}

// reference shortens a name to what its enclosing namespace needs.
func reference(name, ns string) string {
	if ns != "" && strings.HasPrefix(name, ns+".") && !strings.Contains(name[len(ns)+1:], ".") {
		// A primitive's name means the primitive wherever it stands, so a type called a.b.string keeps its full name.
		if short := name[len(ns)+1:]; !slices.Contains(primitives, short) {
			return short
		}
	}
	return name
}

func (w *writer) object(o *object, ns string) {
	kind, _ := o.vals["type"].(string)
	f := fields{w: w}
	switch kind {
	case "record", "error":
		f.open(kind)
		inner := f.name(o, ns)
		f.textField(o, "doc")
		f.key("fields")
		w.fields(o.vals["fields"], inner)
		f.props(o, schemaReserved)
		f.aliases(o, inner)
	case "enum":
		f.open(kind)
		inner := f.name(o, ns)
		f.textField(o, "doc")
		f.valueField(o, "symbols")
		f.valueField(o, "default")
		f.props(o, enumReserved)
		f.aliases(o, inner)
	case "fixed":
		f.open(kind)
		inner := f.name(o, ns)
		f.textField(o, "doc")
		f.valueField(o, "size")
		f.props(o, schemaReserved)
		f.aliases(o, inner)
	case "array", "map":
		f.open(kind)
		element := map[string]string{"array": "items", "map": "values"}[kind]
		f.key(element)
		w.schema(o.vals[element], ns)
		f.props(o, schemaReserved)
	case "":
		w.err = errors.New("a schema's type is not a string")
		return
	default: // a primitive, or a name
		if !hasProps(o, schemaReserved) {
			w.json(reference(kind, ns))
			return
		}
		f.open(reference(kind, ns))
		f.props(o, schemaReserved)
	}
	w.b.WriteByte('}')
}

func (w *writer) fields(n any, ns string) {
	list, ok := n.([]any)
	if !ok {
		w.err = errors.New("fields is not an array")
		return
	}
	w.b.WriteByte('[')
	for i, item := range list {
		o, ok := item.(*object)
		if !ok {
			w.err = errors.New("a field is not an object")
			return
		}
		if i > 0 {
			w.b.WriteByte(',')
		}
		f := fields{w: w}
		w.b.WriteByte('{')
		f.valueField(o, "name")
		f.key("type")
		w.schema(o.vals["type"], ns)
		f.textField(o, "doc")
		f.valueField(o, "default")
		if order, _ := o.vals["order"].(string); order != "" && order != "ascending" {
			f.key("order")
			w.json(order)
		}
		f.valueField(o, "aliases")
		f.props(o, fieldReserved)
		w.b.WriteByte('}')
	}
	w.b.WriteByte(']')
}

func hasProps(o *object, reserved []string) bool {
	return slices.ContainsFunc(o.keys, func(k string) bool { return !slices.Contains(reserved, k) })
}

// fields writes the members of one JSON object.
type fields struct {
	w    *writer
	some bool
}

func (f *fields) open(kind string) {
	f.w.b.WriteByte('{')
	f.key("type")
	f.w.json(kind)
}

func (f *fields) key(k string) {
	if f.some {
		f.w.b.WriteByte(',')
	}
	f.some = true
	f.w.json(k)
	f.w.b.WriteByte(':')
}

// name writes name and, where it differs from the enclosing one, namespace; it gives the namespace that holds inside.
func (f *fields) name(o *object, enclosing string) string {
	name, _ := o.vals["name"].(string)
	ns := enclosing
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		ns, name = name[:i], name[i+1:]
	} else if given, ok := o.vals["namespace"].(string); ok {
		ns = given
	}
	f.key("name")
	f.w.json(name)
	if ns != enclosing {
		f.key("namespace")
		f.w.json(ns)
	}
	return ns
}

func (f *fields) textField(o *object, k string) {
	if s, ok := o.vals[k].(string); ok {
		f.key(k)
		f.w.json(s)
	}
}

func (f *fields) valueField(o *object, k string) {
	if v, ok := o.vals[k]; ok {
		f.key(k)
		f.w.value(v)
	}
}

func (f *fields) aliases(o *object, ns string) {
	list, ok := o.vals["aliases"].([]any)
	if !ok {
		return
	}
	short := make([]any, len(list))
	for i, a := range list {
		short[i] = a
		// Unlike a reference, an alias is never taken for a primitive.
		if s, ok := a.(string); ok && ns != "" && strings.HasPrefix(s, ns+".") && !strings.Contains(s[len(ns)+1:], ".") {
			short[i] = s[len(ns)+1:]
		}
	}
	f.key("aliases")
	f.w.value(short)
}

func (f *fields) props(o *object, reserved []string) {
	keys := o.keys
	if f.w.normalize {
		keys = slices.Sorted(slices.Values(keys))
	}
	for _, k := range keys {
		if !slices.Contains(reserved, k) {
			f.key(k)
			f.w.value(o.vals[k])
		}
	}
}

// value writes JSON that is not a schema: a default, a property.
func (w *writer) value(n any) {
	switch n := n.(type) {
	case []any:
		w.b.WriteByte('[')
		for i, v := range n {
			if i > 0 {
				w.b.WriteByte(',')
			}
			w.value(v)
		}
		w.b.WriteByte(']')
	case *object:
		w.b.WriteByte('{')
		f := fields{w: w}
		for _, k := range n.keys {
			f.key(k)
			w.value(n.vals[k])
		}
		w.b.WriteByte('}')
	default:
		w.json(n)
	}
}

func (w *writer) json(v any) {
	enc := json.NewEncoder(&w.b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		w.err = err
		return
	}
	w.b.Truncate(w.b.Len() - 1) // Encode's newline
}
