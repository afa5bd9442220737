package wire

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"millrace/event"
)

func TestPostHogEventsHaveTheirPlace(t *testing.T) {
	body := `{"api_key":"k","batch":[
		{"event":"$pageview","uuid":"u1","timestamp":"2026-03-01T11:59:59Z","properties":{"distinct_id":"d","$device_id":"d","token":"k","$current_url":"https://s/a?b","$pathname":"/a","$referrer":"$direct","title":"T",
		 "$session_id":"s","$device_type":"Mobile","$os":"iOS","$browser":"Safari","$timezone":"UTC","$ip":"203.0.113.77","utm_source":"news","$lib":"web"}},
		{"event":"$identify","uuid":"u2","distinct_id":"user","properties":{"$anon_distinct_id":"d","$set":{"plan":"gold"}}},
		{"event":"$create_alias","uuid":"u3","properties":{"distinct_id":"user","alias":"d"},"distinct_id":"user"},
		{"event":"$autocapture","uuid":"u4","properties":{"distinct_id":"user","$device_id":"d","$elements":[{"tag":"a"}]}},
		{"event":"$feature_flag_called","uuid":"u5","distinct_id":"d","properties":{"$feature_flag":"f","$feature_flag_response":"test"}},
		{"event":"Order Completed","uuid":"u6","distinct_id":"d","properties":{"order_id":"o","revenue":25.5,"currency":"EUR","products":[{"product_id":"p","price":25.5}]}},
		{"event":"Order Completed","uuid":"u7","distinct_id":"d","properties":{"order_id":"o","revenue":25.5}}
	],"sent_at":"2026-03-01T12:00:00Z"}`
	out := becomes(t, translatePostHog, &Inbound{Path: "/batch", Body: []byte(body)})
	var got []string
	for _, o := range out {
		if o.fail != nil {
			got = append(got, o.fail.Error())
			continue
		}
		got = append(got, strings.Join([]string{o.e.ID, o.e.Name, o.e.VisitorID, o.e.UserID, o.e.PreviousID, micros(o.e.Value), o.e.Currency}, " "))
		if strings.Contains(o.text, `"k"`) {
			t.Errorf("the key is kept: %s", o.text)
		}
	}
	want := []string{
		"u1 page_view d   none ", "u2 identify d user d none ", "u3 identify user  d none ", "u4 $autocapture d user  none ", "u5 experiment_exposure d   none ", "u6 purchase d   25500000 EUR",
		"schema at currency: an amount needs a currency",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	e := out[0].e
	if e.PageURL != "https://s/a?b" || e.PagePath != "/a" || e.PageTitle != "T" || e.ClientSessionID != "s" || e.DeviceType != "mobile" || e.DeviceOS != "iOS" || e.CampaignSource != "news" || e.IP != "203.0.113.0" ||
		event.Time(e.OccurredAt).Format("15:04:05") != "11:59:59" {
		t.Errorf("%+v", e)
	}
	if x := out[4].e; x.ExperimentID != "f" || x.VariantID != "test" {
		t.Errorf("%+v", x)
	}
}

func TestPostHogBodiesInEveryWrapping(t *testing.T) {
	one := `{"event":"x","uuid":"u1","properties":{"distinct_id":"d","token":"phc_k"}}`
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write([]byte(one)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	base := base64.StdEncoding.EncodeToString([]byte(one))
	for name, in := range map[string]*Inbound{
		"one event":          {Body: []byte(one)},
		"a list":             {Body: []byte("[" + one + "]")},
		"a form":             {Body: []byte("data=" + url.QueryEscape(one) + "&v=1")},
		"base64 in a form":   {Body: []byte("data=" + url.QueryEscape(base))},
		"unescaped base64":   {Body: []byte("data=" + base)},
		"gzip in base64":     {Body: []byte("data=" + base64.StdEncoding.EncodeToString(zipped.Bytes()))},
		"base64 alone":       {Body: []byte(base)},
		"the query of a GET": {Query: url.Values{"data": {base}}},
	} {
		in.Path = "/e"
		if keys := posthogKeys(in); len(keys) != 1 || keys[0] != "phc_k" {
			t.Errorf("%s: keys %v", name, keys)
		}
		out := becomes(t, translatePostHog, in)
		if len(out) != 1 || out[0].fail != nil || out[0].e.ID != "u1" || out[0].e.VisitorID != "d" {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func FuzzPostHog(f *testing.F) {
	for _, s := range []string{
		`{"api_key":"k","batch":[{"event":"$pageview","properties":{"distinct_id":"d","$device_id":"e"}}]}`, `data=eyJldmVudCI6IngifQ==`, `data=%7B%22event%22%3A%22x%22%7D`, `{"event":"$identify","offset":17}`,
		`eyJldmVudCI6IngifQ`, `{"event":"purchase","properties":{"value":1}}`,
	} {
		f.Add([]byte(s))
	}
	fuzzTranslation(f, "/e", translatePostHog, posthogKeys)
}
