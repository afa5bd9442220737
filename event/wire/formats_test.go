package wire

import (
	"strings"
	"testing"

	"github.com/go-faster/jx"
)

func TestPathsLeadToTheirFormats(t *testing.T) {
	formats := append(Formats(), Format{Name: "made up", Paths: []string{"/{vendor}/{version}", "/p/{x}/end"}})
	for path, want := range map[string]string{
		"/v1/events": "native", "/v1/batch": "segment", "/v1/t": "segment", "/beacon/v1/batch": "segment", "/batch": "posthog", "/e": "posthog browser",
		"/p/anything/end": "made up", "/p//end": "", "/v1/unknown": "", "/": "", "/v1/events/more": "",
	} {
		got := ""
		if f := Route(formats, path); f != nil {
			got = f.Name
		}
		if got != want {
			t.Errorf("%s leads to %q, want %q", path, got, want)
		}
	}
	seen := map[string]string{}
	for _, f := range Formats() {
		if f.Clients == "" || f.Auth == "" || len(f.Paths) == 0 || (f.Translate == nil) != (f.Decode != nil && f.Split != nil) {
			t.Errorf("row %s is not complete", f.Name)
		}
		for _, p := range f.Paths {
			if seen[p] != "" || strings.HasSuffix(p, "/") || !strings.HasPrefix(p, "/") {
				t.Errorf("%s: path %s, also of %q", f.Name, p, seen[p])
			}
			seen[p] = f.Name
		}
	}
}

func TestSettingsTellBrowsersToSendHere(t *testing.T) {
	for path, want := range map[string][]string{
		"/v1/projects/my-key/settings": {typeJSON, `"apiKey":"my-key"`, `"apiHost":"gw.example/v1"`, `"protocol":"https"`},
		"/sourceConfig":                {typeJSON, `"enabled":true`, `"destinations":[]`},
		"/array/my-key/config":         {typeJSON, `"sessionRecording":false`},
		"/array/my-key/config.js":      {typeScript, `c["my-key"]={config:{`},
		"/flags":                       {typeJSON, `"featureFlags":{}`},
	} {
		s, key := RouteSetting(Settings(), path)
		if s == nil {
			t.Fatalf("%s: no setting", path)
		}
		ctype, body := s.Make("https://gw.example", key)
		for _, w := range want[1:] {
			if !strings.Contains(string(body), w) {
				t.Errorf("%s lacks %s: %s", path, w, body)
			}
		}
		if ctype != want[0] || ctype == typeJSON && !jx.Valid(body) {
			t.Errorf("%s: %s %s", path, ctype, body)
		}
	}
	_, body := segmentSettings("http://evil\"host", `k"</script>`)
	if !jx.Valid(body) {
		t.Errorf("%s", body)
	}
}
