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

func TestWhatWasHashedIsNotHashedAgain(t *testing.T) {
	r, sealer := NewRedactor([]Rule{{Key: "email", Action: Hash}}), NewSealer(testSource().Secret)
	once := string(r.Apply([]byte(`{"email":"pat@example.com"}`), sealer))
	if twice := string(r.Apply([]byte(once), sealer)); twice != once || strings.Contains(once, "pat") {
		t.Errorf("%s, then %s", once, twice)
	}
	near := strings.Replace(once, ".", ".g", 1)
	if got := string(r.Apply([]byte(near), sealer)); got == near {
		t.Errorf("%s was taken for a hash", near)
	}
}
