package wire

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

func track(name, props string) string {
	return `{"type":"track","messageId":"m","anonymousId":"a","event":"` + name + `","properties":` + props + `}`
}

func TestCallsOfTheSegmentSpecificationGetGA4Names(t *testing.T) {
	for call, want := range map[string]string{
		"Products Searched": "search", "Product List Viewed": "view_item_list", "Promotion Viewed": "view_promotion", "Promotion Clicked": "select_promotion",
		"Product Clicked": "select_item", "Product Viewed": "view_item", "Product Added": "add_to_cart", "Product Removed": "remove_from_cart", "Cart Viewed": "view_cart",
		"Product Added to Wishlist": "add_to_wishlist", "Wishlist Product Added to Cart": "add_to_cart", "Checkout Started": "begin_checkout",
		"Payment Info Entered": "add_payment_info", "Order Completed": "purchase", "Order Refunded": "refund", "Experiment Viewed": "experiment_exposure",
		"Completed Order": "purchase", "order completed": "purchase", "order_completed": "purchase", "product-added": "add_to_cart", "purchase": "purchase", "add_to_cart": "add_to_cart",
		// What GA4 has no name for, or would count twice, keeps its own.
		"Product List Filtered": "Product List Filtered", "Order Cancelled": "Order Cancelled", "Coupon Applied": "Coupon Applied", "Checkout Step Viewed": "Checkout Step Viewed",
		"Signed Up": "Signed Up",
	} {
		e := single(t, translateSegment, "/v1/track", track(call, `{"a":1}`))
		if e.Name != want {
			t.Errorf("%s became %s", call, e.Name)
		}
		if sent := property(t, e, "event"); e.Name != call && sent != `"`+call+`"` {
			t.Errorf("%s: the name that was sent is %s", call, sent)
		}
		if property(t, e, "a") != "1" {
			t.Errorf("%s: properties %s", call, e.Properties)
		}
	}
}

func TestStepsOfACheckoutAreWhatTheyTell(t *testing.T) {
	for props, want := range map[string]string{
		`{"step":2,"payment_method":"Visa","shipping_method":"DHL"}`: "add_payment_info",
		`{"step":1,"shipping_method":"DHL"}`:                         "add_shipping_info",
		`{"step":1}`:                                                 "Checkout Step Completed",
	} {
		e := single(t, translateSegment, "/v1/track", track("Checkout Step Completed", props))
		if e.Name != want {
			t.Errorf("%s: %s", props, e.Name)
		}
		if strings.Contains(props, "Visa") && (e.PaymentType != "Visa" || e.PaymentMethod != "Visa" || e.ShippingTier != "DHL") {
			t.Errorf("%s: %+v", props, e)
		}
	}
}

func TestNamesThatNoEventCanHaveAreMadeWellFormed(t *testing.T) {
	for sent, want := range map[string]string{
		"Größe geändert!": "Gr__e ge_ndert_", "1st order": "_1st order", "  two  spaces ": "two spaces", "日本": "__", "!": "_", strings.Repeat("x", 300): strings.Repeat("x", 100), "ok": "ok",
	} {
		e := single(t, translateSegment, "/v1/track", track(sent, `{}`))
		if e.Name != want {
			t.Errorf("%q became %q, want %q", sent, e.Name, want)
		}
		if sent != want && property(t, e, "event") != `"`+sent+`"` {
			t.Errorf("%q: properties %s", sent, e.Properties)
		}
	}
}

