package event

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var testKey = SubjectKey{1, 2, 3}

func erasedOf(t testing.TB, cut Cut, subjects ...Subject) *Erased {
	t.Helper()
	e := NewErased(testKey)
	entry := Erasure{RequestID: "r1", Key: testKey.ID(), Cut: cut.String()}
	for _, s := range subjects {
		entry.Subjects = append(entry.Subjects, testKey.Digest(s).String())
	}
	if err := e.Add(entry); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTheFilterDropsRowsOfErasedSubjectsBelowTheCut(t *testing.T) {
	t.Parallel()
	e := erasedOf(t, Cut{"raw.page": {10, 20}}, Subject{"default", SubjectVisitor, "v1"}, Subject{"default", SubjectUser, "u1"})
	for what, c := range map[string]struct {
		tenant, visitor, user, topic string
		partition                    int32
		offset                       int64
		want                         bool
	}{
		"the visitor below the cut":                {"default", "v1", "", "raw.page", 0, 9, true},
		"the visitor at the cut":                   {"default", "v1", "", "raw.page", 0, 10, false},
		"the visitor below another partition's":    {"default", "v1", "", "raw.page", 1, 19, true},
		"the user, whatever the visitor":           {"default", "other", "u1", "raw.page", 1, 0, true},
		"another person":                           {"default", "v2", "u2", "raw.page", 0, 0, false},
		"the same id of another tenant":            {"shop2", "v1", "u1", "raw.page", 0, 0, false},
		"a user with a visitor's id":               {"default", "", "v1", "raw.page", 0, 0, false},
		"a row without ids":                        {"default", "", "", "raw.page", 0, 0, false},
		"a topic that the cut does not name":       {"default", "v1", "", "raw.cart", 0, 0, false},
		"a partition that the cut does not name":   {"default", "v1", "", "raw.page", 2, 0, false},
		"a partition that cannot be":               {"default", "v1", "", "raw.page", -1, 0, false},
		"an id that is longer than any can be":     {"default", strings.Repeat("v", MaxIDBytes+1), "", "raw.page", 0, 0, false},
		"parts that another way of joining equals": {"default", "", "visitor\x1fv1", "raw.page", 0, 0, false},
	} {
		if got := e.Drops(c.tenant, c.visitor, c.user, c.topic, c.partition, c.offset); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	var none *Erased
	if none.Drops("default", "v1", "u1", "raw.page", 0, 0) || none.Names("default", "v1") || none.Len() != 0 || none.DropsEvent(&Event{}) {
		t.Error("no filter drops rows")
	}
}

func TestAnIdentifyEventGoesWithTheIDThatTheVisitorHadBefore(t *testing.T) {
	t.Parallel()
	e := erasedOf(t, Cut{"raw.identity": {10}}, Subject{"default", SubjectVisitor, "old"})
	v := Event{Tenant: "default", VisitorID: "new", PreviousID: "old", Enriched: Enriched{RawTopic: "raw.identity", RawOffset: 3}}
	if !e.DropsEvent(&v) {
		t.Error("it stays")
	}
	v.RawOffset = 10
	if e.DropsEvent(&v) {
		t.Error("it goes although it is new")
	}
}

func TestFailedEventsGoWithAnyIDInTheirPayload(t *testing.T) {
	t.Parallel()
	e := erasedOf(t, Cut{"raw.failed": {10}}, Subject{"default", SubjectVisitor, "v 1"}, Subject{"default", SubjectUser, "4711"}, Subject{"default", SubjectUser, "a@b.example"})
	for payload, want := range map[string]bool{
		`{"visitor_id":"v 1","name":"x"}`:       true,
		`{"a":{"b":[{"c":"v 1"}]}}`:             true,
		`{"body":"{\"visitor_id\":\"v 1\"}"}`:   true,
		`{"user_id":4711}`:                      true,
		`visitor_id=v1&uid=a@b.example&x=1`:     true,
		`{"visitor_id":"v 1`:                    false, // cut in the middle: it may be another's
		`{"visitor_id":"v 12","user_id":47110}`: false,
		``:                                      false,
		`"`:                                     false,
		`{"visitor_id":"` + strings.Repeat("x", 500):    false,
		`not json "v 1" at all`:                         true,
		`{"visitor_id":"Ü","user_id":"4711x","v":"v1"}`: false,
	} {
		f := Failed{Tenant: "default", Payload: payload, RawTopic: "raw.failed", RawOffset: 5}
		if got := e.DropsFailed(&f); got != want {
			t.Errorf("%s: %v", payload, got)
		}
	}
}

func TestASubjectErasedTwiceIsCutAtTheFartherOfBoth(t *testing.T) {
	t.Parallel()
	s := Subject{"default", SubjectVisitor, "v1"}
	entry := func(c Cut) Erasure {
		return Erasure{RequestID: "r", Key: testKey.ID(), Cut: c.String(), Subjects: []string{testKey.Digest(s).String()}}
	}
	a, b := entry(Cut{"raw.page": {10, 5}, "raw.cart": {7}}), entry(Cut{"raw.page": {8, 9, 3}})
	for _, order := range [][]Erasure{{a, b}, {b, a}, {a, b, a, b}} {
		e := NewErased(testKey)
		for _, x := range order {
			if err := e.Add(x); err != nil {
				t.Fatal(err)
			}
		}
		for at, want := range map[string]bool{"raw.page/0/9": true, "raw.page/0/10": false, "raw.page/1/8": true, "raw.page/1/9": false, "raw.page/2/2": true, "raw.cart/0/6": true, "raw.cart/0/7": false} {
			var p int32
			var off int64
			topic, rest, _ := strings.Cut(at, "/")
			if _, err := fmt.Sscanf(rest, "%d/%d", &p, &off); err != nil {
				t.Fatal(err)
			}
			if got := e.Drops("default", "v1", "", topic, p, off); got != want {
				t.Errorf("%s: %v", at, got)
			}
		}
	}
}

func TestACloneIsAddedToWithoutChangingTheFilterInUse(t *testing.T) {
	t.Parallel()
	e := erasedOf(t, Cut{"raw.page": {10}}, Subject{"default", SubjectVisitor, "v1"})
	c := e.Clone()
	if err := c.Add(Erasure{RequestID: "r2", Key: testKey.ID(), Cut: Cut{"raw.page": {30}}.String(), Subjects: []string{testKey.Digest(Subject{"default", SubjectVisitor, "v2"}).String()}}); err != nil {
		t.Fatal(err)
	}
	if e.Len() != 1 || c.Len() != 2 || e.Drops("default", "v2", "", "raw.page", 0, 1) || !c.Drops("default", "v2", "", "raw.page", 0, 20) || !c.Drops("default", "v1", "", "raw.page", 0, 1) {
		t.Error("the clone is not what it is said to be")
	}
	if c.Drops("default", "v1", "", "raw.page", 0, 20) {
		t.Error("a subject is cut where another is")
	}
}

func TestEntriesThatCannotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	for what, x := range map[string]Erasure{
		"a cut that is none":      {RequestID: "r", Key: testKey.ID(), Cut: "{"},
		"a digest of another key": {RequestID: "r", Key: SubjectKey{9}.ID(), Cut: "{}"},
		"a digest that is none":   {RequestID: "r", Key: testKey.ID(), Cut: "{}", Subjects: []string{"v1"}},
	} {
		if err := NewErased(testKey).Add(x); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// The filter agrees with the plain meaning of the ledger.
func TestTheFilterIsTheLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SampledFrom([]string{"", "a", "b", "c"})
		ends := rapid.SliceOfN(rapid.Int64Range(0, 5), 0, 3)
		e := NewErased(testKey)
		type line struct {
			s Subject
			c Cut
		}
		var ledger []line
		for range rapid.IntRange(0, 6).Draw(t, "entries") {
			l := line{Subject{"t", rapid.SampledFrom(SubjectKinds()).Draw(t, "kind"), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")}, Cut{"x": ends.Draw(t, "x"), "y": ends.Draw(t, "y")}}
			ledger = append(ledger, l)
			if err := e.Add(Erasure{Key: testKey.ID(), Cut: l.c.String(), Subjects: []string{testKey.Digest(l.s).String()}}); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			v, u := id.Draw(t, "visitor"), id.Draw(t, "user")
			topic, p, off := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "topic"), rapid.Int32Range(0, 3).Draw(t, "partition"), rapid.Int64Range(0, 6).Draw(t, "offset")
			want := false
			for _, l := range ledger {
				want = want || l.c.Below(topic, p, off) && (l.s.Kind == SubjectVisitor && l.s.ID == v || l.s.Kind == SubjectUser && l.s.ID == u)
			}
			if got := e.Drops("t", v, u, topic, p, off); got != want {
				t.Fatalf("visitor %q user %q at %s/%d@%d: %v, want %v", v, u, topic, p, off, got, want)
			}
		}
	})
}

func TestTheFilterIsUsedByManyAtOnce(t *testing.T) {
	t.Parallel()
	e := erasedOf(t, Cut{"raw.page": {1000}}, Subject{"default", SubjectVisitor, "v1"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				v := fmt.Sprintf("v%d", i%3)
				if e.Drops("default", v, "", "raw.page", 0, int64(i)) != (v == "v1") {
					t.Errorf("%s", v)
				}
			}
		})
	}
	wg.Wait()
}

