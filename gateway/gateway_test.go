package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"millrace/event"
)

func TestOneEventOfEachCategoryReachesItsTopicWithItsHeaders(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	before := time.Now().UnixMicro()
	texts := map[string]string{
		"raw.page":      `{"name":"page_view","event_id":"p","visitor_id":"v1","context":{"page":{"title":"a\ud800"}}}`,
		"raw.cart":      `{"name":"add_to_cart","event_id":"c","visitor_id":"v1"}`,
		"raw.purchase":  `{"name":"purchase","event_id":"o","visitor_id":"v1","currency":"EUR","value":12.34,"occurred_at":"2020-01-01T00:00:00Z"}`,
		"raw.inventory": `{"name":"inventory_change","event_id":"i","item_id":"m","quantity_delta":-1}`,
		"raw.exposure":  `{"name":"experiment_exposure","event_id":"x","visitor_id":"v1"}`,
		"raw.identity":  `{"name":"identify","event_id":"u","visitor_id":"v1"}`,
		"raw.custom":    `{"name":"Anything Else","event_id":"z","user_id":"u1"}`,
		"raw.failed":    `{"name":"purchase","event_id":"f","value":"x"}`,
	}
	var body []string
	for _, text := range texts {
		body = append(body, text)
	}
	code, answer := g.post("["+strings.Join(body, ",")+"]", "Content-Type", "text/plain")
	if a, f := counts(t, answer); code != 200 || a != 7 || f != 1 {
		t.Fatalf("%d %s", code, answer)
	}
	for _, r := range consume(t, c.ListenAddrs()).records(8) {
		if _, ok := texts[r.Topic]; !ok {
			t.Fatalf("topic %s", r.Topic)
		}
		delete(texts, r.Topic)
		if string(r.header("ca")) != strings.TrimPrefix(r.Topic, "raw.") || string(r.header("tn")) != "default" {
			t.Errorf("%s: headers %v", r.Topic, r.Headers)
		}
		rx, ok := event.ParseReceived(r.header("rx"))
		if !ok || rx < before || rx > time.Now().UnixMicro() {
			t.Errorf("%s: received %d", r.Topic, rx)
		}
		if inst, _, ok := event.ParseGateway(r.header("gw")); !ok || inst != g.instance {
			t.Errorf("%s: gateway %v", r.Topic, r.header("gw"))
		}
		wantLane := byte(event.Live)
		if r.Topic == "raw.purchase" {
			wantLane = byte(event.Replay)
		}
		if !bytes.Equal(r.header("ln"), []byte{wantLane}) {
			t.Errorf("%s: lane %v", r.Topic, r.header("ln"))
		}
		if r.Partition != event.Partition(r.Key, 3) {
			t.Errorf("%s: partition %d of key %q", r.Topic, r.Partition, r.Key)
		}
		if r.Topic == "raw.failed" {
			f := r.failed
			if f.Reason != "bad_amount" || f.ErrorPath != "value" || f.EventID != "f" || f.Tenant != "default" || f.Source != "web" || !strings.Contains(f.Payload, `"value":"x"`) || f.PayloadBytes == 0 {
				t.Errorf("failed event %+v", f)
			}
			continue
		}
		if r.event.ReceivedAt != rx || r.event.Tenant != "default" || r.event.Source != "web" {
			t.Errorf("%s: %+v", r.Topic, r.event)
		}
		var key []byte
		if key = r.event.AppendKey(nil); !bytes.Equal(key, r.Key) {
			t.Errorf("%s: key %q, want %q", r.Topic, r.Key, key)
		}
	}
}

