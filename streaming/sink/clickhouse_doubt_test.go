package sink

import (
	"context"
	"fmt"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kadm"

	"millrace/event"
)

// What was measured of ClickHouse and what the sink's rules rest on. A server that behaves otherwise breaks them.

func TestClickHouseATokenAloneLosesRowsIfBlocksAreCutOtherwise(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	if err := b.conn.Exec(t.Context(), "CREATE TABLE trap (a Int64, m Int64) ENGINE = MergeTree PARTITION BY m ORDER BY a SETTINGS non_replicated_deduplication_window = 10000"); err != nil {
		t.Fatal(err)
	}
	insert := func(token string, from, to, month int64) {
		t.Helper()
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token}))
		batch, err := b.conn.PrepareBatch(ctx, "INSERT INTO trap")
		if err != nil {
			t.Fatal(err)
		}
		for a := from; a < to; a++ {
			if err := batch.Append(a, month); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() int64 { return b.count("(SELECT count() FROM trap)") }
	insert("same", 0, 1000, 1)
	insert("same", 0, 1000, 1)
	if n := rows(); n != 1000 {
		t.Errorf("the same block under the same token: %d rows of 1000", n)
	}
	insert("cut", 1000, 1300, 1)
	insert("cut", 1000, 2000, 1) // the range rebuilt under its token with other boundaries
	if n := rows(); n != 1300 {
		t.Errorf("the trap has gone: %d rows, it was 1300; the presence check may be simplified", n)
	}
	if err := b.conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2})), "ALTER TABLE trap DELETE WHERE a < 1000"); err != nil {
		t.Fatal(err)
	}
	insert("same", 0, 1000, 1)
	if n := rows(); n != 300 {
		t.Errorf("deleted rows come back under their old token: %d rows, it was 300", n)
	}
}

// noteIntent makes the group look as it does after a sink was killed between its intent and the end of the insert.
func (b *clickhouseBench) noteIntent(topic string, partition int32, lo, hi int64) {
	b.t.Helper()
	topics, err := clickhouseTopics()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, one := range topics {
		if one.name != topic {
			continue
		}
		note, err := clickhouseIntent{lo: lo, hi: hi, columns: one.tables[0].ids}.encode()
		if err != nil {
			b.t.Fatal(err)
		}
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: lo, LeaderEpoch: -1, Metadata: note})
		if err := kadm.NewClient(b.cl).CommitAllOffsets(b.t.Context(), DefaultClickHouseConfig().Group, offsets); err != nil {
			b.t.Fatal(err)
		}
	}
}

// retire ends a sink and takes it out of the group, so that the test may set the group's offsets.
func (b *clickhouseBench) retire(r *runningClickhouse) {
	b.t.Helper()
	b.finish(r)
	cfg := DefaultClickHouseConfig()
	if _, err := kadm.NewClient(b.cl).LeaveGroup(b.t.Context(), kadm.LeaveGroup(cfg.Group).InstanceIDs(cfg.InstanceID)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *clickhouseBench) presence(r *runningClickhouse, outcome string) float64 {
	return clickhouseMetric(b.t, r.m.presence.WithLabelValues(outcome))
}

func TestClickHouseAnIntentWhoseRowsAreAllThereIsNotInsertedAgain(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	b.send(event.Cart, 0, 500)
	b.exact()
	b.retire(s)
	b.noteIntent(event.Cart.EventsTopic(), 0, 100, 400)
	s = b.start(fastClickHouse())
	b.committed(event.Cart.EventsTopic())
	b.send(event.Cart, 0, 100)
	b.exact()
	if got := b.presence(s, "all"); got < 1 {
		t.Errorf("%v checks found everything", got)
	}
	b.finish(s)
}

func TestClickHouseAnIntentOfWhichNothingIsThereIsInserted(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	b.send(event.Cart, 0, 500)
	b.noteIntent(event.Cart.EventsTopic(), 0, 0, 400)
	s := b.start(fastClickHouse())
	b.exact()
	b.committed(event.Cart.EventsTopic())
	if got := b.presence(s, "none"); got != 1 {
		t.Errorf("%v checks found nothing", got)
	}
	b.finish(s)
}

func TestClickHouseOfAnIntentThatIsPartlyThereOnlyTheRestIsInserted(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	b.send(event.Cart, 0, 500)
	b.exact()
	b.retire(s)
	// The parts of an insert that spans months are committed one by one: some may be missing. And a row may have been deleted, whose block's token is still known.
	if err := b.conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2})), "ALTER TABLE events_cart DELETE WHERE kafka_offset % 3 = 0 OR kafka_offset > 450"); err != nil {
		t.Fatal(err)
	}
	b.noteIntent(event.Cart.EventsTopic(), 0, 0, 500)
	s = b.start(fastClickHouse())
	b.exact()
	b.committed(event.Cart.EventsTopic())
	if got := b.presence(s, "some"); got != 1 {
		t.Errorf("%v checks found a part", got)
	}
	b.finish(s)
}

