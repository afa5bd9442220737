package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-faster/jx"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

var update = flag.Bool("update", false, "write golden files")

var received = time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC).UnixMicro()

func testSource(rules ...Rule) *Source {
	return &Source{Tenant: "default", Name: "web", Redactor: NewRedactor(rules), Secret: Secret{ID: "k1", Key: []byte("0123456789abcdef")}}
}

func decodeWith(t testing.TB, src *Source, text string) (event.Event, *Failure) {
	t.Helper()
	d := NewDecoder()
	d.Reset(src)
	var e event.Event
	if f := d.Decode([]byte(text), &e); f != nil {
		return e, f
	}
	return e, d.Complete(&Request{ReceivedAt: received})
}

func decode(t testing.TB, text string) (event.Event, *Failure) {
	t.Helper()
	return decodeWith(t, testSource(), text)
}

func mustDecode(t testing.TB, text string) event.Event {
	t.Helper()
	e, f := decode(t, text)
	if f != nil {
		t.Fatalf("%s: %v", text, f)
	}
	return e
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.json") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", " ")
			for raw := range func(yield func([]byte) bool) { Split(text, yield) } {
				e, f := decode(t, string(raw))
				var err error
				if f != nil {
					err = enc.Encode(f)
				} else {
					err = enc.Encode(nonZero(t, e))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			golden := strings.TrimSuffix(file, ".json") + ".golden.json"
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// nonZero is e without its empty fields.
func nonZero(t *testing.T, e event.Event) map[string]any {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	m := map[string]any{}
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	var strip func(m map[string]any)
	strip = func(m map[string]any) {
		for k, v := range m {
			switch v := v.(type) {
			case nil:
				delete(m, k)
			case string:
				if v == "" {
					delete(m, k)
				}
			case json.Number:
				if v == "0" && k != "Quantity" {
					delete(m, k)
				}
			case []any:
				for _, one := range v {
					if one, ok := one.(map[string]any); ok {
						strip(one)
					}
				}
			}
		}
	}
	strip(m)
	return m
}

// Every field is sent with every wrong type. It must fail with its own path, and never otherwise.
func TestEveryFieldWithEveryWrongTypeFailsWithItsPath(t *testing.T) {
	values := map[string]string{"string": `"x y"`, "number": `7`, "fraction": `1.5`, "bool": `true`, "array": `[1]`, "object": `{"a":1}`, "long": `"` + strings.Repeat("a", 129) + `"`, "control": `"a\u001fb"`}
	text := []string{"string", "number", "fraction", "long", "control"}
	right := map[kind][]string{
		kindText: text, kindCardPrint: text, kindIP: text, kindDevice: text, kindCountry: text,
		kindID: {"string", "number", "fraction"}, kindAmount: {"number", "fraction"}, kindInteger: {"number"}, kindQuantity: {"number"}, kindVersion: {"number"},
		kindTime: {"number", "fraction"}, kindObject: {"object"}, kindAny: {"object"},
		kindSum:   {"string", "number", "fraction", "bool", "array", "object", "long", "control"}, // what is no amount is a property
		kindItems: {}, kindCurrency: {}, kindCard: {}, kindBIN: {}, kindLast4: {}, kindName: {"string"},
	}
	wrap := map[string]func(member string) string{
		"":                  func(m string) string { return m },
		"context.":          func(m string) string { return `"context":{` + m + `}` },
		"context.page.":     func(m string) string { return `"context":{"page":{` + m + `}}` },
		"context.device.":   func(m string) string { return `"context":{"device":{` + m + `}}` },
		"context.campaign.": func(m string) string { return `"context":{"campaign":{` + m + `}}` },
		"payment.":          func(m string) string { return `"payment":{` + m + `}` },
		"items[].":          func(m string) string { return `"items":[{},{},{` + m + `}]` },
	}
	names := map[event.Category]string{
		event.Page: "page_view", event.Cart: "add_to_cart", event.Purchase: "purchase", event.Inventory: "inventory_change",
		event.Exposure: "experiment_exposure", event.Identity: "identify", event.Custom: "x",
	}
	n := 0
	var visit func(o *object)
	visit = func(o *object) {
		for name, f := range o.fields {
			if f.sub != nil {
				visit(f.sub)
			}
			cat := event.Purchase
			if f.cats != nil {
				cat = f.cats[0]
			}
			for what, value := range values {
				n++
				member := wrap[o.prefix](`"` + name + `":` + value)
				if f.kind != kindName {
					member = `"name":"` + names[cat] + `",` + member
				}
				_, fail := decode(t, "{"+member+"}")
				if f.kind == kindTime && name == "occurred_at" && fail != nil && fail.Reason == event.ReasonBadTime {
					fail = nil // 7 ms after the epoch is a time
				}
				ok := false
				for _, r := range right[f.kind] {
					ok = ok || r == what
				}
				path := strings.Replace(o.prefix, "[]", "[2]", 1) + name
				switch {
				case ok && fail != nil && fail.Path != "currency":
					t.Errorf("%s as %s: %v", path, what, fail)
				case !ok && fail == nil:
					t.Errorf("%s as %s was accepted", path, what)
				case !ok && fail.Path != path && !(f.kind == kindItems && strings.HasPrefix(fail.Path, "items[0]")):
					t.Errorf("%s as %s: path %q: %v", path, what, fail.Path, fail)
				}
				// null is as good as absent.
				if _, fail := decode(t, `{"name":"`+names[cat]+`",`+wrap[o.prefix](`"`+name+`":null`)+`}`); fail != nil && f.kind != kindName {
					t.Errorf("%s as null: %v", path, fail)
				}
			}
		}
	}
	visit(native.top)
	visit(native.item)
	if n < 500 {
		t.Fatalf("only %d cases", n)
	}
}

func TestDiscountAndTotalAreColumnsOfOrdersAndRefuseNothing(t *testing.T) {
	for _, c := range []struct{ what, text, discount, total, properties string }{
		{"amounts", `{"name":"purchase","discount":"1.50","total":27.4}`, "1500000", "27400000", ""},
		{"amounts before the name", `{"discount":1.5,"total":"27.4","name":"purchase"}`, "1500000", "27400000", ""},
		{"a refund's are negative", `{"name":"refund","discount":1,"total":"-20"}`, "-1000000", "-20000000", ""},
		{"null is absent", `{"name":"purchase","discount":null,"total":null}`, "none", "none", ""},
		{"text, as version 1 took it", `{"name":"purchase","total":"$27.50","discount":"10%"}`, "none", "none", `{"total":"$27.50","discount":"10%"}`},
		{"more decimals than money has", `{"name":"purchase","total":27.1234567}`, "none", "none", `{"total":27.1234567}`},
		{"below nothing", `{"name":"purchase","total":-1,"discount":"-0.5"}`, "none", "none", `{"total":-1,"discount":"-0.5"}`},
		{"an object", `{"name":"purchase","discount":{"code":"X","percent":10},"properties":{"a":1}}`, "none", "none", `{"a":1,"discount":{"code":"X","percent":10}}`},
		{"another category", `{"name":"begin_checkout","total":27.5}`, "none", "none", `{"total":27.5}`},
		{"a custom event", `{"name":"quiz","total":"many"}`, "none", "none", `{"total":"many"}`},
	} {
		e, fail := decode(t, c.text)
		if fail != nil {
			t.Errorf("%s: %v", c.what, fail)
			continue
		}
		if micros(e.Discount) != c.discount || micros(e.Total) != c.total || e.Properties != c.properties {
			t.Errorf("%s: discount %s, total %s, properties %s", c.what, micros(e.Discount), micros(e.Total), e.Properties)
		}
	}
}

func TestFailures(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	for name, c := range map[string]struct{ text, reason, path string }{
		"no JSON":                                {`hello`, event.ReasonMalformed, ""},
		"an array":                               {`[1]`, event.ReasonMalformed, ""},
		"cut off":                                {`{"name":"x","a":`, event.ReasonMalformed, ""},
		"NaN":                                    {`{"name":"x","value":NaN}`, event.ReasonMalformed, ""},
		"two objects in one text":                {`{"name":"x"}{"name":"y"}`, event.ReasonMalformed, ""},
		"a raw control character":                {"{\"name\":\"x\",\"a\":\"\x01\"}", event.ReasonMalformed, ""},
		"nothing":                                {`{}`, event.ReasonSchema, "name"},
		"an empty name":                          {`{"name":""}`, event.ReasonSchema, "name"},
		"two names":                              {`{"name":"x","name":"y"}`, event.ReasonSchema, "name"},
		"a name that is no name":                 {`{"name":"9lives"}`, event.ReasonBadName, "name"},
		"a name with a newline":                  {`{"name":"a\nb"}`, event.ReasonBadName, "name"},
		"too deep in properties":                 {`{"name":"x","properties":` + deep + `}`, event.ReasonDepth, "properties"},
		"too deep in an unknown member":          {`{"name":"x","foo":` + deep + `}`, event.ReasonDepth, "foo"},
		"too deep and cut off":                   {`{"name":"x","foo":` + strings.Repeat("[", 20000), event.ReasonDepth, ""},
		"a value of 10^12":                       {`{"name":"purchase","currency":"USD","value":1000000000000}`, event.ReasonBadAmount, "value"},
		"a value of 19 digits":                   {`{"name":"purchase","currency":"USD","value":"1234567890123456789"}`, event.ReasonBadAmount, "value"},
		"seven decimals":                         {`{"name":"purchase","currency":"USD","value":1.0000001}`, event.ReasonBadAmount, "value"},
		"a negative purchase":                    {`{"name":"purchase","currency":"USD","value":-1}`, event.ReasonBadAmount, "value"},
		"a negative price":                       {`{"name":"purchase","currency":"USD","items":[{"price":1},{"price":-1}]}`, event.ReasonBadAmount, "items[1].price"},
		"NaN as text":                            {`{"name":"purchase","currency":"USD","value":"NaN"}`, event.ReasonBadAmount, "value"},
		"money without currency":                 {`{"name":"purchase","value":1}`, event.ReasonSchema, "currency"},
		"a currency that is none":                {`{"name":"purchase","currency":"Dollar","value":1}`, event.ReasonSchema, "currency"},
		"1970":                                   {`{"name":"x","occurred_at":"1970-01-01T00:00:00Z"}`, event.ReasonBadTime, "occurred_at"},
		"2100":                                   {`{"name":"x","occurred_at":"2100-01-01T00:00:00Z"}`, event.ReasonBadTime, "occurred_at"},
		"a time without offset":                  {`{"name":"x","occurred_at":"2026-03-01T12:00:00"}`, event.ReasonSchema, "occurred_at"},
		"a number beyond any time":               {`{"name":"x","occurred_at":1e300}`, event.ReasonSchema, "occurred_at"},
		"a control character in an id":           {`{"name":"x","visitor_id":"a\u001fb"}`, event.ReasonSchema, "visitor_id"},
		"more than a mebibyte":                   {`{"name":"x","a":"` + strings.Repeat("a", MaxEventBytes) + `"}`, event.ReasonSize, ""},
		"an item that is no object":              {`{"name":"purchase","items":[{},7]}`, event.ReasonSchema, "items[1]"},
		"a wrong field before the name is known": {`{"tax":true,"name":"purchase"}`, event.ReasonSchema, "tax"},
	} {
		t.Run(name, func(t *testing.T) {
			_, f := decode(t, c.text)
			if f == nil {
				t.Fatal("accepted")
			}
			if f.Reason != c.reason || f.Path != c.path {
				t.Errorf("got %v, want %s at %q", f, c.reason, c.path)
			}
		})
	}
}

func TestNothingThatWasSentIsLost(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no properties":           {`{"name":"x"}`, ``},
		"empty properties":        {`{"name":"x","properties":{ }}`, ``},
		"properties as they are":  {`{"name":"x","properties":{"a" : [1, 2.50]}}`, `{"a" : [1, 2.50]}`},
		"unknown members":         {`{"foo":{"b":1e400},"name":"x"}`, `{"foo":{"b":1e400}}`},
		"unknown beside ours":     {`{"foo":1,"name":"x","properties":{"a":2}}`, `{"a":2,"foo":1}`},
		"a name that is taken":    {`{"foo":1,"foo":3,"name":"x","properties":{"foo":2}}`, `{"foo":2,"foo#2":1,"foo#3":3}`},
		"unknown in context":      {`{"name":"x","context":{"a":1,"page":{"b":2},"device":{"c":3},"campaign":{"d":4}}}`, `{"context.a":1,"context.page.b":2,"context.device.c":3,"context.campaign.d":4}`},
		"unknown in items":        {`{"name":"purchase","items":[{"size":"XL"},{},{"size":"S"}]}`, `{"items[0].size":"XL","items[2].size":"S"}`},
		"unknown in payment":      {`{"name":"purchase","payment":{"brand":"visa"}}`, `{"payment.brand":"visa"}`},
		"a field of another kind": {`{"tax":"1.5","name":"page_view","coupon":"C","items":[]}`, `{"coupon":"C","tax":"1.5"}`},
		"items of a custom event": {`{"name":"x","items":[{"item_id":"p"}]}`, `{"items":[{"item_id":"p"}]}`},
		"an odd device":           {`{"name":"x","context":{"device":{"type":"fridge"},"country":"Germany"}}`, `{"context.device.type":"fridge","context.country":"Germany"}`},
		"a key with quotes":       {`{"name":"x","a\"b\\":1}`, `{"a\"b\\":1}`},
		"half a surrogate pair":   {`{"name":"x","a":"\ud83d","b":"\ud83d\ude00","c":"\ude00"}`, `{"a":"\ufffd","b":"\ud83d\ude00","c":"\ufffd"}`},
		"invalid UTF-8":           {"{\"name\":\"x\",\"a\":\"\xff\xfe\"}", `{"a":"` + "\uFFFD" + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			e := mustDecode(t, c.text)
			if e.Properties != c.want {
				t.Errorf("properties %s, want %s", e.Properties, c.want)
			}
			if c.want != "" && !json.Valid([]byte(e.Properties)) {
				t.Error("not valid JSON")
			}
		})
	}
}

