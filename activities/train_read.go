package activities

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"

	"millrace/event"
	"millrace/features/recommend"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/workflows/name"
)

// trainPlan is plan.json: what a training reads. It decides the model, and so the version's name.
type trainPlan struct {
	Made      time.Time       `json:"made"`
	InputAt   time.Time       `json:"input_at"` // of the newest snapshot
	From      time.Time       `json:"from"`     // of the oldest event that counts
	Snapshots []trainSnapshot `json:"snapshots"`
	Version   string          `json:"version"`
}

type trainSnapshot struct {
	Table    string `json:"table"`
	Snapshot int64  `json:"snapshot"`
}

// trainTables are what people do with items, by table.
var trainTables = []struct {
	table string
	kinds map[string]recommend.Kind // by event name; other events say nothing about liking
}{
	{event.Page.Table(), map[string]recommend.Kind{event.NameViewItem: recommend.View, event.NameSelectItem: recommend.View}},
	{event.Cart.Table(), map[string]recommend.Kind{event.NameAddToCart: recommend.Cart, event.NameAddToWishlist: recommend.Cart}},
	{event.Purchase.Table(), map[string]recommend.Kind{event.NamePurchase: recommend.Purchase}},
}

func (t *Train) plan(ctx context.Context, in TrainPlanInput) (trainPlan, string, error) {
	text, err := json.Marshal(in.Input)
	if err != nil {
		return trainPlan{}, "", fmt.Errorf("planning a training: %w", err)
	}
	key := digestOf(in.Run, string(text))
	f, err := openTrain(t.dir, in.Input.Model, key)
	if err != nil {
		return trainPlan{}, "", err
	}
	if err := dropOld(t.dir, trainFolderName(in.Input.Model), t.now().Add(-oldPlan)); err != nil {
		return trainPlan{}, "", err
	}
	var p trainPlan
	if there, err := f.read("plan.json", &p); err != nil || there {
		return p, key, err
	}
	p = trainPlan{Made: t.now().UTC()}
	for _, one := range trainTables {
		ref, err := readFrom(ctx, t.lake, one.table, in.Input.Ref)
		if err != nil {
			return p, "", err
		}
		if ref.SnapshotID == 0 {
			continue
		}
		if _, err := t.lake.Lease(ctx, one.table, trainLease, key, ref.SnapshotID, trainLeaseTime); err != nil {
			return p, "", err
		}
		p.Snapshots = append(p.Snapshots, trainSnapshot{one.table, ref.SnapshotID})
		if ref.At.After(p.InputAt) {
			p.InputAt = ref.At
		}
	}
	if len(p.Snapshots) > 0 {
		p.From = p.InputAt.Add(-time.Duration(in.Input.LookBack))
	}
	// What does not change the model is not in its name.
	what := in.Input
	what.Run, what.Publish, what.Keep, what.Ref = "", "", 0, ""
	about, err := json.Marshal(struct {
		Input     name.TrainRecommendationsInput
		Snapshots []trainSnapshot
	}{what, p.Snapshots})
	if err != nil {
		return p, "", fmt.Errorf("planning a training: %w", err)
	}
	p.Version = p.InputAt.UTC().Format("20060102T150405Z") + "-" + digestOf(string(about))[:8]
	return p, key, f.write("plan.json", p)
}

func digestOf(texts ...string) string {
	h := sha256.New()
	for _, s := range texts {
		_, _ = h.Write([]byte(s)) // a hash does not fail
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func paramsOf(in name.TrainRecommendationsInput) recommend.Params {
	p := recommend.DefaultParams()
	copy(p.Weights[:], in.Weights)
	p.HalfLife, p.Neighbours, p.MinSupport, p.MinTest = time.Duration(in.HalfLife), in.Neighbours, in.MinSupport, in.MinTest
	return p
}

func (t *Train) model(ctx context.Context, in TrainInput, progress func(rows int64)) (TrainOutput, error) {
	f, err := openTrain(t.dir, in.Input.Model, in.Key)
	if err != nil {
		return TrainOutput{}, err
	}
	var out TrainOutput
	if there, err := f.read("result.json", &out); err != nil || there {
		return out, err
	}
	p, err := f.planned()
	if err != nil {
		return out, err
	}
	start := time.Now()
	params := paramsOf(in.Input)
	if err := params.Validate(); err != nil {
		return out, fmt.Errorf("training: %w", err)
	}
	c := recommend.NewCollector(params)
	out = TrainOutput{Version: p.Version, TrainedAt: t.now().UTC()}
	if err := t.read(ctx, c, in.Input, p, &out, progress); err != nil {
		return out, err
	}
	model, metrics, err := c.Train(ctx)
	if err != nil {
		return out, err
	}
	out.Interactions, out.Items = int64(metrics.Interactions), metrics.Items
	out.Better, out.Why = metrics.Better(params)
	out.Metrics = map[string]float64{
		"recall_at_20": metrics.Recall, "popular_recall_at_20": metrics.PopularRecall, "coverage": metrics.Coverage, "popular_coverage": metrics.PopularCoverage,
		"hit_rate": metrics.HitRate, "test_baskets": float64(metrics.TestBaskets), "baskets": float64(metrics.Baskets), "interactions": float64(metrics.Interactions),
		"sampled": metrics.Sampled, "mean_neighbours": metrics.MeanNeighbours,
	}
	if err := f.writeModel(model); err != nil {
		return out, err
	}
	failpoint.Hit(FailModelWritten)
	if err := f.write("result.json", out); err != nil {
		return out, err
	}
	t.m.seconds.Observe(time.Since(start).Seconds())
	for metric, v := range map[string]float64{"recall": metrics.Recall, "popular_recall": metrics.PopularRecall, "coverage": metrics.Coverage, "popular_coverage": metrics.PopularCoverage} {
		t.m.quality.WithLabelValues(in.Input.Model, metric).Set(v)
	}
	t.log.InfoContext(ctx, "training: a model is trained", "model", in.Input.Model, "version", p.Version, "rows", out.Rows, "items", out.Items,
		"recall", metrics.Recall, "popular_recall", metrics.PopularRecall, "coverage", metrics.Coverage, "test_baskets", metrics.TestBaskets)
	return out, nil
}

// read collects what people did with items, less what erased people did.
func (t *Train) read(ctx context.Context, c *recommend.Collector, in name.TrainRecommendationsInput, p trainPlan, out *TrainOutput, progress func(rows int64)) error {
	var erased *event.Erased
	if t.erased != nil {
		var err error
		if erased, err = t.erased.Erased(ctx); err != nil {
			return err
		}
	}
	for _, one := range trainTables {
		for _, s := range p.Snapshots {
			if s.Table != one.table {
				continue
			}
			columns := []string{"tenant", "name", "visitor_id", "user_id", "session_id", "client_session_id", "occurred_at", "product_ids", "raw_topic", "raw_partition", "raw_offset"}
			if one.table == event.Purchase.Table() {
				columns = append(columns, "order_rank")
			}
			o := lakehouse.ScanOptions{
				Snapshot: s.Snapshot, Columns: columns,
				Filter: iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference("tenant"), in.Tenant), iceberg.GreaterThanEqual(iceberg.Reference("occurred_at"), iceberg.Timestamp(p.From.UnixMicro()))),
			}
			err := t.lake.ScanRows(ctx, one.table, o, func(b arrow.RecordBatch) error {
				rows, err := trainRows(b)
				if err != nil {
					return fmt.Errorf("table %s: %w", one.table, err)
				}
				out.Rows += b.NumRows()
				progress(out.Rows)
				return rows.collect(c, in, one.kinds, erased, &out.Erased)
			})
			if err != nil {
				return err
			}
		}
	}
	t.m.rows.Add(float64(out.Rows))
	return nil
}

