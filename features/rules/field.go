package rules

import (
	"slices"

	"millrace/event"
)

// kindOf is the type of a field.
type kindOf uint8

const (
	text kindOf = iota
	number
	truth
)

// field is one that rules may name.
type field struct {
	name  string
	kind  kindOf
	text  func(*event.Rekeyed) string
	num   func(*event.Rekeyed) float64
	truth func(*event.Rekeyed) bool
}

func fieldTable() []field {
	t := func(name string, f func(*event.Rekeyed) string) field { return field{name: name, text: f} }
	return []field{
		t("name", func(e *event.Rekeyed) string { return e.Name }),
		t("source", func(e *event.Rekeyed) string { return e.Source }),
		t("visitor_id", func(e *event.Rekeyed) string { return e.VisitorID }),
		t("user_id", func(e *event.Rekeyed) string { return e.UserID }),
		t("session_id", func(e *event.Rekeyed) string { return e.SessionID }),
		t("order_id", func(e *event.Rekeyed) string { return e.OrderID }),
		t("currency", func(e *event.Rekeyed) string { return e.Currency }),
		t("country", func(e *event.Rekeyed) string { return e.Country }),
		t("region", func(e *event.Rekeyed) string { return e.Region }),
		t("city", func(e *event.Rekeyed) string { return e.City }),
		t("device", func(e *event.Rekeyed) string { return e.Device }),
		t("device_type", func(e *event.Rekeyed) string { return e.DeviceType }),
		t("device_os", func(e *event.Rekeyed) string { return e.DeviceOS }),
		t("device_browser", func(e *event.Rekeyed) string { return e.DeviceBrowser }),
		t("ip_hash", func(e *event.Rekeyed) string { return e.IPHash }),
		t("card_fingerprint", func(e *event.Rekeyed) string { return e.CardFingerprint }),
		t("card_bin", func(e *event.Rekeyed) string { return e.CardBIN }),
		t("payment_method", func(e *event.Rekeyed) string { return e.PaymentMethod }),
		{name: "value", kind: number, num: func(e *event.Rekeyed) float64 { return float64(e.Value) / event.MicrosPerUnit }},
		{name: "units", kind: number, num: func(e *event.Rekeyed) float64 { return float64(e.Units) }},
		{name: "declined", kind: truth, truth: func(e *event.Rekeyed) bool { return e.Declined }},
	}
}

// fieldNamed finds a field.
func fieldNamed(name string) (field, bool) {
	all := fieldTable()
	i := slices.IndexFunc(all, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return all[i], true
}

// Fields names what rules may ask about, in `where` and in `of`.
func Fields() []string {
	var out []string
	for _, f := range fieldTable() {
		out = append(out, f.name)
	}
	return out
}
