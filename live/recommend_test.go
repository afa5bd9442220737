package live

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

var recModel = RecommendationModel{"default", "similar"}

// recVersion is the i-th version: every item's neighbours say which version they are of.
func recVersion(i, items int) ModelVersion {
	return ModelVersion{Version: fmt.Sprintf("v%03d", i), InputAt: time.Unix(int64(i), 0).UTC(), TrainedAt: time.Unix(int64(i)+5, 0).UTC(), Items: items, Buckets: Buckets(items), Metrics: map[string]float64{"recall": 0.5}}
}

func storeVersion(ctx context.Context, rdb redis.UniversalClient, v ModelVersion) error {
	return StoreModel(ctx, rdb, recModel, v, []Scored{{"best", 9}, {"next", 8}, {"i1", 7}}, func(put func(string, []Scored) error) error {
		for i := range v.Items {
			if err := put(fmt.Sprintf("i%d", i), []Scored{{v.Version, 0.9}, {fmt.Sprintf("i%d", i+1), 0.5}}); err != nil {
				return err
			}
		}
		return nil
	})
}

func published(t *testing.T, rdb redis.UniversalClient, v ModelVersion, keep int) {
	t.Helper()
	if err := storeVersion(t.Context(), rdb, v); err != nil {
		t.Fatal(err)
	}
	if err := PublishModel(t.Context(), rdb, recModel, v, keep, false); err != nil {
		t.Fatal(err)
	}
}

