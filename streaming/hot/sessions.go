package hot

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"millrace/event"
	"millrace/event/schema"
	"millrace/streaming"
)

// Timers of the sessions job, and its store.
const (
	ownerSession  = 20
	storeSessions = 40
)

// SessionConfig says what a session is.
type SessionConfig struct {
	Gap     time.Duration `koanf:"gap" desc:"a visitor's session ends after this much silence, in event time"`
	Longest time.Duration `koanf:"longest" desc:"a session ends after this, however busy it is"`
	Every   time.Duration `koanf:"every" desc:"least time between two writes of a visitor's current session to Redis"`
}

// DefaultSessionConfig ends a session after half an hour of silence, as web analytics does.
func DefaultSessionConfig() SessionConfig {
	return SessionConfig{Gap: 30 * time.Minute, Longest: 24 * time.Hour, Every: time.Second}
}

// Validate reports every problem.
func (c SessionConfig) Validate() error {
	var errs []error
	between := func(field string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("sessions.%s: %s is not between %s and %s", field, v, lo, hi))
		}
	}
	between("gap", c.Gap, time.Minute, 12*time.Hour)
	between("longest", c.Longest, c.Gap, 48*time.Hour)
	between("every", c.Every, 50*time.Millisecond, time.Minute)
	return errors.Join(errs...)
}

// sessions gives each event of a visitor the session that it belongs to, on arrival and for good: the session_id of a stored event is never rewritten. So it goes by the
// session that the visitor has when the event comes, in event time: within the gap of it, of the same campaign, and not longer than allowed; else another begins. An
// event that is older than the visitor's session by more than the gap belongs to one that is no longer known, and has none.
//
// A session ends when the watermark has passed its last event by the gap. Until then it is in Redis (live.SessionKey), at most Every old.
type sessions struct {
	noJob
	t      *streaming.Task
	cfg    SessionConfig
	codecs *schema.Codecs
	store  *streaming.Store[session]
	closed func(visitor string, s *session) error // is told of each session that ended; nil: nobody is

	key     []byte
	changed map[string]struct{} // visitors whose session Redis does not have yet
	round   uint64              // changes when changed is emptied: a session of this round is in it
	body    []byte
	told    []string // of them, those that the open transaction has written
	at      time.Time
	update  event.LiveUpdate
}

// session is a visitor's. Texts are bounded; times are µs.
type session struct {
	id                           [16]byte
	start, last, timer           int64
	campaign                     uint64 // hash of what the visitor came by, 0: nothing
	events, views, items         uint32
	carts, checkouts, orders     uint32
	source, medium, name         string
	country, device, entry, path string
	cart                         int64 // time of the last add_to_cart without an order behind it; 0: none

	text  string // id in hexadecimal, made when it is first asked for
	round uint64 // see sessions
}

func newSessions(t *streaming.Task, cfg SessionConfig, codecs *schema.Codecs) *sessions {
	return &sessions{t: t, cfg: cfg, codecs: codecs, store: streaming.OpenStore(t, storeSessions, streaming.Codec[session](sessionCodec{})), changed: map[string]struct{}{}, round: 1}
}

// assign takes an event into its visitor's session and gives that one's id, "" for an event without a visitor, or of a session that is no longer known.
func (s *sessions) assign(e *event.Event) string {
	if e.VisitorID == "" {
		return ""
	}
	s.key = append(append(append(s.key[:0], e.Tenant...), event.Sep), e.VisitorID...)
	v, ok := s.store.GetBytes(s.key)
	gap, at := s.cfg.Gap.Microseconds(), e.OccurredAt
	campaign := campaignOf(e)
	switch {
	case ok && at < v.start-gap:
		return ""
	case !ok || at > v.last+gap || campaign != 0 && campaign != v.campaign && at >= v.last || max(at, v.last)-min(at, v.start) > s.cfg.Longest.Microseconds():
		if ok {
			if err := s.end(string(s.key), &v); err != nil {
				return "" // cannot be: it was encoded before
			}
		}
		v = s.begin(e, campaign)
	}
	v.take(e)
	if v.timer == 0 {
		v.timer = v.last + gap
		s.t.SetTimer(ownerSession, string(s.key), v.timer)
	}
	if v.text == "" {
		v.text = hex.EncodeToString(v.id[:])
	}
	if v.round != s.round {
		v.round = s.round
		if _, ok := s.changed[string(s.key)]; !ok {
			s.changed[string(s.key)] = struct{}{}
		}
	}
	s.store.PutBytes(s.key, v)
	return v.text
}

