package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/olap"
	"millrace/streaming/hot"
	"millrace/workers"
)

const streamMetricsText = `
# TYPE millrace_stream_lag_records gauge
millrace_stream_lag_records{topology="hot",stage="visitor",partition="10",topic="a"} 3
millrace_stream_lag_records{topology="hot",stage="visitor",partition="2",topic="a"} 40
millrace_stream_lag_records{topology="hot",stage="visitor",partition="2",topic="b"} 2
# TYPE millrace_stream_watermark_delay_seconds gauge
millrace_stream_watermark_delay_seconds{topology="hot",stage="visitor",partition="2"} 2.5
# TYPE millrace_stream_state_keys gauge
millrace_stream_state_keys{topology="hot",stage="visitor",partition="2",store="ledger"} 1000
millrace_stream_state_keys{topology="hot",stage="visitor",partition="2",store="kpi"} 24
# TYPE millrace_stream_state_bytes gauge
millrace_stream_state_bytes{topology="hot",stage="visitor",partition="2"} 2097152
# TYPE millrace_stream_state_disk_keys gauge
millrace_stream_state_disk_keys{topology="hot",stage="visitor",partition="2"} 7
# TYPE millrace_stream_task_commit_seconds gauge
millrace_stream_task_commit_seconds{topology="hot",stage="visitor",partition="2"} 0.0521
# TYPE millrace_stream_hot_key_share gauge
millrace_stream_hot_key_share{topology="hot",stage="visitor",partition="2"} 0.31
# TYPE millrace_stream_restored_share gauge
millrace_stream_restored_share{topology="hot",stage="visitor",partition="11"} 0.42
# TYPE millrace_stream_exactly_once_workers gauge
millrace_stream_exactly_once_workers{topology="hot",stage="visitor"} 1
millrace_stream_exactly_once_workers{topology="hot",stage="entity"} 0
# TYPE millrace_rules_version gauge
millrace_rules_version{stage="visitor",partition="2"} 3
millrace_rules_version{stage="visitor",partition="10"} 2
millrace_rules_version{stage="entity",partition="2"} 3
# TYPE millrace_rules_offered_version gauge
millrace_rules_offered_version 3
# TYPE millrace_rules_model_state gauge
millrace_rules_model_state{model="fraud",version="0a1b2c3d4e5f"} 1
# TYPE millrace_rules_refused_version gauge
millrace_rules_refused_version{reason="MR-MOD-001: cut off"} 4
# TYPE millrace_gateway_requests_total counter
millrace_gateway_requests_total 5
`

func TestASetThatTheRolesRefuseIsNotShownAsInForce(t *testing.T) {
	t.Parallel()
	newest := &hot.RulesRecord{Version: 4, Hash: "four"}
	past := []olap.RuleSet{{Version: 4, Hash: "four"}, {Version: 3, Hash: "three"}}
	for _, c := range []struct {
		name string
		said rulesStatus
		want string
	}{
		{"nobody refuses", rulesStatus{Offered: 4}, "four"},
		{"an older refusal", rulesStatus{Offered: 4, Refused: &refusedRules{Version: 2}}, "four"},
		{"this one is refused", rulesStatus{Offered: 3, Refused: &refusedRules{Version: 4}}, "three"},
		{"and nothing is known of the one before", rulesStatus{Offered: 9, Refused: &refusedRules{Version: 4}}, ""},
	} {
		if got := inForceOf(newest, c.said, past); got.Hash != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := inForceOf(newest, rulesStatus{Offered: 1, Refused: &refusedRules{Version: 4}}, nil); got.Version != 1 || got.Hash == "" {
		t.Errorf("the default: %+v", got)
	}
}

func TestTheTableOfTasksIsWhatTheStreamRoleSays(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(streamMetricsText)) }))
	t.Cleanup(srv.Close)
	// the first role does not answer
	all := streamOf(t.Context(), workers.Endpoints{Metrics: []string{"http://127.0.0.1:1/metrics", srv.URL}})
	got, rules := all.Tasks, all.Rules
	delay, two, three := 2.5, 2, 3
	want := []taskStatus{
		{Topology: "hot", Stage: "visitor", Partition: 2, Lag: 42, WatermarkDelay: &delay, StateKeys: 1024, StateBytes: 2 << 20, DiskKeys: 7, Commit: 0.0521, HotKeyShare: 0.31, RulesVersion: &three, RestoredShare: 1},
		{Topology: "hot", Stage: "visitor", Partition: 10, Lag: 3, RulesVersion: &two, RestoredShare: 1},
		{Topology: "hot", Stage: "visitor", Partition: 11, Restoring: true, RestoredShare: 0.42},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("tasks (-want +got):\n%s", diff)
	}
	rows := taskRows(got)
	if diff := cmp.Diff([]string{"hot.visitor/2", "42", "2.5s", "1024", "2.0 MiB", "7", "52.1ms", "31 %", "3", ""}, rows[1]); diff != "" {
		t.Errorf("first row (-want +got):\n%s", diff)
	}
	if rows[3][9] != "42 %" || rows[3][8] != "-" || rows[3][2] != "-" {
		t.Errorf("a task being restored: %q", rows[3])
	}
	if diff := cmp.Diff(rulesStatus{Offered: 3, Model: "fraud 0a1b2c3d4e5f", Refused: &refusedRules{4, "MR-MOD-001: cut off"}}, rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if got := rules.line(); got != "rules: version 3, model fraud 0a1b2c3d4e5f; version 4 was refused: MR-MOD-001: cut off" {
		t.Errorf("%q", got)
	}
}

