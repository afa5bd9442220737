package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/event"
	"millrace/live"
)

// recommends publishes a model whose items know each other, and gives its version.
func (s *shop) recommends(t *testing.T, items map[string][]live.Scored, popular ...live.Scored) string {
	t.Helper()
	m := live.RecommendationModel{Tenant: s.tenant, Model: "similar-items"}
	v := live.ModelVersion{Version: "v1", InputAt: now.Add(-time.Hour), TrainedAt: now, Items: len(items), Buckets: live.Buckets(len(items))}
	err := live.StoreModel(t.Context(), s.redis, m, v, popular, func(put func(string, []live.Scored) error) error {
		for item, ns := range items {
			if err := put(item, ns); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = live.PublishModel(t.Context(), s.redis, m, v, 1, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v.Version
}

func TestRecommendationsAreThoseOfItemsOfVisitorsAndOfEverybody(t *testing.T) {
	t.Parallel()
	s := open(t)
	if status, body := s.get(t, "/api/v1/recommendations?item=a"); status != http.StatusNotFound || !strings.Contains(string(body), "MR-TRN-001") {
		t.Errorf("before there is a model: %d %s", status, body)
	}
	s.recommends(t, map[string][]live.Scored{"a": {{Item: "b", Score: 0.5}, {Item: "c", Score: 0.25}}, "z": {{Item: "c", Score: 0.5}}}, live.Scored{Item: "top", Score: 9}, live.Scored{Item: "a", Score: 8})
	price := int64(1_000_000)
	view := event.Event{
		ID: "1", Tenant: s.tenant, Name: event.NameViewItem, VisitorID: "v1", OccurredAt: now.Add(-time.Hour).UnixMicro(), ReceivedAt: now.UnixMicro(), Source: "web", Items: []event.Item{{ItemID: "a", Quantity: 1, Price: &price}},
	}
	view.IngestedAt = now.UnixMicro()
	bought := view
	bought.ID, bought.Name, bought.Items, bought.OrderRank = "2", event.NamePurchase, []event.Item{{ItemID: "z", Quantity: 1, Price: &price}}, 1
	s.insertEvents(t, []event.Event{view, bought})

	doc := description(t).Paths.Value("/api/v1/recommendations").Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
	for path, want := range map[string]struct {
		basis string
		known int
		items []string
	}{
		"?item=a&limit=3":     {"items", 1, []string{"b", "c", "top"}},
		"?item=a&limit=1":     {"items", 1, []string{"b"}},
		"?item=who":           {"popular", 1, []string{"top", "a"}},
		"":                    {"popular", 0, []string{"top", "a"}},
		"?visitor=v1":         {"items", 2, []string{"c", "b", "top"}}, // the purchase counts most
		"?visitor=v2":         {"popular", 0, []string{"top", "a"}},
		"?visitor=v1%27%20--": {"popular", 0, []string{"top", "a"}},
	} {
		path = "/api/v1/recommendations" + path
		status, body := s.get(t, path)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
			continue
		}
		conforms(t, doc, path, body)
		got := answer[recommendations](t, s, path)
		var items []string
		for _, i := range got.Items {
			items = append(items, i.Item)
		}
		if diff := cmp.Diff(want.items, items); diff != "" || got.Basis != want.basis || got.Known != want.known || got.Version != "v1" {
			t.Errorf("%s: basis %s, %d known, version %s\n%s", path, got.Basis, got.Known, got.Version, diff)
		}
	}
	for _, path := range []string{"?item=a&visitor=v", "?model=Ä", "?limit=0", "?limit=101", "?x=1", "?item=" + strings.Repeat("x", 129)} {
		if status, body := s.get(t, "/api/v1/recommendations"+path); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := s.get(t, "/api/v1/recommendations?tenant=nobody"); status != http.StatusNotFound {
		t.Errorf("another tenant's: %d", status)
	}
}
