package name

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// maxInput bounds the JSON of an input: it goes into the history of the workflow, and plans and lists belong into files.
const maxInput = 64 << 10

// Input is the input of a workflow.
type Input interface {
	// Validate reports every problem, each beginning with the field's name.
	Validate() error
}

// Decode reads the JSON of an input strictly: unknown, repeated and wrongly cased fields, values of a wrong type and anything behind the object are errors, and so is
// what Validate finds. All problems are reported at once, each with the path of its field.
func Decode[T Input](text []byte) (T, error) {
	var in T
	err := decode(text, &in)
	if err == nil {
		err = in.Validate()
	}
	return in, err
}

func decode(text []byte, into any) error {
	if len(text) > maxInput {
		return fmt.Errorf("the input has %d bytes, at most %d are taken", len(text), maxInput)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}") // the UI starts a workflow without an argument
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var errs []error
	if err := check(d, reflect.TypeOf(into).Elem(), "", &errs); err != nil {
		return fmt.Errorf("the input is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the input is one JSON object; something stands behind it")
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := json.Unmarshal(text, into); err != nil { // check has found what can be wrong, but for values that a type refuses by itself
		return fmt.Errorf("the input: %w", err)
	}
	return nil
}

// check reads one value and compares it with a type. What it gives is that the text is no JSON; everything else goes to errs.
func check(d *json.Decoder, t reflect.Type, path string, errs *[]error) error {
	tok, err := d.Token()
	if err != nil {
		return endless(err)
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	here := path
	if here == "" {
		here = "the input"
	}
	wrong := func(want string) {
		*errs = append(*errs, fmt.Errorf("%s: %s is expected, this is %s", here, want, describe(tok)))
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			if t != nil && (t.Kind() != reflect.Struct || custom(t)) {
				wrong(expects(t))
				t = nil
			}
			return object(d, t, path, errs)
		}
		var elem reflect.Type
		switch {
		case t == nil:
		case t.Kind() != reflect.Slice || custom(t):
			wrong(expects(t))
		default:
			elem = t.Elem()
		}
		for i := 0; d.More(); i++ {
			if err := check(d, elem, fmt.Sprintf("%s[%d]", path, i), errs); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return endless(err)
	case nil: // null is an absent value
	default:
		if t != nil {
			scalar(t, tok, here, wrong, errs)
		}
	}
	return nil
}

// object compares the fields of an object with those of a struct.
func object(d *json.Decoder, t reflect.Type, path string, errs *[]error) error {
	known, seen := fieldsOf(t), map[string]bool{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return endless(err)
		}
		key, _ := tok.(string) // an object's key is a string
		at := strings.TrimPrefix(path+"."+key, ".")
		var ft reflect.Type
		if t != nil {
			f, ok := known[key]
			switch {
			case !ok:
				*errs = append(*errs, unknown(at, key, known))
			case seen[key]:
				*errs = append(*errs, fmt.Errorf("%s: is there twice", at))
			default:
				ft = f
			}
			seen[key] = true
		}
		if err := check(d, ft, at, errs); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return endless(err)
}

func unknown(at, key string, known map[string]reflect.Type) error {
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	if near := Nearest(key, names); near != "" {
		return fmt.Errorf("%s: unknown field, did you mean %s?", at, near)
	}
	return fmt.Errorf("%s: unknown field; there are %s", at, strings.Join(names, ", "))
}

func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	if t == nil {
		return out
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if n, _, _ := strings.Cut(f.Tag.Get("json"), ","); n != "" && n != "-" {
			out[n] = f.Type
		}
	}
	return out
}

// scalar compares a string, number or bool with its type.
func scalar(t reflect.Type, tok json.Token, here string, wrong func(string), errs *[]error) {
	if custom(t) { // it says itself what is wrong with the text
		b, err := json.Marshal(tok)
		if err == nil {
			err = json.Unmarshal(b, reflect.New(t).Interface())
		}
		if err != nil {
			*errs = append(*errs, fmt.Errorf("%s: %w", here, err))
		}
		return
	}
	switch v := tok.(type) {
	case string:
		if t.Kind() != reflect.String {
			wrong(expects(t))
		}
	case bool:
		if t.Kind() != reflect.Bool {
			wrong(expects(t))
		}
	case json.Number:
		if t.Kind() < reflect.Int || t.Kind() > reflect.Float64 {
			wrong(expects(t))
			return
		}
		if err := json.Unmarshal([]byte(v), reflect.New(t).Interface()); err != nil {
			wrong(expects(t))
		}
	}
}

// custom says whether a type reads its JSON itself.
func custom(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

func expects(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration such as "7d" or "90m"`
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct:
		return "an object"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func describe(tok json.Token) string {
	switch v := tok.(type) {
	case json.Delim:
		if v == '{' {
			return "an object"
		}
		return "a list"
	case string:
		return fmt.Sprintf("the string %.60q", v)
	case bool:
		return strconv.FormatBool(v)
	}
	return fmt.Sprintf("the number %.60s", tok)
}

// endless turns the end of a text that goes on into words.
func endless(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends in the middle")
	}
	return err
}

// Nearest is the name with the least edit distance to s, "" if none is near.
func Nearest(s string, names []string) string {
	best, at := "", len(s)/3+2
	for _, n := range names {
		if d := distance(strings.ToLower(s), n); d < at {
			best, at = n, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diag+cost)
			diag, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