// begin makes the session that an event begins. Its id follows from the event, so that an event that is read again begins the same one.
func (s *sessions) begin(e *event.Event, campaign uint64) session {
	h := xxh3.New()
	for _, part := range []string{"session", e.Tenant, e.VisitorID, e.Source, e.ID} {
		_, _ = h.WriteString(part) // a hash takes everything
		_, _ = h.Write([]byte{event.Sep})
	}
	sum := h.Sum128().Bytes()
	return session{
		id: sum, start: e.OccurredAt, last: e.OccurredAt, campaign: campaign,
		source: short(e.CampaignSource), medium: short(e.CampaignMedium), name: short(e.CampaignName), country: short(e.Country), device: short(e.DeviceType), entry: short(e.PagePath),
	}
}

// take counts an event.
func (v *session) take(e *event.Event) {
	if e.OccurredAt < v.start && e.PagePath != "" {
		v.entry = short(e.PagePath)
	}
	v.start, v.last = min(v.start, e.OccurredAt), max(v.last, e.OccurredAt)
	v.events++
	if e.PagePath != "" && e.OccurredAt >= v.last && v.path != e.PagePath {
		v.path = short(e.PagePath)
	}
	switch e.Name {
	case event.NamePageView:
		v.views++
	case event.NameViewItem:
		v.items++
	case event.NameAddToCart:
		v.carts++
		v.cart = max(v.cart, e.OccurredAt)
	case event.NameBeginCheckout:
		v.checkouts++
	case event.NamePurchase:
		v.orders++
		if e.OccurredAt >= v.cart {
			v.cart = 0
		}
	}
}

// campaignOf is a hash of what an event says that its visitor came by.
func campaignOf(e *event.Event) uint64 {
	if e.CampaignSource == "" && e.CampaignMedium == "" && e.CampaignName == "" {
		return 0
	}
	h := xxh3.HashString(e.CampaignSource)
	h = h*31 + xxh3.HashString(e.CampaignMedium)
	return (h*31 + xxh3.HashString(e.CampaignName)) | 1
}

const longestText = 128 // bytes of a text that a session keeps

// short is a copy of a text, which may be part of a record, cut to what a session keeps.
func short(s string) string {
	if len(s) > longestText {
		s = strings.ToValidUTF8(s[:longestText], "")
	}
	return strings.Clone(s)
}

// timer implements job: a session that was silent for the gap has ended, another is looked at again when it may have.
func (s *sessions) timer(tm streaming.Timer) error {
	v, ok := s.store.Get(tm.Key)
	if !ok || v.timer != tm.At {
		return nil // of a session that another followed
	}
	if at := v.last + s.cfg.Gap.Microseconds(); at > tm.At {
		v.timer = at
		s.store.Put(tm.Key, v)
		s.t.SetTimer(ownerSession, tm.Key, at)
		return nil
	}
	if err := s.end(tm.Key, &v); err != nil {
		return err
	}
	s.store.Delete(tm.Key)
	return nil
}

// end tells that a session has ended.
func (s *sessions) end(visitor string, v *session) error {
	if s.closed == nil {
		return nil
	}
	return s.closed(visitor, v)
}

// tick implements job: what has changed is written for Redis.
func (s *sessions) tick(now time.Time) error {
	if now.Sub(s.at) < s.cfg.Every || len(s.changed) == 0 {
		return nil
	}
	s.at = now
	for visitor := range s.changed {
		v, ok := s.store.Get(visitor)
		if !ok {
			continue // ended meanwhile: what Redis has of it expires
		}
		s.publish(visitor, &v)
	}
	for visitor := range s.changed {
		s.told = append(s.told, visitor)
	}
	clear(s.changed)
	s.round++
	return nil
}

// SessionField is the field of a session's hash in Redis.
const SessionField = "s"

// SessionKey is the Redis key of a visitor's current session.
func SessionKey(tenant, visitor string) string { return "ses:{" + tenant + "|" + visitor + "}" }

// Session is a visitor's current session as it is served. Times are RFC 3339 with microseconds.
type Session struct {
	ID        string `json:"session_id"`
	Tenant    string `json:"tenant"`
	VisitorID string `json:"visitor_id"`
	StartedAt string `json:"started_at"`
	LastAt    string `json:"last_at"`
	EndsAt    string `json:"ends_at"` // unless something happens before
	Events    uint32 `json:"events"`
	PageViews uint32 `json:"page_views"`
	ItemViews uint32 `json:"item_views"`
	CartAdds  uint32 `json:"cart_adds"`
	Checkouts uint32 `json:"checkouts"`
	Orders    uint32 `json:"orders"`
	OpenCart  bool   `json:"open_cart"` // something was put into the cart and no order came behind it
	Country   string `json:"country,omitempty"`
	Device    string `json:"device,omitempty"`
	Entry     string `json:"entry_path,omitempty"`
	Path      string `json:"path,omitempty"`
	Source    string `json:"campaign_source,omitempty"`
	Medium    string `json:"campaign_medium,omitempty"`
	Campaign  string `json:"campaign_name,omitempty"`
}

