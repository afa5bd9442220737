package wire

import (
	"bytes"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-faster/jx"
	"github.com/google/go-cmp/cmp"

	"millrace/event"
)

// outcome is what one event of a foreign request became.
type outcome struct {
	text string
	e    event.Event
	fail *Failure
}

// becomes gives what a request becomes: translated, decoded and completed, as the gateway does it.
func becomes(t testing.TB, f func(*Inbound, func([]byte, *Failure) bool), in *Inbound) []outcome {
	t.Helper()
	if in.ReceivedAt == 0 {
		in.ReceivedAt = received
	}
	if in.Header == nil {
		in.Header = http.Header{}
	}
	var out []outcome
	f(in, func(text []byte, fail *Failure) bool {
		o := outcome{text: string(text), fail: fail}
		if fail == nil {
			if !jx.Valid(text) {
				t.Fatalf("not valid JSON: %s", text)
			}
			d := NewDecoder()
			d.Reset(testSource())
			if o.fail = d.Decode(text, &o.e); o.fail == nil {
				o.fail = d.Complete(&Request{ReceivedAt: in.ReceivedAt, Foreign: true})
			}
		}
		out = append(out, o)
		return true
	})
	return out
}

// single is what becomes of a request with one event that is in order.
func single(t *testing.T, f func(*Inbound, func([]byte, *Failure) bool), path, body string) event.Event {
	t.Helper()
	out := becomes(t, f, &Inbound{Path: path, Body: []byte(body)})
	if len(out) != 1 || out[0].fail != nil {
		t.Fatalf("%+v", out)
	}
	return out[0].e
}

// property is a property's value as a string, "" if there is none.
func property(t *testing.T, e event.Event, key string) string {
	t.Helper()
	if e.Properties == "" {
		return ""
	}
	props, ok := parse([]byte(e.Properties))
	if !ok {
		t.Fatalf("properties %q", e.Properties)
	}
	if m := props.find(key); m != nil {
		return string(m.raw)
	}
	return ""
}

func micros(v *int64) string {
	if v == nil {
		return "none"
	}
	return strconv.FormatInt(*v, 10)
}

func TestOneBrokenEventDoesNotTakeItsSiblingsWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		good int
		bad  []string
	}{
		"broken in the middle":  {`{"writeKey":"k","batch":[{"event":"a"},{"event":,},{"event":"b"}],"sentAt":"x"}`, 2, []string{"malformed"}},
		"cut off":               {`{"batch":[{"event":"a"},{"event":"b"},{"eve`, 2, []string{"malformed"}},
		"no object":             {`{"batch":[{"event":"a"},17,null]}`, 1, []string{"malformed", "malformed"}},
		"too deep":              {`{"batch":[{"event":"a"},{"event":"b","properties":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]}`, 1, []string{"depth"}},
		"too large":             {`{"batch":[{"event":"a"},{"event":"b","x":"` + strings.Repeat("x", 1<<20) + `"}]}`, 1, []string{"size"}},
		"too many members":      {`{"batch":[{"event":"a"},{"event":"b"` + strings.Repeat(`,"x":1`, maxMembers) + `}]}`, 1, []string{"size"}},
		"too many properties":   {`{"event":"b","properties":{"a":0` + strings.Repeat(`,"x":1`, maxMembers) + `}}`, 1, nil},
		"too many products":     {`{"type":"track","event":"Cart Viewed","properties":{"products":[{}` + strings.Repeat(`,{}`, MaxItems) + `]}}`, 0, []string{"size"}},
		"an envelope too large": {`{"batch":[{"event":"a"}],"extra":"` + strings.Repeat("x", 5000) + `"}`, 1, []string{"size"}},
		"a batch of no list":    {`{"batch":"x"}`, 0, []string{"schema"}},
		"no JSON":               {`hello`, 0, []string{"malformed"}},
		"nothing":               {` `, 0, nil},
		"an empty batch":        {`{"batch":[]}`, 0, nil},
		"lines":                 {"{\"event\":\"a\"}\n{\"event\":\"b\"}\n", 2, nil},
		"bad UTF-8 and halves":  {"{\"event\":\"a\",\"userId\":\"\xff\",\"properties\":{\"\\ud800\":\"\\udc00\"}}", 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			good := 0
			var bad []string
			for _, o := range becomes(t, translateSegment, &Inbound{Path: "/v1/batch", Body: []byte(c.body)}) {
				if o.fail == nil {
					good++
				} else {
					bad = append(bad, o.fail.Reason)
				}
			}
			if good != c.good || !cmp.Equal(c.bad, bad) {
				t.Errorf("%d good, failed %v", good, bad)
			}
		})
	}
}

