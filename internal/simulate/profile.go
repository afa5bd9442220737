package simulate

import "strconv"

// A visitor is a number. Everything constant about the visitor is a hash of that number, so that a visitor comes back the same without being remembered.

// market is where a visitor shops from.
type market struct {
	country, currency, locale, zone string
	cities                          [2][2]string // region, city
	weight                          uint32
}

var markets = [...]market{
	{"US", "USD", "en-US", "America/New_York", [2][2]string{{"NY", "New York"}, {"CA", "San Francisco"}}, 36},
	{"GB", "GBP", "en-GB", "Europe/London", [2][2]string{{"ENG", "London"}, {"SCT", "Glasgow"}}, 14},
	{"DE", "EUR", "de-DE", "Europe/Berlin", [2][2]string{{"BE", "Berlin"}, {"BY", "München"}}, 14},
	{"FR", "EUR", "fr-FR", "Europe/Paris", [2][2]string{{"IDF", "Paris"}, {"ARA", "Lyon"}}, 8},
	{"NL", "EUR", "nl-NL", "Europe/Amsterdam", [2][2]string{{"NH", "Amsterdam"}, {"UT", "Utrecht"}}, 4},
	{"JP", "JPY", "ja-JP", "Asia/Tokyo", [2][2]string{{"13", "東京"}, {"27", "大阪"}}, 12},
	{"BR", "BRL", "pt-BR", "America/Sao_Paulo", [2][2]string{{"SP", "São Paulo"}, {"RJ", "Rio de Janeiro"}}, 10},
	{"CA", "USD", "en-CA", "America/Toronto", [2][2]string{{"ON", "Toronto"}, {"QC", "Montréal"}}, 2},
}

var devices = [...]struct {
	kind, os, browser, agent string
	weight                   uint32
}{
	{"mobile", "iOS", "Safari", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", 30},
	{"mobile", "Android", "Chrome", "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36", 26},
	{"desktop", "Windows", "Chrome", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", 20},
	{"desktop", "Windows", "Edge", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", 7},
	{"desktop", "macOS", "Safari", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", 9},
	{"desktop", "Linux", "Firefox", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", 3},
	{"tablet", "iPadOS", "Safari", "Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", 5},
}

// campaigns by which sessions begin; the first is none.
var campaigns = [...]struct {
	source, medium, name, term, content, referrer string
	weight                                        uint32
}{
	{weight: 38},
	{referrer: "https://www.google.com/", weight: 22},
	{"google", "cpc", "brand-search", "millrace shop", "ad_a", "https://www.google.com/", 14},
	{"newsletter", "email", "weekly-42", "", "hero_button", "", 10},
	{"instagram", "social", "summer-sale", "", "story_3", "https://l.instagram.com/", 9},
	{"affiliate", "referral", "deal-blog", "", "", "https://deals.example/top-10", 5},
	{"bing", "cpc", "generic-kitchen", "stoneware mug", "ad_b", "https://www.bing.com/", 2},
}

var (
	marketWeights   = newWeights(len(markets), func(i int) uint32 { return markets[i].weight })
	deviceWeights   = newWeights(len(devices), func(i int) uint32 { return devices[i].weight })
	campaignWeights = newWeights(len(campaigns), func(i int) uint32 { return campaigns[i].weight })
)

func currencyIndex(code string) uint8 {
	for i := range currencies {
		if currencies[i].code == code {
			return uint8(i)
		}
	}
	panic("no such currency: " + code) // a mistake in the tables above
}

// Experiments run all the time. The treatment of the first sells a little more, so that an evaluation has something to find; the second has no effect.
var experiments = [...]struct{ id, control, treatment string }{
	{"checkout-one-page", "control", "one_page"},
	{"list-density", "control", "dense"},
}

// treated says whether a visitor is in an experiment's treatment.
func treated(seed, visitor uint64, experiment int) bool {
	return hash2(seed^uint64(experiment+1)*0xe4b, visitor)&1 == 1
}

// attend fills in what a session knows of its visitor: the parts of its events that stay the same.
func (s *shopper) attend(seed, visitor, session uint64, r *random) {
	h := hash2(seed^0x71517, visitor)
	m := &markets[marketWeights.choose(mix(h+1))]
	d := &devices[deviceWeights.choose(mix(h+2))]
	c := &campaigns[campaignWeights.choose(r.next())]
	city := m.cities[mix(h+3)&1]

	s.visitor = visitor
	s.currency = currencyIndex(m.currency)
	s.numbers = d.os == "iOS" || d.os == "Android" // the apps send amounts as JSON numbers, the web shop as strings
	s.registered = mix(h+4)%100 < 45
	s.signedIn = s.registered && r.chance(0.5)

	b := append(s.head[:0], `,"visitor_id":"`...)
	b = appendVisitor(b, seed, visitor)
	b = append(b, `","session_id":"s-`...)
	b = appendHex(b, hash2(seed+streamSession, session), 16)
	s.head = append(b, '"')

	b = append(s.context[:0], `"device":{"type":"`...)
	b = append(b, d.kind...)
	b = appendField(append(b, '"'), "os", d.os)
	b = appendField(b, "browser", d.browser)
	b = append(appendField(b, "user_agent", d.agent), '}')
	b = appendField(b, "country", m.country)
	b = appendField(b, "region", city[0])
	b = appendField(b, "city", city[1])
	b = appendField(b, "locale", m.locale)
	b = appendField(b, "time_zone", m.zone)
	if c.source != "" {
		b = append(b, `,"campaign":{"source":"`...)
		b = append(append(b, c.source...), '"')
		b = appendField(b, "medium", c.medium)
		b = appendField(b, "name", c.name)
		if c.term != "" {
			b = appendField(b, "term", c.term)
		}
		if c.content != "" {
			b = appendField(b, "content", c.content)
		}
		b = append(b, '}')
	}
	s.context = append(b, '}') // ends the context object that closeShopper begins
	s.referrer = c.referrer
}

func appendVisitor(dst []byte, seed, visitor uint64) []byte {
	return strconv.AppendUint(append(dst, 'v', '-'), hash2(seed+streamVisitor, visitor)>>4, 36)
}

func appendUser(dst []byte, seed, visitor uint64) []byte {
	return strconv.AppendUint(append(dst, 'u', '-'), hash2(seed+streamVisitor+100, visitor)>>16, 36)
}