func TestTextIsRepairedNotRefused(t *testing.T) {
	e := mustDecode(t, "{\"name\":\"page_view\",\"context\":{\"page\":{\"title\":\"a\\ud800b\xffc\"}}}")
	if e.PageTitle != "a\uFFFDb\uFFFDc" {
		t.Errorf("title %q", e.PageTitle)
	}
}

func TestTimes(t *testing.T) {
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMicro()
	}
	for name, c := range map[string]struct {
		text string
		want int64
	}{
		"as given":                  {`{"name":"x","occurred_at":"2026-03-01T12:00:00.123456Z"}`, at("2026-03-01T12:00:00.123456Z")},
		"with an offset":            {`{"name":"x","occurred_at":"2026-03-01T14:00:00+02:00"}`, at("2026-03-01T12:00:00Z")},
		"with a space":              {`{"name":"x","occurred_at":"2026-03-01 12:00:00Z"}`, at("2026-03-01T12:00:00Z")},
		"milliseconds":              {`{"name":"x","occurred_at":1772366400123}`, 1772366400123000},
		"absent":                    {`{"name":"x"}`, received},
		"sent_at alone":             {`{"name":"x","sent_at":"2026-03-01T09:00:00Z"}`, received},
		"a clock three hours ahead": {`{"name":"x","occurred_at":"2026-03-01T14:59:00Z","sent_at":"2026-03-01T15:00:00Z"}`, received - 60e6},
		"a clock that starts in 1970": {
			`{"name":"x","occurred_at":"1970-01-01T00:00:10Z","sent_at":"1970-01-01T00:00:15Z"}`,
			received - 5e6,
		},
		"a day ahead": {`{"name":"x","occurred_at":"2026-03-02T12:00:01Z"}`, received + 86400e6},
		"1990":        {`{"name":"x","occurred_at":"1990-01-01T00:00:00Z"}`, at("1990-01-01T00:00:00Z")},
	} {
		t.Run(name, func(t *testing.T) {
			if e := mustDecode(t, c.text); e.OccurredAt != c.want || e.ReceivedAt != received {
				t.Errorf("occurred %v, want %v", event.Time(e.OccurredAt), event.Time(c.want))
			}
		})
	}
	for day := at("1990-01-01T00:00:00Z"); day < received; day += 86400e6 {
		if e := mustDecode(t, `{"name":"x","occurred_at":"`+event.Time(day).Format(time.RFC3339)+`"}`); e.OccurredAt != day {
			t.Fatalf("%v became %v", event.Time(day), event.Time(e.OccurredAt))
		}
	}
}

