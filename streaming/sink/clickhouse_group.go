package sink

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/fault"
	"millrace/olap"
)

// clickhouseMark is a position to be committed, with its note.
type clickhouseMark struct {
	p      *clickhousePartition
	offset int64
	note   string
}

// commit commits positions with the member's generation and waits for the answer: a group that has gone on without us accepts nothing.
func (s *ClickHouse) commit(ctx context.Context, marks []clickhouseMark) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SessionTimeout)
	defer cancel()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	notes := map[string]map[int32]string{}
	for _, m := range marks {
		t := m.p.topic.name
		if offsets[t] == nil {
			offsets[t], notes[t] = map[int32]kgo.EpochOffset{}, map[int32]string{}
		}
		offsets[t][m.p.partition] = kgo.EpochOffset{Epoch: -1, Offset: m.offset}
		notes[t][m.p.partition] = m.note
	}
	withNotes := kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if req.Generation < 0 {
			return errors.New("not a member of the group") // a broker would accept it
		}
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				note := notes[req.Topics[i].Topic][p.Partition]
				p.Metadata = &note
			}
		}
		return nil
	})
	var errs []error
	done := false
	s.cl.CommitOffsetsSync(withNotes, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		done = true
		if err != nil {
			errs = append(errs, err)
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					errs = append(errs, fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err))
				}
			}
		}
	})
	if !done {
		errs = append(errs, errors.New("not sent"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("committing to group %s: %w", s.cfg.Group, err)
	}
	return nil
}

// settle finds out where newly assigned partitions are: what the group knows, and for exactly-once tables what the table holds beyond it.
func (s *ClickHouse) settle(ctx context.Context) error {
	var fresh []*clickhousePartition
	for p := range s.owned() {
		if !p.settled {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.identify(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	known, err := kadm.NewClient(s.cl).FetchOffsets(ctx, s.cfg.Group)
	if err != nil {
		return fmt.Errorf("reading offsets of group %s: %w", s.cfg.Group, err)
	}
	byTopic := map[*clickhouseTopic][]*clickhousePartition{}
	for _, p := range fresh {
		p.next, p.intent, p.until = -1, nil, 0
		got, ok := known.Lookup(p.topic.name, p.partition)
		if got.Err != nil {
			return fmt.Errorf("reading offsets of group %s: %s/%d: %w", s.cfg.Group, p.topic.name, p.partition, got.Err)
		}
		if ok && got.At >= 0 {
			p.next = got.At
			if p.intent, err = parseClickhouseIntent(got.At, got.Metadata); err != nil {
				return err
			}
			p.doubt = p.intent != nil
		}
		byTopic[p.topic] = append(byTopic[p.topic], p)
	}
	for t, ps := range byTopic {
		if t.once {
			if err := s.settleByTable(ctx, t, ps); err != nil {
				return err
			}
		}
		for _, p := range ps {
			p.next = max(p.next, 0)
			p.skip()
			p.settled = true
		}
	}
	return nil
}

// settleByTable asks the table how far each partition is in it: where to start if the group does not know, and up to where rows may be present if it does (it was
// set back, or its last commit is missing).
func (s *ClickHouse) settleByTable(ctx context.Context, t *clickhouseTopic, ps []*clickhousePartition) error {
	from := ps[0].next
	for _, p := range ps {
		from = min(from, p.next)
	}
	var ids []int32
	for _, p := range ps {
		ids = append(ids, p.partition)
	}
	rows, err := s.conn.Query(ctx, "SELECT kafka_partition, max(kafka_offset) + 1 FROM "+s.target(t.tables[0])+
		" WHERE kafka_topic = ? AND kafka_partition IN (?) AND kafka_offset >= ? GROUP BY kafka_partition", t.name, ids, max(from, 0))
	if err != nil {
		return fmt.Errorf("reading how far %s is: %w", t.tables[0].layout.table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var partition int32
		var end int64
		if err := rows.Scan(&partition, &end); err != nil {
			return fmt.Errorf("reading how far %s is: %w", t.tables[0].layout.table, err)
		}
		i := slices.IndexFunc(ps, func(p *clickhousePartition) bool { return p.partition == partition })
		if i < 0 {
			continue
		}
		if ps[i].next < 0 {
			ps[i].next = end
		}
		ps[i].until = end
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading how far %s is: %w", t.tables[0].layout.table, err)
	}
	return nil
}

// seek has partitions fetched from where they are instead of from the start.
func (s *ClickHouse) seek() {
	set := map[string]map[int32]kgo.EpochOffset{}
	for p := range s.owned() {
		if !p.seek || len(p.records) > 0 {
			continue
		}
		p.seek = false
		if set[p.topic.name] == nil {
			set[p.topic.name] = map[int32]kgo.EpochOffset{}
		}
		set[p.topic.name][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: p.next}
	}
	if len(set) > 0 {
		s.cl.SetOffsets(set)
	}
}

// identify makes sure that each topic is the one its table was fed from so far: offsets of a topic made anew would be taken for rows already there.
func (s *ClickHouse) identify(ctx context.Context) error {
	if s.identity {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	var names []string
	for name := range s.topics {
		names = append(names, name)
	}
	got, err := kadm.NewClient(s.cl).ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("looking up topic ids: %w", err)
	}
	known, err := s.sinkTopics(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := got[name].Err; err != nil {
			return fmt.Errorf("looking up the id of topic %s: %w", name, err)
		}
		id := got[name].ID
		s.topics[name].id = hex.EncodeToString(id[:])
		old := known[name]
		switch {
		case len(old) == 0:
			if err := s.conn.Exec(ctx, "INSERT INTO "+olap.TableSinkTopics+" (topic, topic_id) VALUES (?, ?)", name, s.topics[name].id); err != nil {
				return fmt.Errorf("noting the id of topic %s: %w", name, err)
			}
		case len(old) > 1 || old[0] != s.topics[name].id:
			return fault.Newf("MR-CH-005", "topic %s has id %s, its table was fed from %s", name, s.topics[name].id, strings.Join(old, ", "))
		}
	}
	s.identity = true
	return nil
}

func (s *ClickHouse) sinkTopics(ctx context.Context) (map[string][]string, error) {
	rows, err := s.conn.Query(ctx, "SELECT topic, topic_id FROM "+olap.TableSinkTopics+" FINAL")
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", olap.TableSinkTopics, err)
	}
	defer rows.Close()
	out := map[string][]string{}
	for rows.Next() {
		var topic, id string
		if err := rows.Scan(&topic, &id); err != nil {
			return nil, fmt.Errorf("reading %s: %w", olap.TableSinkTopics, err)
		}
		out[topic] = append(out[topic], id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", olap.TableSinkTopics, err)
	}
	return out, nil
}

// countParts counts the active parts of every table now and then. A failure leaves the last count: the next insert will show what is wrong.
func (s *ClickHouse) countParts(ctx context.Context) {
	if time.Since(s.counted) < s.cfg.PartsEvery {
		return
	}
	s.counted = time.Now()
	parts, err := s.activeParts(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "clickhouse sink: counting parts", "error", err)
		return
	}
	for _, topic := range s.topics {
		for _, t := range topic.tables {
			t.parts = parts[s.target(t)]
			s.m.parts.WithLabelValues(t.layout.table).Set(float64(t.parts))
		}
	}
}

func (s *ClickHouse) activeParts(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SessionTimeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, "SELECT table, max(n) FROM (SELECT table, partition_id, count() AS n FROM system.parts WHERE active AND database = currentDatabase() GROUP BY ALL) GROUP BY table")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]int{}
	for rows.Next() {
		var table string
		var n uint64
		if err := rows.Scan(&table, &n); err != nil {
			return nil, err
		}
		out[table] = int(n)
	}
	return out, rows.Err()
}
