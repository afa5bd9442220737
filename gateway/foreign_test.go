package gateway

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"millrace/event"
)

const trackBody = `{"type":"track","event":"Order Completed","messageId":"%s","userId":"u","properties":{"order_id":"o","revenue":1.5,"currency":"EUR"}}`

func TestForeignClientsPutTheirKeysWhereTheyLike(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(webKey+":"))
	one := fmt.Sprintf(trackBody, "m")
	snowplow := `{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[{"e":"pv","eid":"0b9f6c7e-6a3b-4e3e-9d8a-1f2e3d4c5b6a","aid":"` + webKey + `"}]}`
	for name, c := range map[string]struct {
		path, body string
		header     []string
	}{
		"basic, Segment":                     {"/v1/track", one, []string{"Authorization", basic}},
		"basic in lower case":                {"/v1/track", one, []string{"Authorization", strings.Replace(basic, "Basic", "basic", 1)}},
		"body, Segment Java":                 {"/v1/import/", `{"batch":[` + one + `],"writeKey":"` + webKey + `"}`, nil},
		"body of a single call":              {"/v1/t", strings.TrimSuffix(one, "}") + `,"writeKey":"` + webKey + `"}`, []string{"Content-Type", "text/plain"}},
		"query, RudderStack beacon":          {"/beacon/v1/batch?writeKey=" + webKey, `{"batch":[` + one + `]}`, []string{"Content-Type", "text/plain"}},
		"body, PostHog":                      {"/batch/", `{"api_key":"` + webKey + `","batch":[{"event":"x"}]}`, nil},
		"token of an event, PostHog":         {"/e/", `[{"event":"x","properties":{"token":"` + webKey + `"}}]`, nil},
		"a form, PostHog":                    {"/e/", "data=" + url.QueryEscape(`{"event":"x","properties":{"token":"`+webKey+`"}}`), []string{"Content-Type", "application/x-www-form-urlencoded"}},
		"query, GA4":                         {"/mp/collect?measurement_id=G-1&api_secret=" + webKey, `{"client_id":"c","events":[{"name":"x"}]}`, nil},
		"app id, Snowplow":                   {"/com.snowplowanalytics.snowplow/tp2", snowplow, nil},
		"a path of its own, Snowplow":        {"/com.shop/v9", snowplow, nil},
		"query, CloudEvents":                 {"/cloudevents?writeKey=" + webKey, `{"specversion":"1.0","id":"1","source":"/s","type":"com.shop.page_view"}`, []string{"Content-Type", "application/cloudevents+json"}},
		"header, CloudEvents":                {"/cloudevents", `{"specversion":"1.0","id":"1","source":"/s","type":"com.shop.page_view"}`, []string{"X-Write-Key", webKey, "Content-Type", "application/cloudevents+json"}},
		"a wrong one first, then the body's": {"/v1/batch", `{"batch":[` + one + `],"writeKey":"` + webKey + `"}`, []string{"X-Write-Key", "somebody-else"}},
	} {
		code, h, answer := g.do(http.MethodPost, c.path, strings.NewReader(c.body), c.header...)
		if code != 200 || h.Get("Content-Type") != "application/json" || !strings.HasPrefix(answer, `{"success":true,`) {
			t.Errorf("%s: %d %s", name, code, answer)
			continue
		}
		if a, f := counts(t, answer); a != 1 || f != 0 {
			t.Errorf("%s: %s", name, answer)
		}
	}
}

// A wrong key, or none, loses nothing: what came is kept as native text that can be sent again with the right one.
func TestAForeignRequestWithAWrongKeyIsKeptAsNativeText(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	body := `{"batch":[` + fmt.Sprintf(trackBody, "m1") + `,` + fmt.Sprintf(trackBody, "m2") + `],"writeKey":"wrong-key-1"}`
	code, _, answer := g.do(http.MethodPost, "/v1/batch", strings.NewReader(body))
	if a, f := counts(t, answer); code != 200 || a != 0 || f != 1 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, _, answer := g.do(http.MethodPost, "/v1/batch", strings.NewReader(body), "X-Strict-Mode", "1"); code != http.StatusUnauthorized {
		t.Errorf("strict: %d %s", code, answer)
	}
	in := consume(t, c.ListenAddrs())
	failed := in.records(1)[0].failed
	if failed.Reason != event.ReasonUnknownKey || strings.Contains(failed.Payload, "wrong-key-1") {
		t.Fatalf("%+v", failed)
	}
	code, answer = g.post(failed.Payload)
	if a, f := counts(t, answer); code != 200 || a != 2 || f != 0 {
		t.Fatalf("sent again: %d %s", code, answer)
	}
	for _, r := range in.records(3)[1:] {
		if r.event.Name != "purchase" || *r.event.Value != 1_500_000 || r.event.Currency != "EUR" || r.event.ID != "m1" && r.event.ID != "m2" {
			t.Errorf("%+v", r.event)
		}
	}
}

