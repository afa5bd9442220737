package lakehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/event"
	"millrace/event/schema"
)

// NightlyAge is how long the tag of a night stays, and with it the files of its snapshot.
const NightlyAge = 30 * 24 * time.Hour

// NightlyTag is the tag of what was published for a day, 2006-01-02.
func NightlyTag(day string) string { return "nightly-" + day }

// RawPartition is one partition of a raw topic.
type RawPartition struct {
	Topic     string
	Partition int32
}

// ControlRange is one entry of the control totals: what the records of a raw offset range [From, To) have become.
type ControlRange struct {
	RawPartition
	From, To int64
	Want     event.Checksum
}

// CheckOptions says what to check of a snapshot.
type CheckOptions struct {
	Snapshot int64
	RawTopic string                 // whose control totals count the table's rows
	Since    int64                  // the snapshot checked last, whose rows need no second look; 0: everything is checked
	Covered  map[RawPartition]int64 // how far, in raw offsets, it was compared with the control totals
	Ranges   []ControlRange         // the control totals that end behind Covered, in any order
	From     time.Time              // no row behind Covered was ingested earlier; zero: unknown
	Window   time.Duration          // how far before its first new row ids are looked for
	Lag      time.Duration          // rows this much older than the snapshot must have control totals
	Scratch  string                 // folder for what does not fit into memory
}

// RangeResult is a range whose rows are not those that the control totals want.
type RangeResult struct {
	ControlRange
	Found event.Checksum
}

// CheckResult is what was found. Nothing of it is a verdict: a difference may have a reason that only others know, such as an erasure.
type CheckResult struct {
	Numbers map[string]int64
	Differ  []RangeResult          // ranges that the snapshot has passed, with other rows
	Covered map[RawPartition]int64 // how far the control totals were compared
	Full    bool                   // the whole table was read
}

// Names of the numbers of a check.
const (
	CheckRows       = "rows"                // of the snapshot
	CheckNew        = "rows_new"            // read as new
	CheckProven     = "rows_proven"         // in ranges that equal their control totals
	CheckOpen       = "rows_open"           // in ranges that end behind the snapshot, or have no control totals yet
	CheckBefore     = "rows_before"         // in ranges that began before the table
	CheckUntold     = "rows_without_totals" // old enough to have control totals, and have none
	CheckMissing    = "rows_missing"
	CheckSurplus    = "rows_surplus"
	CheckRanges     = "ranges_checked"
	CheckDiffer     = "ranges_differ"
	CheckDuplicates = "duplicates"     // rows whose (tenant, source, event_id) a new row has as well
	CheckNulls      = "nulls"          // in required columns
	CheckEmpty      = "ids_empty"      // rows without an event id or tenant
	CheckOutside    = "rows_changed"   // in the table, less what is new: more or fewer than were there
	CheckWindowRows = "rows_window"    // older ones whose ids were compared
	CheckFilesRead  = "files_read"     // data files
	CheckElsewhere  = "rows_elsewhere" // of other raw topics, whose control totals are not by this table
)

// ErrNothingToCheck says that a table has no provenance by which it could be compared.
var ErrNothingToCheck = errors.New("the table has no columns raw_topic, raw_partition and raw_offset")

