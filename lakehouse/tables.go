package lakehouse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"millrace/event/schema"
	"millrace/internal/fault"
)

// Tables of the stream beside those of events: typed failed events, and confirmed alerts.
const (
	FailedTable = "failed_events"
	AlertsTable = "alerts"
)

// PartitionColumn is the time by whose day tables of events are partitioned (schema.Table.Day of each): when the platform knew the event, so that a day closes.
const PartitionColumn = "ingested_at"

// decimal(18,6): amounts in micros.
const (
	amountPrecision = 18
	amountScale     = 6
)

// StreamTables lists the tables that the stream writes.
func StreamTables() []string {
	var out []string
	for _, t := range schema.LakeTables() {
		out = append(out, t.Name)
	}
	return out
}

// Properties are what every table of the stream is created with.
func Properties(name string) iceberg.Properties {
	p := iceberg.Properties{
		table.MetadataDeleteAfterCommitEnabledKey: "true",
		table.MetadataPreviousVersionsMaxKey:      "100",
		table.ManifestMergeEnabledKey:             "true",
		table.WriteDeleteModeKey:                  table.WriteModeCopyOnWrite,
		table.ParquetCompressionKey:               "zstd",
		table.ParquetCompressionLevelKey:          "3",
		table.ParquetRowGroupSizeBytesKey:         "134217728",
		table.WriteTargetFileSizeBytesKey:         "268435456",
		// For maintenance and schema changes only: the stream's own commits pin the head they were made for, which no retry replaces.
		table.CommitNumRetriesKey:          "20",
		table.CommitMinRetryWaitMsKey:      "50",
		table.CommitMaxRetryWaitMsKey:      "2000",
		table.CommitTotalRetryTimeoutMsKey: "60000",
	}
	for _, col := range bloomColumns(name) {
		p[table.ParquetBloomFilterColumnEnabledKeyPrefix+"."+col] = "true"
	}
	return p
}

func bloomColumns(name string) []string {
	for _, t := range schema.LakeTables() {
		if t.Name == name {
			return t.Lookup
		}
	}
	return []string{"event_id", "visitor_id"}
}

// EnsureTables creates the tables of the stream that are missing and adds the columns that they lack. It is idempotent and may run in several processes at once.
// A column that is there with another id or type is fault MR-ICE-002.
func EnsureTables(ctx context.Context, c *Catalog) error {
	for _, name := range StreamTables() {
		want, err := schema.TableNamed(name)
		if err != nil {
			return err
		}
		if err := c.patiently(ctx, func() error { return c.ensureTable(ctx, want) }); err != nil {
			return err
		}
	}
	return nil
}

