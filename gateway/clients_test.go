package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"millrace/event"
)

var update = flag.Bool("update", false, "write the golden files of recorded clients")

const recordings = "../event/wire/testdata/clients"

// recorded is one line of a recording; see the README beside them.
type recorded struct {
	Scenario   string            `json:"scenario"`
	ReceivedAt int64             `json:"received_at"`
	Method     string            `json:"method"`
	Path       string            `json:"path"`
	Headers    map[string]string `json:"headers"`
	Gzip       string            `json:"gzip"`
	Body       json.RawMessage   `json:"body"`
}

// request is the recorded request as it went over the wire.
func (r *recorded) request(t *testing.T, key string) *http.Request {
	t.Helper()
	body := []byte(r.Body)
	if len(body) > 0 && body[0] == '"' {
		var text string
		if err := json.Unmarshal(body, &text); err != nil {
			t.Fatal(err)
		}
		body = []byte(text)
	}
	if r.Gzip != "" {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		if _, err := zw.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		body = b.Bytes()
	}
	path := r.Path
	if key != "" {
		path += "?writeKey=" + key
	}
	req := httptest.NewRequestWithContext(t.Context(), r.Method, "http://gateway.example:8080"+path, bytes.NewReader(body))
	for k, v := range r.Headers {
		req.Header.Set(k, v)
	}
	if r.Gzip == "header" {
		req.Header.Set("Content-Encoding", "gzip")
	}
	return req
}

