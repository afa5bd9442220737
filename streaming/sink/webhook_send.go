package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace/event"
)

// sender makes requests to one destination: only to the configured address, without following redirects, in a bounded time, reading a bounded answer.
type sender struct {
	kind   string
	at     string
	host   string // all of the address that messages may show
	keys   [][]byte
	client *http.Client
}

func newSender(d Destination, cfg AlertsConfig) (sender, error) {
	s := sender{kind: d.Kind}
	if s.kind == "" {
		s.kind = KindWebhook
	}
	var err error
	if s.at, err = resolve(d.URL); err != nil {
		return s, fmt.Errorf("url: %w", err)
	}
	if err := d.checkURL(s.at); err != nil {
		return s, err
	}
	u, err := url.Parse(s.at)
	if err != nil {
		return s, errors.New("url: is no http or https address")
	}
	s.host = u.Host
	if d.Secret != "" {
		text, err := resolve(d.Secret)
		if err != nil {
			return s, fmt.Errorf("secret: %w", err)
		}
		if s.keys, err = signingKeys(text); err != nil {
			return s, fmt.Errorf("secret: %w", err)
		}
	}
	s.client = &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: cfg.InFlight, MaxIdleConnsPerHost: cfg.InFlight, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: cfg.Timeout,
			MaxResponseHeaderBytes: 32 << 10, ForceAttemptHTTP2: true,
		},
	}
	return s, nil
}

// Bounds of what a destination may say.
const (
	maxAnswer     = 16 << 10
	maxRetryAfter = 10 * time.Minute
)

// send makes one attempt. An error that is a refusal is for good; after is how long the destination asks to be left alone.
func (s *sender) send(ctx context.Context, a *event.Alert) (after time.Duration, err error) {
	body, err := s.body(a)
	if err != nil {
		return 0, &refusal{http.StatusBadRequest}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.at, bytes.NewReader(body))
	if err != nil {
		return 0, s.hide(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "millrace")
	id := messageID(a)
	req.Header.Set("Webhook-Id", id)
	if len(s.keys) > 0 {
		now := time.Now()
		req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
		req.Header.Set("Webhook-Signature", sign(s.keys, id, now, body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, s.hide(err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	_ = resp.Body.Close()                                            // the answer is its status
	switch {
	case resp.StatusCode/100 == 2:
		return 0, nil
	case final(resp.StatusCode):
		return 0, &refusal{resp.StatusCode}
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		after = min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	return after, fmt.Errorf("%s answers %d %s", s.host, resp.StatusCode, http.StatusText(resp.StatusCode))
}

// final says whether a status is about this alert, so that a retry would not change it. All else may be mended: by waiting, or by whoever mends the address, the secret or the receiver.
func final(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// hide takes the address out of an error.
func (s *sender) hide(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s: %w", s.host, err)
}

// messageID is the same for each attempt at an alert, and another one once it is confirmed.
func messageID(a *event.Alert) string {
	if a.Confirmed {
		return a.AlertID + ".confirmed"
	}
	return a.AlertID + ".provisional"
}

// sign makes the header webhook-signature of Standard Webhooks (https://www.standardwebhooks.com, specification 1.0.0): "v1," and the base64 of HMAC-SHA256 over
// id.timestamp.body, for each key.
func sign(keys [][]byte, id string, at time.Time, body []byte) string {
	var all []string
	for _, k := range keys {
		mac := hmac.New(sha256.New, k)
		_, _ = fmt.Fprintf(mac, "%s.%d.", id, at.Unix()) // a hash does not fail
		_, _ = mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

func (s *sender) body(a *event.Alert) ([]byte, error) {
	if s.kind == KindSlack {
		return json.Marshal(slackMessage(a))
	}
	type data struct {
		event.Alert
		OccurredAt string          `json:"occurred_at"`
		DetectedAt string          `json:"detected_at"`
		Details    json.RawMessage `json:"details"`
	}
	out := struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      data   `json:"data"`
	}{"alert.provisional", rfc3339(a.DetectedAt), data{*a, rfc3339(a.OccurredAt), rfc3339(a.DetectedAt), json.RawMessage(`null`)}}
	if a.Confirmed {
		out.Type = "alert.confirmed"
	}
	if a.Reasons == nil {
		out.Data.Reasons = []string{}
	}
	if json.Valid([]byte(a.Details)) {
		out.Data.Details = json.RawMessage(a.Details)
	}
	return json.Marshal(out)
}

func rfc3339(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000Z")
}

// Bounds of Slack: 3,000 characters of a text in a block; we stay below it with room for escapes.
const slackText = 2500

var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

type slackBlock struct {
	Type string     `json:"type"`
	Text *slackPart `json:"text,omitempty"`
	Of   []any      `json:"elements,omitempty"`
}

type slackPart struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type slackBody struct {
	Text   string       `json:"text"` // where blocks are not shown: notifications
	Blocks []slackBlock `json:"blocks"`
}

// slackMessage is the form of Slack's incoming webhooks (https://api.slack.com/messaging/webhooks), which Mattermost and Discord's /slack take too. What comes from events is escaped, so
// that nobody is mentioned by it.
func slackMessage(a *event.Alert) slackBody {
	sign := map[string]string{event.SeverityCritical: ":rotating_light:", event.SeverityWarn: ":warning:"}[a.Severity]
	if sign == "" {
		sign = ":information_source:"
	}
	state := "provisional"
	if a.Confirmed {
		state = "confirmed"
	}
	head := fmt.Sprintf("%s %s: %s on %s %s", sign, a.Severity, a.Rule, a.Entity, a.Key)
	reasons := strings.Join(a.Reasons, "\n• ")
	if reasons != "" {
		reasons = "\n• " + reasons
	}
	foot := fmt.Sprintf("%s · score %.3g · version %d · tenant %s · %s · %s", state, a.Score, a.RuleVersion, a.Tenant, rfc3339(a.OccurredAt), a.AlertID)
	text := func(s string) string { return slackEscape.Replace(cut(s, slackText)) }
	return slackBody{
		Text: text(head),
		Blocks: []slackBlock{
			{Type: "section", Text: &slackPart{"mrkdwn", "*" + text(cut(head, 500)) + "*" + text(cut(reasons, 1500))}},
			{Type: "context", Of: []any{slackPart{"mrkdwn", text(cut(foot, 1000))}}},
		},
	}
}

// cut shortens a text to a number of bytes, at a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