func TestTheStatusShowsTheGuaranteeOfEachTopology(t *testing.T) {
	t.Parallel()
	role := func(text string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	worker := func(exactlyOnce string) string {
		return "# TYPE millrace_stream_exactly_once_workers gauge\nmillrace_stream_exactly_once_workers{topology=\"hot\",stage=\"visitor\"} " + exactlyOnce + "\n"
	}
	for _, c := range []struct {
		name string
		said []string
		want []topologyStatus
		json string // of the topologies
		rows [][]string
	}{
		{
			"stages may differ",
			[]string{streamMetricsText},
			[]topologyStatus{{"hot", "entity", "at_least_once"}, {"hot", "visitor", "exactly_once"}},
			`[{"topology":"hot","stage":"entity","guarantee":"at_least_once"},{"topology":"hot","stage":"visitor","guarantee":"exactly_once"}]`,
			[][]string{{"TOPOLOGY", "GUARANTEE"}, {"hot.entity", "at_least_once"}, {"hot.visitor", "exactly_once"}},
		},
		{
			"workers that agree",
			[]string{worker("1"), worker("1")},
			[]topologyStatus{{"hot", "visitor", "exactly_once"}},
			`[{"topology":"hot","stage":"visitor","guarantee":"exactly_once"}]`,
			[][]string{{"TOPOLOGY", "GUARANTEE"}, {"hot.visitor", "exactly_once"}},
		},
		{
			"workers that do not",
			[]string{worker("1"), worker("0"), worker("1")},
			[]topologyStatus{{"hot", "visitor", "mixed"}},
			`[{"topology":"hot","stage":"visitor","guarantee":"mixed"}]`,
			[][]string{{"TOPOLOGY", "GUARANTEE"}, {"hot.visitor", "mixed"}},
		},
		{"no stream role", []string{""}, []topologyStatus{}, `[]`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var e workers.Endpoints
			for _, text := range c.said {
				e.Metrics = append(e.Metrics, role(text))
			}
			got := streamOf(t.Context(), e)
			if d := cmp.Diff(c.want, got.Topologies); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			var out struct {
				Topologies json.RawMessage `json:"topologies"`
			}
			b, err := json.Marshal(got)
			if err == nil {
				err = json.Unmarshal(b, &out)
			}
			if err != nil || string(out.Topologies) != c.json {
				t.Errorf("as JSON %s, %v", b, err)
			}
			var printed strings.Builder
			if err := (&app{out: &printed}).showStream(got); err != nil {
				t.Fatal(err)
			}
			for _, row := range c.rows {
				if !slices.ContainsFunc(strings.Split(printed.String(), "\n"), func(line string) bool { return slices.Equal(strings.Fields(line), row) }) {
					t.Errorf("%q is not in what is shown:\n%s", row, printed.String())
				}
			}
			if len(c.rows) == 0 && printed.Len() > 0 {
				t.Errorf("shown: %q", printed.String())
			}
		})
	}
}
