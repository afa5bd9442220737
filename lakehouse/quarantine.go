package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/event"
)

// Failpoints of the quarantine.
const (
	FailQuarantineStored  = "lakehouse.quarantine.stored"        // the rows are in quarantine, and still in the table
	FailQuarantineBefore  = "lakehouse.quarantine.commit.before" // of taking them out
	FailQuarantineAfter   = "lakehouse.quarantine.commit.after"
	FailReleaseBefore     = "lakehouse.release.commit.before" // of bringing them back
	FailReleaseAfter      = "lakehouse.release.commit.after"
	failQuarantineUnnamed = "lakehouse.quarantine.append"
)

const quarantineSuffix = "__quarantine"

// QuarantineTable is where rows of a table are kept that are not to be read with it: the same columns, and why, when and in which run they were taken out.
func QuarantineTable(name string) string { return name + quarantineSuffix }

// The columns of a quarantine table beside those of its table. Their ids are beyond any that a table of the stream gets.
const (
	quarantineReason = "quarantine_reason"
	quarantineAt     = "quarantined_at"
	quarantineRun    = "quarantine_run"
)

func quarantineFields() []iceberg.NestedField {
	return []iceberg.NestedField{
		{ID: 1_000_001, Name: quarantineReason, Type: iceberg.PrimitiveTypes.String, Required: true, Doc: "why the row is not in its table"},
		{ID: 1_000_002, Name: quarantineAt, Type: iceberg.PrimitiveTypes.TimestampTz, Required: true, Doc: "when it was taken out"},
		{ID: 1_000_003, Name: quarantineRun, Type: iceberg.PrimitiveTypes.String, Required: true, Doc: "the run that did"},
	}
}

// ensureQuarantine makes the quarantine of a table, or gives it the columns that its table has got since.
func (c *Catalog) ensureQuarantine(ctx context.Context, name string) error {
	main, err := c.Load(ctx, name)
	if err != nil {
		return err
	}
	q := QuarantineTable(name)
	exists, err := c.base.CheckTableExists(ctx, c.ident(q))
	if err != nil {
		return fmt.Errorf("looking for table %s: %w", q, err)
	}
	if !exists {
		spec := main.Spec()
		fields := append(slices.Clone(main.Schema().Fields()), quarantineFields()...)
		updates := []table.Update{
			table.NewAssignUUIDUpdate(uuid.New()), table.NewUpgradeFormatVersionUpdate(2), table.NewSetLocationUpdate(c.location(q)),
			table.NewAddSchemaUpdate(iceberg.NewSchema(0, fields...)), table.NewSetCurrentSchemaUpdate(-1), table.NewAddPartitionSpecUpdate(&spec, true), table.NewSetDefaultSpecUpdate(-1),
		}
		if c.base.server {
			updates = append(updates, table.NewAddSortOrderUpdate(&table.UnsortedSortOrder), table.NewSetDefaultSortOrderUpdate(-1))
		}
		if updates = append(updates, table.NewSetPropertiesUpdate(Properties(name))); !c.base.server {
			updates = append(updates, table.NewRemoveSchemasUpdate([]int{0}))
		}
		_, _, err := c.base.CommitTable(ctx, c.ident(q), []table.Requirement{table.AssertCreate()}, updates)
		if err == nil {
			return nil
		}
		if there, lookErr := c.base.CheckTableExists(ctx, c.ident(q)); lookErr != nil || !there { // another process was first
			return fmt.Errorf("creating table %s: %w", q, err)
		}
	}
	return c.swap(ctx, q, func(t *table.Table) error {
		have := t.Schema()
		want := append(slices.Clone(main.Schema().Fields()), quarantineFields()...)
		for i := range want {
			if _, there := have.FindFieldByID(want[i].ID); !there {
				want[i].Required = false // rows that are there have no value
			}
		}
		fields, added, err := merge(have.Fields(), want, "")
		if err != nil || added == 0 {
			return err
		}
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertCurrentSchemaID(have.ID), table.AssertLastAssignedFieldID(t.Metadata().LastColumnID())}
		_, _, err = c.base.CommitTable(ctx, c.ident(q), reqs, []table.Update{table.NewAddSchemaUpdate(iceberg.NewSchema(have.ID+1, fields...)), table.NewSetCurrentSchemaUpdate(-1)})
		return err
	})
}

