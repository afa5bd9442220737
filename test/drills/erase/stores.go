package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/activities"
	"millrace/event"
	"millrace/event/schema"
	"millrace/internal/embedded"
	"millrace/internal/embedded/embeddedtest"
	"millrace/lakehouse"
	"millrace/olap"
)

const (
	partitions = 2
	commitRows = 100_000
	perVisitor = 100 // rows of one visitor
	before     = 100 // partition that the rows came from, of which the topics hold nothing any more
	baseTime   = 1_772_323_200_000_000
)

// categories have the rows in turn, so that every tenth is a purchase.
var categories = [10]event.Category{event.Page, event.Page, event.Page, event.Page, event.Page, event.Page, event.Cart, event.Cart, event.Cart, event.Purchase}

var names = map[event.Category]string{event.Page: event.NamePageView, event.Cart: event.NameAddToCart, event.Purchase: event.NamePurchase}

// platform is the stores of the drill.
type platform struct {
	o       options
	dir     string
	servers *embeddedtest.Servers
	broker  *kfake.Cluster
	opts    []kgo.Opt
	cl      *kgo.Client
	codecs  *schema.Codecs
	conn    driver.Conn
	rdb     *redis.Client
	lake    lakehouse.Config
	cat     *lakehouse.Catalog
	python  string
	log     *slog.Logger
	request string
	left    map[string]int64 // rows of others, by table

	topicIDs map[string]string
}

