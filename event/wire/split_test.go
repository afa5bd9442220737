package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func splitAll(body string) []string {
	out := []string{}
	Split([]byte(body), func(text []byte) bool {
		out = append(out, string(text))
		return true
	})
	return out
}

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"nothing":                            {" \n", []string{}},
		"one object":                         {` {"a":1} `, []string{`{"a":1}`}},
		"a byte order mark":                  {"\xef\xbb\xbf{}", []string{`{}`}},
		"an object over lines":               {"{\n \"a\": {\n  \"b\": 1\n }\n}\n", []string{"{\n \"a\": {\n  \"b\": 1\n }\n}"}},
		"lines":                              {"{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}", []string{`{"a":1}`, `{"b":2}`, `{"c":3}`}},
		"objects without newlines":           {`{"a":1}{"b":2} {"c":3}`, []string{`{"a":1}`, `{"b":2}`, `{"c":3}`}},
		"an array":                           {`[{"a":1}, {"b":[2,3]} ,4]`, []string{`{"a":1}`, `{"b":[2,3]}`, `4`}},
		"an empty array":                     {`[ ]`, []string{}},
		"a broken line between good ones":    {"{\"a\":1}\n{\"b\":\n{\"c\":3}", []string{`{"a":1}`, `{"b":`, `{"c":3}`}},
		"an open string on a line":           {"{\"a\":\"x\n{\"c\":3}", []string{`{"a":"x`, `{"c":3}`}},
		"rubbish after a value":              {"{\"a\":1} x\n{\"c\":3}", []string{`{"a":1} x`, `{"c":3}`}},
		"a broken element between good ones": {`[{"a":1},{"b":NaN},{"c":3}]`, []string{`{"a":1}`, `{"b":NaN}`, `{"c":3}`}},
		"an element that is not finished":    {`[{"a":1},{"b":,{"c":3},{"d":{"e":"x"}, {"f":4}]`, []string{`{"a":1}`, `{"b":`, `{"c":3}`, `{"d":{"e":"x"}`, `{"f":4}`}},
		"a bracket of the wrong kind":        {`[{"a":[1}, {"b":2]`, []string{`{"a":[1}`, `{"b":2`}},
		"an element that is no JSON":         {`[{"a":1},oops,{"c":3}]`, []string{`{"a":1}`, `oops`, `{"c":3}`}},
		"commas only":                        {`[,,{"a":1},,]`, []string{`{"a":1}`}},
		"a stray brace":                      {`[},{"a":1}]`, []string{`}`, `{"a":1}`}},
		"an array that is cut off":           {`[{"a":1},{"b":2`, []string{`{"a":1}`, `{"b":2`}},
		"two arrays":                         {"[{\"a\":1}]\n[{\"b\":2}]", []string{`{"a":1}`, `{"b":2}`}},
		"no JSON":                            {"hello world", []string{"hello world"}},
		"a broken object over lines":         {"{\n \"a\": tru,\n \"b\": 1\n}\n{\"c\":3}", []string{"{\n \"a\": tru,\n \"b\": 1\n}", `{"c":3}`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, splitAll(c.body)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestSplitStopsWhenAsked(t *testing.T) {
	n := 0
	Split([]byte(`[1,2,3]`), func([]byte) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("%d texts", n)
	}
}

// Bodies made to be read again and again must not cost more than a few readings. The time is the test's own timeout's matter: quadratic cost would be hours.
func TestMadeUpBodiesCostNoMoreThanOthers(t *testing.T) {
	start := time.Now()
	for name, one := range map[string]string{"open objects": "{\"a\":[1,\n", "open arrays": "{\"a\":[\"x\",\"y\"],\"b\":[0,\n", "brackets": "[", "braces": "{\n", "commas": "[,", "quotes": "\"\n", "spaces": "   ", "digits": "4111111111111111 "} {
		body := strings.Repeat(one, 8<<20/len(one))
		n := len(splitAll(body))
		b := []byte(body)
		maskCardsJSON(b)
		NewRedactor([]Rule{{"a", Drop}}).Apply(b, nil)
		t.Logf("%s: %d texts, %v", name, n, time.Since(start))
	}
}