// QuarantineResult is what a quarantine or release has done.
type QuarantineResult struct {
	Table    string `json:"table"`
	Run      string `json:"run"`
	Rows     int64  `json:"rows"`        // in quarantine, or brought back
	Removed  int64  `json:"removed"`     // from where they were
	Dropped  int64  `json:"dropped"`     // not brought back, since their subject was erased
	Present  int64  `json:"present"`     // not brought back, since they are there
	Snapshot int64  `json:"snapshot_id"` // of the table
}

// Quarantine takes the rows that a filter names out of main, into the quarantine table: first they are there, then they go, in a commit that carries the offsets. A run that ends in
// between leaves them in both; the same run again goes on with exactly these rows.
func (c *Catalog) Quarantine(ctx context.Context, name, run, reason string, filter iceberg.BooleanExpression) (QuarantineResult, error) {
	out, err := c.quarantine(ctx, name, run, reason, filter)
	if err != nil {
		return out, fmt.Errorf("quarantine of rows of table %s, run %s: %w", name, run, err)
	}
	return out, nil
}

func (c *Catalog) quarantine(ctx context.Context, name, run, reason string, filter iceberg.BooleanExpression) (QuarantineResult, error) {
	out := QuarantineResult{Table: name, Run: run}
	if run == "" || reason == "" || filter == nil || strings.HasSuffix(name, quarantineSuffix) {
		return out, errors.New("run, reason and filter must be given, and a table that is no quarantine")
	}
	if err := c.ensureQuarantine(ctx, name); err != nil {
		return out, err
	}
	q := QuarantineTable(name)
	if made, err := c.madeBy(ctx, q, QuarantineKey, run); err != nil {
		return out, err
	} else if made == 0 {
		now := time.Now()
		if _, err := c.copyRows(ctx, rowCopy{
			from: name, to: q, scan: ScanOptions{Filter: filter}, key: QuarantineKey, run: run, before: failQuarantineUnnamed, after: FailQuarantineStored,
			add: map[string]func(n int) arrow.Array{quarantineReason: texts(reason), quarantineRun: texts(run), quarantineAt: stamps(now)},
		}); err != nil {
			return out, err
		}
	}
	spots, err := c.spotsOf(ctx, q, iceberg.EqualTo(iceberg.Reference(quarantineRun), run))
	if err != nil {
		return out, err
	}
	out.Rows = int64(len(spots))
	if out.Removed, err = c.removeRows(ctx, name, QuarantineKey, run, spots, nil, FailQuarantineBefore, FailQuarantineAfter); err != nil {
		return out, err
	}
	out.Snapshot, err = c.madeBy(ctx, name, QuarantineKey, run)
	return out, err
}

// Release brings the rows of a quarantine run back, as they are there. Rows of erased subjects do not come back, nor do rows that main has. What was released leaves the
// quarantine table. id names the release: the same one again goes on where it ended.
func (c *Catalog) Release(ctx context.Context, name, run, id string, erased *event.Erased) (QuarantineResult, error) {
	out, err := c.release(ctx, name, run, id, erased)
	if err != nil {
		return out, fmt.Errorf("release of rows of table %s from run %s: %w", name, run, err)
	}
	return out, nil
}

func (c *Catalog) release(ctx context.Context, name, run, id string, erased *event.Erased) (QuarantineResult, error) {
	out := QuarantineResult{Table: name, Run: run}
	if run == "" || id == "" {
		return out, errors.New("run and id must be given")
	}
	if err := c.ensureQuarantine(ctx, name); err != nil {
		return out, err
	}
	q, of := QuarantineTable(name), iceberg.EqualTo(iceberg.Reference(quarantineRun), run)
	spots, err := c.spotsOf(ctx, q, of)
	if err != nil {
		return out, err
	}
	if out.Snapshot, err = c.madeBy(ctx, name, ReleaseKey, id); err != nil {
		return out, err
	}
	if out.Snapshot == 0 && len(spots) > 0 {
		present, err := c.spotsOf(ctx, name, spots.filter())
		if err != nil {
			return out, err
		}
		out.Rows, err = c.copyRows(ctx, rowCopy{
			from: q, to: name, scan: ScanOptions{Filter: of}, key: ReleaseKey, run: id, before: FailReleaseBefore, after: FailReleaseAfter,
			keep: func(b arrow.RecordBatch) (func(i int) bool, error) {
				at, err := newSpots(b)
				if err != nil {
					return nil, err
				}
				var gone *eraseMatch
				if erased.Len() > 0 {
					if gone, err = newEraseMatch(b, erased); err != nil {
						return nil, err
					}
				}
				return func(i int) bool {
					switch {
					case present[at(i)]:
						out.Present++
						return false
					case gone != nil && gone.drops(i):
						out.Dropped++
						return false
					}
					return true
				}, nil
			},
		})
		if err != nil {
			return out, err
		}
		if out.Snapshot, err = c.madeBy(ctx, name, ReleaseKey, id); err != nil {
			return out, err
		}
	}
	out.Removed, err = c.removeRows(ctx, q, ReleaseKey, id, spots, of, FailQuarantineBefore, FailQuarantineAfter)
	return out, err
}

