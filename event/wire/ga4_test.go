package wire

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/event"
)

func collect(body string) *Inbound {
	return &Inbound{Path: "/mp/collect", Query: url.Values{"measurement_id": {"G-1"}, "api_secret": {"hush"}}, Body: []byte(body)}
}

func TestGA4BatchSharesItsEnvelope(t *testing.T) {
	rs := delivered(t, translateGA4, collect(`{"client_id":"c.1","user_id":"u1","timestamp_micros":"1772366399123456","user_properties":{"tier":{"value":"gold"}},"consent":{"ad_user_data":"DENIED"},
		"device":{"category":"mobile","language":"de","screen_resolution":"1x1"},"user_location":{"city":"Berlin","country_id":"DE"},"events":[
		{"name":"purchase","params":{"transaction_id":"o1","value":25.50,"tax":2,"shipping":"3.00","currency":"EUR","coupon":"c","items":[{"item_id":"p1","price":0.1,"quantity":3,"location_id":"L"}],"session_id":17,"engagement_time_msec":3}},
		{"name":"page_view","user_id":"u2","timestamp_micros":1772366398000001,"params":{"page_location":"https://shop.example/a?utm_source=x","page_title":"A","page_referrer":"https://s.example/","session_id":"17"}},
		{"name":"tutorial_begin","params":{"value":"high","items":7}}]}`))
	if got := failures(rs); got != ",," {
		t.Fatalf("%s: %+v", got, rs)
	}
	e := rs[0].Event
	if e.Name != event.NamePurchase || e.VisitorID != "c.1" || e.UserID != "u1" || e.ClientSessionID != "17" || e.OrderID != "o1" || *e.Value != 25_500_000 || *e.Tax != 2e6 || *e.Shipping != 3e6 ||
		e.Currency != "EUR" || e.Coupon != "c" || e.Items[0].Quantity != 3 || *e.Items[0].Price != 100_000 || e.OccurredAt != 1772366399123456 || e.City != "Berlin" || e.Country != "DE" || e.DeviceType != "mobile" || e.Locale != "de" || e.ID != "" {
		t.Errorf("%+v", e)
	}
	want := `{"device.screen_resolution":"1x1","engagement_time_msec":3,"user_properties":{"tier":{"value":"gold"}},"measurement_id":"G-1","batch.consent":{"ad_user_data":"DENIED"},"items[0].location_id":"L"}`
	if e.Properties != want {
		t.Errorf("%s\nwant %s", e.Properties, want)
	}
	if e := rs[1].Event; e.UserID != "u2" || e.OccurredAt != 1772366398000001 || e.PageURL == "" || e.PageTitle != "A" || e.PageReferrer == "" || e.CampaignSource != "x" || e.ClientSessionID != "17" {
		t.Errorf("%+v", e)
	}
	if e := rs[2].Event; e.Value != nil || !strings.Contains(e.Properties, `"value":"high"`) || !strings.Contains(e.Properties, `"items":7`) {
		t.Errorf("%+v", e)
	}
	if strings.Contains(rs[0].Native, "hush") {
		t.Error("the key is in the event")
	}
}

func TestGA4Times(t *testing.T) {
	for sent, want := range map[string]string{
		"1772366399123456": "2026-03-01T11:59:59.123456Z", "1772366399123456.0": "2026-03-01T11:59:59.123456Z", "0": "1970-01-01T00:00:00Z",
		"1772366399123456.5": "1772366399123456.5", "soon": "soon", "9000000000000000000": "9000000000000000000", "-99999999999999999999999": "-99999999999999999999999",
	} {
		if got := microTime(sent); got != want {
			t.Errorf("%s is %s, want %s", sent, got, want)
		}
	}
	if e := only(t, delivered(t, translateGA4, collect(`{"client_id":"c","events":[{"name":"x"}]}`))); e.OccurredAt != received {
		t.Errorf("without a time it is not of now")
	}
}

