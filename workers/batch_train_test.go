package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/event"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/live"
	"millrace/olap"
	"millrace/workflows/name"
)

// trainTest is a batchTest with a Redis and a shop's events in the lake.
type trainTest struct {
	*batchTest
	redis  *miniredis.Miniredis
	rdb    *redis.Client
	conn   driver.Conn
	offset map[string]int64
	events int
}

func newTrainTest(t *testing.T) *trainTest {
	t.Helper()
	b := &trainTest{batchTest: newBatchTest(t), redis: miniredis.NewMiniRedis(), offset: map[string]int64{}}
	if err := b.redis.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.redis.Close)
	b.rdb = redis.NewClient(&redis.Options{Addr: b.redis.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = b.rdb.Close() }) // only idle connections
	f, err := os.OpenFile(b.cfg, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "redis: {addr: [%q]}\n", b.redis.Addr())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.conn, err = olap.Open(t.Context(), cfg.ClickHouse); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.conn.Close() }) // only reads
	return b
}

// visit writes what visitors of a tenant did over the last days: items come in sets of four, and who likes one of a set likes the others. noise is the share of what
// they look at besides.
func (b *trainTest) visit(t *testing.T, tenant string, seed uint64, visitors int, noise float64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	const items = 120
	pick := func() int { u := r.Float64(); return int(u * u * items) }
	writers := map[event.Category]*lakehouse.Writer{}
	lo := map[event.Category]int64{}
	start := time.Now().Add(-8 * 24 * time.Hour)
	for v := range visitors {
		liked := pick() / 4 * 4
		for step := range 3 + r.IntN(6) {
			item := liked + r.IntN(4)
			if r.Float64() < noise {
				item = pick()
			}
			cat, what := event.Page, event.NameViewItem
			switch r.IntN(5) {
			case 0:
				cat, what = event.Cart, event.NameAddToCart
			case 1:
				cat, what = event.Purchase, event.NamePurchase
			case 2:
				what = event.NamePageView // says nothing about items
			}
			at := start.Add(time.Duration(step)*24*time.Hour + time.Duration(v)*time.Second).UnixMicro()
			e := &event.Event{
				ID: fmt.Sprintf("%s-%d-%d-%d", tenant, seed, v, step), Tenant: tenant, Name: what, VisitorID: fmt.Sprintf("v%d-%d", seed, v), Source: "web", SchemaVersion: 1, OccurredAt: at, ReceivedAt: at,
				Items: []event.Item{{ItemID: fmt.Sprintf("sku-%03d", item), Quantity: 1}},
			}
			e.IngestedAt, e.RawTopic, e.OrderRank = at, cat.RawTopic(), 1
			if writers[cat] == nil {
				w, err := b.cat.NewWriter(t.Context(), cat.Table())
				if err != nil {
					t.Fatal(err)
				}
				writers[cat], lo[cat] = w, b.offset[cat.Table()]
			}
			e.RawOffset = b.offset[cat.Table()]
			e.RowHash = e.ComputeRowHash()
			if err := writers[cat].WriteEvent(t.Context(), e, lakehouse.Provenance{Topic: cat.EventsTopic(), Offset: e.RawOffset}); err != nil {
				t.Fatal(err)
			}
			b.offset[cat.Table()]++
			b.events++
		}
	}
	for cat, w := range writers {
		files, err := w.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.cat.Append(t.Context(), cat.Table(), files, lakehouse.Vector{"topic": {0: lo[cat]}}, lakehouse.Vector{"topic": {0: b.offset[cat.Table()]}}); err != nil {
			t.Fatal(err)
		}
	}
}