func TestTheValueIsMerchandiseRevenue(t *testing.T) {
	for _, c := range []struct{ event, props, value, currency string }{
		{"Order Completed", `{"revenue":25,"subtotal":22.5,"total":30,"value":31,"tax":2,"shipping":3,"currency":"EUR"}`, "25000000", "EUR"},
		{"Order Completed", `{"revenue":"25.10","currency":"eur"}`, "25100000", "EUR"},
		{"Order Completed", `{"subtotal":22.5,"total":30,"currency":"EUR"}`, "22500000", "EUR"},
		{"Order Completed", `{"total":30,"currency":"EUR"}`, "30000000", "EUR"},
		{"Order Completed", `{"revenue":19.99}`, "19990000", "USD"}, // as Segment's specification says
		{"Order Refunded", `{"total":20,"currency":"USD"}`, "-20000000", "USD"},
		{"Order Refunded", `{"revenue":-20,"currency":"USD"}`, "-20000000", "USD"},
		{"Order Refunded", `{"order_id":"o"}`, "none", ""},
		{"Product Viewed", `{"value":18.99,"currency":"USD"}`, "18990000", "USD"},
		{"Product Viewed", `{"value":"much","currency":"USD"}`, "none", "USD"},
		{"Volume Changed", `{"value":"high"}`, "none", ""},
		{"Volume Changed", `{"value":-5}`, "none", ""},
		{"Lead Won", `{"revenue":5,"currency":"points"}`, "none", ""},
	} {
		e := single(t, translateSegment, "/v1/track", track(c.event, c.props))
		if micros(e.Value) != c.value || e.Currency != c.currency {
			t.Errorf("%s %s: %s %s", c.event, c.props, micros(e.Value), e.Currency)
		}
	}
	e := single(t, translateSegment, "/v1/track", track("Order Completed", `{"revenue":25,"subtotal":22.5,"total":30,"tax":"2.00","shipping":3,"discount":1.5,"currency":"EUR","order_id":17}`))
	if micros(e.Tax) != "2000000" || micros(e.Shipping) != "3000000" || micros(e.Total) != "30000000" || micros(e.Discount) != "1500000" || property(t, e, "subtotal") != "22.5" || e.OrderID != "17" {
		t.Errorf("%+v %s", e, e.Properties)
	}
	for props, want := range map[string]string{`{"revenue":"lots","currency":"EUR"}`: "bad_amount", `{"revenue":0.1234567,"currency":"EUR"}`: "bad_amount", `{"revenue":1,"currency":"points"}`: "schema"} {
		out := becomes(t, translateSegment, &Inbound{Path: "/v1/track", Body: []byte(track("Order Completed", props))})
		if len(out) != 1 || out[0].fail == nil || out[0].fail.Reason != want {
			t.Errorf("%s: %+v", props, out)
		}
	}
}

func TestProductsBecomeItems(t *testing.T) {
	price := int64(19_990_000)
	position := int64(3)
	mug := event.Item{ItemID: "p1", ItemName: "Mug", ItemCategory: "Kitchen", ItemBrand: "B", ItemVariant: "red", Price: &price, Quantity: 2, Coupon: "C", Position: &position}
	one := `"product_id":"p1","sku":"s1","name":"Mug","category":"Kitchen","brand":"B","variant":"red","price":19.99,"quantity":2,"coupon":"C","position":3,"url":"https://a/b"`
	list := single(t, translateSegment, "/v1/track", track("Cart Viewed", `{"cart_id":"c","products":[{`+one+`},{"sku":"s2","price":"3.5","quantity":"4"},"p3"]}`))
	half := int64(3_500_000)
	if diff := cmp.Diff([]event.Item{mug, {ItemID: "s2", Price: &half, Quantity: 4}, {ItemID: "p3", Quantity: 1}}, list.Items); diff != "" {
		t.Error(diff)
	}
	if property(t, list, "items[0].sku") != `"s1"` || property(t, list, "cart_id") != `"c"` {
		t.Errorf("%s", list.Properties)
	}
	single1 := single(t, translateSegment, "/v1/track", track("Product Added", `{"cart_id":"c",`+one+`}`))
	if diff := cmp.Diff([]event.Item{mug}, single1.Items); diff != "" {
		t.Error(diff)
	}
	promotion := single(t, translateSegment, "/v1/track", track("Promotion Clicked", `{"promotion_id":"p","creative":"top","name":"Sale","position":"home"}`))
	if len(promotion.Items) != 0 || promotion.PromotionID != "p" || promotion.PromotionName != "Sale" || promotion.CreativeName != "top" || promotion.CreativeSlot != "home" {
		t.Errorf("%+v", promotion)
	}
	wrong := becomes(t, translateSegment, &Inbound{Path: "/v1/track", Body: []byte(track("Product Added", `{"product_id":"p","quantity":"many"}`))})
	if len(wrong) != 1 || wrong[0].fail == nil || wrong[0].fail.Path != "items[0].quantity" {
		t.Errorf("%+v", wrong)
	}
}

