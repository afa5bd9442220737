package activities

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/sdk/activity"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// yard is real stores with the rows of one hour: two partitions of events.page, whose control totals are in event_ledger.
type yard struct {
	conn    driver.Conn
	lake    *lakehouse.Catalog
	brokers []kgo.Opt
	codecs  *schema.Codecs
	log     *EventLog
	hour    time.Time
	rows    []event.Stored
	erased  *event.Erased
	reg     *prometheus.Registry
	r       *Reconcile
}

// Erased implements ErasedSource.
func (y *yard) Erased(context.Context) (*event.Erased, error) { return y.erased, nil }

const (
	yardPartitions = 2
	yardMinutes    = 6
	yardPerRange   = 50
)

func (y *yard) page(p int32, minute, i int) event.Stored {
	n := minute*yardPerRange + i
	at := y.hour.Add(time.Duration(minute)*time.Minute + time.Duration(i)*time.Second).UnixMicro()
	e := &event.Event{
		ID: fmt.Sprintf("e-%d-%d", p, n), Tenant: "default", Name: event.NamePageView, VisitorID: fmt.Sprintf("v-%d", n%17), Source: "web", Properties: fmt.Sprintf(`{"n":%d}`, n), SchemaVersion: 1,
		OccurredAt: at - 2_000_000, ReceivedAt: at - 1_000_000, PagePath: "/a",
	}
	e.IngestedAt, e.RawTopic, e.RawPartition, e.RawOffset = at, "raw.page", p, int64(3*n) // offsets have gaps: duplicates, markers
	e.RowHash = e.ComputeRowHash()
	return event.Stored{Event: e, Topic: "events.page", Partition: p}
}

func newYard(t *testing.T) *yard {
	t.Helper()
	servers, err := embeddedtest.Start(t.Context(), "", embedded.BrokerKfake, embedded.ClickHouseChild)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Stop)
	at := servers.Database(t)
	y := &yard{hour: time.Now().UTC().Truncate(time.Hour).Add(-time.Hour), reg: prometheus.NewRegistry()}
	cfg := olap.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password, cfg.Database = []string{at.Native}, at.User, at.Password, at.Database
	if y.conn, err = olap.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := olap.Migrate(t.Context(), y.conn, olap.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lake := lakehouse.DefaultConfig()
	lake.CatalogURI, lake.Warehouse = "sqlite:///"+filepath.Join(dir, "catalog.db"), "file://"+filepath.Join(dir, "warehouse")
	if y.lake, err = lakehouse.Open(t.Context(), lake); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.lake.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := lakehouse.EnsureTables(t.Context(), y.lake); err != nil {
		t.Fatal(err)
	}
	if y.codecs, err = schema.NewCodecs(); err != nil {
		t.Fatal(err)
	}
	y.codecs.AssignLocal()
	y.brokers = []kgo.Opt{kgo.SeedBrokers(embeddedtest.Kfake(t))}
	y.log = NewEventLog(y.brokers, func(context.Context) (*schema.Codecs, error) { return y.codecs, nil })
	t.Cleanup(y.log.Close)
	y.fill(t)
	stores := []ReconcileStore{NewClickHouseStore(olap.NewRepair(y.conn, ""), "sink", y.log), NewIcebergStore(y.lake, y.log)}
	y.r = NewReconcile(y.conn, "", stores, y.log, y, y.reg, slog.New(slog.DiscardHandler))
	return y
}