func TestClickHouseRowsDeletedBehindAKnownTokenComeBackWithTheIntent(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	b.send(event.Cart, 0, 300)
	b.noteIntent(event.Cart.EventsTopic(), 0, 0, 300)
	s := b.start(fastClickHouse())
	b.exact()
	b.retire(s)
	if err := b.conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2})), "ALTER TABLE events_cart DELETE WHERE 1"); err != nil {
		t.Fatal(err)
	}
	b.noteIntent(event.Cart.EventsTopic(), 0, 0, 300) // the same range, the same token
	s = b.start(fastClickHouse())
	b.exact()
	b.finish(s)
}

func TestClickHouseAGroupSetBackInsertsNothingTwice(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	cfg := fastClickHouse()
	cfg.FlushRows = 70
	s := b.start(cfg)
	b.send(event.Cart, 0, 500)
	b.send(event.Cart, 1, 500)
	b.exact()
	b.retire(s)
	offsets := kadm.Offsets{}
	offsets.AddOffset(event.Cart.EventsTopic(), 0, 13, -1)
	offsets.AddOffset(event.Cart.EventsTopic(), 1, 0, -1)
	if err := kadm.NewClient(b.cl).CommitAllOffsets(t.Context(), cfg.Group, offsets); err != nil {
		t.Fatal(err)
	}
	b.send(event.Cart, 0, 100)
	cfg.FlushRows = 90 // other boundaries
	s = b.start(cfg)
	b.exact()
	b.committed(event.Cart.EventsTopic())
	b.exact()
	b.finish(s)
}

func TestClickHouseWithoutAGroupTheTableSaysWhereToStart(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	s := b.start(fastClickHouse())
	b.send(event.Cart, 0, 300)
	b.send(event.Page, 1, 300)
	b.exact()
	b.finish(s)
	b.forgetGroup()
	b.send(event.Cart, 0, 50)
	b.send(event.Cart, 1, 50)
	s = b.start(fastClickHouse())
	b.exact()
	b.committed(event.Cart.EventsTopic())
	if got := b.presence(s, "all") + b.presence(s, "some"); got != 0 {
		t.Errorf("%v ranges were in doubt: the start was not the table's end", got)
	}
	b.finish(s)
}

func TestClickHouseANoteOfANewerReleaseStopsTheSink(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	b.send(event.Cart, 0, 10)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: event.Cart.EventsTopic(), Partition: 0, At: 0, LeaderEpoch: -1, Metadata: "millrace2 0-5 ff"})
	if err := kadm.NewClient(b.cl).CommitAllOffsets(t.Context(), DefaultClickHouseConfig().Group, offsets); err != nil {
		t.Fatal(err)
	}
	s := b.start(fastClickHouse())
	wantClickhouseFault(t, s.wait(), "MR-CH-007")
}

func TestClickHouseNothingIsInsertedOnAnOldCommit(t *testing.T) {
	t.Parallel()
	b := newClickhouseBench(t)
	cfg := fastClickHouse()
	s := b.start(cfg)
	b.send(event.Cart, 0, 10)
	b.exact()
	s.mu.Lock()
	defer func() {
		s.mu.Unlock()
		b.finish(s)
	}()
	p := s.partitions[event.Cart.EventsTopic()][0]
	rows, err := p.topic.decode(context.Background(), s.codecs, nil, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows.release()
	batch := &clickhouseBatch{p: p, intent: clickhouseIntent{lo: 10, hi: 20}} // noted: never
	if err := s.insertOrBisect(context.Background(), batch, nil, p.topic.tables[0].block(nil, 0), "x"); fmt.Sprint(err) != fmt.Sprint(errClickhouseStale) {
		t.Errorf("error %v", err)
	}
}
