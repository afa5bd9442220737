package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"millrace/live"
)

func TestModelsRollbackIsOneCommand(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	t.Cleanup(func() { _ = rdb.Close() }) // only idle connections
	model := live.RecommendationModel{Tenant: "default", Model: "similar-items"}
	command := func(args ...string) (int, string, string) {
		var out, errw strings.Builder
		code := Main(append([]string{"models", "--data", t.TempDir(), "--set", "redis.addr=" + m.Addr()}, args...), &out, &errw)
		return code, out.String(), errw.String()
	}
	if code, _, errw := command("rollback", "similar-items"); code != 1 || !strings.Contains(errw, "remedy") {
		t.Errorf("without a model: %d %s", code, errw)
	}
	for _, version := range []string{"v1", "v2"} {
		v := live.ModelVersion{Version: version, Items: 1, Buckets: 1, Metrics: map[string]float64{"recall_at_20": 0.5}}
		err := live.StoreModel(t.Context(), rdb, model, v, []live.Scored{{Item: "top", Score: 1}}, func(put func(string, []live.Scored) error) error {
			return put("a", []live.Scored{{Item: "of-" + version, Score: 0.9}})
		})
		if err == nil {
			err = live.PublishModel(t.Context(), rdb, model, v, 3, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	code, out, errw := command("show", "similar-items", "--item", "a")
	if code != 0 || !strings.Contains(out, "of-v2") || !strings.Contains(out, "v1") {
		t.Errorf("%d %s %s", code, out, errw)
	}
	if code, out, errw = command("rollback", "similar-items"); code != 0 || !strings.Contains(out, "version v1 is served, v2 was") {
		t.Errorf("%d %s %s", code, out, errw)
	}
	code, out, errw = command("show", "similar-items", "--item", "a", "-o", "json")
	var shown struct {
		Current string        `json:"current"`
		Items   []live.Scored `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 || shown.Current != "v1" || shown.Items[0].Item != "of-v1" {
		t.Errorf("%d %s %s", code, out, errw)
	}
	for _, wrong := range [][]string{{"rollback", "similar-items", "--to", "v9"}, {"rollback", "Wrong"}, {"show"}} {
		if code, out, errw := command(wrong...); code == 0 || out != "" {
			t.Errorf("%v: %d %s %s", wrong, code, out, errw)
		}
	}
}
