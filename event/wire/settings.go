package wire

import (
	"strings"

	"github.com/go-faster/jx"
)

// Setting is an answer that a browser SDK asks for before it sends anything: a row of the table of paths.
type Setting struct {
	Name    string
	Clients string
	Paths   []string // as Format.Paths; {key} stands for the write key
	Methods []string
	Answer  string // for people
	// Make gives the answer for a write key; base is scheme and host that the client reached us by.
	Make func(base, key string) (contentType string, body []byte)
}

const (
	typeJSON   = "application/json"
	typeScript = "application/javascript; charset=utf-8"
)

// Settings is the table of all such answers. They tell the SDKs to send everything here, to nobody else, and to record nothing.
func Settings() []Setting {
	get, both := []string{"GET"}, []string{"GET", "POST"}
	return []Setting{
		{Name: "segment settings", Clients: "Segment browser", Paths: []string{"/v1/projects/{key}/settings"}, Methods: get, Answer: "where to send, no integrations", Make: segmentSettings},
		{Name: "rudderstack source", Clients: "RudderStack browser", Paths: []string{"/sourceConfig"}, Methods: get, Answer: "a source without destinations", Make: rudderSource},
		{Name: "posthog config", Clients: "PostHog browser", Paths: []string{"/array/{key}/config"}, Methods: get, Answer: "no flags, no recording", Make: posthogConfig},
		{Name: "posthog script", Clients: "PostHog browser", Paths: []string{"/array/{key}/config.js"}, Methods: get, Answer: "the same as a script", Make: posthogScript},
		{Name: "posthog flags", Clients: "PostHog", Paths: []string{"/flags", "/decide"}, Methods: both, Answer: "no flags", Make: posthogFlags},
	}
}

// RouteSetting finds the setting of a path and the key in it.
func RouteSetting(settings []Setting, path string) (s *Setting, key string) {
	for i := range settings {
		for _, p := range settings[i].Paths {
			if !Matches(p, path) {
				continue
			}
			if before, _, ok := strings.Cut(p, "{key}"); ok {
				key, _, _ = strings.Cut(path[len(before):], "/")
			}
			return &settings[i], key
		}
	}
	return nil, ""
}

func segmentSettings(base, key string) (string, []byte) {
	scheme, host, _ := strings.Cut(base, "://")
	return typeJSON, writeObject(func(e *jx.Encoder) {
		within(e, "integrations", func() {
			within(e, "Segment.io", func() {
				texts(e, "apiKey", key, "apiHost", host+"/v1", "protocol", scheme, "bundlingStatus", "bundled")
			})
		})
		within(e, "plan", func() {
			within(e, "track", func() {
				within(e, "__default", func() {
					boolean(e, "enabled", true)
					within(e, "integrations", func() {})
				})
			})
		})
		within(e, "edgeFunction", func() {})
		boolean(e, "analyticsNextEnabled", true)
		within(e, "middlewareSettings", func() {})
		within(e, "enabledMiddleware", func() {})
		within(e, "metrics", func() {
			e.FieldStart("sampleRate")
			e.Int(0)
		})
		boolean(e, "legacyVideoPluginsEnabled", false)
		none(e, "remotePlugins")
	})
}

func rudderSource(base, key string) (string, []byte) {
	return typeJSON, writeObject(func(e *jx.Encoder) {
		within(e, "source", func() {
			texts(e, "id", "millrace", "name", "millrace", "writeKey", key, "workspaceId", "millrace", "dataPlaneUrl", base)
			boolean(e, "enabled", true)
			within(e, "config", func() {
				within(e, "statsCollection", func() {
					for _, name := range []string{"errors", "metrics"} {
						within(e, name, func() { boolean(e, "enabled", false) })
					}
				})
			})
			within(e, "dataplanes", func() {})
			none(e, "destinations")
			none(e, "connections")
		})
		texts(e, "updatedAt", "2026-01-01T00:00:00.000Z")
	})
}

func posthogConfig(string, string) (string, []byte) { return typeJSON, writeObject(posthogMembers) }

// posthogScript is what the browser library loads first; without it the library asks for the JSON.
func posthogScript(_, key string) (string, []byte) {
	var e jx.Encoder
	e.Str(key)
	name := e.String()
	body := `(function(){var c=window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{};c[` + name + `]={config:` + string(writeObject(posthogMembers)) + `,siteApps:[]}})();`
	return typeScript, []byte(body)
}

// posthogMembers has no "surveys": with any value of it, false too, the browser library asks for a script.
func posthogMembers(e *jx.Encoder) {
	e.FieldStart("supportedCompression")
	e.Arr(func(e *jx.Encoder) {
		e.Str("gzip")
		e.Str("gzip-js")
	})
	for _, name := range []string{"hasFeatureFlags", "sessionRecording", "captureDeadClicks", "capturePerformance", "autocaptureExceptions", "heatmaps"} {
		boolean(e, name, false)
	}
	boolean(e, "autocapture_opt_out", true)
}

func posthogFlags(string, string) (string, []byte) {
	return typeJSON, writeObject(func(e *jx.Encoder) {
		for _, name := range []string{"flags", "featureFlags", "featureFlagPayloads"} {
			within(e, name, func() {})
		}
		boolean(e, "errorsWhileComputingFlags", false)
		posthogMembers(e)
	})
}

func writeObject(members func(e *jx.Encoder)) []byte {
	var e jx.Encoder
	e.Obj(members)
	return e.Bytes()
}

func within(e *jx.Encoder, name string, members func()) {
	e.FieldStart(name)
	e.Obj(func(*jx.Encoder) { members() })
}

func texts(e *jx.Encoder, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		e.FieldStart(pairs[i])
		e.Str(pairs[i+1])
	}
}

func boolean(e *jx.Encoder, name string, v bool) {
	e.FieldStart(name)
	e.Bool(v)
}

func none(e *jx.Encoder, name string) {
	e.FieldStart(name)
	e.ArrEmpty()
}
