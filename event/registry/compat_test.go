package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/avro"
)

func record(fields ...string) string {
	return `{"type":"record","name":"R","fields":[` + strings.Join(fields, ",") + `]}`
}

const (
	fieldA         = `{"name":"a","type":"string"}`
	fieldBDefault  = `{"name":"b","type":"int","default":0}`
	fieldB         = `{"name":"b","type":"int"}`
	fieldBLong     = `{"name":"b","type":"long","default":0}`
	fieldBOptional = `{"name":"b","type":["null","int"],"default":null}`
	fieldAIsBytes  = `{"name":"a","type":"bytes"}`
	fieldAIsInt    = `{"name":"a","type":"int"}`
	fieldCOfB      = `{"name":"c","type":"int","aliases":["b"]}`
)

// The evolutions name what each direction allows: backward, the new schema reads old data; forward, the old schema reads new
// data.
var evolutions = []struct {
	name              string
	history           []string // oldest first
	next              string
	backward, forward bool // against the latest
	allBack, allFwd   bool // against all
}{
	{"a field with a default is added", []string{record(fieldA)}, record(fieldA, fieldBDefault), true, true, true, true},
	{"a field without a default is added", []string{record(fieldA)}, record(fieldA, fieldB), false, true, false, true},
	{"a field with a default is removed", []string{record(fieldA, fieldBDefault)}, record(fieldA), true, true, true, true},
	{"a field without a default is removed", []string{record(fieldA, fieldB)}, record(fieldA), true, false, true, false},
	{"an int becomes a long", []string{record(fieldBDefault)}, record(fieldBLong), true, false, true, false},
	{"a long becomes an int", []string{record(fieldBLong)}, record(fieldBDefault), false, true, false, true},
	{"an int becomes optional", []string{record(fieldBDefault)}, record(fieldBOptional), true, false, true, false},
	{"a string becomes bytes, which is promoted both ways", []string{record(fieldA)}, record(fieldAIsBytes), true, true, true, true},
	{"a string becomes an int", []string{record(fieldA)}, record(fieldAIsInt), false, false, false, false},
	{"a field is renamed with an alias", []string{record(fieldB)}, record(fieldCOfB), true, false, true, false},
	{"a symbol is added to an enum", []string{`{"type":"enum","name":"E","symbols":["A"]}`}, `{"type":"enum","name":"E","symbols":["A","B"]}`, true, false, true, false},
	{"a symbol is added to an enum with a default", []string{`{"type":"enum","name":"E","symbols":["A"],"default":"A"}`}, `{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}`, true, true, true, true},
	{"a fixed changes its size", []string{`{"type":"fixed","name":"F","size":4}`}, `{"type":"fixed","name":"F","size":8}`, false, false, false, false},
	{"a type is renamed", []string{record(fieldA)}, strings.Replace(record(fieldA), `"R"`, `"S"`, 1), false, false, false, false},
	{"a decimal changes its scale", []string{`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`}, `{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}`, false, false, false, false},
	{"a removed field comes back with another type", []string{record(fieldA, `{"name":"b","type":"string","default":""}`), record(fieldA)}, record(fieldA, fieldBDefault), true, true, false, false},
	{"a field comes back without a default", []string{record(fieldA, fieldB), record(fieldA, fieldBDefault)}, record(fieldA), true, true, true, false},
	{"a field that only the first version lacks loses its default", []string{record(fieldA), record(fieldA, fieldBDefault)}, record(fieldA, fieldB), true, true, false, true},
}

// want tells what a level says to an evolution.
func want(l Level, backward, forward, allBack, allFwd bool) bool {
	return map[Level]bool{
		None: true, Backward: backward, Forward: forward, Full: backward && forward,
		BackwardTransitive: allBack, ForwardTransitive: allFwd, FullTransitive: allBack && allFwd,
	}[l]
}

func TestEveryLevelJudgesEveryEvolution(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	for n, ev := range evolutions {
		for _, level := range levels() {
			t.Run(fmt.Sprintf("%s under %s", ev.name, level), func(t *testing.T) {
				t.Parallel()
				subject := fmt.Sprintf("e%d-%s", n, level)
				in.mustDo(t, "PUT", "/config/"+subject, `{"compatibility":"NONE"}`)
				for _, old := range ev.history {
					in.mustDo(t, "POST", "/subjects/"+subject+"/versions", envelope(t, old))
				}
				in.mustDo(t, "PUT", "/config/"+subject, fmt.Sprintf(`{"compatibility":%q}`, level))
				ok := want(level, ev.backward, ev.forward, ev.allBack, ev.allFwd)

				check := in.mustDo(t, "POST", "/compatibility/subjects/"+subject+"/versions?verbose=true", envelope(t, ev.next))
				if strings.Contains(check, `"is_compatible":true`) != ok || strings.Contains(check, `"messages"`) == ok {
					t.Errorf("checking against all versions: %s, want compatible %v", check, ok)
				}
				okLatest := want(level, ev.backward, ev.forward, ev.backward, ev.forward)
				check = in.mustDo(t, "POST", "/compatibility/subjects/"+subject+"/versions/latest", envelope(t, ev.next))
				if check != fmt.Sprintf(`{"is_compatible":%v}`, okLatest) {
					t.Errorf("checking against the latest version: %s, want %v", check, okLatest)
				}
				status, answer := in.do(t, "POST", "/subjects/"+subject+"/versions", envelope(t, ev.next))
				if wantStatus := map[bool]int{true: http.StatusOK, false: http.StatusConflict}[ok]; status != wantStatus {
					t.Errorf("registering: %d %s, want %d", status, answer, wantStatus)
				}
				if !ok && !strings.Contains(answer, `"error_code":409`) {
					t.Errorf("registering: %s, want error code 409", answer)
				}
			})
		}
	}
}

func TestSoftDeletedVersionsAreNotCompared(t *testing.T) {
	t.Parallel()
	in := start(t, startKafka(t), Config{})
	in.mustDo(t, "POST", "/subjects/s/versions", envelope(t, userV1))
	in.mustDo(t, "DELETE", "/subjects/s/versions/1", "")
	in.mustDo(t, "POST", "/subjects/s/versions", envelope(t, userBroken))
	if got := in.mustDo(t, "GET", "/subjects/s/versions?deleted=true", ""); got != "[1,2]" {
		t.Errorf("versions %s: the number of a deleted version must not be given again", got)
	}
}

func TestALevelLooksAtTheVersionsItNames(t *testing.T) {
	t.Parallel()
	var history []earlier
	for n, text := range []string{record(fieldA, fieldB), record(fieldA), record(fieldA, fieldBDefault)} {
		history = append(history, earlier{n + 1, text, avro.MustParse(text)})
	}
	next := avro.MustParse(record(fieldAIsInt))
	for _, level := range levels() {
		messages := level.check(next, history)
		if (messages == nil) != (level == None) {
			t.Errorf("%s: %v", level, messages)
		}
		if level != None && !slices.Contains(messages, "{oldSchemaVersion: 3}") {
			t.Errorf("%s does not name the newest version that does not fit: %v", level, messages)
		}
	}
}

func TestLevelsAreReadInAnyCase(t *testing.T) {
	t.Parallel()
	if l, err := ParseLevel("full_transitive"); err != nil || l != FullTransitive {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := ParseLevel("SIDEWAYS"); err == nil {
		t.Error("SIDEWAYS is no level")
	}
}
