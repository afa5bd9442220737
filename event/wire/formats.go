package wire

import (
	"strings"

	"millrace/event"
)

// Format is one way of sending events: a row of the table of paths.
type Format struct {
	Name    string
	Clients string // who sends so, for people
	// Paths are the URL paths the format is served under, without a trailing slash (both forms are served). A segment in braces stands for any text; such a path
	// counts only where no other matches.
	Paths []string
	Get   bool   // GET carries events, too
	GIF   bool   // GET is answered with a picture
	Auth  string // where the clients put the write key, for people
	Once  bool   // the clients never send again, or not after a 429: they are not asked to

	// Keys finds the write keys in places that this format alone has; nil if there are none.
	Keys func(in *Inbound) []string

	// A native format has Split, which finds the texts of the single events of a body, and Decode, which makes an event of one text.
	Split  func(body []byte, yield func(text []byte) bool)
	Decode func(d *Decoder, text []byte, e *event.Event) *Failure

	// A foreign format has Translate. It yields the native text of each event of a request, or a Failure with the text that is the cause; siblings go on. Texts are
	// freshly made or views of the body; yield says whether to go on.
	Translate func(in *Inbound, yield func(text []byte, f *Failure) bool)
}

// Formats is the table of all formats, the first being the native one.
func Formats() []Format {
	return []Format{
		{
			Name: "native", Clients: "anything that can send JSON", Paths: []string{"/v1/events"},
			Auth:  "`X-Write-Key`, `Authorization: Bearer KEY`, Basic `KEY:`, `?write_key=`",
			Split: Split, Decode: (*Decoder).Decode,
		},
		{
			Name: "segment", Clients: "Segment and RudderStack: browser, Node, Python, Java, mobile",
			Paths: []string{
				"/v1/batch", "/v1/import", "/v1/track", "/v1/page", "/v1/screen", "/v1/identify", "/v1/group", "/v1/alias",
				"/v1/b", "/v1/t", "/v1/p", "/v1/s", "/v1/i", "/v1/g", "/v1/a", "/v1/m", "/beacon/v1/batch",
			},
			Auth: "Basic `KEY:`, `writeKey` of the body, `?writeKey=`",
			Keys: bodyKeys, Translate: translateSegment,
		},
		{
			Name: "segment pixel", Clients: "Segment in mails and pages without scripts: one call in base64 in `data`",
			Paths: []string{"/v1/pixel/track", "/v1/pixel/page", "/v1/pixel/screen", "/v1/pixel/identify", "/v1/pixel/group", "/v1/pixel/alias"}, Get: true, GIF: true,
			Auth: "`writeKey` of the call",
			Keys: pixelKeys, Translate: translatePixel,
		},
		{
			Name: "posthog", Clients: "PostHog: Node, Python, mobile",
			Paths: []string{"/batch", "/capture"}, Get: true,
			Auth: "`api_key` or `token` of the body",
			Keys: posthogKeys, Translate: translatePostHog,
		},
		{
			// It sends again after a 5xx or a lost answer, but never what a 429 refused.
			Name: "posthog browser", Clients: "PostHog browser",
			Paths: []string{"/e", "/i/v0/e"}, Get: true,
			Auth: "`api_key` or `token` of the body", Once: true,
			Keys: posthogKeys, Translate: translatePostHog,
		},
		{
			Name: "snowplow", Clients: "Snowplow: browser, Node, Python",
			Paths: []string{"/com.snowplowanalytics.snowplow/tp2", "/i", "/{vendor}/{version}"}, Get: true, GIF: true,
			Auth: "the app id (`aid`) of the events",
			Keys: snowplowKeys, Translate: translateSnowplow,
		},
		{
			Name: "cloudevents", Clients: "CloudEvents SDKs: binary, structured and batched", Paths: []string{"/cloudevents"},
			Auth: "Basic `KEY:`, `?writeKey=`", Once: true,
			Translate: translateCloudEvents,
		},
		{
			Name: "ga4", Clients: "GA4's Measurement Protocol", Paths: []string{"/mp/collect"},
			Auth: "`?api_secret=`", Once: true,
			Keys: ga4Keys, Translate: translateGA4,
		},
	}
}

// Route finds the format of a path. A path has no trailing slash.
func Route(formats []Format, path string) *Format {
	for i := range formats {
		for _, p := range formats[i].Paths {
			if p == path {
				return &formats[i]
			}
		}
	}
	for i := range formats {
		for _, p := range formats[i].Paths {
			if strings.Contains(p, "{") && Matches(p, path) {
				return &formats[i]
			}
		}
	}
	return nil
}

// Guess finds the format of a text that is no native event, by the marks of the others: a client that was given the native path. It is nil for anything else.
func Guess(formats []Format, text []byte) (f *Format, path string) {
	ms, ok := parse(clientJSON(text))
	if !ok {
		return nil, ""
	}
	has := func(keys ...string) bool { return ms.find(keys...) != nil }
	switch {
	case has("specversion"):
		path = "/cloudevents"
	case has("schema") && has("data") && strings.Contains(ms.peek("schema"), "snowplow"):
		path = "/com.snowplowanalytics.snowplow/tp2"
	case has("events") && has("client_id", "app_instance_id"):
		path = "/mp/collect"
	case has("batch") && has("api_key"), has("event") && has("distinct_id", "api_key", "uuid"):
		path = "/batch"
	case has("batch"), has("type", "event") && has("messageId", "anonymousId", "userId", "properties", "traits"):
		path = "/v1/batch"
	default:
		return nil, ""
	}
	return Route(formats, path), path
}

// Matches says whether a path fits a pattern, in which a segment in braces stands for any text, and "{vendor}" for one with a dot in it: vendors are named as
// domains, backwards.
func Matches(pattern, path string) bool {
	for {
		p, patternRest, more := strings.Cut(pattern, "/")
		s, pathRest, moreToo := strings.Cut(path, "/")
		switch {
		case more != moreToo:
			return false
		case p == "{vendor}":
			if !strings.Contains(s, ".") {
				return false
			}
		case strings.HasPrefix(p, "{"):
			if s == "" {
				return false
			}
		case p != s:
			return false
		}
		if !more {
			return true
		}
		pattern, path = patternRest, pathRest
	}
}
