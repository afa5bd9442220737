package schema

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-faster/jx"

	"millrace/event"
)

// Promotion says that a property of a category's events has a column of its own from some time on. It is a record of the topic control, so that the sinks add the
// column while traffic runs; a field that a release adds to the table of fields is another thing and needs new workers.
//
// The column is a copy: the property stays among the row's properties, where queries written before find it. What does not fit the type is only there.
type Promotion struct {
	Category string    `json:"category"`
	Name     string    `json:"name"`               // of the column
	Type     string    `json:"type"`               // see PromotedTypes
	Property string    `json:"property,omitempty"` // key among the properties; the column's name if empty
	ID       int       `json:"id"`                 // field id, for good
	Since    time.Time `json:"since"`              // rows with this ingested_at or a later one have the value; before it they may
}

// Field ids of promoted columns begin far above those that releases give, and above those of partition fields (1000 and on), which some engines put in one struct with them.
const (
	FirstPromotedID = 2000
	MaxPromoted     = 256 // columns of one category: notes of the ClickHouse sink hold a bit for each
)

// controlColumn begins the keys of promotions on the topic control.
const controlColumn = "column/"

var promotedTypes = []struct {
	name string
	t    Type
}{{"string", String}, {"int", Int}, {"long", Long}, {"bool", Bool}, {"timestamp", Timestamp}, {"amount", Amount}}

// PromotedTypes lists the types that a promoted column can have.
func PromotedTypes() []string {
	out := make([]string, len(promotedTypes))
	for i, p := range promotedTypes {
		out[i] = p.name
	}
	return out
}

func promotedType(name string) (Type, bool) {
	for _, p := range promotedTypes {
		if p.name == name {
			return p.t, true
		}
	}
	return 0, false
}

// reservedNames are refused by Iceberg, Spark, BigQuery or ClickHouse, or mean something else there.
var reservedNames = map[string]bool{
	"partition": true, "table": true, "all": true, "array": true, "between": true, "case": true, "cast": true, "cross": true, "default": true, "distinct": true, "else": true, "end": true,
	"except": true, "exists": true, "false": true, "following": true, "for": true, "from": true, "full": true, "group": true, "grouping": true, "having": true, "in": true, "inner": true,
	"intersect": true, "interval": true, "into": true, "is": true, "join": true, "lateral": true, "left": true, "like": true, "limit": true, "natural": true, "not": true, "null": true,
	"on": true, "or": true, "order": true, "outer": true, "over": true, "preceding": true, "range": true, "right": true, "rows": true, "select": true, "some": true, "struct": true,
	"tablesample": true, "then": true, "to": true, "treat": true, "true": true, "unbounded": true, "union": true, "unnest": true, "using": true, "when": true, "where": true, "window": true,
	"with": true, "within": true, "and": true, "any": true, "as": true, "asc": true, "by": true, "collate": true, "contains": true, "create": true, "cube": true, "current": true, "desc": true,
	"define": true, "enum": true, "escape": true, "exclude": true, "extract": true, "fetch": true, "hash": true, "if": true, "ignore": true, "lookup": true, "merge": true, "new": true, "no": true,
	"nulls": true, "of": true, "proto": true, "qualify": true, "recursive": true, "respect": true, "rollup": true, "set": true, "at": true, "version": true,
}

// maxColumnName bounds the name of a promoted column, in bytes.
const maxColumnName = 60

func wellFormedColumn(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '_') {
			continue
		}
		return false
	}
	return name != "" && len(name) <= maxColumnName
}

// Validate reports every problem of a promotion by itself: not whether another has its name or id.
func (p Promotion) Validate() error {
	var errs []error
	c, ok := event.ParseCategory(p.Category)
	if !ok {
		errs = append(errs, fmt.Errorf("category: %q is none of page, cart, purchase, inventory, exposure, identity, custom", p.Category))
	}
	switch {
	case !wellFormedColumn(p.Name):
		errs = append(errs, fmt.Errorf("name: %q is not 1 to %d bytes of a to z, 0 to 9 and _, beginning with a letter", p.Name, maxColumnName))
	case reservedNames[p.Name]:
		errs = append(errs, fmt.Errorf("name: %q is a reserved word of a store", p.Name))
	case ok:
		for _, t := range Tables() {
			if t.Name == c.Table() && slices.ContainsFunc(t.Columns, func(col Column) bool { return col.Name == p.Name }) {
				errs = append(errs, fmt.Errorf("name: table %s has a column %s already", t.Name, p.Name))
			}
		}
	}
	if _, ok := promotedType(p.Type); !ok {
		errs = append(errs, fmt.Errorf("type: %q is none of %s", p.Type, strings.Join(PromotedTypes(), ", ")))
	}
	if len(p.Property) > 200 {
		errs = append(errs, fmt.Errorf("property: %d bytes are more than 200", len(p.Property)))
	}
	if p.ID < FirstPromotedID || p.ID >= FirstPromotedID+MaxPromoted {
		errs = append(errs, fmt.Errorf("id: %d is not between %d and %d", p.ID, FirstPromotedID, FirstPromotedID+MaxPromoted-1))
	}
	return errors.Join(errs...)
}