func TestKeysAreFoundWhereverSDKsPutThem(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(webKey+":"))
	for name, c := range map[string]struct {
		path   string
		header []string
	}{
		"bearer":          {"/v1/events", []string{"Authorization", "Bearer " + webKey}},
		"header":          {"/v1/events", []string{"X-Write-Key", webKey}},
		"basic user":      {"/v1/events", []string{"Authorization", basic}},
		"query":           {"/v1/events?write_key=" + webKey, nil},
		"trailing slash":  {"/v1/events/", []string{"X-Write-Key", webKey}},
		"lower case word": {"/v1/events", []string{"Authorization", "bearer " + webKey}},
	} {
		code, _, answer := g.do(http.MethodPost, c.path, strings.NewReader(`{"name":"x"}`), c.header...)
		if a, _ := counts(t, answer); code != 200 || a != 1 {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
}

func TestCompressionIsFoundInTheBodyNotInHeaders(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	text := "{\"name\":\"x\",\"event_id\":\"1\"}\n{\"name\":\"x\",\"event_id\":\"2\"}\n"
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zstded := enc.EncodeAll([]byte(text), nil)
	for name, c := range map[string]struct {
		body   string
		header []string
	}{
		"plain":                {text, nil},
		"plain that says gzip": {text, []string{"Content-Encoding", "gzip"}},
		"gzip":                 {zipped.String(), []string{"Content-Encoding", "gzip"}},
		"gzip unsaid":          {zipped.String(), nil},
		"zstd":                 {string(zstded), []string{"Content-Encoding", "zstd"}},
	} {
		code, answer := g.post(c.body, c.header...)
		if a, f := counts(t, answer); code != 200 || a != 2 || f != 0 {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	code, answer := g.post(zipped.String()[:zipped.Len()-12])
	if a, f := counts(t, answer); code != 200 || a != 0 || f != 1 {
		t.Errorf("cut off gzip: %d %s", code, answer)
	}
}

// Every bad body is answered 200 and its good siblings go on; strict, it is refused as a whole.
func TestBadInput(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	in := consume(t, c.ListenAddrs())
	bad := map[string]struct{ text, reason string }{
		"malformed JSON":        {`{"name":`, "malformed"},
		"NaN":                   {`{"name":"x","value":NaN}`, "malformed"},
		"no object":             {`17`, "malformed"},
		"deep nesting":          {`{"name":"x","a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "depth"},
		"a 19-digit amount":     {`{"name":"purchase","currency":"USD","value":1234567890123456789}`, "bad_amount"},
		"negative money":        {`{"name":"purchase","currency":"USD","value":-5}`, "bad_amount"},
		"1970":                  {`{"name":"x","occurred_at":0}`, "bad_time"},
		"2100":                  {`{"name":"x","occurred_at":"2100-01-01T00:00:00Z"}`, "bad_time"},
		"a bad name":            {`{"name":"1 2 3"}`, "bad_name"},
		"a missing name":        {`{"event_id":"x"}`, "schema"},
		"a wrong type":          {`{"name":"x","visitor_id":{}}`, "schema"},
		"an event over 1 MiB":   {`{"name":"x","a":"` + strings.Repeat("a", 1<<20) + `"}`, "size"},
		"a record over 990,000": {`{"name":"x","a":"` + strings.Repeat("a", 1_000_000) + `"}`, "size"},
	}
	failed := 0
	for name, one := range bad {
		good := fmt.Sprintf(`{"name":"x","event_id":"good %s"}`, name)
		code, answer := g.post("[" + one.text + "," + good + "]")
		if a, f := counts(t, answer); code != 200 || a != 1 || f != 1 {
			t.Errorf("%s: %d %s", name, code, answer)
		}
		failed++
		all := in.until(name, func(all []got) bool {
			for _, r := range all {
				if r.event.ID == "good "+name {
					n := 0
					for _, r := range all {
						if r.Topic == event.TopicRawFailed {
							n++
						}
					}
					return n == failed
				}
			}
			return false
		})
		var last event.Failed
		for _, r := range all {
			if r.Topic == event.TopicRawFailed && r.failed.ReceivedAt >= last.ReceivedAt {
				last = r.failed
			}
		}
		if last.Reason != one.reason || last.Payload == "" || len(last.Payload) > event.MaxFailedPayload || last.PayloadBytes != int64(len(one.text)) {
			t.Errorf("%s: failed event %s %q, %d of %d bytes", name, last.Reason, last.Error, len(last.Payload), last.PayloadBytes)
		}
		code, answer = g.post("["+good+","+one.text+"]", "X-Strict-Mode", "1")
		var strict struct{ Errors []problem }
		if err := json.Unmarshal([]byte(answer), &strict); err != nil || code < 400 || code >= 500 || len(strict.Errors) != 1 || strict.Errors[0].Index != 1 || strict.Errors[0].Reason != one.reason {
			t.Errorf("%s, strict: %d %s", name, code, answer)
		}
	}
	if n := len(in.ids()); n != len(bad) {
		t.Errorf("%d good siblings arrived, want %d", n, len(bad))
	}
}

func TestUnusualButValidInputIsAccepted(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	var body bytes.Buffer
	n := 0
	for day := time.Date(1990, 1, 1, 12, 0, 0, 0, time.UTC); day.Before(time.Now()); day = day.AddDate(0, 0, 1) {
		if n == MaxEvents {
			break
		}
		fmt.Fprintf(&body, "{\"name\":\"x\",\"event_id\":\"day %d\",\"occurred_at\":%q}\n", n, day.Format(time.RFC3339))
		n++
	}
	code, answer := g.post(body.String())
	if a, f := counts(t, answer); code != 200 || a != n || f != 0 {
		t.Fatalf("days: %d %s", code, answer)
	}
	body.Reset()
	for i := range MaxEvents {
		fmt.Fprintf(&body, "{\"name\":\"name_%d\"}\n", i)
	}
	code, answer = g.post(body.String())
	if a, f := counts(t, answer); code != 200 || a != MaxEvents || f != 0 {
		t.Fatalf("names: %d %s", code, answer)
	}
	code, answer = g.post("{\"name\":\"x\",\"a\":\"\xff\",\"b\":\"\\ud800\",\"occurred_at\":" + fmt.Sprint(time.Now().Add(23*time.Hour+50*time.Minute).UnixMilli()) + "}")
	if a, _ := counts(t, answer); code != 200 || a != 1 {
		t.Fatalf("%d %s", code, answer)
	}
	for _, empty := range []string{"", " \n ", "[]"} {
		if code, answer := g.post(empty); code != 200 {
			t.Errorf("%q: %d %s", empty, code, answer)
		}
	}
	in := consume(t, c.ListenAddrs())
	in.records(n + MaxEvents + 1)
	if got := len(in.ids()); got != n+MaxEvents+1 {
		t.Errorf("%d distinct ids", got)
	}
}

func TestMoreThanTenThousandEventsAreKeptWhole(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	code, answer := g.post(pages("n", 0, MaxEvents+5000))
	a, f := counts(t, answer)
	if code != 200 || a != MaxEvents || f < 1 {
		t.Fatalf("%d %s", code, answer)
	}
	kept := 0
	for _, r := range consume(t, c.ListenAddrs()).records(a + f) {
		if r.Topic == event.TopicRawFailed {
			kept += strings.Count(r.failed.Payload, "\n")
			if r.failed.Reason != "size" || r.failed.PayloadDigest != "" {
				t.Errorf("%+v", r.failed)
			}
		}
	}
	if kept != 5000 {
		t.Errorf("%d surplus events kept", kept)
	}
}

// zeros is a reader of n bytes that counts what was read.
type zeros struct {
	n, read int64
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.read >= z.n {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n-z.read)
	for i := range p[:n] {
		p[i] = ' '
	}
	z.read += n
	return int(n), nil
}

func TestHugeBodiesAreAnsweredAndKeptInBoundedMemory(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	var bomb bytes.Buffer
	zw := gzip.NewWriter(&bomb)
	if _, err := io.Copy(zw, &zeros{n: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	peak := int64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, g.budget.used.Load())
			}
		}
	}()
	post := func(body io.Reader) (int, string) {
		code, _, answer := g.do(http.MethodPost, "/v1/events", body, "X-Write-Key", webKey)
		return code, answer
	}
	code, answer := post(&zeros{n: 100 << 20})
	if _, f := counts(t, answer); code != 200 || f != 1 {
		t.Fatalf("100 MB: %d %s", code, answer)
	}
	code, answer = post(bytes.NewReader(bomb.Bytes()))
	if _, f := counts(t, answer); code != 200 || f != 1 {
		t.Fatalf("bomb: %d %s", code, answer)
	}
	close(stop)
	<-stopped
	if peak > 3*MaxBodyBytes {
		t.Errorf("%d bytes taken", peak)
	}
	for _, r := range consume(t, c.ListenAddrs()).records(2) {
		f := r.failed
		if f.Reason != "size" || f.PayloadDigest == "" || len(f.Payload) != event.MaxFailedPayload || f.PayloadBytes != 100<<20 && f.PayloadBytes != int64(bomb.Len()) {
			t.Errorf("%s %d of %d, %q", f.Reason, len(f.Payload), f.PayloadBytes, f.PayloadDigest)
		}
	}
	if code, answer := g.post(strings.Repeat(" ", MaxBodyBytes+1), "X-Strict-Mode", "1"); code != http.StatusRequestEntityTooLarge {
		t.Errorf("strict: %d %s", code, answer)
	}
	eventually(t, "the memory to be given back", func() bool { return g.budget.used.Load() == 0 })
}

func TestUnknownKeysAreKeptAndBounded(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.UnknownKeyRate = 0.001
	g := start(t, cfg, c.ListenAddrs())
	for _, key := range []string{"nobody", goneKey} {
		if code, answer := g.post(`{"name":"x"}`, "X-Write-Key", key, "X-Strict-Mode", "1"); code != http.StatusUnauthorized {
			t.Errorf("strict %s: %d %s", key, code, answer)
		}
	}
	kept, refused := 0, 0
	for i := range 2 * strangerBurst {
		code, h, answer := g.do(http.MethodPost, "/v1/events", strings.NewReader(fmt.Sprintf(`{"name":"x","n":%d,"card":"4111111111111111"}`, i)), "X-Write-Key", goneKey)
		switch code {
		case 200:
			kept++
		case 429:
			refused++
			if h.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		default:
			t.Fatalf("%d %s", code, answer)
		}
	}
	if kept != strangerBurst || refused != strangerBurst {
		t.Errorf("%d kept, %d refused", kept, refused)
	}
	for _, r := range consume(t, c.ListenAddrs()).records(kept) {
		if f := r.failed; f.Reason != "unknown_key" || f.Tenant != "" || !strings.Contains(f.Payload, `"card":"411111******1111"`) {
			t.Errorf("%+v", f)
		}
	}
}

func TestRatesCategoriesAndLanesAreThoseOfTheKey(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	old := `{"name":"page_view","event_id":"%s","sent_at":"2020-01-02T00:00:00Z","occurred_at":"` + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) + `"}`
	send := func(id, key string, header ...string) int {
		code, _ := g.post(fmt.Sprintf(old, id), append([]string{"X-Write-Key", key}, header...)...)
		return code
	}
	if send("slow1", slowKey) != 200 || send("slow2", slowKey) != 200 {
		t.Error("refused within the burst")
	}
	code, h, _ := g.do(http.MethodPost, "/v1/events", strings.NewReader(`{"name":"x"}`), "X-Write-Key", slowKey)
	if code != 429 || h.Get("Retry-After") == "" {
		t.Errorf("over the rate: %d", code)
	}
	if code := send("import", importKey, "X-Millrace-Lane", "replay"); code != 200 {
		t.Errorf("%d", code)
	}
	if code := send("web", webKey, "X-Millrace-Lane", "replay"); code != 200 { // shifted by its clock: six years from now
		t.Errorf("%d", code)
	}
	code, answer := g.post(`[{"name":"page_view","event_id":"pv"},{"name":"purchase","event_id":"pu"}]`, "X-Write-Key", pageKey)
	if a, f := counts(t, answer); code != 200 || a != 1 || f != 1 {
		t.Errorf("%d %s", code, answer)
	}
	lanes := map[string]byte{}
	reasons := map[string]int{}
	for _, r := range consume(t, c.ListenAddrs()).records(6) {
		if r.Topic == event.TopicRawFailed {
			reasons[r.failed.Reason+" "+r.failed.EventID]++
			continue
		}
		lanes[r.event.ID] = r.header("ln")[0]
	}
	if lanes["import"] != byte(event.Replay) || lanes["pv"] != byte(event.Live) {
		t.Errorf("lanes %v", lanes)
	}
	if reasons["category pu"] != 1 {
		t.Errorf("failed %v", reasons)
	}
}

func TestARepeatedRequestDerivesTheSameIDsAndEqualEventsDiffer(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	body := `[{"name":"page_view","visitor_id":"v"},{"name":"page_view","visitor_id":"v"},{"name":"page_view","visitor_id":"w"},{"name":"x","occurred_at":` + fmt.Sprint(time.Now().UnixMilli()) + `,"sent_at":` + fmt.Sprint(time.Now().UnixMilli()) + `}]`
	for i, ua := range []string{"curl", "Mozilla/5.0 (iPhone)", "curl"} {
		if code, answer := g.post(body, "User-Agent", ua, "X-Country", []string{"DE", "FR", "US"}[i]); code != 200 {
			t.Fatalf("%d %s", code, answer)
		}
	}
	in := consume(t, c.ListenAddrs())
	in.records(12)
	ids := in.ids()
	for id, n := range ids {
		if n != 3 {
			t.Errorf("%s: %d times", id, n)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d ids: %v", len(ids), ids)
	}
	countries := map[string]bool{}
	for _, r := range in.all {
		countries[r.event.Country] = true
	}
	if len(countries) != 3 {
		t.Errorf("countries %v", countries)
	}
}

func TestNothingPrivateReachesKafka(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	text := `{"name":"purchase","visitor_id":"v","email":"a@b.example","payment":{"pan":"4111 1111 1111 1111","cvv":"987"},"context":{"ip":"203.0.113.77"},"q":"4111111111111111"}`
	for _, body := range []string{text, strings.Replace(text, "purchase", "9", 1), text[:len(text)-1], "\x1f\x8b" + text} {
		if code, answer := g.post(body); code != 200 {
			t.Fatalf("%d %s", code, answer)
		}
	}
	for _, r := range consume(t, c.ListenAddrs()).records(4) {
		for _, secret := range []string{"a@b.example", "4111111111111111", "1111 1111 1111", `"987"`, "203.0.113.77"} {
			if bytes.Contains(r.Value, []byte(secret)) {
				t.Errorf("%s holds %q: %q", r.Topic, secret, r.Value)
			}
		}
	}
	info, err := os.Stat(filepath.Join(g.cfg.DataDir, keysName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys: %v %v", info, err)
	}
}

func TestKeysStayTheSameOverRestarts(t *testing.T) {
	dir := t.TempDir()
	a, err := loadKeys(dir, []string{"default", ""})
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadKeys(dir, []string{"default", "other", ""})
	if err != nil {
		t.Fatal(err)
	}
	if a["default"].ID != b["default"].ID || !bytes.Equal(a["default"].Key, b["default"].Key) || len(b["other"].Key) < 16 || bytes.Equal(b["other"].Key, b["default"].Key) {
		t.Error("keys changed or are shared")
	}
	if err := os.WriteFile(filepath.Join(dir, keysName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKeys(dir, []string{"default"}); err == nil {
		t.Error("damaged keys were replaced")
	}
}

func TestBrowsersMaySendFromAllowedOrigins(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.CORSOrigins = []string{"https://shop.example"}
	g := start(t, cfg, c.ListenAddrs())
	code, h, _ := g.do(http.MethodOptions, "/v1/events", nil, "Origin", "https://shop.example", "Access-Control-Request-Headers", "content-type,x-write-key")
	if code != 204 || h.Get("Access-Control-Allow-Origin") != "https://shop.example" || !strings.HasPrefix(h.Get("Access-Control-Allow-Headers"), "content-type,x-write-key,") {
		t.Errorf("%d %v", code, h)
	}
	code, h, _ = g.do(http.MethodPost, "/v1/events", strings.NewReader(`{"name":"x"}`), "X-Write-Key", webKey, "Origin", "https://evil.example")
	if code != 200 || h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", code, h)
	}
}

func TestNothingIsRedirectedAndWrongPathsAreErrors(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	for path, want := range map[string]int{"/v1/events/": 405, "/v1/events": 405, "//v1/events": 404, "/v2": 404, "/": 404, "/healthz": 200, "/readyz": 200, "/routez": 200, "/metrics": 200, "/readyz?empty=1": 200} {
		if code, text := g.get(path); code != want {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if _, text := g.get("/metrics"); !strings.Contains(text, "millrace_gateway_in_flight_bytes") || !strings.Contains(text, "millrace_gateway_spool_bytes") {
		t.Errorf("metrics: %s", text)
	}
}

func TestASlowClientIsCutOff(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.ReadTimeout = 300 * time.Millisecond
	g := start(t, cfg, c.ListenAddrs())
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }() // the test is over
	go func() { _, _ = pw.Write([]byte(`{"name":`)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/events", pr)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(req)
	if err == nil {
		defer func() { _ = resp.Body.Close() }() // nothing to read
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%d", resp.StatusCode)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("not cut off")
	}
}

func TestConcurrentRequestsLoseNothing(t *testing.T) {
	c := broker(t, 3)
	g := start(t, testConfig(t), c.ListenAddrs())
	const clients, each, per = 8, 15, 40
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			for i := range each {
				code, answer := g.post(pages(fmt.Sprintf("c%d-%d", k, i), 0, per))
				if a, _ := counts(t, answer); code != 200 || a != per {
					t.Errorf("%d %s", code, answer)
				}
			}
		})
	}
	wg.Wait()
	in := consume(t, c.ListenAddrs())
	in.until("all ids", func([]got) bool { return len(in.ids()) >= clients*each*per })
	seen := map[uint64]bool{}
	for _, r := range in.all {
		_, seq, ok := event.ParseGateway(r.header("gw"))
		if !ok || seen[seq] {
			t.Fatalf("sequence %d twice", seq)
		}
		seen[seq] = true
	}
	eventually(t, "the memory to be given back", func() bool { return g.budget.used.Load() == 0 })
}

func TestConfigReportsEveryProblem(t *testing.T) {
	c := Config{Sources: []Source{{Key: "short", Categories: []string{"nope"}, PII: []Rule{{Action: "eat"}}, Rate: -1}, {Key: "short"}}}
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"listen:", "data_dir:", "partitions: 0 is below 1", "ack_timeout:", "max_in_flight_bytes:", "sources[0].key:", "sources[0].tenant:", `categories: "nope"`, "pii[0].action", "rate: -1", "sources[1].key: is that of another"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
	good := testConfig(t)
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
