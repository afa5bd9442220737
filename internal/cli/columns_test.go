package cli

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/fault"
)

func controlClient(t *testing.T, cluster *kfake.Cluster) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestColumnsArePromotedOnceAndTwoAtATimeGetDifferentIDs(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, event.TopicControl))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl := controlClient(t, cluster)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	gift := schema.Promotion{Category: "purchase", Name: "gift", Type: "int"}

	dry, err := promote(t.Context(), cl, gift, now, true)
	if err != nil || dry.ID != schema.FirstPromotedID || !dry.Since.Equal(now.Add(sinceAfter)) {
		t.Errorf("%+v %v", dry, err)
	}
	if ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), event.TopicControl); err != nil || ends[event.TopicControl][0].Offset != 0 {
		t.Errorf("a dry run wrote: %v %v", ends, err)
	}
	got, err := promote(t.Context(), cl, gift, now, false)
	if err != nil || got != dry {
		t.Errorf("%+v %v", got, err)
	}
	for what, p := range map[string]schema.Promotion{
		"the same again":     gift,
		"a narrower type":    {Category: "purchase", Name: "gift", Type: "bool"},
		"another property":   {Category: "purchase", Name: "gift", Type: "long", Property: "x"},
		"a reserved name":    {Category: "purchase", Name: "order", Type: "int"},
		"a column there is":  {Category: "purchase", Name: "tax", Type: "int"},
		"no such category":   {Category: "orders", Name: "x", Type: "int"},
		"a name in capitals": {Category: "purchase", Name: "X", Type: "int"},
	} {
		_, err := promote(t.Context(), cl, p, now, false)
		if id, _ := fault.IDOf(err); id != "MR-EVT-010" {
			t.Errorf("%s: %v", what, err)
		}
	}
	wide := gift
	wide.Type = "long"
	if got, err := promote(t.Context(), cl, wide, now.Add(time.Hour), false); err != nil || got.ID != dry.ID || !got.Since.Equal(dry.Since) || got.Type != "long" {
		t.Errorf("%+v %v", got, err)
	}

	var wg sync.WaitGroup
	names := []string{"aa", "bb", "cc", "dd"}
	for _, n := range names {
		one := controlClient(t, cluster)
		wg.Go(func() {
			for range 10 { // who lost every time says so and writes nothing that counts
				_, err := promote(t.Context(), one, schema.Promotion{Category: "purchase", Name: n, Type: "string"}, now, false)
				if err == nil || !strings.Contains(err.Error(), "at the same time") {
					if err != nil && !strings.Contains(err.Error(), "the column is there") {
						t.Error(err)
					}
					return
				}
			}
			t.Error(errors.New(n + " was never promoted"))
		})
	}
	wg.Wait()
	set, err := readPromotions(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[int]string{}
	for _, p := range set.All() {
		if other := ids[p.ID]; other != "" {
			t.Errorf("%s and %s have id %d", other, p.Name, p.ID)
		}
		ids[p.ID] = p.Name
	}
	if len(ids) != 1+len(names) || len(set.Refused()) != 0 {
		t.Errorf("%v; refused: %v", ids, set.Refused())
	}
}