// Key is the key of the promotion's record.
func (p Promotion) Key() string { return controlColumn + p.Category + "." + p.Name }

// Record is the promotion as a record of the topic control.
func (p Promotion) Record() (key, value []byte, err error) {
	value, err = json.Marshal(p)
	if err != nil {
		return nil, nil, fmt.Errorf("promotion of %s.%s: %w", p.Category, p.Name, err)
	}
	return []byte(p.Key()), value, nil
}

// Column is the promotion as a column of its table.
func (p Promotion) Column() Column {
	t, _ := promotedType(p.Type)
	return Column{Field: Field{Name: p.Name, Type: t, Null: true, Layer: FromSink, Doc: "promoted: property " + p.From()}, ID: p.ID}
}

// From is the key of the property that the column is filled from.
func (p Promotion) From() string {
	if p.Property != "" {
		return p.Property
	}
	return p.Name
}

// Widens says whether a column of type from may become one of type to with the values it has.
func Widens(from, to string) bool { return from == to || from == "int" && to == "long" }

// Promotions is what the topic control says about columns, in the order of its records. The zero value is empty.
type Promotions struct {
	byKey   map[string]Promotion
	refused map[string]error
	ids     map[string]map[int]string // by category: field id → column
}

// Apply takes a record of the topic control and says whether the columns are others than before. Records of another kind are passed over. One that cannot be
// followed (a name or id that is taken, a type that narrows, text that is no promotion) changes nothing and is kept as the key's problem.
func (s *Promotions) Apply(key, value []byte) (changed bool) {
	k := string(key)
	if !strings.HasPrefix(k, controlColumn) {
		return false
	}
	if s.byKey == nil {
		s.byKey, s.refused, s.ids = map[string]Promotion{}, map[string]error{}, map[string]map[int]string{}
	}
	delete(s.refused, k)
	p, err := s.admit(k, value)
	if err != nil {
		s.refused[k] = err
		return false
	}
	old, had := s.byKey[k]
	if had && old == p {
		return false
	}
	if s.ids[p.Category] == nil {
		s.ids[p.Category] = map[int]string{}
	}
	s.ids[p.Category][p.ID] = k
	s.byKey[k] = p
	return true
}

func (s *Promotions) admit(key string, value []byte) (Promotion, error) {
	var p Promotion
	if len(value) == 0 {
		return p, errors.New("a promotion cannot be taken back: the column has values")
	}
	if err := json.Unmarshal(value, &p); err != nil {
		return p, fmt.Errorf("no promotion: %w", err)
	}
	p.Since = p.Since.UTC()
	if err := p.Validate(); err != nil {
		return p, err
	}
	if p.Key() != key {
		return p, fmt.Errorf("the record is about %s", p.Key())
	}
	old, had := s.byKey[key]
	switch {
	case had && old.ID != p.ID:
		return p, fmt.Errorf("field id %d: the column has %d", p.ID, old.ID)
	case had && !Widens(old.Type, p.Type):
		return p, fmt.Errorf("type %s: the column has %s, which may only become wider (int to long)", p.Type, old.Type)
	}
	if other := s.ids[p.Category][p.ID]; other != "" && other != key {
		return p, fmt.Errorf("field id %d is that of %s", p.ID, strings.TrimPrefix(other, controlColumn))
	}
	return p, nil
}

