package hot

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/event"
	scoring "millrace/features/model"
	"millrace/features/rules"
)

// lightGBM is a model with as many features as rules have, made by LightGBM itself.
const lightGBM = "../../features/model/testdata/lgb_binary.txt"

func copyModel(t *testing.T, from, to string, keep float64) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b[:int(keep*float64(len(b)))], 0o600); err != nil {
		t.Fatal(err)
	}
}

// modelRules is a set with one rule of kind model; version "" names none.
func modelRules(t *testing.T, version int, named string) []byte {
	t.Helper()
	text := fmt.Sprintf("version: %d\n", version)
	if named != "" {
		text += fmt.Sprintf("model: %q\n", named)
	}
	text += "rules:\n- {name: scored, kind: model, entity: visitor, on: [purchase], window: 1h, threshold: 0.001, severity: warn, score: 0.4, reason: \"a score of {n}\"}\n"
	set, err := rules.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(RulesRecord{Version: version, Hash: set.Hash, YAML: text})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func modelSource(t *testing.T, cfg ModelConfig) (*Rules, *Models, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	models, err := NewModels(cfg, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	source, err := NewRules(reg, models, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return source, models, reg
}

// refusal is what the metric says of a set that was refused.
func refusal(t *testing.T, reg *prometheus.Registry) (version float64, reason string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "millrace_rules_refused_version" {
			for _, m := range f.GetMetric() {
				return m.GetGauge().GetValue(), m.GetLabel()[0].GetValue()
			}
		}
	}
	return 0, ""
}

func buy(r *rig, n int) {
	for i := range n {
		r.arrive(event.Event{ID: fmt.Sprint("o", i), Name: event.NamePurchase, VisitorID: "v", Currency: "EUR", Value: micros(20 + 300*int64(i)), OccurredAt: t0.Add(time.Duration(i) * time.Second).UnixMicro()})
	}
	r.feed()
	r.commit()
}

// said is what an alert says of a model.
func said(t *testing.T, a event.Alert) (d details) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Details), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnAlertNamesTheModelItsVersionAndTheScore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fraud-7.txt")
	copyModel(t, lightGBM, path, 1)
	source, _, _ := modelSource(t, ModelConfig{Path: path, Server: scoring.DefaultServerConfig()})
	source.Offer([]byte(RulesKey), modelRules(t, 2, ""))
	if _, problem := source.Status(); problem != "" {
		t.Fatal(problem)
	}
	var fast []event.Alert
	r := watch(t, source, &fast)
	buy(r, 1)
	r.pass()
	m, err := scoring.Open(lightGBM)
	if err != nil {
		t.Fatal(err)
	}
	at := t0
	want, err := m.Score([]float64{math.Log1p(20), 1, 0, 0, 0, float64(at.UTC().Hour()), 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	got := r.alerts()
	if len(got) != 1 || len(fast) != 1 || fast[0].AlertID != got[0].AlertID || got[0].Rule != "scored" || got[0].RuleVersion != 2 {
		t.Fatalf("alerts %+v, on arrival %+v", got, fast)
	}
	d := said(t, got[0])
	if d.Model != "fraud-7" || d.ModelVersion != m.Version[:12] || d.ModelScore != math.Round(1000*want)/1000 {
		t.Errorf("%+v, want the score %g of version %s", d, want, m.Version[:12])
	}
	if d := said(t, fast[0]); d.Model != "fraud-7" {
		t.Errorf("on arrival %+v", d)
	}
}

func TestAModelFileThatIsCutOffStaysOutAndTheOldOneInForce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fraud.txt")
	copyModel(t, lightGBM, path, 1)
	source, _, reg := modelSource(t, ModelConfig{Path: path, Server: scoring.DefaultServerConfig()})
	source.Offer([]byte(RulesKey), modelRules(t, 2, ""))
	first := source.current.Load().Scorer()
	copyModel(t, lightGBM, path, 0.6)
	source.Offer([]byte(RulesKey), modelRules(t, 3, ""))
	version, problem := source.Status()
	if version != 2 || !strings.Contains(problem, "MR-MOD-001") || source.current.Load().Scorer() != first {
		t.Fatalf("version %d in force, %q", version, problem)
	}
	if v, reason := refusal(t, reg); v != 3 || !strings.Contains(reason, "MR-MOD-001") {
		t.Errorf("the metric says %v %q", v, reason)
	}
	var fast []event.Alert
	r := watch(t, source, &fast)
	buy(r, 1)
	r.pass()
	if got := r.alerts(); len(got) != 1 || got[0].RuleVersion != 2 || said(t, got[0]).ModelVersion != first.Version {
		t.Fatalf("with the old model: %+v", got)
	}

	t.Log("the file is whole again")
	copyModel(t, lightGBM, path, 1)
	source.Offer([]byte(RulesKey), modelRules(t, 4, first.Version))
	if version, problem := source.Status(); version != 4 || problem != "" {
		t.Errorf("version %d, %q", version, problem)
	}
	if v, reason := refusal(t, reg); reason != "" {
		t.Errorf("the metric still says %v %q", v, reason)
	}
}

func TestRulesGetTheModelThatTheyName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyModel(t, lightGBM, filepath.Join(dir, "a.txt"), 1)
	copyModel(t, "../../features/model/testdata/lgb_more_crossent.txt", filepath.Join(dir, "b.txt"), 1)
	copyModel(t, "../../features/model/testdata/lgb_reg.txt", filepath.Join(dir, "named.txt"), 1)
	version := func(path string) string {
		sum, err := digest(path)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	a, b := version(filepath.Join(dir, "a.txt")), version(filepath.Join(dir, "b.txt"))
	other := strings.NewReplacer("Column_0", "spent", "feature_infos=", "feature_infos=")
	text, err := os.ReadFile(lightGBM)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "named.txt"), []byte(other.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, version, model, id string
	}{
		{"one of a folder", dir, a[:8], "a", ""},
		{"the other", dir, strings.ToUpper(b), "b", ""},
		{"one that is not there", dir, "0123456789abcdef", "", "MR-MOD-007"},
		{"too few digits", dir, a[:7], "", "MR-MOD-007"},
		{"a folder and no name", dir, "", "", "MR-MOD-007"},
		{"a file of another version", filepath.Join(dir, "a.txt"), b, "", "MR-MOD-007"},
		{"a file that is not there", filepath.Join(dir, "c.txt"), "", "", "MR-MOD-007"},
		{"a model of other features", filepath.Join(dir, "named.txt"), "", "", "MR-MOD-004"},
		{"no model configured", "", a, "", "MR-MOD-007"},
	} {
		source, _, _ := modelSource(t, ModelConfig{Path: c.path, Server: scoring.DefaultServerConfig()})
		source.Offer([]byte(RulesKey), modelRules(t, 2, c.version))
		v, problem := source.Status()
		by := source.current.Load().Scorer()
		switch {
		case c.id != "" && (v != 1 || !strings.Contains(problem, c.id)):
			t.Errorf("%s: version %d, %q", c.name, v, problem)
		case c.id == "" && (v != 2 || by == nil || by.Model != c.model):
			t.Errorf("%s: version %d, %q, model %+v", c.name, v, problem, by)
		}
	}
}