func TestWriteKeysAreFoundInBodies(t *testing.T) {
	for body, want := range map[string]string{
		`{"batch":[],"writeKey":"k1"}`:                                  "k1",
		`{"batch":[{"event":"a","writeKey":"k2"}]}`:                     "k2",
		`{"event":"a","writeKey":"k3"}`:                                 "k3",
		`[{"event":"a","properties":{"token":"k4"}}]`:                   "k4",
		`{"batch":[{"event":,}],"writeKey":"k5"`:                        "k5",
		`{"batch":[{"event":"a","properties":{"writeKey":"not this"}}]`: "not this", // damaged: better a wrong key than none
		`{"batch":[{"event":"a"}]}`:                                     "",
	} {
		keys := bodyKeys(&Inbound{Path: "/v1/batch", Body: []byte(body)})
		if strings.Join(keys, ",") != want {
			t.Errorf("%s: %v", body, keys)
		}
	}
}

// What real clients sent is all there: every value of every call is in the native text that was made of it, but for write keys and the kind of the call.
func TestNothingOfARecordedCallIsLost(t *testing.T) {
	calls := 0
	for client, translate := range map[string]func(*Inbound, func([]byte, *Failure) bool){
		"segment-node": translateSegment, "segment-python": translateSegment, "segment-java": translateSegment, "segment-browser": translateSegment, "segment-browser-batching": translateSegment,
		"rudderstack-node": translateSegment, "rudderstack-python": translateSegment, "rudderstack-browser": translateSegment,
		"posthog-node": translatePostHog, "posthog-python": translatePostHog, "posthog-browser": translatePostHog,
	} {
		text, err := os.ReadFile("testdata/clients/" + client + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			ms, ok := parse(bytes.TrimSpace(line))
			if !ok {
				t.Fatalf("%s: %s", client, line)
			}
			body := ms.take("body")
			if body == nil {
				continue
			}
			sent := [][]byte{body}
			if env, _ := parse(body); env.find("batch") != nil {
				sent, _ = elements(env.find("batch").raw)
			}
			for i, o := range becomes(t, translate, &Inbound{Path: strings.TrimRight(strings.SplitN(ms.text("path"), "?", 2)[0], "/"), Body: body}) {
				calls++
				have := map[string]bool{}
				leaves([]byte(o.text), "", nil, have)
				want := map[string]bool{}
				leaves(sent[i], "", []string{"writeKey", "api_key", "token", "type"}, want)
				for v := range want {
					if !have[v] {
						t.Errorf("%s %s: %s is not in %s", client, ms.text("scenario"), v, o.text)
					}
				}
			}
		}
	}
	if calls < 380 {
		t.Errorf("%d calls were looked at", calls)
	}
}

// leaves collects the values of a text that say something, but for some members.
func leaves(raw []byte, key string, but []string, into map[string]bool) {
	switch raw[0] {
	case '{':
		ms, _ := parse(raw)
		for _, m := range ms {
			leaves(m.raw, m.key, but, into)
		}
	case '[':
		list, _ := elements(raw)
		for _, one := range list {
			leaves(one, key, but, into)
		}
	default:
		if s, ok := textOf(raw); ok && s != "" && !slices.Contains(but, key) {
			into[s] = true
		}
	}
}

// Whatever comes in, a translation gives valid native texts or failures, and never more than the body can hold.
func fuzzTranslation(f *testing.F, path string, translate func(*Inbound, func([]byte, *Failure) bool), keys func(*Inbound) []string) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if keys != nil {
			keys(&Inbound{Path: path, Header: http.Header{}, Body: bytes.Clone(body), ReceivedAt: received})
		}
		n := 0
		translate(&Inbound{Path: path, Header: http.Header{}, Body: body, ReceivedAt: received}, func(text []byte, fail *Failure) bool {
			n++
			if fail != nil {
				if fail.Reason == "" || fail.Message == "" {
					t.Fatalf("%+v", fail)
				}
				return true
			}
			if !jx.Valid(text) {
				t.Fatalf("not valid JSON: %q", text)
			}
			d := NewDecoder()
			d.Reset(testSource())
			var e event.Event
			if fail := d.Decode(text, &e); fail != nil {
				if fail.Reason == event.ReasonMalformed {
					t.Fatalf("malformed: %s: %q", fail.Message, text)
				}
				return true
			}
			if e.Properties != "" && !jx.Valid([]byte(e.Properties)) {
				t.Fatalf("properties %q", e.Properties)
			}
			return true
		})
		if n > len(body)+1 {
			t.Fatalf("%d events of %d bytes", n, len(body))
		}
	})
}