// publish moves the ref published to the heads.
func (b *trainTest) publish(t *testing.T) {
	t.Helper()
	for _, cat := range []event.Category{event.Page, event.Cart, event.Purchase} {
		head, err := b.cat.Ref(t.Context(), cat.Table(), lakehouse.RefMain)
		if err != nil {
			t.Fatal(err)
		}
		was, err := b.cat.Ref(t.Context(), cat.Table(), lakehouse.RefPublished)
		if err != nil && !errors.Is(err, lakehouse.ErrNoRef) {
			t.Fatal(err)
		}
		if was.SnapshotID == head.SnapshotID {
			continue
		}
		if err := b.cat.MoveRef(t.Context(), cat.Table(), lakehouse.RefPublished, was.SnapshotID, head.SnapshotID); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *trainTest) train(t *testing.T, input string) (activities.Started, name.TrainRecommendationsResult, error) {
	t.Helper()
	run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.TrainRecommendations, Input: json.RawMessage(input), Trigger: name.Manual})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var r name.TrainRecommendationsResult
	return s, r, run.Get(ctx, &r)
}

// served gives the version that is served and what it recommends with an item, which must be of the item's set.
func (b *trainTest) served(t *testing.T, item int) (string, []string) {
	t.Helper()
	got, err := live.Recommend(t.Context(), b.rdb, live.RecommendationModel{Tenant: "default", Model: name.DefaultModel}, []live.Scored{{Item: fmt.Sprintf("sku-%03d", item), Score: 1}}, 3)
	if err != nil {
		t.Fatal(err)
	}
	var items []string
	for _, s := range got.Items {
		items = append(items, s.Item)
	}
	return got.Version.Version, items
}

func (b *trainTest) states(t *testing.T) map[string]string {
	t.Helper()
	all, err := olap.Models(t.Context(), b.conn, 100)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range all {
		out[m.Version] = m.State
		if m.Rows == 0 || len(m.Snapshots) != 3 || m.Metrics["test_baskets"] == 0 {
			t.Errorf("the row of a model says little: %+v", m)
		}
	}
	return out
}

