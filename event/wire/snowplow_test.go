package wire

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

// result is what became of one event of a request.
type result struct {
	Event   event.Event
	Failure *Failure
	Native  string
}

// delivered sends a request through a translation and the native decoder, as the gateway does.
func delivered(t testing.TB, translate func(*Inbound, func([]byte, *Failure) bool), in *Inbound) []result {
	t.Helper()
	var out []result
	if in.ReceivedAt == 0 {
		in.ReceivedAt = received
	}
	if in.Header == nil {
		in.Header = http.Header{}
	}
	translate(in, func(text []byte, f *Failure) bool {
		r := result{Failure: f, Native: string(text)}
		if f == nil {
			d := NewDecoder()
			d.Reset(testSource())
			if r.Failure = d.Decode(bytes.Clone(text), &r.Event); r.Failure == nil {
				r.Failure = d.Complete(&Request{ReceivedAt: in.ReceivedAt})
			}
		}
		out = append(out, r)
		return true
	})
	return out
}

// only is the one event that a request is expected to be.
func only(t testing.TB, rs []result) event.Event {
	t.Helper()
	if len(rs) != 1 {
		t.Fatalf("%d events: %+v", len(rs), rs)
	}
	if rs[0].Failure != nil {
		t.Fatalf("%s: %v", rs[0].Native, rs[0].Failure)
	}
	return rs[0].Event
}

// failures lists reason@path of each event, nothing for a good one.
func failures(rs []result) string {
	var got []string
	for _, r := range rs {
		if f := r.Failure; f != nil {
			got = append(got, f.Reason+"@"+f.Path)
		} else {
			got = append(got, "")
		}
	}
	return strings.Join(got, ",")
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// recording reads the requests of a real client; see testdata/clients/README.md.
func recording(t testing.TB, client string) (ins []*Inbound, scenarios []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/clients", client+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r struct {
			Scenario   string
			ReceivedAt int64 `json:"received_at"`
			Method     string
			Path       string
			Headers    map[string]string
			Body       json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		if r.Method == http.MethodOptions || u.Path == "/elsewhere" {
			continue
		}
		body := []byte(r.Body)
		var plain string
		if json.Unmarshal(body, &plain) == nil {
			body = []byte(plain)
		}
		in := &Inbound{Path: strings.TrimSuffix(u.Path, "/"), Query: u.Query(), Header: http.Header{}, Body: body, ReceivedAt: r.ReceivedAt}
		for k, v := range r.Headers {
			in.Header.Set(k, v)
		}
		ins, scenarios = append(ins, in), append(scenarios, r.Scenario)
	}
	if len(ins) == 0 {
		t.Fatalf("no recording of %s", client)
	}
	return ins, scenarios
}

func snowplowPost(events ...string) *Inbound {
	return &Inbound{Path: "/com.snowplowanalytics.snowplow/tp2", Body: []byte(`{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[` + strings.Join(events, ",") + `]}`)}
}

// described is a self-describing event with entities, as trackers write it without base64.
func described(t *testing.T, schema, data string, entities ...string) string {
	t.Helper()
	return `{"e":"ue","eid":"e1","ue_pr":` + quote(t, `{"schema":"iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0","data":{"schema":"iglu:`+schema+`/jsonschema/1-0-2","data":`+data+`}}`) +
		`,"co":` + quote(t, `{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0","data":[`+strings.Join(entities, ",")+`]}`) + `}`
}

func ecommerce(t *testing.T, typ string, entities ...string) string {
	t.Helper()
	return described(t, "com.snowplowanalytics.snowplow.ecommerce/snowplow_ecommerce_action", `{"type":"`+typ+`"}`, entities...)
}

func ofPlugin(name, data string) string {
	return `{"schema":"iglu:com.snowplowanalytics.snowplow.ecommerce/` + name + `/jsonschema/1-0-0","data":` + data + `}`
}