// TestATaskGoesOnWithTheModelOfItsRulesAfterACrash: the folder still has the file that the recorded rules name.
func TestATaskGoesOnWithTheModelOfItsRulesAfterACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyModel(t, lightGBM, filepath.Join(dir, "a.txt"), 1)
	sum, err := digest(lightGBM)
	if err != nil {
		t.Fatal(err)
	}
	source, _, _ := modelSource(t, ModelConfig{Path: dir, Server: scoring.DefaultServerConfig()})
	source.Offer([]byte(RulesKey), modelRules(t, 2, sum))
	var fast []event.Alert
	r := watch(t, source, &fast)
	buy(r, 1)
	r.ok(r.h.Crash())
	buy(r, 2)
	r.pass()
	got := r.alerts()
	if len(got) == 0 {
		t.Fatal("no alert")
	}
	for _, a := range got {
		if d := said(t, a); d.ModelVersion != sum[:12] {
			t.Errorf("%+v", d)
		}
	}
}

func TestATaskWhoseModelIsGoneAtTheStartHasTheOtherRulesAndSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyModel(t, lightGBM, filepath.Join(dir, "a.txt"), 1)
	sum, err := digest(lightGBM)
	if err != nil {
		t.Fatal(err)
	}
	source, models, reg := modelSource(t, ModelConfig{Path: dir, Server: scoring.DefaultServerConfig()})
	source.Offer([]byte(RulesKey), modelRules(t, 2, sum))
	var fast []event.Alert
	r := watch(t, source, &fast)
	buy(r, 1)
	r.settle()
	if err := os.Remove(filepath.Join(dir, "a.txt")); err != nil {
		t.Fatal(err)
	}
	models.mu.Lock()
	models.have = nil // another process begins with the default rules, and is refused those of the control topic
	models.mu.Unlock()
	set, err := rules.Default()
	if err != nil {
		t.Fatal(err)
	}
	source.set(set)
	r.ok(r.h.Crash())
	if _, reason := refusal(t, reg); !strings.Contains(reason, "MR-MOD-007") || !strings.Contains(reason, "in force in task") {
		t.Errorf("the metric says %q", reason)
	}
	fr := r.h.Operator().(*operator).jobs.owners[ownerFraud].(*fraud)
	if fr.rules.set.Version != 2 || fr.rules.set.Scorer() != nil {
		t.Errorf("version %d with %+v", fr.rules.set.Version, fr.rules.set.Scorer())
	}
}