// QuarantineRun is what one run has put into quarantine and is still there.
type QuarantineRun struct {
	Run    string    `json:"run"`
	Reason string    `json:"reason"`
	At     time.Time `json:"quarantined_at"`
	Rows   int64     `json:"rows"`
}

// Quarantined lists the runs of which rows of a table are in quarantine, the oldest first.
func (c *Catalog) Quarantined(ctx context.Context, name string) ([]QuarantineRun, error) {
	byRun := map[string]*QuarantineRun{}
	err := c.ScanRows(ctx, QuarantineTable(name), ScanOptions{Columns: []string{quarantineReason, quarantineAt, quarantineRun}}, func(b arrow.RecordBatch) error {
		run, err1 := column[*array.String](b, quarantineRun)
		reason, err2 := column[*array.String](b, quarantineReason)
		at, err3 := column[*array.Timestamp](b, quarantineAt)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		for i := range run.Len() {
			r := byRun[run.Value(i)]
			if r == nil {
				r = &QuarantineRun{Run: strings.Clone(run.Value(i)), Reason: strings.Clone(reason.Value(i)), At: event.Time(int64(at.Value(i)))}
				byRun[r.Run] = r
			}
			r.Rows++
		}
		return nil
	})
	if errors.Is(err, catalog.ErrNoSuchTable) {
		return []QuarantineRun{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := []QuarantineRun{}
	for _, r := range byRun {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b QuarantineRun) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Run, b.Run)) })
	return out, nil
}

// AddQuarantined adds to what was found of ranges the rows that are in quarantine, and gives their number.
func (c *Catalog) AddQuarantined(ctx context.Context, name string, ranges []RangeResult) (int64, error) {
	byPart := map[RawPartition][]*RangeResult{}
	for i := range ranges {
		byPart[ranges[i].RawPartition] = append(byPart[ranges[i].RawPartition], &ranges[i])
	}
	columns := []string{"raw_topic", "raw_partition", "raw_offset"}
	hashed := name != FailedTable
	if hashed {
		columns = append(columns, "row_hash")
	}
	n := int64(0)
	err := c.ScanRows(ctx, QuarantineTable(name), ScanOptions{Columns: columns}, func(b arrow.RecordBatch) error {
		topic, err1 := column[*array.String](b, "raw_topic")
		part, err2 := column[*array.Int32](b, "raw_partition")
		offset, err3 := column[*array.Int64](b, "raw_offset")
		hash := offset
		var err4 error
		if hashed {
			hash, err4 = column[*array.Int64](b, "row_hash")
		}
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return err
		}
		for i := range topic.Len() {
			list := byPart[RawPartition{topic.Value(i), part.Value(i)}]
			at, found := slices.BinarySearchFunc(list, offset.Value(i), func(r *RangeResult, o int64) int {
				switch {
				case r.To <= o:
					return -1
				case r.From > o:
					return 1
				}
				return 0
			})
			if !found {
				continue
			}
			h := int64(0)
			if hashed {
				h = hash.Value(i)
			}
			list[at].Found.Add(h)
			n++
		}
		return nil
	})
	if errors.Is(err, catalog.ErrNoSuchTable) {
		return 0, nil
	}
	return n, err
}

// texts and stamps make columns of one value.
func texts(s string) func(n int) arrow.Array {
	return func(n int) arrow.Array {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		defer b.Release()
		for range n {
			b.Append(s)
		}
		return b.NewArray()
	}
}

func stamps(at time.Time) func(n int) arrow.Array {
	return func(n int) arrow.Array {
		b := array.NewTimestampBuilder(memory.DefaultAllocator, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"})
		defer b.Release()
		for range n {
			b.Append(arrow.Timestamp(at.UnixMicro()))
		}
		return b.NewArray()
	}
}
