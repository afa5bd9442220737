package wire

import (
	"net/netip"
	"net/url"
	"strings"

	"millrace/event"
)

// Request is what the gateway knows of an event beyond its text.
type Request struct {
	ReceivedAt int64  // µs
	IP         string // the client's address, "" if it is not to be used
	Country    string // of the client, from a proxy's header; "" if unknown
	UserAgent  string
	Replay     bool // history: its clocks are not compared with ours
	// Foreign clients keep sent_at when they send again, and round it: a sent_at that is up to resendTime before ReceivedAt, or hardly after it, says nothing about
	// the client's clock.
	Foreign bool
}

const (
	resendTime = 300e6 // µs; Segment's Java client comes again after 15 to 35 s, all of them after an outage
	roundTime  = 2e6   // Snowplow's Python tracker cuts it to the second
)

// skew is how far the client's clock is behind ours.
func (r *Request) skew(sentAt int64) int64 {
	behind := r.ReceivedAt - sentAt
	if r.Foreign && behind < resendTime && behind > -roundTime {
		return 0
	}
	return behind
}

// OccurredAsSent says whether the last event decoded came with its own time, which Decode left in OccurredAt without correction.
func (d *Decoder) OccurredAsSent() bool { return d.t.occurred }

// Complete finishes the event that was decoded last: times, and what the request tells about the client where the event does not.
//
// occurred_at moves by as much as the client's clock (sent_at) is off the gateway's; an event without it occurred when it was sent, or received. History (Replay) is
// sent long after it happened, so its times stay as they are.
func (d *Decoder) Complete(r *Request) *Failure {
	e := d.t.e
	e.ReceivedAt = r.ReceivedAt
	switch {
	case r.Replay && !d.t.occurred && d.t.sent:
		e.OccurredAt = d.t.sentAt
	case r.Replay && d.t.occurred:
	case d.t.occurred && d.t.sent:
		e.OccurredAt += r.skew(d.t.sentAt)
	case d.t.occurred:
	default: // sent_at is corrected to received_at
		e.OccurredAt = r.ReceivedAt
	}
	if !event.TimeOK(e.OccurredAt, e.ReceivedAt) {
		return &Failure{Reason: event.ReasonBadTime, Path: "occurred_at", Message: "not between 1990 and a day from now", EventID: strings.Clone(e.ID)}
	}
	if e.Country == "" && len(r.Country) == 2 && letters([]byte(r.Country)) {
		e.Country = strings.ToUpper(r.Country)
	}
	if e.IPHash == "" && r.IP != "" {
		d.setIP(r.IP)
	}
	if e.UserAgent == "" && r.UserAgent != "" {
		b := []byte(r.UserAgent)
		maskCards(b)
		e.UserAgent = strings.ToValidUTF8(string(b), "\uFFFD")
		if e.DeviceType == "" {
			e.DeviceType = d.device(e.UserAgent)
		}
	}
	return nil
}

// setIP keeps an address as its /24 or /48 and an HMAC of the whole. What is no address is kept as an HMAC only.
func (d *Decoder) setIP(s string) {
	e := d.t.e
	if s != d.lastIP {
		prefix, addr, ok := network(s)
		if !ok {
			addr = s
		}
		d.lastIP, d.lastPrefix, d.lastHash = strings.Clone(s), prefix, d.sealer.seal("ip", []byte(addr))
	}
	e.IP, e.IPHash = d.lastPrefix, d.lastHash
}

// network gives the /24 or /48 of an address, which may come with a port or zone, and the address in its one normal form.
func network(s string) (prefix, address string, ok bool) {
	s = strings.TrimSpace(s)
	addr, err := netip.ParseAddr(s)
	if err != nil {
		ap, perr := netip.ParseAddrPort(s)
		if perr != nil {
			return "", "", false
		}
		addr = ap.Addr()
	}
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return "", "", false
	}
	return p.Addr().String(), addr.String(), true
}

