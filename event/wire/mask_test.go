package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestCardNumbersAreMaskedAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"Visa":                         {"4111111111111111", "411111******1111"},
		"in a sentence":                {"my card 4111111111111111, thanks", "my card 411111******1111, thanks"},
		"in a URL":                     {"/pay?pan=4111111111111111&x=1", "/pay?pan=411111******1111&x=1"},
		"after a word":                 {"card4111111111111111", "card411111******1111"},
		"with an underscore":           {"card_4111111111111111", "card_411111******1111"},
		"with dashes":                  {"4111-1111-1111-1111", "4111-11**-****-1111"},
		"with spaces":                  {"x 4111 1111 1111 1111 y", "x 4111 11** **** 1111 y"},
		"American Express":             {"378282246310005", "378282*****0005"},
		"American Express in groups":   {"3782 822463 10005", "3782 82**** *0005"},
		"Mastercard":                   {"5555555555554444", "555555******4444"},
		"Mastercard 2-series":          {"2223003122003222", "222300******3222"},
		"Diners":                       {"30569309025904", "305693****5904"},
		"Visa of 13 digits":            {"4222222222222", "422222***2222"},
		"Discover of 16":               {"6011111111111117", "601111******1117"},
		"two of them":                  {"4111111111111111 5555555555554444", "411111******1111 555555******4444"},
		"wrong Luhn digit":             {"4111111111111112", "4111111111111112"},
		"no scheme's range":            {"1111111111111117", "1111111111111117"},
		"an article number":            {"4006381333931", "4006381333931"},
		"milliseconds":                 {"1772366400123", "1772366400123"},
		"20 digits":                    {"41111111111111111111", "41111111111111111111"},
		"part of a hash":               {"ab4111111111111111cd", "ab4111111111111111cd"},
		"a phone number":               {"+49 170 1234567", "+49 170 1234567"},
		"groups inside something more": {"a-4111-1111-1111-1111", "a-4111-1111-1111-1111"},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte(c.in)
			if found := maskCards(b); string(b) != c.want || found != (c.in != c.want) {
				t.Errorf("%q became %q, want %q (found %v)", c.in, b, c.want, found)
			}
			maskCards(b)
			if string(b) != c.want {
				t.Errorf("not idempotent: %q", b)
			}
		})
	}
}

func TestUUIDsAreNeverMasked(t *testing.T) {
	for range 200_000 {
		id := uuid.NewString()
		for _, s := range []string{id, strings.ReplaceAll(id, "-", "")} {
			if b := []byte(s); maskCards(b) {
				t.Fatalf("%s became %s", s, b)
			}
		}
	}
}

func TestCardNumbersAreMaskedWhereverTheyStand(t *testing.T) {
	const pan = "4111111111111111"
	text := `{"4111111111111111":1,"name":"purchase","visitor_id":"4111111111111111","transaction_id":4111111111111111,"foo":["\u0034111111111111111"],` +
		`"items":[{"item_name":"4111-1111-1111-1111"}],"properties":{"n":4111111111111111,"s":"a\n4111111111111111"},` +
		`"context":{"page":{"url":"http://x/?utm_source=4111111111111111"}},"payment":{"method":"card","pan":"4111 1111 1111 1111","cvv":"123"}}`
	e := mustDecode(t, text)
	all, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{pan, "1111-1111-1111", "1111 1111 1111", `123\"`} {
		if strings.Contains(string(all), bad) {
			t.Errorf("%q is left in %s", bad, all)
		}
	}
	if e.CardBIN != "411111" || e.CardLast4 != "1111" || !strings.HasPrefix(e.CardFingerprint, "k1.") || len(e.CardFingerprint) != 3+32 {
		t.Errorf("card %q %q %q", e.CardBIN, e.CardLast4, e.CardFingerprint)
	}
	if !json.Valid([]byte(e.Properties)) {
		t.Errorf("properties are no JSON: %s", e.Properties)
	}

	d := NewDecoder()
	d.Reset(testSource())
	failing := strings.Replace(text, `"purchase"`, `"9"`, 1)
	if f := d.Decode([]byte(failing), &e); f == nil {
		t.Fatal("accepted")
	}
	for _, kept := range []string{string(d.Text()), string(d.Clean([]byte(text[:len(text)-3]))), string(d.Clean([]byte("\xff" + text)))} {
		for _, bad := range []string{pan, "1111-1111-1111", "1111 1111 1111", `"123"`} {
			if strings.Contains(kept, bad) {
				t.Errorf("%q is left in %s", bad, kept)
			}
		}
	}
}

func TestSourceRulesHoldEverywhere(t *testing.T) {
	src := testSource(Rule{"email", Hash}, Rule{"secret", Drop})
	text := `{"name":"x","email":"a@b.c","secret":{"a":"zzz"},"properties":{"user":{"em\u0061il":"a@b.c"},"secret":"zzz","list":[{"secret":[1,"zzz"]}]}}`
	e, f := decodeWith(t, src, text)
	if f != nil {
		t.Fatal(f)
	}
	if strings.Contains(e.Properties, "a@b.c") || strings.Contains(e.Properties, "zzz") {
		t.Errorf("left: %s", e.Properties)
	}
	var p struct {
		Email string
		User  struct{ Email string }
	}
	if err := json.Unmarshal([]byte(e.Properties), &p); err != nil {
		t.Fatalf("%s: %v", e.Properties, err)
	}
	if p.Email == "" || p.Email != p.User.Email {
		t.Errorf("equal values differ: %s", e.Properties)
	}
	d := NewDecoder()
	d.Reset(src)
	for cut := range len(text) {
		kept := string(d.Clean([]byte(text[:cut])))
		if strings.Contains(kept, "a@b") || strings.Contains(kept, "zz") {
			t.Fatalf("cut at %d: %s", cut, kept)
		}
	}
}

func TestAddressesAreTruncatedAndHashed(t *testing.T) {
	for in, want := range map[string]string{"203.0.113.77": "203.0.113.0", "203.0.113.77:443": "203.0.113.0", "::ffff:203.0.113.77": "203.0.113.0", "2001:db8:1:2::3": "2001:db8:1::", "unknown": ""} {
		e := mustDecode(t, `{"name":"x","context":{"ip":"`+in+`"}}`)
		if e.IP != want || !strings.HasPrefix(e.IPHash, "k1.") {
			t.Errorf("%s: %q %q", in, e.IP, e.IPHash)
		}
		if e.Properties != "" {
			t.Errorf("%s: properties %s", in, e.Properties)
		}
		d := NewDecoder()
		d.Reset(testSource())
		if kept := string(d.Clean([]byte(`{"context":{"ip":"` + in + `"}`))); strings.Contains(kept, in) {
			t.Errorf("kept %s", kept)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte(`{"a":"4111 1111 1111 1111","b":4111111111111111}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		valid := json.Valid(b)
		maskCardsJSON(b)
		if valid && !json.Valid(b) {
			t.Fatalf("no JSON any more: %q", b)
		}
	})
}