func readRecording(t *testing.T, client string) []recorded {
	t.Helper()
	f, err := os.Open(filepath.Join(recordings, client+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	var out []recorded
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// recordedKeys are the write keys of the recordings, by client. CloudEvents' clients have none of their own: the user puts one into the URL.
var recordedKeys = map[string]string{
	"segment-node": "wk_segment_node", "segment-python": "wk_segment_python", "segment-java": "wk_segment_java", "segment-browser": "wk_segment_browser",
	"rudderstack-node": "wk_rudder_node", "rudderstack-python": "wk_rudder_python", "rudderstack-browser": "wk_rudder_browser",
	"snowplow-node": "shop-node", "snowplow-python": "shop-python", "snowplow-browser": "shop-web",
	"cloudevents": "ce-key-0001", "ga4": "secret123", "posthog": "phc_testkey",
}

// The recordings of all clients are sent again, byte for byte as far as it matters, and what becomes of each is compared with what was once looked at.
func TestClientsDeliverUnchanged(t *testing.T) {
	c := broker(t, 3)
	cfg := testConfig(t)
	cfg.AckTimeout = 20 * time.Second // a busy machine is not what is tested here
	cfg.Sources = nil
	for name, key := range recordedKeys {
		cfg.Sources = append(cfg.Sources, Source{Key: key, Name: name, Tenant: "default"})
	}
	g := start(t, cfg, c.ListenAddrs())
	var now atomic.Int64
	g.now = func() time.Time { return time.UnixMicro(now.Load()) }
	in := consume(t, c.ListenAddrs())

	names, err := filepath.Glob(recordings + "/*.jsonl")
	if err != nil || len(names) != 17 {
		t.Fatalf("%d recordings: %v", len(names), err)
	}
	total := 0
	for _, name := range names {
		client := strings.TrimSuffix(filepath.Base(name), ".jsonl")
		t.Run(client, func(t *testing.T) {
			var listing strings.Builder
			key := ""
			if strings.HasPrefix(client, "cloudevents") {
				key = recordedKeys["cloudevents"]
			}
			for _, r := range readRecording(t, client) {
				total++
				now.Store(r.ReceivedAt)
				before := len(in.all)
				w := httptest.NewRecorder()
				g.ServeHTTP(w, r.request(t, key))
				fmt.Fprintf(&listing, "== %s: %s %s -> %d", r.Scenario, r.Method, strings.SplitN(r.Path, "?", 2)[0], w.Code)
				switch {
				case r.Method == http.MethodOptions:
					h := w.Header()
					if h.Get("Access-Control-Allow-Origin") != r.Headers["Origin"] || h.Get("Access-Control-Allow-Credentials") != "true" {
						t.Errorf("%s: preflight answered %v", r.Scenario, h)
					}
					for asked := range strings.SplitSeq(r.Headers["Access-Control-Request-Headers"], ",") {
						if !slices.Contains(strings.Split(h.Get("Access-Control-Allow-Headers"), ","), asked) {
							t.Errorf("%s: %q is not allowed", r.Scenario, asked)
						}
					}
					listing.WriteByte('\n')
				case r.Path == "/elsewhere": // where a client followed a redirect to
					listing.WriteByte('\n')
				case w.Header().Get("Content-Type") == "image/gif":
					if w.Body.Len() != 43 {
						t.Errorf("%s: a picture of %d bytes", r.Scenario, w.Body.Len())
					}
					fmt.Fprintf(&listing, " picture\n")
					in.records(before + 1)
				case w.Code == http.StatusOK && bytes.HasPrefix(w.Body.Bytes(), []byte(`{"success":true,`)) && w.Header().Get("Content-Type") == "application/json":
					a, f := counts(t, w.Body.String())
					fmt.Fprintf(&listing, " accepted %d failed %d\n", a, f)
					in.records(before + a + f)
				case w.Code == http.StatusOK:
					fmt.Fprintf(&listing, " %s\n%s\n", w.Header().Get("Content-Type"), w.Body.String())
				default:
					t.Errorf("%s: %d %s", r.Scenario, w.Code, w.Body.String())
				}
				for _, line := range described(in.all[before:]) {
					listing.WriteString(line)
				}
			}
			golden := filepath.Join(recordings, client+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(listing.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), listing.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	if total != 429 {
		t.Errorf("%d requests were sent, 429 were recorded", total)
	}
}

// described lists events in the order they were sent in.
func described(all []got) []string {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b got) int {
		_, x, _ := event.ParseGateway(a.header("gw"))
		_, y, _ := event.ParseGateway(b.header("gw"))
		return int(int64(x) - int64(y))
	})
	var out []string
	for _, r := range all {
		var b strings.Builder
		if r.Topic == event.TopicRawFailed {
			fmt.Fprintf(&b, "   FAILED %s at %q: %s\n", r.failed.Reason, r.failed.ErrorPath, r.failed.Error)
			out = append(out, b.String())
			continue
		}
		e := &r.event
		field := func(name, v string) {
			if v != "" {
				fmt.Fprintf(&b, " %s=%q", name, v)
			}
		}
		fmt.Fprintf(&b, "   %s/%s id=%q at=%s", strings.TrimPrefix(r.Topic, "raw."), e.Name, e.ID, event.Time(e.OccurredAt).Format("2006-01-02T15:04:05.000000Z"))
		field("visitor", e.VisitorID)
		field("user", e.UserID)
		field("session", e.ClientSessionID)
		field("previous", e.PreviousID)
		amount := func(name string, v *int64) {
			if v != nil {
				fmt.Fprintf(&b, " %s=%s", name, money(*v))
			}
		}
		amount("value", e.Value)
		field("currency", e.Currency)
		amount("tax", e.Tax)
		amount("shipping", e.Shipping)
		amount("discount", e.Discount)
		amount("total", e.Total)
		field("order", e.OrderID)
		field("coupon", e.Coupon)
		field("list", e.ItemListID)
		field("search", e.SearchTerm)
		field("promotion", e.PromotionID)
		field("pay", e.PaymentType)
		field("tier", e.ShippingTier)
		field("experiment", e.ExperimentID)
		field("variant", e.VariantID)
		field("path", e.PagePath)
		field("campaign", e.CampaignName)
		field("locale", e.Locale)
		field("zone", e.TimeZone)
		field("ip", e.IP)
		field("device", e.DeviceType)
		b.WriteByte('\n')
		for _, it := range e.Items {
			fmt.Fprintf(&b, "      %q", it.ItemID)
			field("name", it.ItemName)
			field("category", it.ItemCategory)
			amount("price", it.Price)
			fmt.Fprintf(&b, " quantity=%d", it.Quantity)
			field("coupon", it.Coupon)
			b.WriteByte('\n')
		}
		if e.Properties != "" {
			fmt.Fprintf(&b, "      %s\n", e.Properties)
		}
		out = append(out, b.String())
	}
	return out
}

func money(micros int64) string {
	s := strconv.FormatFloat(float64(micros)/1e6, 'f', -1, 64)
	return s
}
