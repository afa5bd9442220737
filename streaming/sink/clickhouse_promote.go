package sink

import (
	"context"
	"time"

	"millrace/event"
	"millrace/event/schema"
	"millrace/olap"
)

// promote brings tables and layouts to the promotions of properties that the topic control tells, before the next batches are begun. A batch whose note is with
// the group already keeps the columns of its note.
//
// Events do not wait for columns: a table that cannot be changed is fed as it is, and asked again later.
func (s *ClickHouse) promote(ctx context.Context, now time.Time) {
	if now.Before(s.promoteAt) {
		return
	}
	all, version, changed := s.promotions.since(s.promoted)
	if !changed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	pending := 0
	for _, t := range s.topics {
		if !t.events {
			continue
		}
		have, failed := s.addPromoted(ctx, t.category, all[t.category])
		pending += failed
		table := t.tables[0]
		layout := promoteClickhouse(table.plain, have)
		table.mu.Lock()
		table.layout, table.ids, table.free = layout, layout.ids, nil
		table.mu.Unlock()
	}
	s.m.promotion.pending.Set(float64(pending))
	if pending > 0 {
		s.promoteAt = now.Add(promoteRetry)
		return
	}
	s.promoted = version
}

// addPromoted adds the columns to a table, one by one: the promotions that it has afterwards, and how many it has not.
func (s *ClickHouse) addPromoted(ctx context.Context, c event.Category, ps []schema.Promotion) (have []schema.Promotion, failed int) {
	for _, p := range ps {
		if err := olap.AddPromoted(ctx, s.conn, c.Table(), []schema.Promotion{p}, s.cfg.ClusterName); err != nil {
			s.log.WarnContext(ctx, "clickhouse sink: a property cannot become a column now", "table", c.Table(), "column", p.Name, "error", err)
			failed++
			continue
		}
		have = append(have, p)
	}
	return have, failed
}