// fromURL fills path and campaign from the page's URL where they were not sent.
func (d *Decoder) fromURL() {
	e := d.t.e
	if e.PageURL == "" {
		return
	}
	rest, _, _ := strings.Cut(e.PageURL, "#")
	rest, query, _ := strings.Cut(rest, "?")
	if e.PagePath == "" {
		if _, after, ok := strings.Cut(rest, "://"); ok {
			if i := strings.IndexByte(after, '/'); i >= 0 {
				e.PagePath = after[i:]
			} else {
				e.PagePath = "/"
			}
		} else if strings.HasPrefix(rest, "/") {
			e.PagePath = rest
		}
	}
	if e.CampaignSource != "" || e.CampaignMedium != "" || e.CampaignName != "" || !strings.Contains(query, "utm_") {
		return
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "utm_") {
			continue
		}
		var to *string
		switch name {
		case "utm_source":
			to = &e.CampaignSource
		case "utm_medium":
			to = &e.CampaignMedium
		case "utm_campaign":
			to = &e.CampaignName
		case "utm_term":
			to = &e.CampaignTerm
		case "utm_content":
			to = &e.CampaignContent
		default:
			continue
		}
		if strings.ContainsAny(text, "%+") {
			plain, err := url.QueryUnescape(text)
			if err != nil {
				plain = text
			}
			b := []byte(strings.ToValidUTF8(plain, "\uFFFD"))
			maskCards(b)
			text = string(b)
		}
		*to = text
	}
}

// deviceClass maps the device types that SDKs send to ours; "" if it knows none.
func deviceClass(s string) string {
	switch strings.ToLower(s) {
	case "desktop", "web", "laptop", "computer", "pc":
		return "desktop"
	case "mobile", "phone", "smartphone", "ios", "android":
		return "mobile"
	case "tablet", "tv", "bot", "other":
		return strings.ToLower(s)
	case "smart tv", "smarttv", "television", "connected_tv", "ctv":
		return "tv"
	case "crawler", "spider":
		return "bot"
	}
	return ""
}

// device is deviceOf, remembering the last answer.
func (d *Decoder) device(ua string) string {
	if ua != d.lastUA {
		d.lastUA, d.lastDevice = strings.Clone(ua), deviceOf(ua)
	}
	return d.lastDevice
}

// deviceOf guesses the device type from a user agent, by the words that decide it, first match first.
func deviceOf(ua string) string {
	for _, rule := range [...]struct{ word, class string }{
		{"bot", "bot"},
		{"Bot", "bot"},
		{"crawl", "bot"},
		{"Crawl", "bot"},
		{"spider", "bot"},
		{"Spider", "bot"},
		{"facebookexternalhit", "bot"},
		{"HeadlessChrome", "bot"},
		{"curl/", "bot"},
		{"Wget/", "bot"},
		{"python-", "bot"},
		{"Go-http-client", "bot"},
		{"Lighthouse", "bot"},
		{"SmartTV", "tv"},
		{"SMART-TV", "tv"},
		{"Smart TV", "tv"},
		{"AppleTV", "tv"},
		{"Apple TV", "tv"},
		{"GoogleTV", "tv"},
		{"BRAVIA", "tv"},
		{"HbbTV", "tv"},
		{"Web0S", "tv"},
		{"WebOS", "tv"},
		{"Roku", "tv"},
		{"; AFT", "tv"},
		{"CrKey", "tv"},
		{"iPad", "tablet"},
		{"Tablet", "tablet"},
		{"Kindle", "tablet"},
		{"Silk/", "tablet"},
		{"PlayBook", "tablet"},
		{"iPhone", "mobile"},
		{"iPod", "mobile"},
		{"Mobi", "mobile"},
		{"Windows Phone", "mobile"},
		{"Opera Mini", "mobile"},
		{"Android", "tablet"}, // Android without Mobile is a tablet
		{"Windows", "desktop"},
		{"Macintosh", "desktop"},
		{"X11", "desktop"},
		{"CrOS", "desktop"},
		{"Linux", "desktop"},
	} {
		if strings.Contains(ua, rule.word) {
			return rule.class
		}
	}
	return "other"
}