func TestEverySegmentCallHasItsPlace(t *testing.T) {
	body := `{"batch":[
		{"type":"page","name":"Deals","category":"Shop","anonymousId":"a","properties":{"url":"https://s/deals?utm_source=x","path":"/deals","title":"Deals","referrer":"$direct","search":"?utm_source=x"},
		 "context":{"page":{"url":"https://s/deals?utm_source=x","path":"/other"},"ip":"203.0.113.77","userAgent":"Mozilla/5.0 (iPhone) Mobi","locale":"de-DE","timezone":"Europe/Berlin","sessionId":17,
		 "os":{"name":"iOS","version":"17"},"device":{"type":"ios","model":"x"},"location":{"country":"DE","city":"Berlin"},"campaign":{"name":"spring","source":"news"},"traits":{"plan":"gold"}}},
		{"type":"screen","name":"Home","userId":"u"},
		{"type":"identify","userId":"u","anonymousId":"a","traits":{"plan":"gold"}},
		{"type":"alias","userId":"u","previousId":"a"},
		{"type":"group","userId":"u","groupId":"g","traits":{"name":"Acme"}},
		{"type":"somethingNew","userId":"u","x":1},
		{"type":"track","event":"","userId":"u"}
	],"sentAt":"2026-03-01T12:00:00Z","writeKey":"k","integrations":{"All":true}}`
	out := becomes(t, translateSegment, &Inbound{Path: "/v1/batch", Body: []byte(body)})
	names := []string{}
	for _, o := range out {
		if o.fail != nil {
			names = append(names, "failed "+o.fail.Reason+" "+o.fail.Path)
			continue
		}
		names = append(names, o.e.Name)
		if strings.Contains(o.text, `"k"`) {
			t.Errorf("the write key is kept: %s", o.text)
		}
		if property(t, o.e, "batch.integrations") != `{"All":true}` {
			t.Errorf("%s", o.e.Properties)
		}
	}
	if diff := cmp.Diff([]string{"page_view", "screen_view", "identify", "identify", "group", "somethingNew", "failed schema name"}, names); diff != "" {
		t.Fatal(diff)
	}
	e := out[0].e
	if e.PageURL != "https://s/deals?utm_source=x" || e.PagePath != "/deals" || e.PageReferrer != "" || e.IP != "203.0.113.0" || e.DeviceType != "mobile" || e.DeviceOS != "iOS" || e.Country != "DE" ||
		e.City != "Berlin" || e.CampaignName != "spring" || e.CampaignSource != "news" || e.Locale != "de-DE" || e.TimeZone != "Europe/Berlin" || e.ClientSessionID != "17" || e.UserAgent == "" {
		t.Errorf("%+v", e)
	}
	for key, want := range map[string]string{"name": `"Deals"`, "category": `"Shop"`, "search": `"?utm_source=x"`, "context.page.path": `"/other"`, "context.os.version": `"17"`, "context.device.model": `"x"`, "context.traits": `{"plan":"gold"}`} {
		if got := property(t, e, key); got != want {
			t.Errorf("%s is %s in %s", key, got, e.Properties)
		}
	}
	if out[2].e.UserID != "u" || out[2].e.VisitorID != "a" || property(t, out[2].e, "traits") != `{"plan":"gold"}` || out[3].e.PreviousID != "a" || property(t, out[4].e, "groupId") != `"g"` {
		t.Errorf("%+v", out[2:5])
	}
}