// TestAModelServerNeverHoldsTheStreamUp: one that does not answer costs nothing but its rules; one that does has its say when the watermark has passed the event.
func TestAModelServerNeverHoldsTheStreamUp(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	hangs.Store(true)
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hangs.Load() {
			<-release
		}
		_, _ = fmt.Fprint(w, `{"predictions": [0.9]}`)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(release) })
	cfg := DefaultModelConfig()
	cfg.Server.URL, cfg.Server.Model, cfg.Server.Version, cfg.Server.Timeout = srv.URL, "fraud", "3", 2*time.Second
	source, models, _ := modelSource(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = models.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	source.Offer([]byte(RulesKey), modelRules(t, 2, "4"))
	if v, problem := source.Status(); v != 1 || !strings.Contains(problem, "MR-MOD-007") {
		t.Fatalf("version %d, %q", v, problem)
	}
	source.Offer([]byte(RulesKey), modelRules(t, 2, "3"))
	run := func() (fast, got []event.Alert) {
		r := watch(t, source, &fast)
		started := time.Now()
		buy(r, 1)
		if took := time.Since(started); took > time.Second {
			t.Errorf("the stream waited %s", took)
		}
		for deadline := time.Now().Add(20 * time.Second); !hangs.Load() && time.Now().Before(deadline); {
			models.remote.mu.Lock()
			waiting := 0
			for _, v := range models.remote.now {
				if math.IsNaN(v) {
					waiting++
				}
			}
			models.remote.mu.Unlock()
			if waiting == 0 {
				break
			}
			<-time.After(5 * time.Millisecond)
		}
		r.pass()
		return fast, r.alerts()
	}
	if fast, got := run(); len(fast)+len(got) != 0 {
		t.Errorf("a server that hangs: %+v, on arrival %+v", got, fast)
	}
	hangs.Store(false)
	models.remote.mu.Lock()
	clear(models.remote.now) // as if the event were another
	models.remote.mu.Unlock()
	fast, got := run()
	// An answer that is there before the event has been looked at in full makes it an alert on arrival too: the same one.
	if len(got) != 1 || len(fast) > 1 || len(fast) == 1 && fast[0].AlertID != got[0].AlertID {
		t.Fatalf("a server that answers: %+v, on arrival %+v", got, fast)
	}
	if d := said(t, got[0]); d.Model != "fraud" || d.ModelVersion != "3" || d.ModelScore != 0.9 {
		t.Errorf("%+v", d)
	}
}

func TestWhatIsKnownOfAModelServersScoresIsBounded(t *testing.T) {
	t.Parallel()
	cfg := scoring.DefaultServerConfig()
	cfg.URL, cfg.Model = "http://127.0.0.1:1", "m"
	r, err := newRemoteModel(cfg, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * remoteKnown {
		r.score([]float64{float64(i)})
		r.mu.Lock()
		r.put(uint64(i), 0.5)
		r.mu.Unlock()
	}
	if len(r.now) > remoteKnown || len(r.old) > remoteKnown || len(r.ask) > remoteQueue {
		t.Errorf("%d and %d scores, %d questions", len(r.now), len(r.old), len(r.ask))
	}
}