func served(t *testing.T, rdb redis.UniversalClient) string {
	t.Helper()
	r, err := Recommend(t.Context(), rdb, recModel, []Scored{{"i0", 1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Items) != 1 || r.Items[0].Item != r.Version.Version {
		t.Fatalf("version %s recommends %v", r.Version.Version, r.Items)
	}
	return r.Items[0].Item
}

func TestAModelIsServedOnlyOnceItIsPublished(t *testing.T) {
	rdb := client(t)
	ctx := t.Context()
	if _, err := Recommend(ctx, rdb, recModel, nil, 5); !errors.Is(err, ErrNoModel) {
		t.Errorf("got %v", err)
	}
	v1, v2 := recVersion(1, 300), recVersion(2, 300)
	if err := PublishModel(ctx, rdb, recModel, v1, 3, false); !errors.Is(err, ErrModelIncomplete) {
		t.Errorf("published what was never written: %v", err)
	}
	published(t, rdb, v1, 3)
	if err := storeVersion(ctx, rdb, v2); err != nil {
		t.Fatal(err)
	}
	if got := served(t, rdb); got != "v001" {
		t.Errorf("%s is served before v002 is published", got)
	}
	// A version that was not written to its end is not published.
	if err := rdb.Del(ctx, recModel.key()+":v002:0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := PublishModel(ctx, rdb, recModel, v2, 3, false); !errors.Is(err, ErrModelIncomplete) {
		t.Errorf("got %v", err)
	}
	if got := served(t, rdb); got != "v001" {
		t.Errorf("%s is served", got)
	}
	published(t, rdb, v2, 3)
	published(t, rdb, v2, 3) // again
	if got := served(t, rdb); got != "v002" {
		t.Errorf("%s is served", got)
	}
	if ttl := rdb.TTL(ctx, recModel.key()+":v002:0").Val(); ttl >= 0 {
		t.Errorf("what is served goes in %s", ttl)
	}
}

func TestOnlyNewerInputReplacesAVersionAndRollbackIsOneSwap(t *testing.T) {
	rdb := client(t)
	ctx := t.Context()
	for i := 1; i <= 6; i++ {
		published(t, rdb, recVersion(i, 80), 3)
	}
	_, all, err := ModelVersions(ctx, rdb, recModel)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range all {
		names = append(names, v.Version)
	}
	if diff := cmp.Diff([]string{"v006", "v005", "v004", "v003"}, names); diff != "" {
		t.Error(diff)
	}
	if ttl := rdb.TTL(ctx, recModel.key()+":v002:0").Val(); ttl <= 0 || ttl > retiredTTL {
		t.Errorf("the keys of a retired version go in %s", ttl)
	}
	old := recVersion(5, 80)
	if err := storeVersion(ctx, rdb, old); err != nil {
		t.Fatal(err)
	}
	if err := PublishModel(ctx, rdb, recModel, old, 3, false); !errors.Is(err, ErrSuperseded) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"v005", "v004"} {
		if _, now, err := RollbackModel(ctx, rdb, recModel, ""); err != nil || now.Version != want || served(t, rdb) != want {
			t.Errorf("rolled back to %s: %v", now.Version, err)
		}
	}
	if from, now, err := RollbackModel(ctx, rdb, recModel, "v006"); err != nil || from.Version != "v004" || now.Version != "v006" || served(t, rdb) != "v006" {
		t.Errorf("from %s to %s: %v", from.Version, now.Version, err)
	}
	if _, _, err := RollbackModel(ctx, rdb, recModel, "v001"); !errors.Is(err, ErrNoVersion) {
		t.Errorf("got %v", err)
	}
	if got := served(t, rdb); got != "v006" {
		t.Errorf("%s is served after a rollback that failed", got)
	}
	// The training of a night repeated does not undo a rollback; asked to, it does.
	if _, _, err := RollbackModel(ctx, rdb, recModel, ""); err != nil {
		t.Fatal(err)
	}
	bad := recVersion(6, 80)
	if err := PublishModel(ctx, rdb, recModel, bad, 3, false); !errors.Is(err, ErrWithdrawn) || served(t, rdb) != "v005" {
		t.Errorf("got %v", err)
	}
	if err := PublishModel(ctx, rdb, recModel, bad, 3, true); err != nil || served(t, rdb) != "v006" {
		t.Errorf("got %v", err)
	}
}

func TestReadersNeverSeeHalfAModelWhileTrainingsRace(t *testing.T) {
	rdb := client(t)
	ctx := t.Context()
	published(t, rdb, recVersion(0, 200), 30)
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := 1; i < 12; i++ {
				v := recVersion(2*i+w, 200)
				if err := storeVersion(ctx, rdb, v); err != nil {
					t.Error(err)
				}
				if err := PublishModel(ctx, rdb, recModel, v, 30, false); err != nil && !errors.Is(err, ErrSuperseded) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	last := ""
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got := served(t, rdb) // whole: the answer is of the version that it says
		if got < last {
			t.Fatalf("%s is served after %s", got, last)
		}
		last = got
	}
	if last != "v023" {
		t.Errorf("%s is served at the end", last)
	}
}

func TestRecommendationsOfABasket(t *testing.T) {
	rdb := client(t)
	published(t, rdb, recVersion(1, 50), 1)
	for what, c := range map[string]struct {
		have  []Scored
		n     int
		basis string
		want  []Scored
	}{
		"of two items, without them, then the popular ones": {[]Scored{{"i1", 1}, {"i2", 2}}, 4, "items", []Scored{{"v001", 2.7}, {"i3", 1}, {Item: "best"}, {Item: "next"}}},
		"as many as are asked for":                          {[]Scored{{"i1", 1}}, 1, "items", []Scored{{"v001", 0.9}}},
		"of an item that nobody knows":                      {[]Scored{{"who", 1}}, 2, "popular", []Scored{{Item: "best"}, {Item: "next"}}},
		"of nothing":                                        {nil, 9, "popular", []Scored{{Item: "best"}, {Item: "next"}, {Item: "i1"}}},
		"of a popular one":                                  {[]Scored{{"best", 1}}, 1, "popular", []Scored{{Item: "next"}}},
	} {
		got, err := Recommend(t.Context(), rdb, recModel, c.have, c.n)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Items); diff != "" || got.Basis != c.basis {
			t.Errorf("%s: basis %s\n%s", what, got.Basis, diff)
		}
	}
	if err := StoreModel(t.Context(), rdb, recModel, recVersion(9, 1), nil, func(put func(string, []Scored) error) error { return put("a\tb", nil) }); err == nil {
		t.Error("an item with a control character was stored")
	}
}
