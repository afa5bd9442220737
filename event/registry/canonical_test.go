package registry

import (
	"strings"
	"testing"

	"github.com/twmb/avro"
)

func TestTheStringFormIsThatOfAvrosJavaLibrary(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, normalize, want string }{
		"a primitive in object form is its name":      {in: `{"type":"string"}`, want: `"string"`},
		"a primitive with a property keeps its form":  {in: `{"logicalType":"date","type":"int"}`, want: `{"type":"int","logicalType":"date"}`},
		"white space goes":                            {in: " [ \"null\" ,\n \"long\" ] ", want: `["null","long"]`},
		"a dotted name is split":                      {in: `{"name":"a.b.E","type":"enum","symbols":["X"]}`, want: `{"type":"enum","name":"E","namespace":"a.b","symbols":["X"]}`},
		"keys get the library's order":                {in: `{"fields":[{"default":1,"type":"int","name":"x"}],"doc":"d","name":"R","type":"record"}`, want: `{"type":"record","name":"R","doc":"d","fields":[{"name":"x","type":"int","default":1}]}`},
		"defaults of null and numbers stay":           {in: `{"type":"record","name":"R","fields":[{"name":"x","type":["null","double"],"default":null},{"name":"y","type":"double","default":1.50}]}`, want: `{"type":"record","name":"R","fields":[{"name":"x","type":["null","double"],"default":null},{"name":"y","type":"double","default":1.50}]}`},
		"an inherited namespace is not repeated":      {in: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":{"type":"fixed","name":"F","namespace":"n","size":2}}]}`, want: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":{"type":"fixed","name":"F","size":2}}]}`},
		"another namespace is":                        {in: `{"type":"record","name":"n.R","fields":[{"name":"x","type":{"type":"fixed","name":"m.F","size":2}},{"name":"y","type":"m.F"}]}`, want: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":{"type":"fixed","name":"F","namespace":"m","size":2}},{"name":"y","type":"m.F"}]}`},
		"leaving a namespace is said":                 {in: `{"type":"record","name":"n.R","fields":[{"name":"x","type":{"type":"fixed","name":"F","namespace":"","size":2}}]}`, want: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":{"type":"fixed","name":"F","namespace":"","size":2}}]}`},
		"a reference in its own namespace is short":   {in: `{"type":"record","name":"n.R","fields":[{"name":"x","type":["null","n.R"]}]}`, want: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":["null","R"]}]}`},
		"aliases come last, short where they can be":  {in: `{"aliases":["n.Old","m.Older"],"type":"record","name":"n.R","fields":[{"aliases":["b"],"name":"x","order":"ascending","type":"int"},{"name":"y","type":"int","order":"ignore"}]}`, want: `{"type":"record","name":"R","namespace":"n","fields":[{"name":"x","type":"int","aliases":["b"]},{"name":"y","type":"int","order":"ignore"}],"aliases":["Old","m.Older"]}`},
		"properties keep their order":                 {in: `{"type":"array","z":1,"items":"int","a":{"k":[true,null]}}`, want: `{"type":"array","items":"int","z":1,"a":{"k":[true,null]}}`},
		"properties are sorted when normalizing":      {in: `{"type":"map","z":1,"values":"int","a":2}`, normalize: "yes", want: `{"type":"map","values":"int","a":2,"z":1}`},
		"an enum keeps its default":                   {in: `{"type":"enum","name":"E","default":"X","symbols":["X"]}`, want: `{"type":"enum","name":"E","symbols":["X"],"default":"X"}`},
		"angle brackets and slashes are not escaped":  {in: `{"type":"int","x":"<a&b>/é"}`, want: `{"type":"int","x":"<a&b>/é"}`},
		"an error is a record":                        {in: `{"type":"error","name":"Oops","fields":[]}`, want: `{"type":"error","name":"Oops","fields":[]}`},
		"a field's own properties follow its aliases": {in: `{"type":"record","name":"R","fields":[{"field-id":3,"name":"x","type":"int"}]}`, want: `{"type":"record","name":"R","fields":[{"name":"x","type":"int","field-id":3}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := canonical(tc.in, tc.normalize != "")
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if again, err := canonical(got, tc.normalize != ""); err != nil || again != got {
				t.Errorf("the form of the form is another: %s, %v", again, err)
			}
			if before, after := avro.MustParse(tc.in).Canonical(), avro.MustParse(got).Canonical(); string(before) != string(after) {
				t.Errorf("the meaning changed from %s to %s", before, after)
			}
		})
	}
}

func TestWhatParsersReadDifferentlyHasNoStringForm(t *testing.T) {
	t.Parallel()
	for _, in := range []string{`{"type":"int","type":"long"}`, `"int" "long"`, `{"type":"record","name":"R"}`, `7`, ``, `{"type":"record","name":"R","fields":[1]}`, `{"type":{"type":"int"}}`, strings.Repeat("[", 2000)} {
		if got, err := canonical(in, false); err == nil {
			t.Errorf("%.40q gave %s", in, got)
		}
	}
}

// FuzzCanonical: whatever parses keeps its meaning, and the form is its own form.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		userV1, userV3, record(fieldA, fieldBOptional, fieldCOfB), `"string"`, `["null",{"type":"fixed","name":"a.F","size":3}]`,
		`{"type":"record","name":"n.R","fields":[{"name":"x","type":{"type":"enum","name":"string","symbols":["A"]}},{"name":"y","type":"n.string"}]}`,
		`{"type":{"type":"array","items":{"type":"map","values":"R"}}}`, `{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`,
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, in string, normalize bool) {
		given, err := avro.Parse(in)
		if err != nil {
			return
		}
		form, err := canonical(in, normalize)
		if err != nil {
			return
		}
		stored, err := avro.Parse(form)
		if err != nil || string(stored.Canonical()) != string(given.Canonical()) {
			return // refused by candidate, which compares the two
		}
		again, err := canonical(form, normalize)
		if err != nil || again != form {
			t.Errorf("the form of\n%s is\n%s and that one's\n%s, %v", in, form, again, err)
		}
	})
}