// fill writes the rows as the stream and its sinks do: to events.page, to both stores, and their control totals.
func (y *yard) fill(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	cl, err := kgo.NewClient(append(y.brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopics(ctx, yardPartitions, 1, nil, "events.page", event.TopicControl); err != nil {
		t.Fatal(err)
	}
	ledger, err := y.conn.PrepareBatch(ctx, "INSERT INTO event_ledger")
	if err != nil {
		t.Fatal(err)
	}
	w, err := y.lake.NewWriter(ctx, "events_page")
	if err != nil {
		t.Fatal(err)
	}
	next := map[int32]int64{}
	repair := olap.NewRepair(y.conn, "")
	part := olap.Part{Table: "events_page", RawTopic: "raw.page", From: y.hour, To: y.hour.Add(time.Hour)}
	for p := range int32(yardPartitions) {
		var rows []event.Stored
		for minute := range yardMinutes {
			var sum event.Checksum
			var from, to int64
			for i := range yardPerRange {
				s := y.page(p, minute, i)
				s.Offset = next[p]
				next[p]++
				if i == 0 {
					from = s.Event.RawOffset
				}
				to = s.Event.RawOffset + 1
				sum.Add(s.Event.RowHash)
				body := y.codecs.AppendRaw(nil, event.Page, s.Event)
				value := y.codecs.AppendEnriched(nil, event.Page, s.Event, body[5:])
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "events.page", Partition: p, Value: value, Timestamp: event.Time(s.Event.IngestedAt).Add(50 * time.Millisecond)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if err := w.WriteEvent(ctx, s.Event, lakehouse.Provenance{Topic: s.Topic, Partition: p, Offset: s.Offset}); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, s)
			}
			first, last := rows[len(rows)-yardPerRange].IngestedAt(), rows[len(rows)-1].IngestedAt()
			if err := ledger.Append("raw.page", p, from, to, "events.page", sum.Count, sum.HashLo, sum.HashHi, to-from-sum.Count, int64(0), int64(0), event.Time(first), event.Time(last), uint64(minute+1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := repair.Insert(ctx, part, p, rows, nil, fmt.Sprintf("sink:%d", p)); err != nil {
			t.Fatal(err)
		}
		y.rows = append(y.rows, rows...)
	}
	if err := ledger.Send(); err != nil {
		t.Fatal(err)
	}
	files, err := w.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id, err := y.log.TopicID(ctx, "events.page")
	if err != nil || id == "" {
		t.Fatalf("%q, %v", id, err)
	}
	if _, err := y.lake.Append(ctx, "events_page", files, lakehouse.Vector{}, lakehouse.Vector{id: next}); err != nil {
		t.Fatal(err)
	}
}

// perform runs an activity as a worker does.
func perform[O any](f any, in any) (O, error) {
	var s testsuite.WorkflowTestSuite
	s.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := s.NewTestActivityEnvironment()
	env.SetTestTimeout(2 * time.Minute)
	env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: "it"})
	var out O
	v, err := env.ExecuteActivity("it", in)
	if err == nil && v.HasValue() {
		err = v.Get(&out)
	}
	return out, err
}

func (y *yard) do(t *testing.T, f any, run string) map[string]name.StoreResult {
	t.Helper()
	out, err := perform[ReconcileOutput](f, ReconcileRequest{Input: name.ReconcileInput{Topic: "events.page", Hour: y.hour.Format(name.HourForm)}, Run: run})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]name.StoreResult{}
	for _, s := range out.Stores {
		got[s.Store] = s
	}
	return got
}

func (y *yard) exec(t *testing.T, sql string) {
	t.Helper()
	if err := y.conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// whole checks that both stores hold every row once.
func (y *yard) whole(t *testing.T, but ...int64) {
	t.Helper()
	var want event.Checksum
	for _, s := range y.rows {
		skip := false
		for _, o := range but {
			skip = skip || s.Partition == 0 && s.Event.RawOffset == o
		}
		if !skip {
			want.Add(s.Event.RowHash)
		}
	}
	sums, err := olap.NewRepair(y.conn, "").Sums(t.Context(), olap.Part{Table: "events_page", RawTopic: "raw.page", From: y.hour, To: y.hour.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	var have event.Checksum
	for _, s := range sums {
		have.Count, have.HashLo, have.HashHi = have.Count+s.Count, have.HashLo+s.HashLo, have.HashHi+s.HashHi
	}
	if have != want {
		t.Errorf("ClickHouse has %+v, not %+v", have, want)
	}
	totals, err := y.lake.Totals(t.Context(), "events_page")
	if err != nil || totals.Checksum != want {
		t.Errorf("Iceberg has %+v, not %+v; %v", totals.Checksum, want, err)
	}
}

func result(store, outcome string, found, repaired int64, differences map[string]int64) name.StoreResult {
	const n = yardPartitions * yardMinutes
	return name.StoreResult{Store: store, Outcome: outcome, Expected: n * yardPerRange, Found: found, Ranges: n, Differences: differences, Repaired: repaired}
}

const yardRows = yardPartitions * yardMinutes * yardPerRange

func TestReconcileNamesWhatIsWrongAndMendsIt(t *testing.T) {
	t.Parallel()
	y := newYard(t)

	t.Log("stores that agree with the control totals are equal")
	want := map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Equal, yardRows, 0, nil), "iceberg": result("iceberg", name.Equal, yardRows, 0, nil)}
	if diff := cmp.Diff(want, y.do(t, y.r.Compare, "r0")); diff != "" {
		t.Error(diff)
	}

	t.Log("rows deleted and doubled in ClickHouse, rows lost and doubled in Iceberg: each is named, with its number")
	y.exec(t, "DELETE FROM events_page WHERE raw_partition = 0 AND raw_offset >= 30 AND raw_offset < 240 SETTINGS lightweight_deletes_sync = 2")            // 70 rows over three ranges
	y.exec(t, "INSERT INTO events_page SELECT * FROM events_page WHERE raw_partition = 1 AND raw_offset < 120")                                             // 40
	y.exec(t, "INSERT INTO events_page SELECT * REPLACE (7 AS row_hash) FROM events_page WHERE raw_partition = 1 AND raw_offset = 600")                     // one more copy, with another hash
	y.exec(t, "INSERT INTO events_page SELECT * REPLACE (601 AS raw_offset) FROM (SELECT * FROM events_page WHERE raw_partition = 1 AND raw_offset = 603)") // an offset that was a duplicate's
	hour := lakehouse.Part{RawTopic: "raw.page", From: y.hour, To: y.hour.Add(time.Hour)}
	lost := map[int64]bool{}
	for o := int64(450); o < 540; o += 3 {
		lost[o] = false
	}
	if _, err := y.lake.DropRows(t.Context(), "events_page", "corrupt", hour, 0, lost); err != nil {
		t.Fatal(err)
	}
	id, err := y.log.TopicID(t.Context(), "events.page")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.lake.AppendRows(t.Context(), "events_page", id, "double", y.rows[len(y.rows)-5:]); err != nil {
		t.Fatal(err)
	}
	ch := map[string]int64{name.KindMissing: 70, name.KindDuplicate: 41, name.KindSurplus: 1, name.KindRepeated: 2}
	ice := map[string]int64{name.KindMissing: 30, name.KindDuplicate: 5}
	want = map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Differs, yardRows-70+42, 0, ch), "iceberg": result("iceberg", name.Differs, yardRows-30+5, 0, ice)}
	if diff := cmp.Diff(want, y.do(t, y.r.Compare, "r1")); diff != "" {
		t.Error(diff)
	}
	if got := y.open(t); got != 70+42+30+5 {
		t.Errorf("%d rows are open", got)
	}

	t.Log("they are mended, and a second run changes nothing")
	delete(ch, name.KindRepeated)
	want = map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Mended, yardRows, 112, ch), "iceberg": result("iceberg", name.Mended, yardRows, 35, ice)}
	if diff := cmp.Diff(want, y.do(t, y.r.Repair, "r2")); diff != "" {
		t.Error(diff)
	}
	y.whole(t)
	if got := y.open(t); got != 0 {
		t.Errorf("%d rows are open", got)
	}
	head, err := y.lake.Head(t.Context(), "events_page")
	if err != nil {
		t.Fatal(err)
	}
	want = map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Equal, yardRows, 0, nil), "iceberg": result("iceberg", name.Equal, yardRows, 0, nil)}
	if diff := cmp.Diff(want, y.do(t, y.r.Repair, "r3")); diff != "" {
		t.Error(diff)
	}
	if h, err := y.lake.Head(t.Context(), "events_page"); err != nil || h.SnapshotID != head.SnapshotID {
		t.Errorf("the second repair made snapshot %d, %v", h.SnapshotID, err)
	}

	t.Log("without Kafka the other store is the source")
	y.exec(t, "DELETE FROM events_page WHERE raw_partition = 1 AND raw_offset < 300 SETTINGS lightweight_deletes_sync = 2")
	alone := NewReconcile(y.conn, "", []ReconcileStore{NewClickHouseStore(olap.NewRepair(y.conn, ""), "sink", nil), NewIcebergStore(y.lake, nil)}, nil, y, y.reg, slog.New(slog.DiscardHandler))
	want["clickhouse"] = result("clickhouse", name.Mended, yardRows, 100, map[string]int64{name.KindMissing: 100})
	if diff := cmp.Diff(want, y.do(t, alone.Repair, "r4")); diff != "" {
		t.Error(diff)
	}
	y.whole(t)

	t.Log("a row that every source has lost is open and stays so; nothing is invented")
	y.exec(t, "DELETE FROM events_page WHERE raw_partition = 1 AND raw_offset = 303 SETTINGS lightweight_deletes_sync = 2")
	if _, err := y.lake.DropRows(t.Context(), "events_page", "corrupt-2", hour, 1, map[int64]bool{303: false}); err != nil {
		t.Fatal(err)
	}
	gone := map[string]int64{name.KindUnexplained: 1}
	want = map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Differs, yardRows-1, 0, gone), "iceberg": result("iceberg", name.Differs, yardRows-1, 0, gone)}
	if diff := cmp.Diff(want, y.do(t, alone.Repair, "r5")); diff != "" {
		t.Error(diff)
	}

	t.Log("Kafka has it, and brings it back")
	mended := map[string]int64{name.KindMissing: 1}
	want = map[string]name.StoreResult{"clickhouse": result("clickhouse", name.Mended, yardRows, 1, mended), "iceberg": result("iceberg", name.Mended, yardRows, 1, mended)}
	if diff := cmp.Diff(want, y.do(t, y.r.Repair, "r6")); diff != "" {
		t.Error(diff)
	}
	y.whole(t)

	t.Log("an erased subject's rows do not come back")
	key := event.SubjectKey{1}
	y.erased = event.NewErased(key)
	victim := y.rows[4].Event // offset 12 of partition 0
	if err := y.erased.Add(event.Erasure{RequestID: "x", Key: key.ID(), Cut: event.Cut{"raw.page": {60, 0}}.String(), Subjects: []string{key.Digest(event.Subject{Tenant: "default", Kind: event.SubjectVisitor, ID: victim.VisitorID}).String()}}); err != nil {
		t.Fatal(err)
	}
	y.exec(t, "DELETE FROM events_page WHERE raw_partition = 0 AND raw_offset IN (12, 15) SETTINGS lightweight_deletes_sync = 2")
	if _, err := y.lake.DropRows(t.Context(), "events_page", "erase", hour, 0, map[int64]bool{12: false}); err != nil {
		t.Fatal(err)
	}
	want = map[string]name.StoreResult{
		"clickhouse": result("clickhouse", name.Mended, yardRows-1, 1, map[string]int64{name.KindMissing: 1, name.KindErased: 1}),
		"iceberg":    result("iceberg", name.Equal, yardRows-1, 0, map[string]int64{name.KindErased: 1}),
	}
	if diff := cmp.Diff(want, y.do(t, y.r.Repair, "r7")); diff != "" {
		t.Error(diff)
	}
	y.whole(t, 12)
}

// open is how many rows the table of differences has open.
func (y *yard) open(t *testing.T) int64 {
	t.Helper()
	var n int64
	if err := y.conn.QueryRow(t.Context(), "SELECT toInt64(sum(count)) FROM reconcile_differences FINAL WHERE state IN ('open', 'nosource')").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
