package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/event/schema"
	"millrace/lakehouse"
)

const (
	purchases = "events_purchase"
	topic     = "topic-of-the-peers"
	// baseTime is 2026-03-01T00:00:00Z in µs; the rows are of three days.
	baseTime = 1_772_323_200_000_000
	day      = 24 * 3600 * 1_000_000
)

// subject is the table that is changed and read.
type subject struct {
	cat  *lakehouse.Catalog
	each int // rows of a commit
	next int // offset
	gone map[string]bool
}

// step is one kind of change.
type step struct {
	name   string
	change func(*subject, context.Context) error
}

// steps are made in this order on one table. The copy-on-write delete comes before the merge-on-read one: iceberg-go v0.7.0's writes a file anew without
// regard to the deletes that it has already, which brings those rows back. Nothing here deletes in that way; erasure rewrites with all deletes applied.
var steps = [...]step{
	{"appends", func(s *subject, ctx context.Context) error { return s.append(ctx, 5) }},
	{"copy-on-write delete", func(s *subject, ctx context.Context) error { return s.delete(ctx, table.WriteModeCopyOnWrite, 11) }},
	{"merge-on-read delete", func(s *subject, ctx context.Context) error { return s.delete(ctx, table.WriteModeMergeOnRead, 7) }},
	{"appends after deletes", func(s *subject, ctx context.Context) error { return s.append(ctx, 2) }},
	{"a column added", (*subject).addColumn},
	{"compaction", func(s *subject, ctx context.Context) error {
		return s.rewrite(ctx, func(p lakehouse.Policy) lakehouse.Policy { return p.Ordered(nil, nil) })
	}},
	{"sort rewrite", func(s *subject, ctx context.Context) error {
		return s.rewrite(ctx, func(p lakehouse.Policy) lakehouse.Policy {
			return p.Ordered([]string{"visitor_id", "occurred_at"}, nil).All()
		})
	}},
	{"z-order rewrite", func(s *subject, ctx context.Context) error {
		return s.rewrite(ctx, func(p lakehouse.Policy) lakehouse.Policy {
			return p.Ordered(nil, []string{"visitor_id", "occurred_at"}).All()
		})
	}},
	{"appends after rewrites", func(s *subject, ctx context.Context) error { return s.append(ctx, 1) }},
}

// purchase is the i-th row, with values in every kind of column.
func purchase(i int) *event.Event {
	amount := func(v int64) *int64 { return &v }
	e := &event.Event{
		ID: fmt.Sprintf("e-%07d", i), Tenant: "default", Name: event.NamePurchase, VisitorID: fmt.Sprintf("v-%d", i*7919%997), Source: "web",
		OccurredAt: baseTime + int64(i%3)*day + int64(i)*1_000_003 - 5_000_000, ReceivedAt: baseTime + int64(i%3)*day + int64(i)*1000,
		Value: amount(int64(i)*1_000_001 + 1), Currency: []string{"USD", "EUR", "JPY"}[i%3], OrderID: fmt.Sprintf("o-%d", i), Country: "DE", DeviceType: "mobile", SchemaVersion: 1,
		Properties: fmt.Sprintf(`{"season":"%s","größe":%d}`, []string{"spring", "été"}[i%2], i%40), Tax: amount(int64(i)),
		Items: []event.Item{
			{ItemID: fmt.Sprintf("p-%d", i%11), ItemName: "Mug", ItemCategory: "Kitchen", Price: amount(64_950_000 + int64(i)), Quantity: 2},
			{ItemID: fmt.Sprintf("p-%d", i%7+20), Quantity: 1, Position: amount(3)},
		}[:1+i%2],
	}
	if i%5 == 0 {
		e.Value, e.Currency, e.Items = nil, "", nil
	}
	e.IngestedAt, e.RawTopic, e.RawOffset, e.OrderRank = e.ReceivedAt+1000, "raw.purchase", int64(i), 1
	e.RowHash = e.ComputeRowHash()
	return e
}

// append makes n commits.
func (s *subject) append(ctx context.Context, n int) error {
	for range n {
		w, err := s.cat.NewWriter(ctx, purchases)
		if err != nil {
			return err
		}
		to := s.next + s.each
		for i := s.next; i < to; i++ {
			if err := w.WriteEvent(ctx, purchase(i), lakehouse.Provenance{Topic: "events.purchase", Partition: 0, Offset: int64(i)}); err != nil {
				return err
			}
		}
		files, err := w.Finish(ctx)
		if err != nil {
			return err
		}
		at := func(next int) lakehouse.Vector { return lakehouse.Vector{topic: {0: int64(next)}} }
		if _, err := s.cat.Append(ctx, purchases, files, at(s.next), at(to)); err != nil {
			return err
		}
		s.next = to
	}
	return nil
}

// delete removes every nth row that is left, as any engine would.
func (s *subject) delete(ctx context.Context, mode string, nth int) error {
	t, err := s.cat.LoadForMaintenance(ctx, purchases)
	if err != nil {
		return err
	}
	if t.Properties()[table.WriteDeleteModeKey] != mode {
		tx := t.NewTransaction()
		if err := tx.SetProperties(iceberg.Properties{table.WriteDeleteModeKey: mode}); err != nil {
			return err
		}
		if t, err = tx.Commit(ctx); err != nil {
			return err
		}
	}
	var ids []string
	for i := nth; i < s.next; i += nth {
		if id := purchase(i).ID; !s.gone[id] {
			ids = append(ids, id)
		}
	}
	props, err := lakehouse.CarryOffsets(t)
	if err != nil {
		return err
	}
	tx := t.NewTransaction()
	if err := tx.Delete(ctx, iceberg.IsIn(iceberg.Reference("event_id"), ids...), props); err != nil {
		return err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		s.gone[id] = true
	}
	return nil
}

// addColumn adds a column that rows written before do not have, and such that do.
func (s *subject) addColumn(ctx context.Context) error {
	p := schema.Promotion{Category: "purchase", Name: "season", Type: "string", ID: schema.FirstPromotedID}
	if err := s.cat.AddPromoted(ctx, purchases, []schema.Promotion{p}); err != nil {
		return err
	}
	return s.append(ctx, 2)
}

// rewrite compacts by a policy, which must find something to do.
func (s *subject) rewrite(ctx context.Context, of func(lakehouse.Policy) lakehouse.Policy) error {
	p := lakehouse.PolicyOf(purchases)
	p.MinInputFiles, p.MinClosedFiles, p.DeleteRatio = 2, 2, 0.001
	plan, err := s.cat.PlanCompaction(ctx, purchases, of(p))
	if err != nil {
		return err
	}
	if len(plan.Groups) == 0 {
		return errors.New("the plan has nothing to rewrite")
	}
	var results []lakehouse.GroupResult
	for i := range plan.Groups {
		r, err := s.cat.CompactGroup(ctx, plan, i, nil)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	_, err = s.cat.CommitRewrite(ctx, plan, results)
	return err
}

// expected is what was stored and not deleted.
func (s *subject) expected() sums {
	out := newSums()
	for i := range s.next {
		if e := purchase(i); !s.gone[e.ID] {
			out.Rows++
			out.hash(e.RowHash)
		}
	}
	return out
}