// One test, because the servers take seconds to start.
func TestTrainingOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := newTrainTest(t)
	b.visit(t, "default", 1, 900, 0.25)
	b.visit(t, "other", 2, 30, 1)
	r := b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })

	var first name.TrainRecommendationsResult
	t.Run("nothing is trained on what was never published", func(t *testing.T) {
		s, _, err := b.train(t, `{}`)
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || !strings.Contains(err.Error(), name.NotPublished) || !strings.Contains(err.Error(), "published") {
			t.Errorf("got %v", err)
		}
		b.keep(t, "train-refused", s.ID, s.RunID)
	})
	t.Run("planted structure is found and served", func(t *testing.T) {
		b.publish(t)
		s, got, err := b.train(t, `{"run": "night-1"}`)
		if err != nil {
			t.Fatal(err)
		}
		first = got
		t.Logf("recall@20 %.4f, of popularity %.4f, coverage %.4f, %g test baskets", got.Metrics["recall_at_20"], got.Metrics["popular_recall_at_20"], got.Metrics["coverage"], got.Metrics["test_baskets"])
		if got.State != "published" || got.Metrics["recall_at_20"] <= got.Metrics["popular_recall_at_20"] || got.Rows == 0 || int(got.Rows) >= b.events {
			t.Errorf("%+v", got)
		}
		for _, item := range []int{0, 9, 22} {
			version, items := b.served(t, item)
			for _, i := range items {
				var n int
				if _, err := fmt.Sscanf(i, "sku-%03d", &n); err != nil || n/4 != item/4 {
					t.Errorf("with %d goes %s", item, i)
				}
			}
			if version != got.Version || len(items) != 3 {
				t.Errorf("version %s recommends %v", version, items)
			}
		}
		if diff := cmp.Diff(map[string]string{got.Version: "published"}, b.states(t)); diff != "" {
			t.Error(diff)
		}
		b.keep(t, "train-published", s.ID, s.RunID)
	})
	t.Run("the same run again does nothing, another run makes the same version", func(t *testing.T) {
		_, again, err := b.train(t, `{"run": "night-1"}`)
		if err != nil || len(again.Steps) != 2 || again.Steps[0].Outcome != name.Skipped || again.Steps[1].Outcome != name.Skipped {
			t.Errorf("%+v: %v", again, err)
		}
		_, other, err := b.train(t, `{"run": "night-1b"}`)
		if err != nil || other.Version != first.Version || other.State != "published" || !cmp.Equal(first.Metrics, other.Metrics) {
			t.Errorf("%+v after %+v: %v", other, first, err)
		}
		if files, err := filepath.Glob(filepath.Join(filepath.Dir(b.cfg), "batch", "train-similar-items", "*")); err != nil || len(files) != 1 { // of the run that was refused there is none
			if len(files) > 1 {
				t.Errorf("files are left: %v %v", files, err)
			}
		}
	})
	t.Run("what is not better than popularity is not published, unless asked", func(t *testing.T) {
		_, got, err := b.train(t, `{"min_test": 100000, "run": "night-2"}`)
		if err != nil || got.State != "refused" || !strings.Contains(got.Reason, "100000 are needed") {
			t.Errorf("%+v: %v", got, err)
		}
		if version, _ := b.served(t, 0); version != first.Version {
			t.Errorf("%s is served", version)
		}
		_, got, err = b.train(t, `{"min_test": 100000, "publish": "always", "run": "night-3"}`)
		if err != nil || got.State != "published" {
			t.Errorf("%+v: %v", got, err)
		}
		if version, _ := b.served(t, 0); version != got.Version || version == first.Version {
			t.Errorf("%s is served", version)
		}
		from, now, err := live.RollbackModel(t.Context(), b.rdb, live.RecommendationModel{Tenant: "default", Model: name.DefaultModel}, first.Version)
		if err != nil || from.Version != got.Version || now.Version != first.Version {
			t.Errorf("rolled back from %s to %s: %v", from.Version, now.Version, err)
		}
		_, got, err = b.train(t, `{"publish": "never", "half_life": "7d", "run": "night-4"}`)
		if err != nil || got.State != "trained" {
			t.Errorf("%+v: %v", got, err)
		}
	})
	t.Run("while Redis is away the version before stays", func(t *testing.T) {
		b.visit(t, "default", 5, 200, 0.25)
		b.publish(t)
		b.redis.Close()
		run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.TrainRecommendations, Input: json.RawMessage(`{"run": "night-5"}`), Trigger: name.Manual})
		if err != nil {
			t.Fatal(err)
		}
		eventuallySo(t, "publishing has failed once", func() bool {
			d, err := b.client.DescribeWorkflowExecution(t.Context(), s.ID, s.RunID)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range d.GetPendingActivities() {
				if a.GetActivityType().GetName() == name.TrainPublish && a.GetAttempt() > 1 {
					return true
				}
			}
			return false
		})
		if err := b.redis.Restart(); err != nil {
			t.Fatal(err)
		}
		if version, _ := b.served(t, 0); version != first.Version {
			t.Errorf("%s is served", version)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var got name.TrainRecommendationsResult
		if err := run.Get(ctx, &got); err != nil || got.State != "published" {
			t.Errorf("%+v: %v", got, err)
		}
		first = got
	})
	r.stop()
	for i, at := range []string{activities.FailModelWritten, activities.FailModelStored, activities.FailModelPublished} {
		t.Run("killed at "+at+" a training goes on and ends with the same model", func(t *testing.T) {
			b.visit(t, "default", uint64(10+i), 50, 0.25)
			b.publish(t)
			dying := b.start(t, failpoint.Env+"="+at+"=kill@1")
			eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
			run, s, err := activities.Start(t.Context(), b.client, activities.StartRequest{Type: name.TrainRecommendations, Input: json.RawMessage(fmt.Sprintf(`{"run": "killed-%d"}`, i)), Trigger: name.Manual})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-dying.ended:
			case <-time.After(time.Minute):
				t.Fatal("the role was not killed")
			}
			version, items := b.served(t, 0) // whole, whichever
			if len(items) != 3 || (version == first.Version) != (at != activities.FailModelPublished) {
				t.Errorf("%s is served with %v", version, items)
			}
			next := b.start(t)
			defer next.stop()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var got name.TrainRecommendationsResult
			if err := run.Get(ctx, &got); err != nil || got.State != "published" {
				t.Fatalf("%+v: %v", got, err)
			}
			if version, _ := b.served(t, 0); version != got.Version {
				t.Errorf("%s is served, %s was trained", version, got.Version)
			}
			if b.states(t)[got.Version] != "published" {
				t.Errorf("%v", b.states(t))
			}
			first = got
			if at == activities.FailModelStored {
				b.keep(t, "train-killed", s.ID, s.RunID)
			}
		})
	}
	t.Run("trainings that race leave the one of the newest events", func(t *testing.T) { b.raced(t) })
	http.DefaultClient.CloseIdleConnections()
}

