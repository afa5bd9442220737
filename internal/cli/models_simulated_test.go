package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"millrace/event"
	"millrace/features/recommend"
	"millrace/internal/simulate"
)

// The simulated shop's visitors like products in sets of four, which a demonstration is to show: a model of its traffic must know better than popularity.
func TestTheSimulatedShopHasStructureThatAModelFinds(t *testing.T) {
	t.Parallel()
	c := recommend.NewCollector(recommend.DefaultParams())
	kinds := map[string]recommend.Kind{event.NameViewItem: recommend.View, event.NameSelectItem: recommend.View, event.NameAddToCart: recommend.Cart, event.NameAddToWishlist: recommend.Cart, event.NamePurchase: recommend.Purchase}
	var mu sync.Mutex
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var all []struct {
			Name     string    `json:"name"`
			Visitor  string    `json:"visitor_id"`
			Occurred time.Time `json:"occurred_at"`
			Items    []struct {
				ID string `json:"item_id"`
			} `json:"items"`
		}
		if err := json.Unmarshal(body, &all); err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range all {
			kind, ok := kinds[e.Name]
			for _, i := range e.Items {
				if !ok {
					continue
				}
				if err := c.Add(e.Visitor, i.ID, kind, e.Occurred.UnixMicro()); err != nil {
					t.Error(err)
				}
			}
		}
		_, _ = fmt.Fprint(w, `{"success":true}`) // the simulator shows what is lost
	}))
	t.Cleanup(gateway.Close)
	o := simulate.DefaultOptions()
	o.To, o.WriteKey, o.Seed, o.Events, o.Shares = gateway.URL, "k", 7, 150_000, simulate.Shares{}
	if _, err := simulate.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	_, m, err := c.Train(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("recall@20 %.4f, of popularity %.4f, coverage %.4f, %d test baskets", m.Recall, m.PopularRecall, m.Coverage, m.TestBaskets)
	if ok, why := m.Better(recommend.DefaultParams()); !ok || m.Coverage < 5*m.PopularCoverage {
		t.Errorf("%s: %+v", why, m)
	}
}
