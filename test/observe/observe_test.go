package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/streaming"
	"millrace/workers"
)

const root = "../.."

func load(t *testing.T) (assets, map[string]workers.Metric) {
	t.Helper()
	a, err := readAssets(root)
	if err != nil {
		t.Fatal(err)
	}
	all, err := workers.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]workers.Metric{}
	for _, m := range all {
		known[m.Name] = m
		if m.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				x := m
				x.Labels = append(slices.Clone(m.Labels), "le")
				known[m.Name+suffix] = x
			}
			delete(known, m.Name) // has no series of its own
		}
	}
	return a, known
}

// check says what is wrong with the metrics of an expression.
func check(expr string, known map[string]workers.Metric, recorded map[string]bool) []string {
	var wrong []string
	found := uses(expr)
	if len(found) == 0 {
		wrong = append(wrong, "no metric is named")
	}
	for _, u := range found {
		if theirs.MatchString(u.name) {
			continue
		}
		if strings.HasPrefix(u.name, "millrace:") {
			if !recorded[u.name] {
				wrong = append(wrong, u.name+" is recorded by no rule")
			}
			continue
		}
		m, ok := known[u.name]
		if !ok {
			wrong = append(wrong, u.name+" is not in the catalogue of metrics")
			continue
		}
		have := append([]string{"instance", "job"}, m.Labels...)
		for _, f := range m.Fixed {
			name, _, _ := strings.Cut(f, "=")
			have = append(have, name)
		}
		for _, l := range u.labels {
			if !slices.Contains(have, l) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", u.name, l))
			}
		}
	}
	return wrong
}

func TestDashboardsAndRulesNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	a, known := load(t)
	recorded := map[string]bool{}
	for _, r := range a.rules {
		if r.Record != "" {
			recorded[r.Record] = true
		}
	}
	for where, expr := range a.exprs() {
		for _, w := range check(expr, known, recorded) {
			t.Errorf("%s: %s in %s", where, w, expr)
		}
	}
	for _, r := range a.rules {
		for _, w := range check(r.Expr, known, recorded) {
			t.Errorf("rule %s%s: %s in %s", r.Record, r.Alert, w, r.Expr)
		}
	}
	for _, c := range []struct{ expr, want string }{
		{"sum(rate(millrace_gateway_eventz_total[1m]))", "millrace_gateway_eventz_total is not in the catalogue of metrics"},
		{`millrace_gateway_events_total{catgory="page"}`, "millrace_gateway_events_total has no label catgory"},
		{"millrace_gateway_request_seconds", "millrace_gateway_request_seconds is not in the catalogue of metrics"},
		{"millrace:nothing:rate1m > 1", "millrace:nothing:rate1m is recorded by no rule"},
		{"vector(1)", "no metric is named"},
		{`sum by (le) (rate(millrace_gateway_request_seconds_bucket{instance=~"a{1}"}[5m])) > up`, ""},
	} {
		if got := strings.Join(check(c.expr, known, recorded), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.expr, got, c.want)
		}
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	t.Parallel()
	a, _ := load(t)
	page, err := os.ReadFile(filepath.Join(root, "docs/operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile(filepath.Join(root, "deploy/observability/rules/tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range a.rules {
		if r.Alert == "" {
			continue
		}
		if names[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		names[r.Alert] = true
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		for _, key := range []string{"summary", "remedy", "runbook"} {
			if len(r.Annotations[key]) < 10 {
				t.Errorf("%s has no %s", r.Alert, key)
			}
		}
		file, anchor, _ := strings.Cut(r.Annotations["runbook"], "#")
		if file != "docs/operate.md" || !strings.Contains(string(page), `<a id="`+anchor+`"></a>`+r.Alert+" | "+r.Labels["severity"]+" |") {
			t.Errorf("%s links to %s, where it is not explained with its severity", r.Alert, r.Annotations["runbook"])
		}
		if !strings.Contains(string(page), "| "+r.Annotations["remedy"]+" |") {
			t.Errorf("docs/operate.md does not say of %s what the alert says: %s", r.Alert, r.Annotations["remedy"])
		}
		fires := regexp.MustCompile(`alertname: ` + r.Alert + `\n\s+exp_alerts:\n\s+- exp_labels`)
		silent := regexp.MustCompile(`eval_time: 30m, alertname: ` + r.Alert + `\}|<<: \*none, alertname: ` + r.Alert + `\}`)
		if !fires.Match(tested) || !silent.Match(tested) {
			t.Errorf("rules/tests.yml does not make %s fire, or does not show it silent on a healthy platform", r.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`<a id="[a-z]+"></a>([A-Za-z]+) \|`).FindAllStringSubmatch(string(page), -1) {
		if !names[m[1]] {
			t.Errorf("docs/operate.md explains the alert %s, which no rule has", m[1])
		}
	}
}

func TestDashboardsAreWhole(t *testing.T) {
	t.Parallel()
	a, _ := load(t)
	if len(a.dashboards) == 0 {
		t.Fatal("there is no dashboard")
	}
	for file, d := range a.dashboards {
		if d.UID == "" || d.Title == "" || d.Refresh == "" {
			t.Errorf("%s has no uid, title or refresh", file)
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.ID == 0 || p.Title == "" {
				t.Errorf("%s: panel %q has id %d, which is another's or none", file, p.Title, p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: panel %q lies over %q, or beyond the edge", file, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: panel %q asks nothing", file, p.Title)
			}
			for _, q := range p.Targets {
				if q.Expr == "" || q.RefID == "" || q.Datasource.UID != "${datasource}" {
					t.Errorf("%s: panel %q: a query without expression, refId or the data source of the page", file, p.Title)
				}
			}
		}
	}
}

func TestMetricsOfAnExpressionAreFound(t *testing.T) {
	got := uses(`1 - sum by (code) (rate(millrace_a_total{code=~"5..|=x{",job="m"}[5m])) / up{job="m"} > millrace:b:ratio`)
	want := []use{{"millrace_a_total", []string{"code", "job"}}, {"up", []string{"job"}}, {"millrace:b:ratio", nil}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(use{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestTheAlertOfAHotKeyIsRaisedFromWhereAWorkerTellsOfIt: both are below 30 %, so that a visitor that is as much of a partition is told of.
func TestTheAlertOfAHotKeyIsRaisedFromWhereAWorkerTellsOfIt(t *testing.T) {
	t.Parallel()
	a, _ := load(t)
	i := slices.IndexFunc(a.rules, func(r rule) bool { return r.Alert == "HotKey" })
	if i < 0 {
		t.Fatal("there is no such alert")
	}
	want := fmt.Sprintf("(millrace_stream_hot_key_share) > %g", streaming.HotKeyShare)
	if !strings.HasSuffix(a.rules[i].Expr, want) || streaming.HotKeyShare >= 0.3 {
		t.Errorf("%s, want it to end with %s, below 0.3", a.rules[i].Expr, want)
	}
}