// rows is a batch by column.
type rows struct {
	tenant, name, visitor, user, session, client, rawTopic *array.String
	occurred                                               *array.Timestamp
	products                                               *array.List
	rawPartition                                           *array.Int32
	rawOffset                                              *array.Int64
	rank                                                   *array.Int32 // nil: no orders
}

func trainRows(b arrow.RecordBatch) (rows, error) {
	var r rows
	known := map[string]any{
		"tenant": &r.tenant, "name": &r.name, "visitor_id": &r.visitor, "user_id": &r.user, "session_id": &r.session, "client_session_id": &r.client, "raw_topic": &r.rawTopic,
		"occurred_at": &r.occurred, "product_ids": &r.products, "raw_partition": &r.rawPartition, "raw_offset": &r.rawOffset, "order_rank": &r.rank,
	}
	found := 0
	for i, f := range b.Schema().Fields() {
		var ok bool
		switch to := known[f.Name].(type) {
		case **array.String:
			*to, ok = b.Column(i).(*array.String)
		case **array.Timestamp:
			*to, ok = b.Column(i).(*array.Timestamp)
		case **array.List:
			*to, ok = b.Column(i).(*array.List)
		case **array.Int32:
			*to, ok = b.Column(i).(*array.Int32)
		case **array.Int64:
			*to, ok = b.Column(i).(*array.Int64)
		default:
			continue
		}
		if !ok {
			return r, fmt.Errorf("column %s has type %s", f.Name, f.Type)
		}
		if f.Name != "order_rank" {
			found++
		}
	}
	if found != len(known)-1 {
		return r, fmt.Errorf("columns of events are missing: %s", b.Schema())
	}
	return r, nil
}

func (r rows) collect(c *recommend.Collector, in name.TrainRecommendationsInput, kinds map[string]recommend.Kind, erased *event.Erased, dropped *int64) error {
	ids, ok := r.products.ListValues().(*array.String)
	if !ok {
		return fmt.Errorf("product_ids holds %s", r.products.ListValues().DataType())
	}
	text := func(a *array.String, i int) string {
		if a.IsNull(i) {
			return ""
		}
		return a.Value(i)
	}
	for i := range r.name.Len() {
		kind, ok := kinds[r.name.Value(i)]
		if !ok || r.rank != nil && r.rank.Value(i) > 1 || r.products.IsNull(i) { // copies of an order count once
			continue
		}
		visitor, user := r.visitor.Value(i), text(r.user, i)
		if erased.Drops(r.tenant.Value(i), visitor, user, r.rawTopic.Value(i), r.rawPartition.Value(i), r.rawOffset.Value(i)) {
			*dropped++
			continue
		}
		basket := ""
		switch {
		case visitor != "":
			basket = "v" + visitor
		case user != "":
			basket = "u" + user
		}
		if in.Basket == name.BasketSession {
			if s := cmp.Or(text(r.session, i), text(r.client, i)); s != "" {
				basket = "s" + s
			}
		}
		from, to := r.products.ValueOffsets(i)
		for at := from; at < to; at++ {
			if err := c.Add(basket, ids.Value(int(at)), kind, int64(r.occurred.Value(i))); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFrom is the snapshot that a ref of a table is at. A table that has no rows yet has no such ref either: its state is empty, with snapshot 0.
func readFrom(ctx context.Context, lake TrainLake, table, ref string) (lakehouse.RefState, error) {
	at, err := lake.Ref(ctx, table, ref)
	if errors.Is(err, lakehouse.ErrNoRef) {
		if main, mainErr := lake.Ref(ctx, table, lakehouse.RefMain); mainErr == nil && main.SnapshotID == 0 {
			return lakehouse.RefState{}, nil
		}
	}
	return at, err
}
