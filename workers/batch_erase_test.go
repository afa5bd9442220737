package workers

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"

	"millrace/activities"
	"millrace/event"
	"millrace/event/registry"
	"millrace/internal/embedded"
	"millrace/internal/failpoint"
	"millrace/lakehouse"
	"millrace/olap"
	"millrace/workflows/name"
)

// kafka gives the role's configuration a broker with all topics, and a schema registry on it.
func (b *batchTest) kafka(t *testing.T) *kgo.Client {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(b.servers.Endpoints().Kafka)}
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for _, topic := range event.Topics() {
		n := int32(1)
		if topic.Partitioned {
			n = 2
		}
		if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), n, 1, nil, topic.Name); err != nil {
			t.Fatal(err)
		}
	}
	r, err := registry.New(DefaultConfig().registryConfig(), opts, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "kafka: {brokers: [%q]}\nschema_registry: {url: %q}\nerasure: {settle: 0s, physical_after: 0s, grace: 0s}\n", b.servers.Endpoints().Kafka, "http://"+l.Addr().String())
	if err := os.WriteFile(b.cfg, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return cl
}

func (b *batchTest) config(t *testing.T) (Config, driver.Conn) {
	t.Helper()
	cfg, err := Load(b.cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := olap.Open(t.Context(), cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := olap.Migrate(t.Context(), conn, olap.Options{}); err != nil {
		t.Fatal(err)
	}
	return cfg, conn
}

// text is a history as it is stored.
func historyText(t *testing.T, h *historypb.History) string {
	t.Helper()
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// One test, because the servers take seconds to start.
func TestPersonsAreErasedAndToldOnARealTemporal(t *testing.T) {
	t.Parallel()
	b := newBatchTest(t, embedded.KafkaChild)
	cl := b.kafka(t)
	ctx := t.Context()
	b.fill(t, event.Page, 3) // visitors v-0 to v-6
	cfg, conn := b.config(t)
	if err := conn.Exec(ctx, `INSERT INTO events_page (event_id, tenant, name, visitor_id, ingested_at, raw_topic, raw_partition, raw_offset)
		SELECT toString(number), 'default', 'page_view', concat('v-', toString(number % 7)), '2026-03-01 00:00:00', 'raw.page', 0, number FROM numbers(30)`); err != nil {
		t.Fatal(err)
	}
	var raw []*kgo.Record
	for range 30 {
		raw = append(raw, &kgo.Record{Topic: "raw.page", Partition: 0, Value: []byte("x")})
	}
	if err := cl.ProduceSync(ctx, raw...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	rows := olap.NewEraser(conn, "")
	start := func(typ, input string) (activities.Started, func(into any) error) {
		run, s, err := activities.Start(ctx, b.client, activities.StartRequest{Type: typ, Input: json.RawMessage(input), Trigger: name.Manual})
		if err != nil {
			t.Fatal(err)
		}
		return s, func(into any) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
			defer cancel()
			return run.Get(ctx, into)
		}
	}

	t.Log("a worker that is killed in the middle of it leaves no trace of that")
	const request = "20261122-5f3a9c01"
	if err := rows.PutSubjects(ctx, request, []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v-3"}, {Tenant: "default", Kind: event.SubjectVisitor, ID: "v-5"}}, time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	first := b.start(t, failpoint.Env+"="+lakehouse.FailEraseAfter+"=kill@1")
	s, wait := start(name.EraseSubject, `{"request": "`+request+`", "subjects": 2}`)
	<-first.ended
	second := b.start(t)
	var r name.EraseResult
	if err := wait(&r); err != nil {
		t.Fatal(err)
	}
	head, _ := b.head(t, "events_page")
	var left uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM events_page").Scan(&left); err != nil {
		t.Fatal(err)
	}
	const gone = 4 + 4 // of each visitor in thirty rows
	if head.Rows != 30-gone || left != 30-gone {
		t.Errorf("%d rows are left in Iceberg and %d in ClickHouse, not %d", head.Rows, left, 30-gone)
	}
	public, err := activities.PublicKey(cfg.ErasureDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{name.PhaseLogical, name.PhasePhysical} {
		body, err := activities.Certificate(ctx, conn, request, phase)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(cfg.ErasureDir(), "certificates", request+"-"+phase+".json"))
		if err != nil || strings.TrimSpace(string(file)) != body {
			t.Errorf("the file and the table have different certificates: %v", err)
		}
		if c, err := activities.VerifyCertificate(public, []byte(body)); err != nil || c.Subjects != 2 || c.Request != request {
			t.Errorf("%s: %+v, %v", phase, c, err)
		}
	}
	list, err := activities.EraseRequests(ctx, conn)
	if err != nil || len(list) != 1 || list[0].State != name.PhasePhysical || list[0].Subjects != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if q, err := rows.Request(ctx, request); err != nil || q.Subjects != 0 {
		t.Errorf("the ids are still there: %+v, %v", q, err)
	}
	h := b.keep(t, "erase", s.ID, s.RunID)
	for what, text := range map[string]string{"history": historyText(t, h), "log of the first worker": first.said.String()} {
		if strings.Contains(text, "v-3") || strings.Contains(text, "v-5") {
			t.Errorf("the %s names a subject", what)
		}
	}

	t.Log("the same request again finds nothing to do, and a wrong one does nothing")
	again, wait := start(name.EraseSubject, `{"request": "`+request+`", "subjects": 2, "run": "again"}`)
	if err := wait(&r); err != nil || r.Rows != 0 {
		t.Errorf("%s: %+v, %v", again.ID, r, err)
	}
	_, wait = start(name.EraseSubject, `{"request": "20261122-00000000", "subjects": 2}`)
	if err := wait(nil); err == nil || !strings.Contains(err.Error(), "there are no subjects of request") {
		t.Errorf("%v", err)
	}

	t.Log("an archive has a person's rows, is private, and goes by itself")
	const asked = "20261122-77b0e4d2"
	if err := rows.PutSubjects(ctx, asked, []event.Subject{{Tenant: "default", Kind: event.SubjectVisitor, ID: "v-1"}}, time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	s, wait = start(name.ExportSubject, `{"request": "`+asked+`", "subjects": 1, "keep": "4s"}`)
	path := filepath.Join(cfg.ErasureDir(), "exports", asked+".zip")
	kept := filepath.Join(t.TempDir(), "archive.zip")
	eventuallySo(t, "the archive is there", func() bool { return os.Link(path, kept) == nil })
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	z, err := zip.OpenReader(kept)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err = errors.Join(err, in.Close()); err != nil {
			t.Fatal(err)
		}
		texts[f.Name] = string(text)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(texts["events_page.ndjson"], `"visitor_id":"v-1"`); n != 5 || strings.Count(texts["events_page.ndjson"], "\n") != 5 || !strings.Contains(texts["manifest.json"], `"rows": 5`) {
		t.Errorf("%d rows; %s", n, texts["manifest.json"])
	}
	var told name.ExportResult
	if err := wait(&told); err != nil || told.Rows != 5 {
		t.Errorf("%+v, %v", told, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the archive is still there: %v", err)
	}
	if text := historyText(t, b.keep(t, "export", s.ID, s.RunID)); strings.Contains(text, "v-1") {
		t.Error("the history names a subject")
	}
	second.stop()
	if said := second.said.String(); strings.Contains(said, "v-3") || strings.Contains(said, "v-1\"") {
		t.Error("the log names a subject")
	}
}
