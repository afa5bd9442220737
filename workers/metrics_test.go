package workers

import (
	"regexp"
	"strings"
	"testing"
)

func TestEveryMetricHasANameAUnitAndAMeaning(t *testing.T) {
	t.Parallel()
	all, err := Metrics()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 60 {
		t.Errorf("%d metrics are listed", len(all))
	}
	name := regexp.MustCompile(`^millrace(_[a-z0-9]+)+$`)
	byRole := map[string]int{}
	for _, m := range all {
		if !name.MatchString(m.Name) {
			t.Errorf("%s is not millrace_<area>_<what>_<unit>", m.Name)
		}
		if m.Unit == "" {
			t.Errorf("the %s %s does not say its unit: _seconds, _bytes, _total for counters, else a plural", m.Type, m.Name)
		}
		if len(m.Help) < 10 || !strings.HasSuffix(m.Help, ".") || m.Help[0] < '0' || m.Help[0] > 'Z' {
			t.Errorf("%s says %q: that is no sentence", m.Name, m.Help)
		}
		for _, r := range m.Roles {
			byRole[r]++
		}
	}
	for _, r := range Roles() {
		if byRole[r.Name] < 2 { // millrace_ready, and its own
			t.Errorf("role %s has %d metrics", r.Name, byRole[r.Name])
		}
	}
}

func TestAUnitIsPartOfAName(t *testing.T) {
	for _, c := range []struct{ name, kind, want string }{
		{"millrace_gateway_events_total", "counter", "count"},
		{"millrace_gateway_body_bytes_total", "counter", "bytes"},
		{"millrace_gateway_request_seconds", "histogram", "seconds"},
		{"millrace_sink_newest_record_timestamp_seconds", "gauge", "seconds since 1970"},
		{"millrace_stream_lag_records", "gauge", "count"},
		{"millrace_gateway_events", "counter", ""},    // a counter ends in _total
		{"millrace_gateway_size_total", "gauge", ""},  // and nothing else does
		{"millrace_gateway_latency", "histogram", ""}, // of what?
		{"millrace_gateway_level", "gauge", ""},       // neither a unit nor a count
		{"millrace_gateway_sizes", "histogram", ""},   // a distribution has a unit
		{"millrace_gateway_breaker_state", "gauge", "state"},
	} {
		if got := UnitOf(c.name, c.kind); got != c.want {
			t.Errorf("%s %s: unit %q, want %q", c.kind, c.name, got, c.want)
		}
	}
}

func TestTheLibrarysTextOfAMetricIsRead(t *testing.T) {
	m, err := parseDesc(`Desc{fqName: "a_b", help: "Says \"x\", {y}.", unit: "", constLabels: {sink="redis"}, variableLabels: {topic,table}}`)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "a_b" || m.Help != `Says "x", {y}.` || strings.Join(m.Fixed, ",") != `sink="redis"` || strings.Join(m.Labels, ",") != "topic,table" {
		t.Errorf("%+v", m)
	}
	if _, err := parseDesc("something else"); err == nil {
		t.Error("another text is taken")
	}
}