func TestGA4Failures(t *testing.T) {
	big := strings.Repeat("x", 5000)
	for name, c := range map[string]struct{ body, want string }{
		"no JSON":                           {`client_id=1`, "malformed@"},
		"no events":                         {`{"client_id":"c"}`, "schema@events"},
		"an empty list":                     {`{"client_id":"c","events":[ ]}`, "schema@events"},
		"events that are none":              {`{"client_id":"c","events":{"name":"x"}}`, "schema@events"},
		"a damaged batch":                   {`{"client_id":"c","events":[{"name":"x"},{"name":]}`, ",malformed@"},
		"other things among the events":     {`{"events":[{"name":"x"},"y",{"name":"z"}]}`, ",malformed@,"},
		"an event without a name":           {`{"events":[{"params":{}}]}`, "schema@name"},
		"a time that is none":               {`{"timestamp_micros":"soon","events":[{"name":"x"}]}`, "schema@occurred_at"},
		"a purchase without a currency":     {`{"events":[{"name":"purchase","params":{"value":5}}]}`, "schema@currency"},
		"an amount that is none":            {`{"events":[{"name":"purchase","params":{"value":"5 €","currency":"EUR"}}]}`, "bad_amount@value"},
		"an item that is none":              {`{"events":[{"name":"purchase","params":{"items":[1]}}]}`, "schema@items[0]"},
		"an envelope that is too much":      {`{"user_properties":{"a":"` + big + `"},"events":[{"name":"x"},{"name":"y"}]}`, "size@user_properties,,"},
		"an event of more than 1 MiB":       {`{"events":[{"name":"x","params":{"a":"` + strings.Repeat("x", MaxEventBytes) + `"}},{"name":"y"}]}`, "size@,"},
		"an id of the envelope is too long": {`{"client_id":"` + strings.Repeat("c", 200) + `","events":[{"name":"x"}]}`, "schema@visitor_id"},
		"nothing":                           {` `, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := failures(delivered(t, translateGA4, collect(c.body))); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestGA4WriteKey(t *testing.T) {
	if got := ga4Keys(collect("")); !cmp.Equal(got, []string{"hush"}) {
		t.Errorf("%q", got)
	}
	if got := ga4Keys(&Inbound{}); got != nil {
		t.Errorf("%q", got)
	}
}

func FuzzGA4(f *testing.F) {
	ins, _ := recording(f, "ga4mp-python")
	for _, in := range ins {
		f.Add(in.Body)
	}
	f.Add([]byte(`{"client_id":"c","timestamp_micros":1,"user_properties":{},"device":{"category":"x"},"events":[{"name":"x","params":{"medium":"m","source":"s"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { sound(t, translateGA4, collect(string(body))) })
}

// Whatever digits an amount is written with, as a number or as text: they all arrive, in every format.
func TestAmountsAreExactInEveryFormat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		micros := rapid.Int64Range(0, 999_999_999_999_999_999).Draw(rt, "micros")
		literal := string(event.AppendAmount(nil, micros))
		if rapid.Bool().Draw(rt, "zeros") && strings.Contains(literal, ".") {
			literal += "0"
		}
		if rapid.Bool().Draw(rt, "text") {
			literal = `"` + literal + `"`
		}
		product := ofPlugin("transaction", `{"transaction_id":"o","revenue":`+literal+`,"currency":"EUR"}`)
		for format, rs := range map[string][]result{
			"ga4":                 delivered(t, translateGA4, collect(`{"events":[{"name":"purchase","params":{"value":`+literal+`,"currency":"EUR"}}]}`)),
			"cloudevents":         delivered(t, translateCloudEvents, binary(`{"revenue":`+literal+`,"currency":"EUR"}`, "application/json", "Ce-Type", "com.example.order_completed")),
			"snowplow's plugin":   delivered(t, translateSnowplow, snowplowPost(ecommerce(t, "transaction", product))),
			"snowplow's classics": delivered(t, translateSnowplow, snowplowPost(`{"e":"tr","tr_id":"o","tr_cu":"EUR","tr_tt":`+literal+`}`)),
		} {
			if e := only(t, rs); e.Name != event.NamePurchase || e.Value == nil || *e.Value != micros {
				rt.Fatalf("%s: %s became %v", format, literal, e.Value)
			}
		}
	})
}
