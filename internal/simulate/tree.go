package simulate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tree is how the columns of a flat file become one nested JSON object.
type tree struct {
	key    string // in its parent
	column int    // of a leaf, else -1
	json   bool   // the leaf may hold JSON text
	list   bool   // its children are elements
	kids   []*tree
}

// jsonFields are the native fields that are objects or arrays: text in them is JSON.
var jsonFields = [...]string{"items", "context", "context.page", "context.device", "context.campaign", "payment", "properties"}

// newTree makes a tree of dotted column names.
func newTree(columns []string) (*tree, error) {
	root := &tree{column: -1}
	for i, name := range columns {
		name = strings.TrimSpace(name)
		at := root
		for _, part := range strings.Split(name, ".") {
			if part == "" {
				return nil, fmt.Errorf("column %d: %q is no field name", i+1, name)
			}
			if at.column >= 0 {
				return nil, fmt.Errorf("column %d: %q is within column %d", i+1, name, at.column+1)
			}
			k := slices.IndexFunc(at.kids, func(t *tree) bool { return t.key == part })
			if k < 0 {
				k = len(at.kids)
				at.kids = append(at.kids, &tree{key: part, column: -1})
			}
			at = at.kids[k]
		}
		if at.column >= 0 {
			return nil, fmt.Errorf("columns %d and %d are both %q", at.column+1, i+1, name)
		}
		if len(at.kids) > 0 {
			return nil, fmt.Errorf("column %d: other columns are within %q", i+1, name)
		}
		at.column, at.json = i, slices.Contains(jsonFields[:], name)
	}
	return root, root.number("")
}

// number finds the arrays: objects whose members are numbered from 0.
func (t *tree) number(path string) error {
	numbers := map[*tree]int{}
	for _, kid := range t.kids {
		if n, err := strconv.Atoi(kid.key); err == nil && n >= 0 {
			numbers[kid] = n
		}
		if err := kid.number(path + kid.key + "."); err != nil {
			return err
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	slices.SortFunc(t.kids, func(a, b *tree) int { return numbers[a] - numbers[b] })
	for i, kid := range t.kids {
		if kid.key != strconv.Itoa(i) {
			return fmt.Errorf("columns %s…: numbers from 0 to %d are expected", path, len(t.kids)-1)
		}
	}
	t.list = true
	return nil
}

// append writes the object. leaf writes a column's value, and says whether there is one; objects and arrays without any are left out.
func (t *tree) append(dst []byte, leaf func(dst []byte, leaf *tree) ([]byte, bool)) ([]byte, bool) {
	if t.column >= 0 {
		return leaf(dst, t)
	}
	open, end := byte('{'), byte('}')
	if t.list {
		open, end = '[', ']'
	}
	dst = append(dst, open)
	any := false
	for _, kid := range t.kids {
		before := len(dst)
		if any {
			dst = append(dst, ',')
		}
		if !t.list {
			dst = append(appendQuoted(dst, kid.key), ':')
		}
		var ok bool
		if dst, ok = kid.append(dst, leaf); !ok {
			dst = dst[:before]
			continue
		}
		any = true
	}
	return append(dst, end), any
}

// appendText writes a column's text: as JSON where it may be JSON and is, else as a string.
func (t *tree) appendText(dst []byte, s string) []byte {
	if t.json {
		if s = strings.TrimSpace(s); s != "" && (s[0] == '{' || s[0] == '[') && json.Valid([]byte(s)) {
			return appendLine(dst, s)
		}
	}
	return appendQuoted(dst, s)
}

// appendLine writes valid JSON without line breaks, which stand between tokens only.
func appendLine(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c == '\n' || c == '\r' {
			dst = append(dst, ' ')
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
