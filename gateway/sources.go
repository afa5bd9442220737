package gateway

import (
	"net/http"
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
	}
	return s
}

// allow takes n events from the key's rate. If there are too few it gives the time after which to come again.
func (s *source) allow(n int) (wait time.Duration, ok bool) {
	if s.limiter == nil || n == 0 {
		return 0, true
	}
	n = min(n, s.limiter.Burst()) // a request larger than the burst takes all of it
	now := time.Now()
	r := s.limiter.ReserveN(now, n)
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		return d, false
	}
	return 0, true
}

// writeKey finds a request's key in the places SDKs put it.
func writeKey(r *http.Request) string {
	if k := r.Header.Get("X-Write-Key"); k != "" {
		return k
	}
	if user, pass, ok := r.BasicAuth(); ok {
		if user == "" {
			return pass
		}
		return user
	}
	if scheme, k, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(k)
	}
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get("write_key")
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