func TestReplayedHistoryKeepsItsTimes(t *testing.T) {
	d := NewDecoder()
	d.Reset(testSource())
	for text, want := range map[string]string{
		`{"name":"x","occurred_at":"2020-03-01T12:00:00Z","sent_at":"2020-03-01T13:00:00Z"}`: "2020-03-01T12:00:00Z",
		`{"name":"x","sent_at":"2020-03-01T13:00:00Z"}`:                                      "2020-03-01T13:00:00Z",
	} {
		var e event.Event
		if f := d.Decode([]byte(text), &e); f != nil {
			t.Fatal(f)
		}
		if f := d.Complete(&Request{ReceivedAt: received, Replay: true}); f != nil {
			t.Fatal(f)
		}
		if got := event.Time(e.OccurredAt).Format(time.RFC3339); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestRefundsAreNegativeWhateverWasSent(t *testing.T) {
	for _, text := range []string{`{"name":"refund","currency":"usd","value":"10.5","tax":1,"items":[{"price":-3}]}`, `{"items":[{"price":3}],"value":-10.5,"tax":-1,"currency":"USD","name":"refund"}`} {
		e := mustDecode(t, text)
		if *e.Value != -10_500_000 || *e.Tax != -1_000_000 || *e.Items[0].Price != 3_000_000 || e.Currency != "USD" {
			t.Errorf("%s: value %d, tax %d, price %d, currency %s", text, *e.Value, *e.Tax, *e.Items[0].Price, e.Currency)
		}
	}
}

func TestADecoderThatIsUsedAgainForgetsWhatItSaw(t *testing.T) {
	d := NewDecoder()
	d.Reset(testSource())
	var e event.Event
	full := []byte(`{"foo":1,"name":"purchase","event_id":"a","currency":"USD","value":1,"tax":2,"items":[{"item_id":"p","price":1,"x":1}],"context":{"ip":"10.1.2.3","user_agent":"iPhone"},"properties":{"a":1},"sent_at":1}`)
	if f := d.Decode(bytes.Clone(full), &e); f != nil {
		t.Fatal(f)
	}
	if f := d.Decode([]byte(`{"name":"x","foo":tru}`), &e); f == nil {
		t.Fatal("accepted")
	}
	if f := d.Decode([]byte(`{"name":"x"}`), &e); f != nil {
		t.Fatal(f)
	}
	if f := d.Complete(&Request{ReceivedAt: received}); f != nil {
		t.Fatal(f)
	}
	want := event.Event{Tenant: "default", Source: "web", Name: "x", OccurredAt: received, ReceivedAt: received, SchemaVersion: 1, Items: []event.Item{}}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{benchText, `{"name":"x","context":{"page":{"url":"http://a/?utm_source=%41"}}}`, `{"name":"refund","items":[{"price":-1}],"properties":{"a":{}}}`, `{"name":"x","a":"\ud800\u0034"}`} {
		f.Add([]byte(s))
	}
	src := testSource(Rule{Key: "email", Action: Hash})
	f.Fuzz(func(t *testing.T, text []byte) {
		d := NewDecoder()
		d.Reset(src)
		for raw := range func(yield func([]byte) bool) { Split(text, yield) } {
			if len(raw) == 0 {
				t.Fatal("empty text")
			}
			var e event.Event
			fail := d.Decode(bytes.Clone(raw), &e)
			if fail != nil {
				if fail.Reason == "" || fail.Message == "" {
					t.Fatalf("%q: %+v", raw, fail)
				}
				d.Text()
				continue
			}
			_ = d.Complete(&Request{ReceivedAt: received}) // a failure is an outcome like any other
			if e.Name == "" || len(e.ID) > event.MaxIDBytes {
				t.Fatalf("%q: %+v", raw, e)
			}
			if e.Properties != "" && !jx.Valid([]byte(e.Properties)) {
				t.Fatalf("%q: properties %q", raw, e.Properties)
			}
		}
	})
}

const benchText = `{"event_id":"0b9f6c7e-6a3b-4e3e-9d8a-1f2e3d4c5b6a","name":"purchase","occurred_at":"2026-03-01T12:00:00.123Z","visitor_id":"v-123456","user_id":"u1","session_id":"s1","currency":"USD","value":"129.90","transaction_id":"o-1",` +
	`"items":[{"item_id":"p1","item_name":"Mug","item_category":"Kitchen","price":"64.95","quantity":2}],"context":{"page":{"url":"https://shop.example/checkout","path":"/checkout"},"device":{"type":"mobile"},"country":"DE","campaign":{"source":"ads"}},"properties":{"theme":"dark"}}`

func BenchmarkDecode(b *testing.B) {
	d := NewDecoder()
	d.Reset(testSource())
	text, buf := []byte(benchText), make([]byte, len(benchText))
	var e event.Event
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, text)
		if f := d.Decode(buf, &e); f != nil {
			b.Fatal(f)
		}
		if f := d.Complete(&Request{ReceivedAt: received}); f != nil {
			b.Fatal(f)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkSkip is the limit: jx going over the same text without looking at it.
func BenchmarkSkip(b *testing.B) {
	text := []byte(benchText)
	var d jx.Decoder
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		d.ResetBytes(text)
		if err := d.Skip(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
