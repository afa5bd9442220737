package workers

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// render writes a value in YAML's flow form. Secrets inside lists of objects are masked by their tag.
func render(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	b, err := json.Marshal(plain(v))
	if err != nil { // only plain values get here
		return fmt.Sprint(v.Interface())
	}
	return string(b)
}

// plain turns structs into maps by their koanf tags.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Map:
		if r, ok := v.Interface().(interface{ Redacted() map[string]string }); ok {
			return r.Redacted()
		}
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[fmt.Sprint(k.Interface())] = plain(v.MapIndex(k))
		}
		return out
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := f.Tag.Get("koanf")
			if name == "" || name == "-" {
				continue
			}
			if f.Tag.Get("secret") == "true" && !v.Field(i).IsZero() {
				out[name] = "***"
				continue
			}
			out[name] = plain(v.Field(i))
		}
		return out
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	return v.Interface()
}

// nearest finds the known key with the least edit distance to key, "" if none is near.
func nearest(key string) string {
	best, at := "", 4
	for _, k := range DefaultConfig().Keys() {
		if d := distance(key, k.Path); d < at {
			best, at = k.Path, d
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
