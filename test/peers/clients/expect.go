package main

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// want is a row that the stores must have for a step, once.
type want struct {
	name            string
	at              time.Time // zero: the SDK sends the time of the call, so it lies within the run
	value, currency string    // value "": not said by this SDK, not compared; "null": there must be none
	order           string
	products        []string
	visitor, user   string // one of them is who it was; not compared if both are empty
	note            bool   // the properties hold note somewhere, to the last rune
}

// row is what a store has.
type row struct {
	Source     string   `json:"source"`
	EventID    string   `json:"event_id"`
	Name       string   `json:"name"`
	Category   string   `json:"category"`
	At         int64    `json:"at"` // µs
	Value      *string  `json:"value"`
	Currency   *string  `json:"currency"`
	Order      *string  `json:"order_id"`
	Products   []string `json:"product_ids"`
	Properties string   `json:"properties"`
	Visitor    string   `json:"visitor_id"`
	User       *string  `json:"user_id"`
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// wants is what a dialect makes of the session: what must be in the stores if every call arrives once.
func (d dialect) wants(s session) []want {
	var out []want
	for _, st := range s.steps {
		w := want{name: string(st.kind), at: st.at, value: st.value, currency: st.currency, order: st.order, visitor: s.visitor, user: s.user, note: st.kind == custom || st.kind == identify || st.kind == structured}
		for _, it := range st.items {
			w.products = append(w.products, it.id)
		}
		if st.kind == refund {
			w.value = "-" + st.value
		}
		if st.value == "" {
			w.value = "null"
		}
		if !d.adapt(&w, st.kind) {
			continue
		}
		out = append(out, w)
	}
	return out
}

// dialect is the words of an SDK.
type dialect struct {
	file  func(s session) object
	adapt func(w *want, k kind) bool // false: the SDK has no such call
}

func adaptSegment(w *want, k kind) bool {
	switch k {
	case structured:
		return false
	case alias: // the visitor's id before
		w.name = "identify"
	case custom:
		w.name = "Gift Wrapped"
	}
	return true
}

// adaptPostHog: timed says whether the SDK lets its user time calls about people; set is what its call about a person's properties becomes.
func adaptPostHog(browser, timed bool, set string) func(*want, kind) bool {
	return func(w *want, k kind) bool {
		switch { // a server has one id for everybody, the distinct id, which is the visitor
		case browser:
		case timed && k == alias: // Python sends an alias as from the id before
			w.user = ""
		default:
			w.visitor, w.user = w.user, ""
		}
		switch k {
		case structured:
			return false
		case identify:
			w.name = set
		case group:
			w.name, w.visitor, w.user = "$groupidentify", "", "" // the SDK makes an id of the group, not of a person
		case alias:
			w.name = "identify"
		case custom:
			w.name = "Gift Wrapped"
		}
		if !timed && (k == identify || k == group || k == alias) {
			w.at = time.Time{}
		}
		return true
	}
}

func adaptSnowplow(w *want, k kind) bool {
	switch k {
	case identify, group, alias:
		return false
	case viewItem, addToCart:
		w.value, w.currency = "", ""
	case beginCheckout: // a checkout step says nothing about the cart
		w.value, w.currency, w.products = "null", "", nil
	case structured:
		w.name, w.value = "structured_event", ""
	}
	return true
}

func adaptMeasurement(w *want, k kind) bool {
	w.at = w.at.Truncate(time.Second) // the SDK cuts it
	return adaptCloudEvents(w, k)
}

func adaptCloudEvents(_ *want, k kind) bool {
	return k != identify && k != group && k != alias && k != structured
}

// differences holds rows against wants and says what is missing and what else is wrong; nothing if they agree.
func differences(wants []want, rows []row, from, to time.Time) (missing, other []string) {
	left := slices.Clone(rows)
	for _, w := range wants {
		at := slices.IndexFunc(left, func(r row) bool { return w.is(r, from, to) == "" })
		if at >= 0 {
			left = slices.Delete(left, at, at+1)
			continue
		}
		why := "no such row"
		for _, r := range left {
			if r.Name == w.name && text(r.Order) == w.order {
				why = w.is(r, from, to)
			}
		}
		missing = append(missing, fmt.Sprintf("missing %s %s %s %s: %s", w.name, w.order, w.value, w.currency, why))
	}
	for _, r := range left {
		other = append(other, fmt.Sprintf("unexpected %s %s %s %s at %s, id %s", r.Name, text(r.Order), text(r.Value), text(r.Currency), time.UnixMicro(r.At).UTC().Format(time.RFC3339Nano), r.EventID))
	}
	ids := map[string]int{}
	for _, r := range rows {
		if ids[r.EventID]++; ids[r.EventID] == 2 {
			other = append(other, "two rows have id "+r.EventID)
		}
	}
	return missing, other
}

// is says why a row is not what is wanted; "" if it is.
func (w want) is(r row, from, to time.Time) string {
	at := time.UnixMicro(r.At)
	switch {
	case r.Name != w.name:
		return "name " + r.Name
	case !w.at.IsZero() && !at.Equal(w.at):
		return fmt.Sprintf("occurred %s off", at.Sub(w.at))
	case w.at.IsZero() && (at.Before(from) || at.After(to)):
		return "occurred " + at.UTC().Format(time.RFC3339Nano)
	case w.value == "null" && r.Value != nil:
		return "value " + *r.Value
	case w.value != "null" && w.value != "" && (r.Value == nil || !equal(*r.Value, w.value) || text(r.Currency) != w.currency):
		return fmt.Sprintf("value %q %q", text(r.Value), text(r.Currency))
	case text(r.Order) != w.order:
		return fmt.Sprintf("order %q", text(r.Order))
	case !slices.Equal(r.Products, w.products) && len(r.Products)+len(w.products) > 0:
		return fmt.Sprintf("products %v", r.Products)
	case w.visitor+w.user != "" && r.Visitor != w.visitor && (w.user == "" || text(r.User) != w.user):
		return fmt.Sprintf("visitor %q, user %q", r.Visitor, text(r.User))
	case w.note && !holds(json.RawMessage(r.Properties), note):
		return "properties without the note: " + r.Properties
	}
	return ""
}

// equal compares decimals exactly.
func equal(a, b string) bool {
	x, ok := new(big.Rat).SetString(a)
	y, also := new(big.Rat).SetString(b)
	return ok && also && x.Cmp(y) == 0
}

// holds says whether a text is somewhere in a JSON value, as a whole string.
func holds(raw json.RawMessage, text string) bool {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return false
	}
	var in func(v any) bool
	in = func(v any) bool {
		switch v := v.(type) {
		case string:
			return v == text || strings.HasPrefix(v, "{") && holds(json.RawMessage(v), text)
		case []any:
			return slices.ContainsFunc(v, in)
		case map[string]any:
			for _, one := range v {
				if in(one) {
					return true
				}
			}
		}
		return false
	}
	return in(v)
}