// CheckSnapshot reads the rows that are new since another snapshot and compares them with the control totals. Control totals count by raw offsets, snapshots hold offsets of events.*,
// so the rows tell where they belong: within a raw partition rows are written in the order of their raw offsets, so a row with raw offset n proves that the snapshot has
// passed all ranges that end at or before n+1. Those must hold exactly what the control totals say. The range behind is open: it counts once a later row is there,
// or when it happens to be whole.
//
// A table whose rows nobody counts (alerts) is read whole: its ids must be there, and once.
//
// If anything but appends and rewrites happened since then, as far as the numbers of both snapshots tell, everything is read.
func (c *Catalog) CheckSnapshot(ctx context.Context, name string, o CheckOptions, all func(context.Context) ([]ControlRange, error), progress func(rows int64)) (CheckResult, error) {
	t, err := c.Load(ctx, name)
	if err != nil {
		return CheckResult{}, err
	}
	at := t.SnapshotByID(o.Snapshot)
	if at == nil {
		return CheckResult{}, fmt.Errorf("checking table %s: %w: %d", name, ErrNoSnapshot, o.Snapshot)
	}
	var since *table.Snapshot
	if o.Since != 0 {
		since = t.SnapshotByID(o.Since)
	}
	if since != nil && !onlyAppended(t, o.Since, o.Snapshot) {
		since = nil
	}
	if want, err := schema.TableNamed(name); err == nil && !want.Counted {
		res, err := c.checkUncounted(ctx, want, o, progress)
		if err != nil {
			return CheckResult{}, fmt.Errorf("checking snapshot %d of table %s: %w", o.Snapshot, name, err)
		}
		res.Numbers[CheckRows] = totalRows(at)
		return res, nil
	}
	for {
		k := &checker{c: c, t: t, at: at, since: since, o: o, progress: progress, res: CheckResult{Numbers: map[string]int64{CheckRows: totalRows(at)}, Full: since == nil}}
		if since == nil { // also what was covered before
			k.o.Covered, k.o.From = map[RawPartition]int64{}, time.Time{}
			if k.o.Ranges, err = all(ctx); err != nil {
				return CheckResult{}, fmt.Errorf("checking table %s: %w", name, err)
			}
		}
		res, err := k.run(ctx)
		if err != nil {
			return CheckResult{}, fmt.Errorf("checking snapshot %d of table %s: %w", o.Snapshot, name, err)
		}
		if since == nil || res.Numbers[CheckOutside] == 0 {
			return res, nil
		}
		since = nil
	}
}

// checkUncounted checks a table that has no control totals.
func (c *Catalog) checkUncounted(ctx context.Context, t schema.Table, o CheckOptions, progress func(rows int64)) (CheckResult, error) {
	out := CheckResult{Numbers: map[string]int64{CheckNulls: 0, CheckEmpty: 0}, Full: true}
	ids := newIDCounter(o.Scratch, idMemory)
	defer ids.close()
	var columns []string
	for _, col := range t.Columns {
		if !col.Null && col.Type != schema.StringList && col.Type != schema.ItemList {
			columns = append(columns, col.Name)
		}
	}
	err := c.ScanRows(ctx, t.Name, ScanOptions{Snapshot: o.Snapshot, Columns: columns}, func(b arrow.RecordBatch) error {
		for _, col := range b.Columns() {
			out.Numbers[CheckNulls] += int64(col.NullN())
		}
		tenant, err1 := column[*array.String](b, "tenant")
		id, err2 := column[*array.String](b, t.Lookup[0])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		for i := range id.Len() {
			if id.Value(i) == "" || tenant.Value(i) == "" {
				out.Numbers[CheckEmpty]++
			}
			if err := ids.add(event.Fingerprint(tenant.Value(i), "", id.Value(i)), true); err != nil {
				return err
			}
		}
		out.Numbers[CheckNew] += b.NumRows()
		if progress != nil {
			progress(out.Numbers[CheckNew])
		}
		return nil
	})
	if err != nil {
		return CheckResult{}, err
	}
	if out.Numbers[CheckDuplicates], err = ids.duplicates(ctx); err != nil {
		return CheckResult{}, fmt.Errorf("comparing ids: %w", err)
	}
	return out, nil
}

// onlyAppended says whether nothing is known that took or brought rows between two snapshots but the stream. What has expired is not known; then the number of rows tells.
func onlyAppended(t *table.Table, from, to int64) bool {
	chain, err := chainOf(t, from, to)
	if errors.Is(err, ErrDiverged) {
		return false
	}
	for _, s := range chain {
		if k := kindOf(s); k != KindAppend && k != KindRewrite {
			return false
		}
	}
	return deleted(t.SnapshotByID(from)) == deleted(t.SnapshotByID(to))
}

func deleted(s *table.Snapshot) [3]int64 {
	if s == nil || s.Summary == nil {
		return [3]int64{-1}
	}
	p := s.Summary.Properties
	return [3]int64{p.GetInt64("total-delete-files", 0), p.GetInt64("total-position-deletes", 0), p.GetInt64("total-equality-deletes", 0)}
}

func totalRows(s *table.Snapshot) int64 {
	if s.Summary == nil {
		return 0
	}
	return s.Summary.Properties.GetInt64("total-records", 0)
}