// A client that was given another's path delivers all the same where its events tell what they are.
func TestABodyOnTheWrongPathIsReadForWhatItIs(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	call := fmt.Sprintf(trackBody, "m")
	native := `{"name":"purchase","event_id":"m","currency":"EUR","value":1.5}`
	for name, c := range map[string]struct {
		path, body       string
		accepted, failed int
	}{
		"a Segment batch on the native path": {"/v1/events", `{"batch":[` + call + `,` + call + `,{"x":1}],"sentAt":"2026-01-01T00:00:00Z"}`, 2, 1},
		"a batch larger than an event":       {"/v1/events", `{"batch":[` + call + strings.Repeat(`,`+call, 9000) + `]}`, 9001, 0},
		"calls on the native path":           {"/v1/events", call + "\n" + native, 2, 0},
		"PostHog on the native path":         {"/v1/events", `{"api_key":"k","batch":[{"event":"x","distinct_id":"d"}]}`, 1, 0},
		"CloudEvents on the native path":     {"/v1/events", `{"specversion":"1.0","id":"1","source":"/s","type":"com.shop.page_view"}`, 1, 0},
		"GA4 on the native path":             {"/v1/events", `{"client_id":"c","events":[{"name":"x"},{"name":"y"}]}`, 2, 0},
		"native events on Segment's path":    {"/v1/batch", "[" + native + "," + call + "]", 2, 0},
		"native events on PostHog's path":    {"/batch", native, 1, 0},
		"something else altogether":          {"/v1/events", `{"hello":"world"}`, 0, 1},
		"nothing known on a foreign path":    {"/v1/batch", `{"hello":"world"}`, 0, 1},
	} {
		code, _, answer := g.do(http.MethodPost, c.path, strings.NewReader(c.body), "X-Write-Key", webKey)
		if a, f := counts(t, answer); code != 200 || a != c.accepted || f != c.failed {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
}

func TestClientsThatNeverSendAgainAreNotAskedTo(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	send := func(i int) (int, http.Header, string) {
		return g.do(http.MethodPost, "/mp/collect?api_secret="+slowKey, strings.NewReader(fmt.Sprintf(`{"client_id":"c","events":[{"name":"e%d"}]}`, i)))
	}
	for i := range 2 { // the burst
		if code, _, answer := send(i); code != 200 || !strings.Contains(answer, `"accepted":1`) {
			t.Errorf("%d %s", code, answer)
		}
	}
	for i := range 2 { // as many again, as failed events
		if code, _, answer := send(10 + i); code != 200 || !strings.Contains(answer, `"accepted":0,"failed":1`) {
			t.Errorf("%d %s", code, answer)
		}
	}
	if code, h, _ := send(20); code != 429 || h.Get("Retry-After") != "300" {
		t.Errorf("behind the second bound: %d", code)
	}
	code, h, _ := g.do(http.MethodPost, "/v1/track", strings.NewReader(strings.TrimSuffix(fmt.Sprintf(trackBody, "m"), "}")+`,"writeKey":"`+slowKey+`"}`))
	if code != 429 || h.Get("Retry-After") == "" {
		t.Errorf("Segment over its rate: %d %v", code, h)
	}
	rated := 0
	for _, r := range consume(t, c.ListenAddrs()).records(4) {
		if r.Topic != event.TopicRawFailed {
			continue
		}
		rated++
		code, answer := g.post(r.failed.Payload) // replayable
		if a, _ := counts(t, answer); code != 200 || a != 1 || r.failed.Reason != event.ReasonRate {
			t.Errorf("%s %q: %s", r.failed.Reason, r.failed.Payload, answer)
		}
	}
	if rated != 2 {
		t.Errorf("%d failed events rate", rated)
	}
}

// Snowplow sends a 413 again for ever, in a batch that grows.
func TestTooMuchIsKeptAndNeverRefused(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	huge := `{"schema":"x","data":[{"e":"pv","aid":"` + webKey + `","x":"` + strings.Repeat("x", MaxBodyBytes) + `"}]}`
	for _, path := range []string{"/com.snowplowanalytics.snowplow/tp2", "/batch", "/v1/batch"} {
		code, _, answer := g.do(http.MethodPost, path, strings.NewReader(huge), "X-Write-Key", webKey)
		if a, f := counts(t, answer); code != 200 || a != 0 || f != 1 {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	var many bytes.Buffer
	many.WriteString(`{"batch":[`)
	for i := range MaxEvents + 500 {
		if i > 0 {
			many.WriteByte(',')
		}
		fmt.Fprintf(&many, `{"event":"x","messageId":"%d"}`, i)
	}
	many.WriteString(`],"writeKey":"` + webKey + `"}`)
	code, _, answer := g.do(http.MethodPost, "/v1/batch", bytes.NewReader(many.Bytes()))
	if a, f := counts(t, answer); code != 200 || a != MaxEvents || f != 1 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, _, _ := g.do(http.MethodPost, "/v1/batch", bytes.NewReader(many.Bytes()), "X-Strict-Mode", "1"); code != http.StatusRequestEntityTooLarge {
		t.Errorf("strict: %d", code)
	}
	lines := 0
	for _, r := range consume(t, c.ListenAddrs()).records(3 + MaxEvents + 1) {
		if r.Topic == event.TopicRawFailed && strings.HasPrefix(r.failed.Payload, `{"event_id"`) {
			lines += strings.Count(r.failed.Payload, "\n")
		}
	}
	if lines != 500 {
		t.Errorf("%d surplus events kept", lines)
	}
	// Events of next to nothing, each of which an envelope makes large: what they may become is bounded.
	envelope := `{"context":{"x":"` + strings.Repeat("x", 3000) + `"},"writeKey":"` + webKey + `","batch":[` + strings.TrimSuffix(strings.Repeat(`{"event":"x"},`, 500_000), ",") + `]}`
	code, _, answer = g.do(http.MethodPost, "/v1/batch", strings.NewReader(envelope))
	a, f := counts(t, answer)
	if code != 200 || a+f < MaxEvents || a > MaxEvents || f > 200 {
		t.Errorf("%d %s", code, answer)
	}
	eventually(t, "the memory to be given back", func() bool { return g.budget.used.Load() == 0 })
}

func TestEveryPathIsServedWithAndWithoutASlashAndNoneRedirects(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	for _, f := range g.table {
		for _, p := range f.Paths {
			p = strings.NewReplacer("{vendor}", "com.acme", "{version}", "v1").Replace(p)
			for _, path := range []string{p, p + "/"} {
				code, _, answer := g.do(http.MethodPost, path, strings.NewReader("[]"), "X-Write-Key", webKey)
				if code != 200 || !strings.HasPrefix(answer, `{"success":true,`) {
					t.Errorf("POST %s: %d %s", path, code, answer)
				}
				want := http.StatusMethodNotAllowed
				if f.Get {
					want = 200
				}
				if code, _, answer := g.do(http.MethodGet, path+"?x=1", nil, "X-Write-Key", webKey); code != want {
					t.Errorf("GET %s: %d %s", path, code, answer)
				}
				code, h, _ := g.do(http.MethodOptions, path, nil, "Origin", "https://shop.example", "Access-Control-Request-Headers", "x-own")
				if code != 204 || h.Get("Access-Control-Allow-Origin") != "https://shop.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Max-Age") != "86400" ||
					h.Get("Access-Control-Allow-Headers") != "x-own,authorization,content-type,anonymousid,sentat,x-write-key,x-retry-count" {
					t.Errorf("OPTIONS %s: %d %v", path, code, h)
				}
			}
		}
	}
	for _, s := range g.settings {
		for _, p := range s.Paths {
			path := strings.Replace(p, "{key}", webKey, 1)
			for _, path := range []string{path, path + "/"} {
				code, h, answer := g.do(http.MethodGet, path, nil, "Origin", "https://shop.example")
				if code != 200 || h.Get("Access-Control-Allow-Origin") != "https://shop.example" || answer == "" {
					t.Errorf("GET %s: %d %s", path, code, answer)
				}
			}
			if code, _, _ := g.do(http.MethodDelete, path, nil); code != http.StatusMethodNotAllowed {
				t.Errorf("DELETE %s: %d", path, code)
			}
		}
	}
	code, h, answer := g.do(http.MethodGet, "/i?e=pv&aid="+webKey+"&eid=0b9f6c7e-6a3b-4e3e-9d8a-1f2e3d4c5b6a", nil)
	if code != 200 || h.Get("Content-Type") != "image/gif" || len(answer) != 43 || !strings.HasPrefix(answer, "GIF89a") {
		t.Errorf("picture: %d %v, %d bytes", code, h, len(answer))
	}
	call := base64.RawURLEncoding.EncodeToString([]byte(strings.TrimSuffix(fmt.Sprintf(trackBody, "m"), "}") + `,"writeKey":"` + webKey + `"}`))
	code, h, answer = g.do(http.MethodGet, "/v1/pixel/track?data="+call, nil)
	if code != 200 || h.Get("Content-Type") != "image/gif" || len(answer) != 43 {
		t.Errorf("pixel: %d %v, %d bytes", code, h, len(answer))
	}
	if code, _, _ := g.do(http.MethodGet, "/array/"+url.PathEscape("a\"b c")+"/config.js", nil); code != http.StatusNotFound {
		t.Errorf("a key that is none: %d", code)
	}
}

func TestRepetitionsAreCounted(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	for _, n := range []string{"", "0", "1", "2", "many"} {
		header := []string{"X-Write-Key", webKey}
		if n != "" {
			header = append(header, "X-Retry-Count", n)
		}
		if code, _, answer := g.do(http.MethodPost, "/v1/track", strings.NewReader(fmt.Sprintf(trackBody, "m")), header...); code != 200 {
			t.Fatalf("%d %s", code, answer)
		}
	}
	_, text := g.get("/metrics")
	for _, want := range []string{`millrace_gateway_retries_total{format="segment"} 2`, `millrace_gateway_format_requests_total{format="segment"} 5`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// Rules go by the names that were sent and by those of native events, in whatever a body is wrapped, and what is hashed is hashed once.
func TestPersonalDataOfForeignEventsIsRedacted(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.Sources[0].PII = []Rule{{Key: "email", Action: "hash"}, {Key: "userId", Action: "hash"}, {Key: "distinct_id", Action: "hash"}, {Key: "phone", Action: "drop"}}
	g := start(t, cfg, c.ListenAddrs())
	segment := `{"type":"identify","userId":"patricia-l","traits":{"email":"patricia-l@example.com"},"context":{"phone":"555-0100-4711","device":{"phone":"556-0100-4712"}}}`
	posthog := `{"event":"x","distinct_id":"patricia-l","properties":{"email":"patricia-l@example.com","$set":{"phone":"555-0100-4711"}}}`
	for _, one := range [][2]string{
		{"/v1/events", `{"name":"identify","user_id":"x","properties":{"email":"patricia-l@example.com"}}`},
		{"/v1/batch", `{"batch":[` + segment + `]}`},
		{"/batch", posthog},
		{"/e", "data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(posthog)))},
	} {
		code, _, answer := g.do(http.MethodPost, one[0], strings.NewReader(one[1]), "X-Write-Key", webKey)
		if a, _ := counts(t, answer); code != 200 || a != 1 {
			t.Fatalf("%d %s", code, answer)
		}
	}
	hashes := map[string]int{}
	for _, r := range consume(t, c.ListenAddrs()).records(4) {
		for _, clear := range []string{"patricia-l", "555-0100", "556-0100"} { // long enough to be in no id and no hash by chance
			if bytes.Contains(r.Value, []byte(clear)) {
				t.Errorf("%s holds %s: %+v", r.event.Name, clear, r.event)
			}
		}
		_, rest, _ := strings.Cut(r.event.Properties, `"email":"`)
		hash, _, _ := strings.Cut(rest, `"`)
		hashes[hash]++
	}
	if len(hashes) != 1 {
		t.Errorf("one address has the hashes %v", hashes)
	}
}

// The address of a server that sends its visitors' events is not a visitor's.
func TestServersAreNotTakenForVisitors(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.ClientIPHeader = "X-Forwarded-For"
	g := start(t, cfg, c.ListenAddrs())
	for agent, body := range map[string]string{
		"analytics-node-next/latest": fmt.Sprintf(trackBody, "server"), "Mozilla/5.0 (X11; Linux) Firefox/1": fmt.Sprintf(trackBody, "browser"), "Shop/1 CFNetwork/1 Darwin/23": fmt.Sprintf(trackBody, "app"),
	} {
		if code, _, answer := g.do(http.MethodPost, "/v1/track", strings.NewReader(body), "X-Write-Key", webKey, "User-Agent", agent, "X-Forwarded-For", "203.0.113.77"); code != 200 {
			t.Fatalf("%d %s", code, answer)
		}
	}
	for _, r := range consume(t, c.ListenAddrs()).records(3) {
		if want := r.event.ID != "server"; (r.event.IP == "203.0.113.0") != want {
			t.Errorf("%s: address %q", r.event.ID, r.event.IP)
		}
	}
}