// All lists the promotions by category and id.
func (s *Promotions) All() []Promotion {
	var out []Promotion
	for _, p := range s.byKey {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Promotion) int { return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Of lists the promotions of a category by id.
func (s *Promotions) Of(c event.Category) []Promotion {
	return slices.DeleteFunc(s.All(), func(p Promotion) bool { return p.Category != c.String() })
}

// Refused are the records that cannot be followed, by key, and why.
func (s *Promotions) Refused() map[string]error { return s.refused }

// Next fills in the field id of a new promotion, or that of the column it widens, and says what is wrong with it.
func (s *Promotions) Next(p Promotion) (Promotion, error) {
	if old, had := s.byKey[p.Key()]; had {
		p.ID, p.Since = old.ID, old.Since
		if p.From() != old.From() {
			return p, fmt.Errorf("the column is filled from property %q, which cannot be changed", old.From())
		}
		if p.Type == old.Type {
			return p, fmt.Errorf("the column is there, with type %s", old.Type)
		}
		if !Widens(old.Type, p.Type) {
			return p, fmt.Errorf("type %s: the column has %s, which may only become wider (int to long)", p.Type, old.Type)
		}
		return p, p.Validate()
	}
	p.ID = FirstPromotedID
	for id := range s.ids[p.Category] {
		p.ID = max(p.ID, id+1)
	}
	return p, p.Validate()
}

// Promoted is the value of a promoted column in one row.
type Promoted struct {
	OK   bool   // else NULL
	Text string // of a string
	Num  int64  // of anything else: a number, micros, µs since the epoch, 0 or 1
}

// Extractor reads the values of promoted columns from the properties of events. It belongs to one goroutine.
type Extractor struct {
	of     map[string]int // property → index
	types  []Type
	values []Promoted
	jx     jx.Decoder

	// Values that were there and did not fit, since the extractor was made, by column.
	Unfit []int64
}

// NewExtractor makes an extractor for promotions, whose order is that of the values.
func NewExtractor(ps []Promotion) *Extractor {
	x := &Extractor{of: map[string]int{}, values: make([]Promoted, len(ps)), Unfit: make([]int64, len(ps))}
	for i, p := range ps {
		x.of[p.From()] = i
		x.types = append(x.types, p.Column().Type)
	}
	return x
}

// Values reads the values from properties, the text of a JSON object or "". They are valid until the next call; their texts are as long as properties is.
func (x *Extractor) Values(properties string) []Promoted {
	clear(x.values)
	if properties == "" || len(x.values) == 0 {
		return x.values
	}
	x.jx.ResetBytes([]byte(properties))
	// An error means that the text is no JSON object: nothing more is read from it. The gateway lets none through.
	_ = x.jx.ObjBytes(func(d *jx.Decoder, key []byte) error {
		i, ok := x.of[string(key)]
		if !ok {
			return d.Skip()
		}
		raw, err := d.Raw()
		if err != nil || string(raw) == "null" {
			return err
		}
		v, fits := promote(x.types[i], raw)
		if !fits {
			v = Promoted{}
			x.Unfit[i]++
		}
		x.values[i] = v
		return nil
	})
	return x.values
}

// promote reads one JSON value as a type. Numbers are as good in a string, since SDKs send them so, and read from their digits, never through a float.
func promote(t Type, raw jx.Raw) (Promoted, bool) {
	kind := raw.Type()
	text := string(raw)
	if kind == jx.String {
		s, err := jx.DecodeBytes(raw).Str()
		if err != nil {
			return Promoted{}, false
		}
		text = s
	}
	scalar := kind == jx.String || kind == jx.Number
	switch t {
	case String:
		return Promoted{OK: true, Text: text}, (scalar || kind == jx.Bool) && text != ""
	case Int, Long:
		n, err := strconv.ParseInt(text, 10, 64)
		if !scalar || err != nil || t == Int && (n < math.MinInt32 || n > math.MaxInt32) {
			return Promoted{}, false
		}
		return Promoted{OK: true, Num: n}, true
	case Amount:
		n, err := event.ParseAmount(text)
		if !scalar || err != nil {
			return Promoted{}, false
		}
		return Promoted{OK: true, Num: n}, true
	case Bool:
		switch text {
		case "true":
			return Promoted{OK: true, Num: 1}, kind == jx.Bool || kind == jx.String
		case "false":
			return Promoted{OK: true}, kind == jx.Bool || kind == jx.String
		}
	case Timestamp:
		at, ok := promotedTime(text, kind == jx.Number)
		return Promoted{OK: ok, Num: at}, ok
	}
	return Promoted{}, false
}

// The times that every store can hold.
var (
	firstTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(2299, 12, 31, 0, 0, 0, 0, time.UTC)
)

// promotedTime reads an RFC 3339 time, or a number of milliseconds since the epoch as native events have it.
func promotedTime(text string, number bool) (int64, bool) {
	var at time.Time
	if number {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, false
		}
		at = time.UnixMilli(ms)
	} else {
		var err error
		if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return 0, false
		}
	}
	if at.Before(firstTime) || at.After(lastTime) {
		return 0, false
	}
	return at.UnixMicro(), true
}