// checker is one reading of a snapshot.
type checker struct {
	c        *Catalog
	t        *table.Table
	at       *table.Snapshot
	since    *table.Snapshot // nil: all rows are new
	o        CheckOptions
	progress func(rows int64)

	sinceAt  Vector
	ranges   map[RawPartition]*rangeSet
	ids      *idCounter
	id       string   // the column that is unique: event_id, or failed_id
	extra    []string // required columns without statistics
	hashed   bool
	required []iceberg.NestedField
	later    int64 // new rows by the offset vector
	res      CheckResult
}

func (k *checker) add(number string, n int64) { k.res.Numbers[number] += n }

func (k *checker) run(ctx context.Context) (CheckResult, error) {
	if k.since != nil {
		v, err := vectorOf(*k.since)
		if err != nil {
			return CheckResult{}, err
		}
		k.sinceAt = v
	}
	scan, err := k.plan(ctx)
	if err != nil {
		return CheckResult{}, err
	}
	k.ranges = newRangeSets(k.o.Ranges, k.o.Covered)
	k.ids = newIDCounter(k.o.Scratch, idMemory)
	defer k.ids.close()
	if err := k.read(ctx, scan); err != nil {
		return CheckResult{}, err
	}
	duplicates, err := k.ids.duplicates(ctx)
	if err != nil {
		return CheckResult{}, fmt.Errorf("comparing ids: %w", err)
	}
	k.add(CheckDuplicates, duplicates)
	if k.since != nil {
		k.add(CheckOutside, totalRows(k.at)-totalRows(k.since)-k.later)
	}
	k.judge()
	return k.res, nil
}

// planned is what is to be read.
type planned struct {
	scan  *table.Scan
	tasks []table.FileScanTask
}

// plan finds the files that may hold what is new or in the window before, and which required columns must be looked into since their files say nothing of nulls.
func (k *checker) plan(ctx context.Context) (planned, error) {
	sc := schemaOf(k.t, k.at)
	columns := []string{"raw_topic", "raw_partition", "raw_offset", "kafka_partition", "kafka_offset", PartitionColumn, "tenant", "source"}
	for _, n := range columns {
		if _, ok := sc.FindFieldByName(n); !ok {
			return planned{}, fmt.Errorf("%w: it lacks %s", ErrNothingToCheck, n)
		}
	}
	k.id = "event_id"
	if _, ok := sc.FindFieldByName("failed_id"); ok {
		k.id = "failed_id"
	}
	columns = append(columns, k.id)
	if _, k.hashed = sc.FindFieldByName("row_hash"); k.hashed {
		columns = append(columns, "row_hash")
	}
	for _, f := range sc.Fields() {
		if f.Required {
			k.required = append(k.required, f)
		}
	}
	var filter iceberg.BooleanExpression
	if k.since != nil && !k.o.From.IsZero() {
		filter = iceberg.GreaterThanEqual(iceberg.Reference(PartitionColumn), iceberg.Timestamp(k.o.From.Add(-k.o.Window).UnixMicro()))
	}
	opts := []table.ScanOption{table.WithSnapshotID(k.at.SnapshotID), table.WithRowFilter(filter), table.WithArrowBatchSize(scanRows)}
	tasks, err := k.t.Scan(opts...).PlanFiles(ctx)
	if err != nil {
		return planned{}, fmt.Errorf("planning: %w", err)
	}
	seen := map[string]bool{}
	for _, task := range tasks {
		if seen[task.File.FilePath()] { // a part of a large file
			continue
		}
		seen[task.File.FilePath()] = true
		k.statistics(task.File, columns)
	}
	k.add(CheckFilesRead, int64(len(seen)))
	readers := 2
	if slices.ContainsFunc(tasks, func(t table.FileScanTask) bool { return t.Length > wideFile }) {
		readers = 1
	}
	opts = append(opts, table.WithSelectedFields(append(columns, k.extra...)...), table.WithMaxConcurrency(readers))
	return planned{k.t.Scan(opts...), tasks}, nil
}

// statistics adds up the nulls that a file says it has in required columns, and notes the columns of which it says nothing. Rows deleted since do not matter: a null that was
// ever written is one too many.
func (k *checker) statistics(f iceberg.DataFile, columns []string) {
	nulls, values := f.NullValueCounts(), f.ValueCounts()
	for _, r := range k.required {
		switch r.Type.(type) {
		case iceberg.PrimitiveType:
		default:
			continue // a list says nothing of itself; its elements are required by the file's own schema
		}
		if slices.Contains(columns, r.Name) || slices.Contains(k.extra, r.Name) {
			continue // read anyway
		}
		if n, ok := nulls[r.ID]; ok {
			k.add(CheckNulls, n)
		} else if n, ok := values[r.ID]; !ok || n > 0 {
			k.extra = append(k.extra, r.Name)
		}
	}
}

