package workers

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"millrace/lakehouse"
)

// settingsHook reads properties whose names have dots in them. A file may write {s3.endpoint: …} or {s3: {endpoint: …}}; a flag (iceberg.store.s3.endpoint) and the
// environment (MILLRACE_ICEBERG__STORE__S3__ENDPOINT, where an underscore stands for a dash) give the second form, which wins.
func settingsHook(from, to reflect.Type, data any) (any, error) {
	if to != reflect.TypeFor[lakehouse.Settings]() || from.Kind() != reflect.Map {
		return data, nil
	}
	tree, ok := data.(map[string]any)
	if !ok {
		return data, nil
	}
	out := map[string]string{}
	return out, flatten(tree, "", out)
}

func flatten(tree map[string]any, prefix string, out map[string]string) error {
	keys := slices.Collect(maps.Keys(tree))
	slices.SortFunc(keys, func(a, b string) int { // nested ones last
		_, na := tree[a].(map[string]any)
		_, nb := tree[b].(map[string]any)
		switch {
		case na == nb:
			return strings.Compare(a, b)
		case na:
			return 1
		}
		return -1
	})
	for _, k := range keys {
		name := prefix + strings.ReplaceAll(k, "_", "-")
		switch v := tree[k].(type) {
		case map[string]any:
			if err := flatten(v, name+".", out); err != nil {
				return err
			}
		case []any:
			return fmt.Errorf("%s is a list, not a text", name)
		case nil:
		default:
			out[name] = fmt.Sprint(v)
		}
	}
	return nil
}