func TestTheLedgerHoldsNoID(t *testing.T) {
	t.Parallel()
	s := Subject{"default", SubjectUser, "anna@shop.example"}
	b, err := json.Marshal(Erasure{RequestID: "r", Key: testKey.ID(), Cut: Cut{"raw.page": {1}}.String(), Subjects: []string{testKey.Digest(s).String()}})
	if err != nil || strings.Contains(string(b), "anna") {
		t.Errorf("%s, %v", b, err)
	}
	if testKey.Digest(s) == (SubjectKey{9}).Digest(s) {
		t.Error("the digest does not depend on the key")
	}
}

func TestEveryTopicIsInTheInventory(t *testing.T) {
	t.Parallel()
	for _, topic := range Topics() {
		h, ok := Held(StoreTopic, topic.Name)
		switch {
		case !ok:
			t.Errorf("topic %s is not in the inventory of personal data (event/pii.go)", topic.Name)
		case h.How == EraseExpiry && (topic.Retention == 0 || h.Within != topic.Retention):
			t.Errorf("topic %s is said to forget within %s, but keeps for %s", topic.Name, h.Within, topic.Retention)
		case len(h.Fields) > 0 && topic.Compacted && h.How != ErasePseudo:
			t.Errorf("topic %s is compacted: what it holds of a person stays", topic.Name)
		}
	}
}

