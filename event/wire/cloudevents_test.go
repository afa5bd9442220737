package wire

import (
	"net/http"
	"strings"
	"testing"

	"millrace/event"
)

func binary(body, contentType string, attributes ...string) *Inbound {
	in := &Inbound{Path: "/cloudevents", Header: http.Header{}, Body: []byte(body)}
	if contentType != "" {
		in.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(attributes); i += 2 {
		in.Header[attributes[i]] = []string{attributes[i+1]}
	}
	return in
}

func TestCloudEventIsTheSameInEveryMode(t *testing.T) {
	const data = `{"transaction_id":"o-1","value":129.90,"currency":"EUR","tax":"2.10","items":[{"item_id":"p1","price":64.95,"quantity":2}],"gift":true}`
	one := `{"specversion":"1.0","id":"e1","source":"/shop","type":"com.example.purchase","time":"2026-03-01T11:59:58+00:00","visitorid":"v1","userid":"u1","sessionid":"s1","traceparent":"00-a","data":` + data + `}`
	for name, in := range map[string]*Inbound{
		"binary": binary(data, "application/json; charset=utf-8", "Ce-Specversion", "1.0", "CE-ID", "e1", "ce-source", "/shop", "Ce-Type", "com.example.purchase",
			"Ce-Time", "2026-03-01T11:59:58Z", "Ce-Visitorid", "v1", "Ce-Userid", "u1", "Ce-Sessionid", "s1", "Ce-Traceparent", "00-a"),
		"structured":                       binary(one, "application/cloudevents+json; charset=utf-8"),
		"structured as some other type":    binary(one, "text/plain"),
		"batched":                          binary("["+one+"]", "application/cloudevents-batch+json"),
		"data in base64":                   binary(strings.Replace(one, `"data":`+data, `"datacontenttype":"application/json","data_base64":"`+base64Of(data)+`"`, 1), "application/cloudevents+json"),
		"data as text":                     binary(strings.Replace(one, data, quote(t, data), 1), "application/cloudevents+json"),
		"structured with attributes, too":  binary(one, "application/cloudevents+json", "Ce-Id", "other"),
		"binary as text, JSON nonetheless": binary(data, "text/plain", "ce-id", "e1", "ce-source", "/shop", "ce-type", "purchase", "ce-time", "2026-03-01T11:59:58Z", "ce-visitorid", "v1", "ce-userid", "u1", "ce-sessionid", "s1"),
	} {
		t.Run(name, func(t *testing.T) {
			e := only(t, delivered(t, translateCloudEvents, in))
			if e.Name != event.NamePurchase || e.ID != "e1" || e.Source != "web//shop" || e.VisitorID != "v1" || e.UserID != "u1" || e.ClientSessionID != "s1" ||
				e.OrderID != "o-1" || *e.Value != 129_900_000 || e.Currency != "EUR" || *e.Tax != 2_100_000 || len(e.Items) != 1 || e.Items[0].Quantity != 2 {
				t.Errorf("%+v", e)
			}
			if e.OccurredAt != received-3e6 {
				t.Errorf("occurred %d µs before it was received", received-e.OccurredAt)
			}
			if !strings.Contains(e.Properties, `"gift":true`) {
				t.Errorf("properties are %s", e.Properties)
			}
		})
	}
}

func TestCloudEventTypesNameEvents(t *testing.T) {
	for typ, want := range map[string]string{
		"purchase": "purchase", "com.example.add_to_cart": "add_to_cart", "com.example.shop.order_completed": "purchase", "com.example.Product Viewed": "view_item",
		"com.example.shop.v2.stock_moved": "stock_moved", "com.example.7up": "_7up", "inventory.inventory_change": "inventory_change",
	} {
		e := only(t, delivered(t, translateCloudEvents, binary(`{"currency":"EUR"}`, "application/json", "Ce-Id", "1", "Ce-Type", typ)))
		if e.Name != want || !strings.Contains(e.Properties, quote(t, typ)) {
			t.Errorf("%s became %s, with %s", typ, e.Name, e.Properties)
		}
	}
}

func TestCloudEventSubjects(t *testing.T) {
	for name, c := range map[string]struct{ extra, visitor, user string }{
		"the visitor, if there is no other":    {``, "s", ""},
		"the user, beside a visitor":           {`,"visitorid":"v"`, "v", "s"},
		"nobody, beside both":                  {`,"visitorid":"v","userid":"u"`, "v", "u"},
		"the user, beside a visitor in data":   {`,"data":{"visitor_id":"v"}`, "v", "s"},
		"nobody, if data says who both are":    {`,"data":{"anonymousId":"v","userId":"u"}`, "v", "u"},
		"the visitor, beside a user it may be": {`,"userid":"s"`, "s", "s"},
	} {
		e := only(t, delivered(t, translateCloudEvents, binary(`{"specversion":"1.0","type":"x","subject":"s"`+c.extra+`}`, "application/cloudevents+json")))
		if e.VisitorID != c.visitor || e.UserID != c.user || !strings.Contains(e.Properties, `"subject":"s"`) {
			t.Errorf("%s: visitor %q, user %q, %s", name, e.VisitorID, e.UserID, e.Properties)
		}
	}
}

func TestTextInHeaders(t *testing.T) {
	for sent, want := range map[string]string{
		"plain":                            "plain",
		"J%C3%BCrgen%20%E2%82%AC%20100%25": "Jürgen € 100%",
		"J\xfcrgen \"q\" 100%":             `Jürgen "q" 100%`, // Latin-1
		"Jürgen 100%":                      "Jürgen 100%",     // UTF-8
		`"quoted \"text\""`:                `quoted "text"`,
		"%zz %4":                           "%zz %4",
		"%FF":                              "%FF", // no UTF-8
		"%e2%82%ac":                        "€",
		"%2525":                            "%25", // once only
		"":                                 "",
		`"`:                                `"`,
	} {
		if got := headerText(sent); got != want {
			t.Errorf("%q is %q, want %q", sent, got, want)
		}
	}
}

func TestCloudEventDataOfOtherKinds(t *testing.T) {
	for name, c := range map[string]struct {
		in   *Inbound
		want string // in the properties
	}{
		"text":             {binary("hello", "text/plain", "Ce-Type", "x"), `"datacontenttype":"text/plain","data":"hello"`},
		"bytes":            {binary("\x01\x02\xff", "application/octet-stream", "Ce-Type", "x"), `"data_base64":"AQL/"`},
		"a list":           {binary("[1,2.50]", "application/json", "Ce-Type", "x"), `"data":[1,2.50]`},
		"none":             {binary("", "", "Ce-Type", "x"), `{"type":"x"}`},
		"bytes in JSON":    {binary(`{"specversion":"1.0","type":"x","datacontenttype":"image/png","data_base64":"AQID/w=="}`, "application/cloudevents+json"), `"data_base64":"AQID/w=="`},
		"no base64 at all": {binary(`{"specversion":"1.0","type":"x","data_base64":"%"}`, "application/cloudevents+json"), `"data_base64":"%"`},
		"a long number":    {binary(`{"n":12345678901234567890.123456789}`, "application/json", "Ce-Type", "x"), `"n":12345678901234567890.123456789`},
	} {
		if e := only(t, delivered(t, translateCloudEvents, c.in)); !strings.Contains(e.Properties, c.want) {
			t.Errorf("%s: %s", name, e.Properties)
		}
	}
}

func TestCloudEventFailures(t *testing.T) {
	for name, c := range map[string]struct {
		in   *Inbound
		want string
	}{
		"no JSON":                     {binary("<a/>", "application/cloudevents+xml"), "malformed@"},
		"a batch with other things":   {binary(`[{"specversion":"1.0","type":"x"},7,{"specversion":"1.0","type":"y"}]`, "application/cloudevents-batch+json"), ",malformed@,"},
		"an event without a type":     {binary(`{"specversion":"1.0","id":"1"}`, "application/cloudevents+json"), "schema@name"},
		"a time that is none":         {binary(`{"specversion":"1.0","type":"x","time":"yesterday"}`, "application/cloudevents+json"), "schema@occurred_at"},
		"a time in another age":       {binary(`{"specversion":"1.0","type":"x","time":"1815-12-10T00:00:00Z"}`, "application/cloudevents+json"), "bad_time@occurred_at"},
		"an amount that is none":      {binary(`{"value":"1,5","currency":"EUR"}`, "application/json", "Ce-Type", "purchase"), "bad_amount@value"},
		"data that is broken JSON":    {binary(`{"a":`, "application/json", "Ce-Type", "x", "Ce-Id", "1"), "malformed@data"},
		"data of more than 1 MiB":     {binary(strings.Repeat("x", MaxEventBytes+1), "text/plain", "Ce-Type", "x"), "size@"},
		"an id of more than 128 byte": {binary("", "", "Ce-Type", "x", "Ce-Id", strings.Repeat("x", 129)), "schema@event_id"},
		"nothing":                     {binary("", "application/cloudevents+json"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := failures(delivered(t, translateCloudEvents, c.in)); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestBrokenDataIsKeptWithItsAttributes(t *testing.T) {
	rs := delivered(t, translateCloudEvents, binary(`{"a":`, "application/json", "Ce-Type", "x", "Ce-Id", "1"))
	if want := `{"id":"1","type":"x","datacontenttype":"application/json","data":"{\"a\":"}`; rs[0].Native != want || rs[0].Failure.EventID != "1" {
		t.Errorf("%s %+v", rs[0].Native, rs[0].Failure)
	}
}

func FuzzCloudEvents(f *testing.F) {
	for _, client := range []string{"cloudevents-node", "cloudevents-python"} {
		ins, _ := recording(f, client)
		for _, in := range ins {
			f.Add(in.Body, in.Header.Get("Content-Type"), in.Header.Get("Ce-Id"), in.Header.Get("Ce-Source"))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, id, source string) {
		in := binary(string(body), contentType)
		if id != "" || source != "" {
			in = binary(string(body), contentType, "Ce-Id", id, "Ce-Source", source, "Ce-Type", "x")
		}
		sound(t, translateCloudEvents, in)
	})
}