func TestTimesOfForeignClients(t *testing.T) {
	for name, c := range map[string]struct{ times, header, want string }{
		"in step":                     {`"timestamp":"2026-03-01T11:59:59.123456+00:00","sentAt":"2026-03-01T11:59:59.5Z"`, "", "2026-03-01T11:59:59.123456Z"},
		"sent again after 35 s":       {`"timestamp":"2026-03-01T11:59:20Z","sentAt":"2026-03-01T11:59:25Z"`, "", "2026-03-01T11:59:20Z"},
		"a clock three hours ahead":   {`"timestamp":"2026-03-01T14:59:00Z","sentAt":"2026-03-01T15:00:00Z"`, "", "2026-03-01T11:59:00Z"},
		"a clock ten minutes behind":  {`"timestamp":"2026-03-01T11:49:00Z","sentAt":"2026-03-01T11:50:00Z"`, "", "2026-03-01T11:59:00Z"},
		"history":                     {`"timestamp":"2020-03-01T10:11:12.345Z","sentAt":"2026-03-01T12:00:00Z"`, "", "2020-03-01T10:11:12.345Z"},
		"the user's own time wins":    {`"timestamp":"2026-03-01T11:00:00Z","originalTimestamp":"2026-03-01T11:30:00Z"`, "", "2026-03-01T11:00:00Z"},
		"sent time of the header":     {`"originalTimestamp":"2026-03-01T14:30:00Z"`, "2026-03-01T15:00:00Z", "2026-03-01T11:30:00Z"},
		"seconds since the epoch":     {`"timestamp":1772366399`, "", "2026-03-01T11:59:59Z"},
		"milliseconds as a string":    {`"timestamp":"1772366399500"`, "", "2026-03-01T11:59:59.5Z"},
		"without a zone":              {`"timestamp":"2026-03-01T11:30:00.5"`, "", "2026-03-01T11:30:00.5Z"},
		"a sent time that is none":    {`"timestamp":"2026-03-01T11:30:00Z","sentAt":"now"`, "", "2026-03-01T11:30:00Z"},
		"no time at all":              {`"sentAt":null`, "", "2026-03-01T12:00:00Z"},
		"no time and a clock of 1970": {`"sentAt":"1970-01-01T00:00:00Z"`, "", "2026-03-01T12:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			out := becomes(t, translateSegment, &Inbound{Path: "/v1/track", ReceivedAt: received - 1e6, Header: http.Header{"Sentat": {c.header}}, Body: []byte(`{"event":"x",` + c.times + `}`)})
			if len(out) != 1 || out[0].fail != nil {
				t.Fatalf("%+v", out)
			}
			if got := event.Time(out[0].e.OccurredAt).Format("2006-01-02T15:04:05.999999Z07:00"); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func FuzzSegment(f *testing.F) {
	for _, s := range []string{
		track("Order Completed", `{"revenue":"1.5","products":[{"product_id":1,"price":"2"},"x",3],"currency":"eur"}`), `{"batch":[{"type":"page","context":{"page":{"url":"a"}}},{"type":"alias"}],"sentAt":"x","a":1}`,
		`[{"type":"group","timestamp":12345}]`, `{"event":"Checkout Step Viewed","properties":{"payment_method":[]}}`, "{\"event\":\"a\xff\",\"event\":\"b\",\"messageId\":\"\\ud800\"}", `{"batch":[{"event":,},`,
	} {
		f.Add([]byte(s))
	}
	fuzzTranslation(f, "/v1/batch", translateSegment, bodyKeys)
}

// BenchmarkSegment is an order as Segment's Node client sends it, translated and decoded.
func BenchmarkSegment(b *testing.B) {
	text, err := os.ReadFile("testdata/clients/segment-node.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	var body []byte
	for line := range bytes.Lines(text) {
		if ms, _ := parse(bytes.TrimSpace(line)); ms.peek("scenario") == "track-order-completed-0" {
			body = ms.take("body")
		}
	}
	d := NewDecoder()
	d.Reset(testSource())
	var e event.Event
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		translateSegment(&Inbound{Path: "/v1/batch", Body: body}, func(one []byte, _ *Failure) bool {
			if f := d.Decode(one, &e); f != nil {
				b.Fatal(f)
			}
			return true
		})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
