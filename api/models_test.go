package api

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModelsAreListedWithWhatWasMeasured(t *testing.T) {
	t.Parallel()
	s := open(t)
	at := now.UTC().Format("2006-01-02 15:04:05")
	add := func(model, version, state string, recall float64, minutes, row int) {
		t.Helper()
		err := s.conn.Exec(t.Context(), fmt.Sprintf(`INSERT INTO models (model, tenant, model_version, state, reason, input_at, trained_at, noted_at, snapshots, metrics, rows, items, keys, version)
			VALUES ('%s', '%s', '%s', '%s', 'why', '%s', toDateTime64('%s', 6, 'UTC') + INTERVAL %d MINUTE, '%s', map('events_page', 5), map('recall_at_20', %g), 100, 7, 8, %d)`, model, s.tenant, version, state, at, at, minutes, at, recall, row))
		if err != nil {
			t.Fatal(err)
		}
	}
	add("similar-items", "v1", "trained", 0.2, 0, 1)
	add("similar-items", "v1", "published", 0.2, 0, 2)
	add("similar-items", "v2", "refused", 0.1, 5, 1)
	add("other", "v9", "published", 0.9, 9, 1)
	path := "/api/v1/models"
	_, body := s.get(t, path)
	conforms(t, description(t).Paths.Value(path).Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value, path, body)
	got := answer[models](t, s, path)
	var have []string
	for _, v := range got.Versions {
		have = append(have, fmt.Sprint(v.Version, v.State, v.Metrics["recall_at_20"], v.Items))
	}
	if d := cmp.Diff([]string{"v2refused0.1 7", "v1published0.2 7"}, have); d != "" || got.Model != "similar-items" {
		t.Error(d)
	}
	if got := answer[models](t, s, path+"?model=other&limit=1"); len(got.Versions) != 1 || got.Versions[0].Version != "v9" {
		t.Errorf("%+v", got)
	}
	if got := answer[models](t, s, path+"?tenant=nobody"); len(got.Versions) != 0 {
		t.Errorf("another tenant's: %+v", got)
	}
	for _, q := range []string{"?model=Ä", "?limit=0", "?limit=201", "?x=1"} {
		if status, body := s.get(t, path+q); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", q, status, body)
		}
	}
}