func (k *checker) read(ctx context.Context, p planned) error {
	defer func() { _ = p.scan.Close() }() // planned locally
	_, batches, err := p.scan.ReadTasks(ctx, p.tasks)
	if err != nil {
		return fmt.Errorf("reading: %w", Damaged(ctx, k.t, p.tasks, err))
	}
	rows := int64(0)
	for b, err := range batches {
		if err != nil {
			return fmt.Errorf("reading: %w", Damaged(ctx, k.t, p.tasks, err))
		}
		rows += b.NumRows()
		err := k.batch(b)
		b.Release()
		if err != nil {
			return err
		}
		if k.progress != nil {
			k.progress(rows)
		}
	}
	return ctx.Err()
}

// checkColumns are the columns of one batch.
type checkColumns struct {
	rawTopic, tenant, source, id *array.String
	rawPartition, partition      *array.Int32
	rawOffset, offset, hash      *array.Int64
	ingested                     *array.Timestamp
}

func column[T arrow.Array](b arrow.RecordBatch, name string) (T, error) {
	var none T
	i := b.Schema().FieldIndices(name)
	if len(i) != 1 {
		return none, fmt.Errorf("column %s is missing", name)
	}
	col, ok := b.Column(i[0]).(T)
	if !ok {
		return none, fmt.Errorf("column %s is %s", name, b.Column(i[0]).DataType())
	}
	return col, nil
}

func (k *checker) columns(b arrow.RecordBatch) (v checkColumns, err error) {
	var errs [10]error
	v.rawTopic, errs[0] = column[*array.String](b, "raw_topic")
	v.tenant, errs[1] = column[*array.String](b, "tenant")
	v.source, errs[2] = column[*array.String](b, "source")
	v.id, errs[3] = column[*array.String](b, k.id)
	v.rawPartition, errs[4] = column[*array.Int32](b, "raw_partition")
	v.partition, errs[5] = column[*array.Int32](b, "kafka_partition")
	v.rawOffset, errs[6] = column[*array.Int64](b, "raw_offset")
	v.offset, errs[7] = column[*array.Int64](b, "kafka_offset")
	v.ingested, errs[8] = column[*array.Timestamp](b, PartitionColumn)
	if k.hashed {
		v.hash, errs[9] = column[*array.Int64](b, "row_hash")
	}
	return v, errors.Join(errs[:]...)
}

func (k *checker) batch(b arrow.RecordBatch) error {
	v, err := k.columns(b)
	if err != nil {
		return err
	}
	for i, f := range b.Schema().Fields() {
		if slices.ContainsFunc(k.required, func(r iceberg.NestedField) bool { return r.Name == f.Name }) {
			k.add(CheckNulls, int64(b.Column(i).NullN()))
		}
	}
	old := k.at.TimestampMs*1000 - k.o.Lag.Microseconds()
	last, part := RawPartition{}, (*rangeSet)(nil)
	for i := range int(b.NumRows()) {
		if v.tenant.Value(i) == "" && k.id == "event_id" || v.id.Value(i) == "" {
			k.add(CheckEmpty, 1)
		}
		if k.since != nil && v.offset.Value(i) >= k.laterThan(v.partition.Value(i)) {
			k.later++
		}
		at := RawPartition{v.rawTopic.Value(i), v.rawPartition.Value(i)}
		if part == nil || at != last {
			last = RawPartition{string(append([]byte(nil), at.Topic...)), at.Partition} // the batch goes
			if part = k.ranges[last]; part == nil {
				part = &rangeSet{first: -1}
				k.ranges[last] = part
			}
		}
		fresh := v.rawOffset.Value(i) >= part.covered
		var fp [16]byte
		if k.id == "event_id" {
			fp = event.Fingerprint(v.tenant.Value(i), v.source.Value(i), v.id.Value(i))
		} else {
			fp = event.Fingerprint(v.tenant.Value(i), "", v.id.Value(i))
		}
		if err := k.ids.add(fp, fresh); err != nil {
			return err
		}
		if !fresh {
			k.add(CheckWindowRows, 1)
			continue
		}
		k.add(CheckNew, 1)
		hash := int64(0)
		if k.hashed {
			hash = v.hash.Value(i)
		}
		part.take(v.rawOffset.Value(i), hash, int64(v.ingested.Value(i)) < old)
	}
	return nil
}

