package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	fraudrules "millrace/features/rules"
	"millrace/olap"
)

// exposed serves metrics as the stream does.
func exposed(t *testing.T, text *atomic.Value) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		say(w, text.Load().(string))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestTheRulesInForceAreThoseOfTheHighestVersionThatCanBeRead(t *testing.T) {
	t.Parallel()
	var text atomic.Value
	text.Store("")
	s := openAlone(t, func(c *Config, d *Deps) {
		d.Metrics, c.HealthInterval = []string{"stream=" + exposed(t, &text)}, 200*time.Millisecond
	})
	first, err := fraudrules.Default()
	if err != nil {
		t.Fatal(err)
	}
	schema := description(t).Paths.Value("/api/v1/rules").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
	get := func() ruleSets {
		t.Helper()
		status, body := s.get(t, "/api/v1/rules")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		conforms(t, schema, "/api/v1/rules", body)
		return answer[ruleSets](t, s, "/api/v1/rules")
	}
	got := get()
	if got.State != rulesUnknown || !got.Default || got.Version != 1 || got.Hash != first.Hash || len(got.Rules) != len(first.Rules) || got.Refused == nil || len(got.Refused) != 0 || got.Rules[0].WindowSeconds != first.Rules[0].Window.Seconds() {
		t.Errorf("before a set was applied, and while no task says anything: %+v", got)
	}
	second := strings.Replace(string(first.Source()), "version: 1", "version: 2", 1)
	read, err := fraudrules.Parse([]byte(second))
	if err != nil {
		t.Fatal(err)
	}
	for i, set := range []olap.RuleSet{{Version: 2, Hash: read.Hash, Text: second, Events: 77}, {Version: 3, Hash: "x", Text: "no rules", Forced: true}, {Version: 1, Hash: first.Hash, Text: string(first.Source())}} {
		set.AppliedAt = now.Add(time.Duration(i) * time.Minute)
		set.From, set.To = now.Add(-time.Hour), now
		if err := olap.KeepRuleSet(t.Context(), s.conn, set); err != nil {
			t.Fatal(err)
		}
	}
	task := func(stage, partition, version string) string {
		return `millrace_rules_version{stage="` + stage + `",partition="` + partition + `"} ` + version + "\n"
	}
	// Roles are asked every HealthInterval.
	after := func(state string) ruleSets {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			if got := get(); got.State == state || time.Now().After(deadline) {
				return got
			}
		}
	}
	text.Store("# TYPE millrace_rules_version gauge\n" + task("visitor", "1", "2") + task("visitor", "0", "2") + task("entity", "0", "1") + task("entity", "1", "0"))
	got = after(rulesChanging)
	if got.State != rulesChanging || got.Default || got.Version != 2 || got.Hash != read.Hash || got.Rejected != 0 {
		t.Errorf("while a task still has the set before: %+v", got)
	}
	if d := cmp.Diff([]rulesTask{{"entity", 0, 1}, {"visitor", 0, 2}, {"visitor", 1, 2}}, got.Tasks); d != "" {
		t.Error(d)
	}
	var applied []int32
	for _, x := range got.Applied {
		applied = append(applied, x.Version)
	}
	if d := cmp.Diff([]int32{1, 3, 2}, applied); d != "" || !got.Applied[1].Forced || got.Applied[2].ReplayEvents != 77 {
		t.Errorf("%s %+v", d, got.Applied)
	}
	text.Store("# TYPE millrace_rules_version gauge\n" + task("visitor", "0", "2") + "# TYPE millrace_rules_rejected_total counter\nmillrace_rules_rejected_total 1\n" +
		"# TYPE millrace_rules_refused_version gauge\n" + `millrace_rules_refused_version{reason="MR-RUL-001: line 3: \"threshold\" is 0"} 4` + "\n")
	if got = after(rulesInForce); got.State != rulesInForce || got.Version != 2 || got.Rejected != 1 {
		t.Errorf("with one set refused: %+v", got)
	}
	if d := cmp.Diff([]refused{{4, `MR-RUL-001: line 3: "threshold" is 0`}}, got.Refused); d != "" {
		t.Error(d)
	}
	if status, body := s.get(t, "/api/v1/rules?x=1"); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, body)
	}
}