func TestTheInventoryIsSound(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, h := range Holdings() {
		at := string(h.Store) + " " + h.Name
		if seen[at] {
			t.Errorf("%s is listed twice", at)
		}
		seen[at] = true
		if h.Why == "" {
			t.Errorf("%s: nothing says why", at)
		}
		if (h.How == EraseNothing) != (len(h.Fields) == 0) {
			t.Errorf("%s: %s with fields %v", at, h.How, h.Fields)
		}
		if (h.How == EraseExpiry) != (h.Within > 0) {
			t.Errorf("%s: %s within %s", at, h.How, h.Within)
		}
	}
}

func BenchmarkErased(b *testing.B) {
	e := erasedOf(b, Cut{"raw.page": {1 << 40}}, Subject{"default", SubjectVisitor, "v1"})
	ids := make([]string, 4096)
	for i := range ids {
		ids[i] = fmt.Sprintf("v%08d", i)
	}
	b.Run("below the cut", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			e.Drops("default", ids[i%len(ids)], "", "raw.page", 0, 5)
		}
	})
	b.Run("fresh", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			e.Drops("default", ids[i%len(ids)], "", "raw.page", 0, 1<<41)
		}
	})
}

func TestWhatIsServedLiveOfAnErasedPersonStaysAwayForADay(t *testing.T) {
	key := SubjectKey{1}
	e := NewErased(key)
	const asked, day = int64(1_772_366_400_000_000), int64(86_400_000_000)
	if err := e.Add(Erasure{RequestID: "r", RequestedAt: asked, Cut: "{}", Key: key.ID(), Subjects: []string{key.Digest(Subject{"acme", SubjectVisitor, "anna"}).String()}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, tenant, id string
		at               int64
		want             bool
	}{
		{"before the request", "acme", "anna", asked - 1, true},
		{"within the day that a session may last", "acme", "anna", asked + day, true},
		{"a new session", "acme", "anna", asked + day + 1, false},
		{"another shop's", "other", "anna", asked, false},
		{"another visitor", "acme", "bert", asked, false},
		{"nobody", "acme", "", asked, false},
	} {
		for what, f := range map[string]*Erased{"": e, " in a copy": e.Clone()} {
			if got := f.NamesLive(c.tenant, c.id, c.at); got != c.want {
				t.Errorf("%s%s: %v", c.name, what, got)
			}
		}
	}
	if (*Erased)(nil).NamesLive("acme", "anna", asked) {
		t.Error("a filter that is not there names somebody")
	}
}