func start(ctx context.Context, dir string, o options) (*platform, error) {
	p := &platform{o: o, dir: dir, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), request: "drill-00000001", left: map[string]int64{}}
	var err error
	if p.servers, err = embeddedtest.Start(ctx, filepath.Join(dir, "servers"), embedded.BrokerKfake, embedded.ClickHouseChild, embedded.RedisChild); err != nil {
		return nil, err
	}
	var topics []string
	for _, t := range event.Topics() {
		if t.Name != event.TopicErasures && t.Name != event.TopicControl {
			topics = append(topics, t.Name)
		}
	}
	p.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...), kfake.SeedTopics(1, event.TopicErasures, event.TopicControl))
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.opts = []kgo.Opt{kgo.SeedBrokers(p.broker.ListenAddrs()...)}
	if p.cl, err = kgo.NewClient(append(p.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	all, err := kadm.NewClient(p.cl).ListTopics(ctx)
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.topicIDs = map[string]string{}
	for _, t := range all {
		p.topicIDs[t.Topic] = t.ID.String()
	}
	if p.codecs, err = schema.NewCodecs(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.codecs.AssignLocal()
	e := p.servers.Endpoints()
	ch := olap.DefaultConfig()
	ch.Addr, ch.User, ch.Password, ch.ReadTimeout = []string{e.ClickHouse.Native}, e.ClickHouse.User, e.ClickHouse.Password, 10*time.Minute
	if p.conn, err = olap.Open(ctx, ch); err == nil {
		err = olap.Migrate(ctx, p.conn, olap.Options{})
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.rdb = redis.NewClient(&redis.Options{Addr: e.Redis})
	p.lake = lakehouse.DefaultConfig()
	p.lake.CatalogURI, p.lake.Warehouse = "sqlite:///"+filepath.Join(dir, "catalog.db"), "file://"+filepath.Join(dir, "warehouse")
	if p.cat, err = lakehouse.Open(ctx, p.lake); err == nil {
		err = lakehouse.EnsureTables(ctx, p.cat)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *platform) stop() error {
	var errs []error
	if p.cat != nil {
		errs = append(errs, p.cat.Close())
	}
	if p.rdb != nil {
		errs = append(errs, p.rdb.Close())
	}
	if p.conn != nil {
		errs = append(errs, p.conn.Close())
	}
	if p.cl != nil {
		p.cl.Close()
	}
	if p.broker != nil {
		p.broker.Close()
	}
	if p.servers != nil {
		p.servers.Stop()
	}
	return errors.Join(errs...)
}

func (p *platform) visitors() int { return max(2*p.o.subjects, p.o.rows/perVisitor) }

// visitor of the i-th row: they come mixed, as visitors do.
func (p *platform) visitor(i int) string {
	return fmt.Sprintf("v%08d", uint64(i)*2_654_435_761%uint64(p.visitors()))
}

// subject is the n-th person to be erased: every second visitor, up to the number.
func subject(n int) string { return fmt.Sprintf("v%08d", 2*n) }

func (p *platform) isSubject(v string) bool {
	var n int
	_, err := fmt.Sscanf(v, "v%d", &n)
	return err == nil && n%2 == 0 && n/2 < p.o.subjects
}

// event makes the i-th row.
func (p *platform) event(i int) (*event.Event, event.Category) {
	c := categories[i%10]
	e := &event.Event{
		ID: fmt.Sprintf("e%010d", i), Tenant: "default", Name: names[c], VisitorID: p.visitor(i), Source: "web", Properties: "{}", SchemaVersion: 1, PagePath: "/p",
		OccurredAt: baseTime + int64(i)*1000, ReceivedAt: baseTime + int64(i)*1000 + 500,
	}
	e.IngestedAt, e.RawTopic, e.RawPartition, e.RawOffset, e.OrderRank = e.ReceivedAt+500, c.RawTopic(), int32(i%partitions), int64(i/partitions), 1
	e.RowHash = e.ComputeRowHash()
	return e, c
}

// fill writes the rows to Iceberg in commits, with nightly tags and published in the middle, to ClickHouse by a statement that makes the same ones, and the first of them to
// the topics.
func (p *platform) fill(ctx context.Context) error {
	commits := max(20, p.o.rows/commitRows)
	each := (p.o.rows + commits - 1) / commits
	for n := range commits {
		if err := p.commit(ctx, n*each, min((n+1)*each, p.o.rows)); err != nil {
			return err
		}
		for _, c := range []event.Category{event.Page, event.Cart, event.Purchase} {
			head, err := p.cat.Head(ctx, c.Table())
			if err != nil {
				return err
			}
			switch n {
			case commits / 5, commits / 2:
				err = p.cat.Tag(ctx, c.Table(), lakehouse.NightlyTag(fmt.Sprintf("2026-03-%02d", 1+n*20/commits)), head.SnapshotID, 0)
			case commits * 3 / 5:
				err = p.cat.MoveRef(ctx, c.Table(), lakehouse.RefPublished, 0, head.SnapshotID)
			}
			if err != nil {
				return err
			}
		}
	}
	for c, take := range map[event.Category]string{event.Page: "number % 10 < 6", event.Cart: "number % 10 BETWEEN 6 AND 8", event.Purchase: "number % 10 = 9"} {
		stmt := fmt.Sprintf(`INSERT INTO %s (event_id, tenant, name, category, visitor_id, occurred_at, received_at, ingested_at, source, properties, kafka_topic, kafka_partition, kafka_offset, raw_topic, raw_partition, raw_offset)
			SELECT 'e' || leftPad(toString(number), 10, '0'), 'default', '%s', '%s', 'v' || leftPad(toString(number * 2654435761 %% %d), 8, '0'), fromUnixTimestamp64Micro(%d + toInt64(number) * 1000, 'UTC'),
			fromUnixTimestamp64Micro(%[5]d + toInt64(number) * 1000 + 500, 'UTC'), fromUnixTimestamp64Micro(%[5]d + toInt64(number) * 1000 + 1000, 'UTC'), 'web', '{}', 'before', number %% 2, number,
			'%s', number %% 2, intDiv(number, 2) FROM numbers(%d) WHERE %s`, c.Table(), names[c], c, p.visitors(), baseTime, c.RawTopic(), p.o.rows, take)
		if err := p.conn.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("filling ClickHouse: %w", err)
		}
	}
	var sent []*kgo.Record
	for i := range min(p.o.replayed, p.o.rows) {
		e, c := p.event(i)
		sent = append(sent, &kgo.Record{Topic: c.EventsTopic(), Partition: int32(i % partitions), Value: p.codecs.AppendEnriched(nil, c, e, nil)})
	}
	if err := p.cl.ProduceSync(ctx, sent...).FirstErr(); err != nil {
		return fmt.Errorf("filling the topics: %w", err)
	}
	for n := range 100 { // keys as recommendations have them
		if err := p.rdb.Set(ctx, fmt.Sprintf("r1:{default|v%08d}", n), "1", 0).Err(); err != nil {
			return fmt.Errorf("filling Redis: %w", err)
		}
	}
	return p.subjectsFile()
}

// commit appends rows [from, to) to their tables.
func (p *platform) commit(ctx context.Context, from, to int) error {
	writers := map[event.Category]*lakehouse.Writer{}
	for i := from; i < to; i++ {
		e, c := p.event(i)
		if writers[c] == nil {
			w, err := p.cat.NewWriter(ctx, c.Table())
			if err != nil {
				return err
			}
			writers[c] = w
		}
		if err := writers[c].WriteEvent(ctx, e, lakehouse.Provenance{Topic: c.EventsTopic(), Partition: before, Offset: int64(i)}); err != nil {
			return err
		}
	}
	for c, w := range writers {
		files, err := w.Finish(ctx)
		if err != nil {
			return err
		}
		id := p.topicIDs[c.EventsTopic()]
		if _, err := p.cat.Append(ctx, c.Table(), files, lakehouse.Vector{id: {before: int64(from)}}, lakehouse.Vector{id: {before: int64(to)}}); err != nil {
			return err
		}
	}
	return nil
}

func (p *platform) subjectsFile() error {
	var b strings.Builder
	for n := range p.o.subjects {
		b.WriteString(subject(n) + "\n")
	}
	return os.WriteFile(filepath.Join(p.dir, "subjects.txt"), []byte(b.String()), 0o600)
}

// ends is the topic of the ledger with the cut of rows that did not come through the raw topics here.
type ends struct {
	*activities.EraseTopic
	cut event.Cut
}

// Cut implements activities.EraseLog.
func (l ends) Cut(ctx context.Context) (event.Cut, error) {
	if _, err := l.EraseTopic.Cut(ctx); err != nil { // the real one can be read
		return nil, err
	}
	return l.cut, nil
}

func (p *platform) cut() event.Cut {
	cut := event.Cut{event.TopicRawFailed: {0, 0}}
	for _, c := range event.Categories() {
		cut[c.RawTopic()] = []int64{int64(p.o.rows), int64(p.o.rows)}
	}
	return cut
}