// raced has two processes train at the same time, one on older snapshots, and erased people take no part.
func (b *trainTest) raced(t *testing.T) {
	ctx := t.Context()
	runs := activities.NewRuns(b.conn, b.cat, "")
	var key event.SubjectKey
	erased := event.NewErased(key)
	gone := event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: "v1-7"}
	cut := event.Cut{event.Page.RawTopic(): {1 << 40}, event.Cart.RawTopic(): {1 << 40}, event.Purchase.RawTopic(): {1 << 40}}
	if err := erased.Add(event.Erasure{RequestID: "r", Cut: cut.String(), Key: key.ID(), Subjects: []string{key.Digest(gone).String()}}); err != nil {
		t.Fatal(err)
	}
	in := name.TrainRecommendationsInput{Publish: name.PublishAlways}.WithDefaults()
	plan := func(source activities.ErasedSource, run string) (*activities.Train, activities.TrainInput, string) {
		train := activities.NewTrain(b.cat, runs, b.conn, b.rdb, source, filepath.Join(t.TempDir(), run), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		p, err := perform[activities.TrainPlanOutput](train.Plan, activities.TrainPlanInput{Input: in, Run: run})
		if err != nil {
			t.Fatal(err)
		}
		return train, activities.TrainInput{Input: in, Key: p.Key}, p.Version
	}
	older, olderIn, olderVersion := plan(nil, "older")
	b.visit(t, "default", 20, 100, 0.25)
	b.publish(t)
	newer, newerIn, newerVersion := plan(ledger{erased}, "newer")
	if olderVersion >= newerVersion {
		t.Errorf("version %s is not before %s", olderVersion, newerVersion)
	}
	var wg sync.WaitGroup
	outs := make([]activities.TrainPublished, 2)
	for i, one := range []struct {
		train *activities.Train
		in    activities.TrainInput
	}{{older, olderIn}, {newer, newerIn}} {
		wg.Go(func() {
			trained, err := perform[activities.TrainOutput](one.train.Model, one.in)
			if err == nil {
				outs[i], err = perform[activities.TrainPublished](one.train.Publish, one.in)
			}
			if err != nil {
				t.Error(err)
			}
			if i == 1 && trained.Erased == 0 || i == 0 && trained.Erased != 0 {
				t.Errorf("%d rows of erased people were left out", trained.Erased)
			}
		})
	}
	wg.Wait()
	if version, items := b.served(t, 0); version != newerVersion || len(items) != 3 || outs[1].State != "published" {
		t.Errorf("%s is served, %s is the newest; %+v", version, newerVersion, outs)
	}
	if s := outs[0].State; s != "published" && s != "superseded" {
		t.Errorf("the older one is %s", s)
	}
	if out, err := perform[activities.TrainPublished](older.Publish, olderIn); err != nil || out.State != "superseded" {
		t.Errorf("the older one, once more, is %s: %v", out.State, err)
	}
	if err := errors.Join(older.Drop(ctx, olderIn), newer.Drop(ctx, newerIn)); err != nil {
		t.Error(err)
	}
	refs, err := b.cat.Refs(ctx, "events_page")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refs {
		if strings.HasPrefix(r.Name, lakehouse.LeasePrefix+"train") {
			t.Errorf("lease %s is left", r.Name)
		}
	}
}

// perform runs an activity outside of any workflow.
func perform[T any](activity, in any) (T, error) {
	var s testsuite.WorkflowTestSuite
	env := s.NewTestActivityEnvironment()
	env.RegisterActivity(activity)
	var out T
	v, err := env.ExecuteActivity(activity, in)
	if err != nil {
		return out, err
	}
	return out, v.Get(&out)
}

type ledger struct{ e *event.Erased }

func (l ledger) Erased(context.Context) (*event.Erased, error) { return l.e, nil }
