package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace/event"
)

const (
	maxTenant = 64
	maxQuery  = 8 << 10 // bytes of a query string
	farPast   = 1990    // the first year of which events are stored
)

// query reads the parameters of a request and collects everything that is wrong with them.
type query struct {
	values url.Values
	known  []string
	errs   []fieldError
	now    time.Time
}

func newQuery(raw string, now time.Time) (*query, error) {
	if len(raw) > maxQuery {
		return nil, newProblem(idRequest, fmt.Sprintf("the query string has more than %d bytes", maxQuery))
	}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, newProblem(idRequest, "the query string is not well formed")
	}
	return &query{values: v, now: now}, nil
}

func (q *query) bad(field, format string, a ...any) {
	q.errs = append(q.errs, fieldError{field, fmt.Sprintf(format, a...)})
}

// err gives what was wrong, unknown parameters included; to be asked after all have been read.
func (q *query) err() error {
	for name := range q.values {
		if !slices.Contains(q.known, name) {
			q.bad(clean(name), "is not a parameter here; there are %s", strings.Join(q.known, ", "))
		}
	}
	if len(q.errs) == 0 {
		return nil
	}
	slices.SortFunc(q.errs, func(a, b fieldError) int { return strings.Compare(a.Field, b.Field) })
	return newProblem(idRequest, fmt.Sprintf("%d of the parameters cannot be used", len(q.errs)), q.errs...)
}

// clean makes foreign text fit for an answer.
func clean(s string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// text reads a parameter of at most maxLen bytes of UTF-8 without control characters.
func (q *query) text(name, fallback string, maxLen int) string {
	q.known = append(q.known, name)
	all := q.values[name]
	switch {
	case len(all) == 0:
		return fallback
	case len(all) > 1:
		q.bad(name, "is given %d times", len(all))
	case all[0] == "":
		return fallback
	case len(all[0]) > maxLen:
		q.bad(name, "has more than %d bytes", maxLen)
	case !utf8.ValidString(all[0]) || strings.ContainsFunc(all[0], func(r rune) bool { return r < ' ' || r == 0x7f }):
		q.bad(name, "holds control characters or is not UTF-8")
	default:
		return all[0]
	}
	return fallback
}

func (q *query) tenant(fallback string) string { return q.text("tenant", fallback, maxTenant) }

func (q *query) one(name, fallback string, of ...string) string {
	s := q.text(name, fallback, 64)
	if !slices.Contains(of, s) && s != fallback {
		q.bad(name, "is not one of %s", strings.Join(of, ", "))
		return fallback
	}
	return s
}

func (q *query) integer(name string, fallback, low, high int) int {
	s := q.text(name, "", 32)
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		q.bad(name, "is not a whole number from %d to %d", low, high)
		return fallback
	}
	return n
}

func (q *query) currency() string {
	s := q.text("currency", "", 16)
	if s != "" && !event.WellFormedCurrency(s) {
		q.bad("currency", "is not an ISO 4217 code of three capital letters")
		return ""
	}
	return s
}

// parseDuration reads a whole number and a unit: 60s, 15m, 24h, 7d.
func parseDuration(s string) (time.Duration, bool) {
	if len(s) < 2 {
		return 0, false
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	unit, ok := units[s[len(s)-1]]
	digits := s[:len(s)-1]
	if !ok || len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return time.Duration(n) * unit, err == nil && time.Duration(n) <= (1<<62)/unit
}

func (q *query) duration(name, fallback string, low, high time.Duration) time.Duration {
	s := q.text(name, fallback, 32)
	d, ok := parseDuration(s)
	if !ok {
		q.bad(name, "is not a whole number and a unit, such as 60s, 15m, 24h or 7d")
	} else if d < low || d > high {
		q.bad(name, "is not between %s and %s", short(low), short(high))
		ok = false
	}
	if !ok {
		d, _ = parseDuration(fallback)
	}
	return d
}

// short writes a duration as parameters have it.
func short(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	case d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

// time reads RFC 3339, unix seconds, now, or a time relative to now (-15m). A zero fallback gives a zero time.
func (q *query) time(name string, fallback time.Time) time.Time {
	s := q.text(name, "", 40)
	if s == "" {
		return fallback
	}
	t, ok := parseTime(s, q.now)
	if !ok {
		q.bad(name, "is not a time: RFC 3339 (a + is written %%2B), unix seconds, now, or relative to now such as -15m")
		return fallback
	}
	if t.Year() < farPast || t.After(q.now.Add(366*24*time.Hour)) {
		q.bad(name, "is not between the years %d and %d", farPast, q.now.Year()+1)
		return fallback
	}
	return t
}

func parseTime(s string, now time.Time) (time.Time, bool) {
	if s == "now" {
		return now, true
	}
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		d, ok := parseDuration(rest)
		return now.Add(-d), ok && d <= 50*366*24*time.Hour
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), true
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) <= 11 {
		return time.Unix(n, 0).UTC(), true
	}
	return time.Time{}, false
}

// zone reads an IANA time zone.
func (q *query) zone(name string, fallback *time.Location) *time.Location {
	s := q.text(name, "", 64)
	if s == "" {
		return fallback
	}
	z, err := time.LoadLocation(s)
	if err != nil || s == "Local" {
		q.bad(name, "is not an IANA time zone such as Europe/Berlin")
		return fallback
	}
	return z
}