// patiently repeats f while other processes are in its way.
func (c *Catalog) patiently(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(10 * max(c.cfg.BusyTimeout, time.Second))
	for {
		err := f()
		if err == nil || !passing(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *Catalog) ensureTable(ctx context.Context, want schema.Table) error {
	exists, err := c.base.CheckTableExists(ctx, c.ident(want.Name))
	if err != nil {
		return fmt.Errorf("looking for table %s: %w", want.Name, err)
	}
	if !exists {
		err := c.createTable(ctx, want)
		if err == nil || !errors.Is(err, catalog.ErrTableAlreadyExists) {
			return err
		}
	}
	return c.evolve(ctx, want)
}

// createTable makes the table by one commit of explicit updates: CreateTable would number the fields afresh.
func (c *Catalog) createTable(ctx context.Context, want schema.Table) error {
	sc := IcebergSchema(want)
	day, ok := sc.FindFieldByName(want.Day)
	if !ok {
		return fmt.Errorf("table %s has no column %s", want.Name, want.Day)
	}
	spec := iceberg.NewPartitionSpecID(0, iceberg.PartitionField{SourceIDs: []int{day.ID}, FieldID: iceberg.PartitionDataIDStart, Name: want.Day + "_day", Transform: iceberg.DayTransform{}})
	updates := []table.Update{
		table.NewAssignUUIDUpdate(uuid.New()), table.NewUpgradeFormatVersionUpdate(2), table.NewSetLocationUpdate(c.location(want.Name)),
		table.NewAddSchemaUpdate(sc), table.NewSetCurrentSchemaUpdate(-1),
		table.NewAddPartitionSpecUpdate(&spec, true), table.NewSetDefaultSpecUpdate(-1),
	}
	order, ok := sortOrder(sc)
	if !ok && c.base.server { // must be told
		order, ok = table.UnsortedSortOrder, true
	}
	if ok {
		updates = append(updates, table.NewAddSortOrderUpdate(&order), table.NewSetDefaultSortOrderUpdate(-1))
	}
	updates = append(updates, table.NewSetPropertiesUpdate(Properties(want.Name)))
	if !c.base.server { // iceberg-go begins with an empty schema
		updates = append(updates, table.NewRemoveSchemasUpdate([]int{0}))
	}
	_, _, err := c.base.CommitTable(ctx, c.ident(want.Name), []table.Requirement{table.AssertCreate()}, updates)
	if err == nil {
		return nil
	}
	if there, lookErr := c.base.CheckTableExists(ctx, c.ident(want.Name)); lookErr == nil && there { // another process was first
		return catalog.ErrTableAlreadyExists
	}
	return fmt.Errorf("creating table %s: %w", want.Name, err)
}

// sortOrder is the order in which compaction leaves rows: statistics then prune by event day, then visitor. Files of the stream are not sorted.
func sortOrder(sc *iceberg.Schema) (table.SortOrder, bool) {
	var fields []table.SortField
	for _, by := range []struct {
		column string
		t      iceberg.Transform
	}{{"occurred_at", iceberg.DayTransform{}}, {"visitor_id", iceberg.IdentityTransform{}}, {"occurred_at", iceberg.IdentityTransform{}}} {
		f, ok := sc.FindFieldByName(by.column)
		if !ok {
			return table.SortOrder{}, false
		}
		fields = append(fields, table.SortField{SourceIDs: []int{f.ID}, Transform: by.t, Direction: table.SortASC, NullOrder: table.NullsFirst})
	}
	order, err := table.NewSortOrder(1, fields)
	return order, err == nil
}

// IcebergSchema is the Iceberg schema of a table, with the committed field ids.
func IcebergSchema(t schema.Table) *iceberg.Schema {
	return iceberg.NewSchema(0, nestedFields(t.Columns)...)
}

func nestedFields(cols []schema.Column) []iceberg.NestedField {
	out := make([]iceberg.NestedField, len(cols))
	for i, c := range cols {
		out[i] = iceberg.NestedField{ID: c.ID, Name: c.Name, Type: icebergType(c), Required: !c.Null, Doc: c.Doc}
	}
	return out
}

func icebergType(c schema.Column) iceberg.Type {
	switch c.Type {
	case schema.Int:
		return iceberg.PrimitiveTypes.Int32
	case schema.Long:
		return iceberg.PrimitiveTypes.Int64
	case schema.Bool:
		return iceberg.PrimitiveTypes.Bool
	case schema.Double:
		return iceberg.PrimitiveTypes.Float64
	case schema.Timestamp:
		return iceberg.PrimitiveTypes.TimestampTz
	case schema.Amount:
		return iceberg.DecimalTypeOf(amountPrecision, amountScale)
	case schema.Total:
		return iceberg.DecimalTypeOf(38, amountScale)
	case schema.Blob:
		return iceberg.PrimitiveTypes.Binary
	case schema.StringList:
		return &iceberg.ListType{ElementID: c.Element, Element: iceberg.PrimitiveTypes.String, ElementRequired: true}
	case schema.ItemList:
		return &iceberg.ListType{ElementID: c.Element, Element: &iceberg.StructType{FieldList: nestedFields(c.Items)}, ElementRequired: true}
	default: // String, JSON
		return iceberg.PrimitiveTypes.String
	}
}

// evolve adds the columns and item fields that the table lacks, under their committed ids.
func (c *Catalog) evolve(ctx context.Context, want schema.Table) error {
	const attempts = 10
	for range attempts {
		t, err := c.Load(ctx, want.Name)
		if err != nil {
			return err
		}
		have := t.Schema()
		fields, added, err := merge(have.Fields(), nestedFields(want.Columns), "")
		if err != nil {
			return fault.New("MR-ICE-002", fmt.Errorf("table %s: %w", want.Name, err))
		}
		if added == 0 {
			return nil
		}
		reqs := []table.Requirement{table.AssertTableUUID(t.Metadata().TableUUID()), table.AssertCurrentSchemaID(have.ID), table.AssertLastAssignedFieldID(t.Metadata().LastColumnID())}
		_, _, err = c.base.CommitTable(ctx, c.ident(want.Name), reqs, []table.Update{table.NewAddSchemaUpdate(iceberg.NewSchema(have.ID+1, fields...)), table.NewSetCurrentSchemaUpdate(-1)})
		if err == nil {
			return nil
		}
		if !isStale(err) {
			return fmt.Errorf("adding %d columns to table %s: %w", added, want.Name, err)
		}
	}
	return fmt.Errorf("adding columns to table %s: it changed %d times meanwhile", want.Name, attempts)
}

// merge gives have with what it lacks of want at its end, and how many fields that were.
func merge(have, want []iceberg.NestedField, path string) ([]iceberg.NestedField, int, error) {
	out := append([]iceberg.NestedField(nil), have...)
	byID, byName := map[int]int{}, map[string]int{}
	for i, f := range have {
		byID[f.ID], byName[f.Name] = i, i
	}
	added := 0
	var errs []error
	for _, w := range want {
		i, ok := byID[w.ID]
		if j, named := byName[w.Name]; named && (!ok || j != i) {
			errs = append(errs, fmt.Errorf("column %s%s has field id %d, not %d", path, w.Name, have[j].ID, w.ID))
			continue
		}
		if !ok {
			if w.Required {
				errs = append(errs, fmt.Errorf("column %s%s is missing and cannot be added, since rows that are there would have no value", path, w.Name))
				continue
			}
			out = append(out, w)
			added++
			continue
		}
		f := have[i]
		if f.Name != w.Name {
			errs = append(errs, fmt.Errorf("field id %d is column %s%s, not %s", w.ID, path, f.Name, w.Name))
			continue
		}
		if f.Required && !w.Required {
			errs = append(errs, fmt.Errorf("column %s%s is required, but may be null", path, w.Name))
			continue
		}
		t, n, err := mergeType(f.Type, w.Type, path+w.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[i].Type = t
		added += n
	}
	return out, added, errors.Join(errs...)
}

func mergeType(have, want iceberg.Type, path string) (iceberg.Type, int, error) {
	hl, ok1 := have.(*iceberg.ListType)
	wl, ok2 := want.(*iceberg.ListType)
	if ok1 && ok2 && hl.ElementID == wl.ElementID {
		hs, ok1 := hl.Element.(*iceberg.StructType)
		ws, ok2 := wl.Element.(*iceberg.StructType)
		if ok1 && ok2 {
			fields, n, err := merge(hs.FieldList, ws.FieldList, path+".")
			return &iceberg.ListType{ElementID: hl.ElementID, Element: &iceberg.StructType{FieldList: fields}, ElementRequired: hl.ElementRequired}, n, err
		}
	}
	if !have.Equals(want) {
		return nil, 0, fmt.Errorf("column %s has type %s, not %s", path, have, want)
	}
	return have, 0, nil
}