// publish writes a session for Redis.
func (s *sessions) publish(visitor string, v *session) {
	tenant, id, _ := strings.Cut(visitor, string(rune(event.Sep)))
	ends := v.last + s.cfg.Gap.Microseconds()
	s.body = v.appendJSON(s.body[:0], tenant, id, ends)
	s.update = event.LiveUpdate{Tenant: tenant, Key: SessionKey(tenant, id), Field: SessionField, Value: s.body, ExpiresAt: ends}
	value := s.codecs.AppendLiveUpdate(s.t.Buf(len(s.body)+2*len(visitor)+96), &s.update)
	out := s.t.Record()
	out.Topic, out.Value = event.TopicLiveUpdates, s.t.Keep(value)
	out.Key = s.t.Keep(s.update.AppendKey(s.t.Buf(len(visitor) + 32)))
	s.t.Emit(out)
}

// appendJSON writes what Session says, as encoding/json would: most events of a visitor make it be written again.
func (v *session) appendJSON(b []byte, tenant, visitor string, ends int64) []byte {
	const stamp = "2006-01-02T15:04:05.000000Z"
	b = hex.AppendEncode(append(b, `{"session_id":"`...), v.id[:])
	b = appendJSONText(append(b, `","tenant":`...), tenant)
	b = appendJSONText(append(b, `,"visitor_id":`...), visitor)
	b = event.Time(v.start).AppendFormat(append(b, `,"started_at":"`...), stamp)
	b = event.Time(v.last).AppendFormat(append(b, `","last_at":"`...), stamp)
	b = event.Time(ends).AppendFormat(append(b, `","ends_at":"`...), stamp)
	b = strconv.AppendUint(append(b, `","events":`...), uint64(v.events), 10)
	b = strconv.AppendUint(append(b, `,"page_views":`...), uint64(v.views), 10)
	b = strconv.AppendUint(append(b, `,"item_views":`...), uint64(v.items), 10)
	b = strconv.AppendUint(append(b, `,"cart_adds":`...), uint64(v.carts), 10)
	b = strconv.AppendUint(append(b, `,"checkouts":`...), uint64(v.checkouts), 10)
	b = strconv.AppendUint(append(b, `,"orders":`...), uint64(v.orders), 10)
	b = strconv.AppendBool(append(b, `,"open_cart":`...), v.cart != 0)
	for _, t := range [...]struct{ name, text string }{
		{`,"country":`, v.country},
		{`,"device":`, v.device},
		{`,"entry_path":`, v.entry},
		{`,"path":`, v.path},
		{`,"campaign_source":`, v.source},
		{`,"campaign_medium":`, v.medium},
		{`,"campaign_name":`, v.name},
	} {
		if t.text != "" {
			b = appendJSONText(append(b, t.name...), t.text)
		}
	}
	return append(b, '}')
}

// appendJSONText writes a JSON string.
func appendJSONText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil {
				text = []byte(`""`) // cannot be: every string has a form
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// committed implements job.
func (s *sessions) committed() {
	clear(s.told)
	s.told = s.told[:0]
}

// aborted implements job: nobody has heard what was told.
func (s *sessions) aborted() {
	for _, visitor := range s.told {
		s.changed[visitor] = struct{}{}
	}
	s.committed()
}

// sessionCodec packs a session: id, then varints, then texts with their lengths.
type sessionCodec struct{}

func (sessionCodec) Append(b []byte, v session) []byte {
	b = append(b, v.id[:]...)
	for _, n := range [...]int64{v.start, v.last - v.start, v.timer - v.start, v.cart} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, v.campaign)
	for _, n := range [...]uint32{v.events, v.views, v.items, v.carts, v.checkouts, v.orders} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, t := range [...]string{v.source, v.medium, v.name, v.country, v.device, v.entry, v.path} {
		b = append(binary.AppendUvarint(b, uint64(len(t))), t...)
	}
	return b
}

var errSession = errors.New("a session is cut off")

func (sessionCodec) Decode(b []byte) (session, error) {
	var v session
	if len(b) < len(v.id) {
		return v, errSession
	}
	b = b[copy(v.id[:], b):]
	for _, to := range [...]*int64{&v.start, &v.last, &v.timer, &v.cart} {
		n, k := binary.Varint(b)
		if k <= 0 {
			return v, errSession
		}
		*to, b = n, b[k:]
	}
	v.last, v.timer = v.last+v.start, v.timer+v.start
	var k int
	if v.campaign, k = binary.Uvarint(b); k <= 0 {
		return v, errSession
	}
	b = b[k:]
	for _, to := range [...]*uint32{&v.events, &v.views, &v.items, &v.carts, &v.checkouts, &v.orders} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > 1<<32-1 {
			return v, errSession
		}
		*to, b = uint32(n), b[k:]
	}
	for _, to := range [...]*string{&v.source, &v.medium, &v.name, &v.country, &v.device, &v.entry, &v.path} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return v, errSession
		}
		*to, b = string(b[k:k+int(n)]), b[k+int(n):]
	}
	if len(b) != 0 {
		return v, errSession
	}
	return v, nil
}
