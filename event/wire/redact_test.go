package wire

import (
	"strings"
	"testing"
)

func TestEveryMemberThatMayNotBeStoredIsSeenAndDropped(t *testing.T) {
	r := NewRedactor(nil)
	for _, key := range never {
		for _, text := range []string{`{"` + key + `":"123"}`, `{"a":{"` + key + `" : "123"}}`, `{"\u0063` + key[1:] + `":"123"}`} {
			if key[0] != 'c' && strings.Contains(text, `\u`) {
				continue
			}
			if got := string(r.Apply([]byte(text), nil)); strings.Contains(got, "123") || !strings.Contains(got, "null") {
				t.Errorf("%s became %s", text, got)
			}
		}
	}
}

func TestAnOrdinaryEventIsNotGoneOverForRules(t *testing.T) {
	if NewRedactor(nil).touches([]byte(benchText)) {
		t.Error("the fast check takes an event without such members for one that has them")
	}
}
