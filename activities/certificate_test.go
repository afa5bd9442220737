package activities

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/internal/fault"
	"millrace/workflows/name"
)

func TestTheCanonicalFormIsThatOfTheStandard(t *testing.T) {
	t.Parallel()
	// The order of keys and the escapes are those of RFC 8785, 3.2.2.2 and 3.2.3.
	for in, want := range map[string]string{
		`{"b": 2, "a": [1, true, null, "x"], "aa": {"z": 1, "y": 2}}`: `{"a":[1,true,null,"x"],"aa":{"y":2,"z":1},"b":2}`,
		`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`: "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}",
		`"\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\/\u2028<>&"`: "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u2028<>&\"",
		`9007199254740992`: `9007199254740992`,
		` [ ] `:            `[]`,
	} {
		got, err := canonicalJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s\n is %s\nnot %s, %v", in, got, want, err)
		}
	}
	for _, bad := range []string{`1.5`, `1e3`, `9007199254740994`, `{"a":1} 2`, `{`, ``} {
		if got, err := canonicalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is taken as %s", bad, got)
		}
	}
}

func TestACertificateIsValidAsItWasSignedAndNotOtherwise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := LoadSigningKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := EraseCertificate{
		Schema: CertificateSchema, Request: "20261122-5f3a9c01", Phase: name.PhaseLogical, Subjects: 2, Cut: map[string]any{"raw.page": []any{float64(5)}},
		Stores:   []CertifiedStore{{Store: "clickhouse", Name: "events_page", State: "erased", Numbers: map[string]int64{"rows": 5}}},
		Residues: []CertifiedResidue{{Store: "topic", Name: "raw.page", What: "rows", Expires: "2026-11-25T00:00:00Z"}},
	}
	file, err := SignCertificate(key, c)
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyCertificate(public, file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Error(diff)
	}
	spaced := bytes.ReplaceAll(file, []byte(`,"`), []byte(",\n  \"")) // written otherwise, it says the same
	if _, err := VerifyCertificate(public, spaced); err != nil {
		t.Error(err)
	}
	elsewhere := t.TempDir()
	if _, err := PublicKey(elsewhere); err == nil {
		t.Error("where no key is, one was given")
	}
	if _, err := LoadSigningKey(elsewhere); err != nil {
		t.Fatal(err)
	}
	other, err := PublicKey(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string][]byte{
		"other numbers": bytes.Replace(file, []byte(`"rows":5`), []byte(`"rows":6`), 1), "one field more": bytes.Replace(file, []byte(`"phase"`), []byte(`"x":1,"phase"`), 1),
		"no JSON": file[:len(file)-2], "another algorithm": bytes.Replace(file, []byte(ed25519Name), []byte("none"), 1), "nothing": nil,
	} {
		if _, err := VerifyCertificate(public, f); !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := VerifyCertificate(other, file); !errors.Is(err, ErrCertificate) {
		t.Errorf("another key: %v", err)
	}
	if _, err := VerifyCertificate(ed25519.PublicKey{1}, file); !errors.Is(err, ErrCertificate) {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestKeysAreMadeOnceAndPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "erasure")
	keys := make([]event.SubjectKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadSubjectKey(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || k == (event.SubjectKey{}) {
			t.Error("processes that start together have different keys")
		}
	}
	path := filepath.Join(dir, subjectKeyName)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("c2hvcnQ=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSubjectKey(dir); err == nil {
		t.Error("a key of five bytes is taken")
	} else if id, _ := fault.IDOf(err); id != "MR-ERA-002" {
		t.Error(err)
	}
}

func TestACertificateNamesEveryPlaceAndItsResidues(t *testing.T) {
	t.Parallel()
	e := &Erase{cfg: ErasureConfig{Grace: time.Hour}}
	requested := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	in := CertifyInput{Phase: name.PhaseLogical, At: requested.Add(time.Hour), PhysicalBy: requested.Add(7 * 24 * time.Hour), Steps: []name.StepResult{
		{Step: name.StepLedger, Outcome: name.Done, Numbers: map[string]int64{"rows": 99}},
		{Step: "clickhouse/events_page", Outcome: name.Done, Numbers: map[string]int64{"rows": 5}},
		{Step: "iceberg/events_page", Outcome: name.Skipped, Numbers: map[string]int64{"rows": 5, "snapshot": 1 << 62, "sequence": 3}},
		{Step: "refs/events_page", Outcome: name.Done, Numbers: map[string]int64{"left": 4, "refs_held": 1, "tags_dropped": 2}},
		{Step: "iceberg/events_cart", Outcome: name.Done, Numbers: map[string]int64{"rows": 1}},
		{Step: "redis/keys", Outcome: name.Done, Numbers: map[string]int64{"rows": 2, "keys": 10}},
		{Step: "clickhouse/events_cart", Outcome: name.Failed, Numbers: map[string]int64{"rows": 7}},
	}}
	var c EraseCertificate
	e.stores(&c, in, requested, stamp)
	if len(c.Stores) != len(event.Holdings()) {
		t.Errorf("%d places of %d", len(c.Stores), len(event.Holdings()))
	}
	find := func(store, place string) CertifiedStore {
		for _, s := range c.Stores {
			if s.Store == store && s.Name == place {
				return s
			}
		}
		t.Fatalf("%s %s is not there", store, place)
		return CertifiedStore{}
	}
	for _, want := range []CertifiedStore{
		{"clickhouse", "events_page", "rows", "erased", map[string]int64{"rows": 5}},
		{"clickhouse", "events_cart", "rows", "not there", nil},
		{"iceberg", "events_page", "rows", "erased", map[string]int64{"rows": 5, "left": 4, "refs_held": 1, "tags_dropped": 2}},
		{"redis", "keys", "keys", "erased", map[string]int64{"rows": 2, "keys": 10}},
		{"topic", "raw.page", "expiry", "expires", nil},
		{"topic", "events.ledger", "holds none", "holds none", nil},
		{"clickhouse", "kpi_1m", "pseudonym", "remains", nil},
	} {
		if diff := cmp.Diff(want, find(want.Store, want.Name)); diff != "" {
			t.Error(diff)
		}
	}
	var texts []string
	for _, r := range c.Residues {
		texts = append(texts, r.Store+" "+r.Name+" "+r.What+" "+r.Expires)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"iceberg events_page 4 rows in snapshots from before the request, named by 1 refs 2026-11-29T12:00:00Z", "iceberg events_cart snapshots and files from before the request, which no ref names 2026-11-29T12:00:00Z",
		"topic raw.page visitor_id", "2026-11-25T12:00:00Z",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no residue %q in\n%s", want, all)
		}
	}
	// A month later the topics have forgotten.
	in.Phase, in.At = name.PhasePhysical, requested.Add(40*24*time.Hour)
	c = EraseCertificate{}
	e.stores(&c, in, requested, stamp)
	if s := find("topic", "raw.purchase"); s.State != "expired" {
		t.Errorf("%+v", s)
	}
}