// laterThan is where a partition was at the snapshot checked before.
func (k *checker) laterThan(partition int32) int64 {
	for topic := range k.sinceAt {
		return k.sinceAt.At(topic, partition)
	}
	return 0
}

// rangeSet are the control totals of one raw partition, and what was found.
type rangeSet struct {
	covered    int64 // raw offsets below were compared before
	began      bool  // the table had rows of the partition before
	ranges     []RangeResult
	hint       int   // where the last row was
	first, end int64 // least raw offset found, and one past the greatest
	open       int64 // rows behind all ranges
	untold     int64 // rows without a range that should have one
}

func newRangeSets(ranges []ControlRange, covered map[RawPartition]int64) map[RawPartition]*rangeSet {
	out := map[RawPartition]*rangeSet{}
	at := func(p RawPartition) *rangeSet {
		if out[p] == nil {
			out[p] = &rangeSet{first: -1}
		}
		return out[p]
	}
	for p, n := range covered {
		s := at(p)
		s.covered, s.began = n, true
	}
	for _, r := range ranges {
		if s := at(r.RawPartition); r.To > s.covered {
			s.ranges = append(s.ranges, RangeResult{ControlRange: r})
		}
	}
	for _, s := range out {
		slices.SortFunc(s.ranges, func(a, b RangeResult) int { return cmp.Compare(a.From, b.From) })
	}
	return out
}

// take puts a row into its range.
func (s *rangeSet) take(offset, hash int64, old bool) {
	if s.first < 0 || offset < s.first {
		s.first = offset
	}
	s.end = max(s.end, offset+1)
	if h := s.hint; h < len(s.ranges) && s.ranges[h].From <= offset && offset < s.ranges[h].To {
		s.ranges[h].Found.Add(hash)
		return
	}
	i, found := slices.BinarySearchFunc(s.ranges, offset, func(r RangeResult, at int64) int {
		switch {
		case r.To <= at:
			return -1
		case r.From > at:
			return 1
		}
		return 0
	})
	switch {
	case found:
		s.hint = i
		s.ranges[i].Found.Add(hash)
	case i == len(s.ranges) && !old:
		s.open++
	default: // between two ranges, or before the first, or long there
		s.untold++
	}
}

// judge compares the ranges that the snapshot has passed.
func (k *checker) judge() {
	k.res.Covered = map[RawPartition]int64{}
	for p, s := range k.ranges {
		if p.Topic != k.o.RawTopic {
			k.add(CheckElsewhere, s.open+s.untold)
			continue
		}
		k.add(CheckOpen, s.open)
		k.add(CheckUntold, s.untold)
		covered, open := s.covered, false
		for _, r := range s.ranges {
			want := r.Want
			if !k.hashed {
				want.HashLo, want.HashHi = 0, 0
			}
			switch {
			case r.Found == want && (r.To <= s.end || r.Found.Count > 0):
				k.add(CheckProven, r.Found.Count)
				k.add(CheckRanges, 1)
			case !s.began && r.From < s.first && r.Found.Count < want.Count: // the table began within or behind it
				k.add(CheckBefore, r.Found.Count)
			case r.To <= s.end: // passed
				k.add(CheckRanges, 1)
				k.add(CheckDiffer, 1)
				k.add(CheckMissing, max(0, want.Count-r.Found.Count))
				k.add(CheckSurplus, max(0, r.Found.Count-want.Count))
				r.Want = want
				k.res.Differ = append(k.res.Differ, r)
			case r.Found.Count > want.Count: // whatever is still to come
				k.add(CheckRanges, 1)
				k.add(CheckDiffer, 1)
				k.add(CheckSurplus, r.Found.Count-want.Count)
				r.Want = want
				k.res.Differ = append(k.res.Differ, r)
				open = true
			default:
				k.add(CheckOpen, r.Found.Count)
				open = true
			}
			if !open {
				covered = max(covered, r.To)
			}
		}
		if covered > 0 {
			k.res.Covered[p] = covered
		}
	}
	slices.SortFunc(k.res.Differ, func(a, b RangeResult) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From))
	})
}
