package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"millrace/event"
	"millrace/event/wire"
)

// source is a write key in use.
type source struct {
	wire.Source
	tenant      []byte // header tn
	limiter     *rate.Limiter
	second      *rate.Limiter           // of events that are over the rate, from clients that do not send again
	categories  map[event.Category]bool // nil: all
	allowReplay bool
	known       bool
}

// nobody is the source of requests whose key is unknown.
func nobody(secret wire.Secret) *source {
	return &source{Source: wire.Source{Redactor: wire.NewRedactor(nil), Secret: secret}, tenant: []byte{}}
}

func newSource(c Source, secret wire.Secret) *source {
	rules := make([]wire.Rule, len(c.PII))
	for i, r := range c.PII {
		rules[i] = wire.Rule{Key: r.Key, Action: wire.Action(r.Action)}
	}
	s := &source{
		Source: wire.Source{Tenant: c.Tenant, Name: c.Name, Redactor: wire.NewRedactor(rules), Secret: secret}, tenant: []byte(c.Tenant),
		allowReplay: c.AllowReplay, known: true,
	}
	if len(c.Categories) > 0 {
		s.categories = map[event.Category]bool{}
		for _, name := range c.Categories {
			if cat, ok := event.ParseCategory(name); ok {
				s.categories[cat] = true
			}
		}
	}
	if c.Rate > 0 {
		burst := c.Burst
		if burst == 0 {
			burst = max(int(c.Rate), MaxEvents)
		}
		s.limiter = rate.NewLimiter(rate.Limit(c.Rate), burst)
		s.second = rate.NewLimiter(rate.Limit(c.Rate), burst)
	}
	return s
}

// allow takes n events from the key's rate. If there are too few it gives the time after which to come again.
func (s *source) allow(n int) (wait time.Duration, ok bool) { return allow(s.limiter, n) }

// spare says whether n events over the rate may be kept as failed events: as many again.
func (s *source) spare(n int) bool {
	_, ok := allow(s.second, n)
	return ok
}

func allow(l *rate.Limiter, n int) (wait time.Duration, ok bool) {
	if l == nil || n == 0 {
		return 0, true
	}
	n = min(n, l.Burst()) // a request larger than the burst takes all of it
	now := time.Now()
	r := l.ReserveN(now, n)
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		return d, false
	}
	return 0, true
}

// requestKeys finds what may be a request's write key in the headers and in the query, wherever SDKs put it.
func requestKeys(r *http.Request, query url.Values) []string {
	var keys []string
	add := func(k string) {
		if k = strings.TrimSpace(k); k != "" {
			keys = append(keys, k)
		}
	}
	for _, h := range [...]string{"X-Write-Key", "X-Api-Key"} {
		add(r.Header.Get(h))
	}
	if user, pass, ok := r.BasicAuth(); ok {
		add(user)
		add(pass)
	} else if auth := r.Header.Get("Authorization"); auth != "" {
		scheme, k, ok := strings.Cut(auth, " ")
		switch {
		case !ok:
			add(auth)
		case strings.EqualFold(scheme, "Bearer"):
			add(k)
		}
	}
	if query != nil {
		for _, name := range [...]string{"write_key", "writeKey", "api_key", "api_secret", "token"} {
			add(query.Get(name))
		}
	}
	return keys
}

// strangers bounds what is kept of requests with unknown keys, by remote address.
type strangers struct {
	rate rate.Limit

	mu sync.Mutex
	by map[string]*rate.Limiter
}

const (
	strangerBurst = 10
	maxStrangers  = 10_000
)

func (s *strangers) allow(remote string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.by[remote]
	if l == nil {
		if len(s.by) >= maxStrangers { // forgetting them all lets a few more in, and bounds memory
			clear(s.by)
		}
		l = rate.NewLimiter(s.rate, strangerBurst)
		s.by[remote] = l
	}
	return l.Allow()
}