func quote(t testing.TB, text string) string {
	t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSnowplowActionsHaveGA4Names(t *testing.T) {
	for typ, want := range map[string]string{
		"product_view": "view_item", "list_view": "view_item_list", "list_click": "select_item", "add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart",
		"checkout_step": "begin_checkout", "transaction": "purchase", "refund": "refund", "promo_view": "view_promotion", "promo_click": "select_promotion",
		"trns_error": "trns_error", "something new": "something new",
	} {
		if e := only(t, delivered(t, translateSnowplow, snowplowPost(ecommerce(t, typ)))); e.Name != want {
			t.Errorf("%s became %s, not %s", typ, e.Name, want)
		}
	}
	step := only(t, delivered(t, translateSnowplow, snowplowPost(ecommerce(t, "checkout_step", ofPlugin("checkout_step", `{"step":2,"payment_method":"visa","delivery_method":"air"}`)))))
	if step.Name != event.NameAddPaymentInfo || step.PaymentType != "visa" || step.PaymentMethod != "visa" || step.ShippingTier != "air" || step.Properties != `{"event":"checkout_step","checkout_step.step":2,"schema":"iglu:com.snowplowanalytics.snowplow.ecommerce/snowplow_ecommerce_action/jsonschema/1-0-2"}` {
		t.Errorf("a step with a payment method: %s %q %q %s", step.Name, step.PaymentType, step.ShippingTier, step.Properties)
	}
}

func TestSnowplowKindsOfEvents(t *testing.T) {
	for name, c := range map[string]struct {
		event string
		want  string // name and properties
	}{
		"page pings are custom events":           {`{"e":"pp","pp_max":"10"}`, `page_ping {"event":"pp","pp_max":"10"}`},
		"structured events are custom events":    {`{"e":"se","se_ca":"shop","se_va":"2.50"}`, `structured_event {"event":"se","se_ca":"shop","se_va":"2.50"}`},
		"an event of a new kind keeps its name":  {`{"e":"xx","new":1}`, `xx {"new":1}`},
		"a lone item is a custom event":          {`{"e":"ti","ti_id":"o1","ti_sk":"p1","ti_pr":"9.90","ti_qu":"2","ti_cu":"EUR"}`, `transaction_item {"event":"ti","items":[{"item_id":"p1","price":9.90,"quantity":2}]}`},
		"others' schemas name events":            {described(t, "com.acme/coupon_shown", `{"value":"high","code":"X"}`), `coupon_shown {"schema":"iglu:com.acme/coupon_shown/jsonschema/1-0-2","value":"high","code":"X"}`},
		"data that is no object is kept":         {described(t, "com.acme/numbers", `[1,2.50]`), `numbers {"schema":"iglu:com.acme/numbers/jsonschema/1-0-2","data":[1,2.50]}`},
		"searches":                               {described(t, "com.snowplowanalytics.snowplow/site_search", `{"terms":["blue",7],"totalResults":3}`), `search {"event":"site_search","schema":"iglu:com.snowplowanalytics.snowplow/site_search/jsonschema/1-0-2","totalResults":3}`},
		"entities of others stay together":       {described(t, "com.acme/x", `{}`, `{"schema":"iglu:com.acme/a/jsonschema/1-0-0","data":{"n":1.10}}`, `7`), `x {"schema":"iglu:com.acme/x/jsonschema/1-0-2","contexts":[{"schema":"iglu:com.acme/a/jsonschema/1-0-0","data":{"n":1.10}},7]}`},
		"entities that cannot be read stay text": {`{"e":"pp","cx":"%%%"}`, `page_ping {"event":"pp","cx":"%%%"}`},
		"webhooks post what describes itself":    {`{"schema":"iglu:com.acme/order_seen/jsonschema/1-0-0","data":{"a":1},"more":true}`, `order_seen {"schema":"iglu:com.acme/order_seen/jsonschema/1-0-0","a":1,"more":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			in := snowplowPost(c.event)
			if strings.HasPrefix(c.event, `{"schema"`) {
				in.Body = []byte(c.event)
			}
			e := only(t, delivered(t, translateSnowplow, in))
			if got := e.Name + " " + e.Properties; got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSnowplowClassicTransactionIsOnePurchase(t *testing.T) {
	item1 := `{"e":"ti","eid":"i1","ti_id":"o1","ti_sk":"p1","ti_pr":"0.1","ti_qu":"3","ti_cu":"USD","duid":"v1"}`
	order := `{"e":"tr","eid":"t1","tr_id":"o1","tr_tt":"123456789.123456","tr_tx":"2","tr_sh":"3.00","tr_cu":"USD","tr_af":"shop","duid":"v1"}`
	item2 := `{"e":"ti","eid":"i2","ti_id":"o1","ti_sk":"p2","ti_pr":"3.5","ti_cu":"EUR","own":true}`
	other := `{"e":"ti","eid":"i3","ti_id":"o2","ti_sk":"p3"}`
	rs := delivered(t, translateSnowplow, snowplowPost(item1, order, item2, item2, other))
	if len(rs) != 2 || rs[0].Failure != nil || rs[1].Failure != nil {
		t.Fatalf("%+v", rs)
	}
	e := rs[0].Event
	if e.Name != event.NamePurchase || e.ID != "t1" || e.OrderID != "o1" || *e.Value != 123456789123456 || e.Currency != "USD" || *e.Tax != 2e6 || *e.Shipping != 3e6 || e.Affiliation != "shop" || len(e.Items) != 2 {
		t.Errorf("%+v", e)
	}
	if it := e.Items[0]; it.ItemID != "p1" || *it.Price != 100000 || it.Quantity != 3 {
		t.Errorf("%+v", it)
	}
	if want := `{"event":"tr","items[0].eid":"i1","items[1].eid":"i2","items[1].ti_cu":"EUR","items[1].own":true}`; e.Properties != want {
		t.Errorf("%s", e.Properties)
	}
	if e := rs[1].Event; e.Name != "transaction_item" || e.OrderID != "o2" {
		t.Errorf("%+v", e)
	}
}

func TestSnowplowTimes(t *testing.T) {
	at := func(ms int64) string { return strconv.FormatInt(ms, 10) }
	now := received / 1000
	for name, c := range map[string]struct {
		times string
		want  int64 // ms
	}{
		"the true timestamp is taken as it is":               {`"ttm":"1772359872345","dtm":"` + at(now) + `","stm":"` + at(now-5000) + `"`, 1772359872345},
		"the device's is corrected by its clock":             {`"dtm":"` + at(now-7100) + `","stm":"` + at(now-6999) + `"`, now - 101},
		"a clock cut to seconds that may be right is right":  {`"dtm":"` + at(now-290) + `","stm":"` + at(now-1000) + `"`, now - 290 + 1},
		"a clock cut to seconds that is slow is made faster": {`"dtm":"` + at(now-10500) + `","stm":"` + at(now-10000) + `"`, now - 10500 + 9001},
		"a clock cut to seconds that is fast is made slower": {`"dtm":"` + at(now+9500) + `","stm":"` + at(now+10000) + `"`, now - 500},
		"without a time of sending it is taken as it is":     {`"dtm":"` + at(now-5000) + `"`, now - 5000},
		"without any the event is of now":                    {`"x":1`, now},
	} {
		t.Run(name, func(t *testing.T) {
			e := only(t, delivered(t, translateSnowplow, snowplowPost(`{"e":"pv",`+c.times+`}`)))
			if e.OccurredAt != c.want*1000 {
				t.Errorf("occurred %d ms after it should have", e.OccurredAt/1000-c.want)
			}
		})
	}
}

func TestSnowplowCutClockNeverMovesAnEventBeyondReceipt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		latency, age := rapid.Int64Range(0, 900).Draw(t, "latency"), rapid.Int64Range(0, 5000).Draw(t, "age")
		now := rapid.Int64Range(1_700_000_000_000, 1_800_000_000_000).Draw(t, "now")
		sent := now - latency
		s := &snowplow{received: now * 1000}
		got, err := strconv.ParseInt(s.sent(strconv.FormatInt(sent-age, 10), strconv.FormatInt(sent-sent%1000, 10)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if skew := now - got; skew < 0 || skew > latency {
			t.Fatalf("a right clock is taken to be %d ms slow, with %d ms on the way", skew, latency)
		}
	})
}

func TestSnowplowWriteKey(t *testing.T) {
	post := snowplowPost(`{"e":"pv"}`, `{"e":"pv","aid":"shop-1","duid":"v"}`)
	if got := snowplowKey(post.Body); got != "shop-1" {
		t.Errorf("%q", got)
	}
	if got := snowplowKeys(&Inbound{Query: url.Values{"aid": {"shop-2"}}}); !cmp.Equal(got, []string{"shop-2"}) {
		t.Errorf("%q", got)
	}
	for _, body := range []string{"", "null", "{", "[]", `{"data":1}`, `{"data":[{"aid":{}}]}`} {
		if got := snowplowKey([]byte(body)); got != "" {
			t.Errorf("%s has the key %q", body, got)
		}
	}
	if rs := delivered(t, translateSnowplow, post); strings.Contains(rs[1].Native, "shop-1") {
		t.Errorf("the key is in the event: %s", rs[1].Native)
	}
	post.Query = url.Values{"writeKey": {"k"}}
	if rs := delivered(t, translateSnowplow, post); !strings.Contains(rs[1].Native, `"aid":"shop-1"`) {
		t.Errorf("with a key elsewhere the app id is lost: %s", rs[1].Native)
	}
}

func TestSnowplowFailures(t *testing.T) {
	var many []string
	for i := range maxMembers + 1 {
		many = append(many, `"`+strconv.Itoa(i)+`":1`)
	}
	manyMembers := strings.Join(many, ",")
	for name, c := range map[string]struct {
		in   *Inbound
		want string // reason@path of each event, "" for a good one
	}{
		"a body that is no JSON":                                       {&Inbound{Body: []byte("<xml/>")}, "malformed@"},
		"a batch of other things":                                      {snowplowPost(`7`, `{"e":"pv"}`, `null`), "malformed@,,malformed@"},
		"a damaged batch keeps what is whole":                          {&Inbound{Body: []byte(`{"data":[{"e":"pv"},{"e":"pp"},{"e":`)}, ",,malformed@"},
		"an event without a kind":                                      {snowplowPost(`{"eid":"e"}`), "schema@name"},
		"a description that cannot be read":                            {snowplowPost(`{"e":"ue","ue_px":"!!"}`, `{"e":"ue"}`, `{"e":"ue","ue_pr":"{}"}`), "schema@ue_px,schema@ue_pr,schema@ue_pr"},
		"an amount that is none":                                       {snowplowPost(`{"e":"tr","tr_id":"o","tr_tt":"12,50","tr_cu":"EUR"}`), "bad_amount@value"},
		"an event of more than 1 MiB":                                  {snowplowPost(`{"e":"pv","x":"`+strings.Repeat("x", MaxEventBytes)+`"}`, `{"e":"pv"}`), "size@,"},
		"an order that cannot be read does not take its items with it": {snowplowPost(`{"e":"tr","tr_id":"o1","x":tru}`, `{"e":"ti","ti_id":"o1"}`), "malformed@,"},
		"an order with too many members neither":                       {snowplowPost(`{"e":"tr","tr_id":"o1",`+manyMembers+`}`, `{"e":"ti","ti_id":"o1"}`), "size@,"},
		"nor does such an item vanish":                                 {snowplowPost(`{"e":"tr","tr_id":"o1"}`, `{"e":"ti","ti_id":"o1",`+manyMembers+`}`), ",size@"},
		"a query without an event":                                     {&Inbound{Path: "/i", Query: url.Values{"a": {"b"}}}, "schema@name"},
		"nothing at all":                                               {&Inbound{Path: "/i"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if s := failures(delivered(t, translateSnowplow, c.in)); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
		})
	}
}

// Whatever real clients sent becomes as many events as they sent, and none fails.
func TestRecordedEventsAreAllThere(t *testing.T) {
	for client, c := range map[string]struct {
		translate func(*Inbound, func([]byte, *Failure) bool)
		count     func(body []byte) int
	}{
		"snowplow-node":      {translateSnowplow, inData},
		"snowplow-python":    {translateSnowplow, inData},
		"snowplow-browser":   {translateSnowplow, inData},
		"cloudevents-node":   {translateCloudEvents, elementsIn},
		"cloudevents-python": {translateCloudEvents, elementsIn},
		"ga4mp-python":       {translateGA4, func(body []byte) int { ms, _ := parse(body); return elementsIn(ms.take("events")) }},
	} {
		t.Run(client, func(t *testing.T) {
			ins, names := recording(t, client)
			for i, in := range ins {
				want := c.count(in.Body)
				rs := delivered(t, c.translate, in)
				for _, r := range rs {
					if r.Failure != nil {
						t.Errorf("%s: %v\n%s", names[i], r.Failure, r.Native)
					}
					if r.Event.VisitorID == "" && !strings.Contains(names[i], "then-next-track") && !strings.Contains(r.Native, `"com.example.`) {
						t.Errorf("%s: nobody did it: %s", names[i], r.Native)
					}
				}
				if len(rs) != want {
					t.Errorf("%s: %d events of %d", names[i], len(rs), want)
				}
			}
		})
	}
}

// inData counts the events of a Snowplow body, of which those of one order in one request are one.
func inData(body []byte) int {
	ms, ok := parse(body)
	if !ok {
		return 1 // GET
	}
	list, _ := elements(ms.take("data"))
	n := len(list)
	if bytes.Contains(body, []byte(`"tr_id"`)) {
		n -= bytes.Count(body, []byte(`"e":"ti"`))
	}
	return n
}

func elementsIn(body []byte) int {
	if list, ok := elements(body); ok {
		return len(list)
	}
	return 1
}

func FuzzSnowplow(f *testing.F) {
	for _, client := range []string{"snowplow-node", "snowplow-python", "snowplow-browser"} {
		ins, _ := recording(f, client)
		for _, in := range ins[:min(len(ins), 20)] {
			f.Add(in.Body, in.Query.Encode())
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Skip("no query")
		}
		sound(t, translateSnowplow, &Inbound{Path: "/com.snowplowanalytics.snowplow/tp2", Query: values, Body: body})
		_ = snowplowKey(body)
	})
}

// sound checks what holds for any input: texts without a failure are JSON objects of a bounded size altogether, and the same input gives the same texts.
func sound(t *testing.T, translate func(*Inbound, func([]byte, *Failure) bool), in *Inbound) {
	t.Helper()
	sent := len(in.Body)
	for k, vs := range in.Query {
		sent += len(k) + len(strings.Join(vs, ""))
	}
	for k, vs := range in.Header {
		sent += len(k) + len(strings.Join(vs, ""))
	}
	body := bytes.Clone(in.Body)
	rs := delivered(t, translate, in)
	size := 0
	for _, r := range rs {
		size += len(r.Native)
		if r.Failure == nil && !json.Valid([]byte(r.Native)) {
			t.Fatalf("not JSON: %s", r.Native)
		}
		if r.Failure != nil && r.Failure.Reason == "" {
			t.Fatal("a failure without a reason")
		}
	}
	if most := (sent+1)*8 + len(rs)*(2*maxCommon+512); size > most {
		t.Fatalf("%d bytes became %d", sent, size)
	}
	in.Body, in.opened = body, nil
	if diff := cmp.Diff(rs, delivered(t, translate, in)); diff != "" {
		t.Fatalf("again it is something else: %s", diff)
	}
}
