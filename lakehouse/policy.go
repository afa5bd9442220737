package lakehouse

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"millrace/lakehouse/order"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
)

// LeastOrphanAge is the age below which no file is taken for an orphan: a writer may still be about to commit it.
const LeastOrphanAge = 24 * time.Hour

// ExpiredGrace is how long files outlive the snapshots that named them, for readers that planned with one of these.
const ExpiredGrace = time.Hour

// streamOrder is the order in which compaction leaves events: statistics then prune by event day, then visitor.
var streamOrder = [...]string{"day(occurred_at)", "visitor_id", "occurred_at"}

// Policy says how a table is kept: what compaction makes of its files, and what is thrown away when.
type Policy struct {
	TargetFileBytes int64         `json:"target_file_bytes"`     // of a data file
	SmallFileRatio  float64       `json:"small_file_ratio"`      // a file below this part of the target is small
	MinInputFiles   int           `json:"min_input_files"`       // small files of a similar size that are worth rewriting while their day is open
	MinClosedFiles  int           `json:"min_closed_files"`      // small files that are worth rewriting once their day is closed
	DeleteRatio     float64       `json:"delete_ratio"`          // deleted rows of a partition, by delete files, above which it is rewritten whatever the sizes
	Sort            []string      `json:"sort"`                  // order of rows over a whole group: columns, day(column) or hour(column); empty: as they come
	ZOrder          []string      `json:"zorder,omitempty"`      // in place of Sort: columns whose Morton order the rows are put into
	RewriteAll      bool          `json:"rewrite_all,omitempty"` // every file, whatever its size
	MaxGroupBytes   int64         `json:"max_group_bytes"`       // data files rewritten in one piece of work
	MaxGroups       int           `json:"max_groups"`            // pieces of work in one plan; more wait for the next one
	MemoryBytes     int64         `json:"memory_bytes"`          // rows held while sorting one group; more go to disk
	MinManifests    int           `json:"min_manifests"`         // manifests whose partitions overlap that are worth rewriting
	SnapshotAge     time.Duration `json:"snapshot_age"`          // nanoseconds; older snapshots that no ref names are expired
	KeepSnapshots   int           `json:"keep_snapshots"`        // of main, however old
	OrphanAge       time.Duration `json:"orphan_age"`            // nanoseconds; older files that nothing names are deleted
	ArchiveClass    string        `json:"archive_class"`         // storage class of closed days, where the store has such: standard or infrequent
	Queries         []Query       `json:"queries"`               // by which a rewrite counts the files that readers open, before and after
}

// PolicyOf gives the policy of a table.
func PolicyOf(table string) Policy {
	p := Policy{
		TargetFileBytes: 256 << 20, SmallFileRatio: 0.75, MinInputFiles: 8, MinClosedFiles: 2, DeleteRatio: 0.1,
		MaxGroupBytes: 512 << 20, MaxGroups: 512, MemoryBytes: 256 << 20, MinManifests: 4,
		SnapshotAge: time.Hour, KeepSnapshots: 100, OrphanAge: 3 * LeastOrphanAge, ArchiveClass: "standard",
	}
	if table != FailedTable && table != AlertsTable { // which have no visitor
		p.Sort = streamOrder[:]
	}
	p.Queries = queriesOf(table)
	return p
}

// Ordered is the policy with another order of rows: columns of a sort order or of a z-order, or none of both.
func (p Policy) Ordered(sort, zorder []string) Policy {
	p.Sort, p.ZOrder = sort, zorder
	return p
}

// LargeGroupBytes is how much is put into one order at least when a whole table is rewritten in it: rows of different groups have no order between them.
const LargeGroupBytes = 4 << 30

// All is the policy for rewriting every file of a table, in groups that are as large as their order needs.
func (p Policy) All() Policy {
	p.RewriteAll, p.MaxGroups = true, math.MaxInt32
	if len(p.Sort)+len(p.ZOrder) > 0 {
		p.MaxGroupBytes = max(p.MaxGroupBytes, LargeGroupBytes)
	}
	return p
}

// Validate reports every problem.
func (p Policy) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	bad(p.TargetFileBytes < 1<<10, "target_file_bytes: %d is below 1 KiB", p.TargetFileBytes)
	bad(!(p.SmallFileRatio > 0 && p.SmallFileRatio <= 1), "small_file_ratio: %v is not above 0 and at most 1", p.SmallFileRatio)
	bad(p.MinInputFiles < 2, "min_input_files: %d is below 2", p.MinInputFiles)
	bad(p.MinClosedFiles < 2, "min_closed_files: %d is below 2", p.MinClosedFiles)
	bad(!(p.DeleteRatio > 0 && p.DeleteRatio <= 1), "delete_ratio: %v is not above 0 and at most 1", p.DeleteRatio)
	for i, s := range p.Sort {
		_, err := order.Parse(s)
		bad(err != nil, "sort[%d]: %w", i, err)
	}
	bad(len(p.Sort) > maxSortColumns, "sort: %d columns are more than %d", len(p.Sort), maxSortColumns)
	bad(len(p.ZOrder) > 0 && len(p.Sort) > 0, "zorder: there is a sort order as well")
	bad(len(p.ZOrder) == 1 || len(p.ZOrder) > order.MaxZColumns, "zorder: %d columns are not between 2 and %d", len(p.ZOrder), order.MaxZColumns)
	for i, c := range p.ZOrder {
		bad(slices.Contains(p.ZOrder[:i], c), "zorder[%d]: %s is there twice", i, c)
	}
	bad(p.MaxGroupBytes < p.TargetFileBytes, "max_group_bytes: %d is below target_file_bytes, %d", p.MaxGroupBytes, p.TargetFileBytes)
	bad(p.MaxGroups < 1, "max_groups: %d is below 1", p.MaxGroups)
	bad(p.MemoryBytes < 1<<20, "memory_bytes: %d is below 1 MiB", p.MemoryBytes)
	bad(p.MinManifests < 2, "min_manifests: %d is below 2", p.MinManifests)
	bad(p.SnapshotAge < 0, "snapshot_age: %s is below 0s", p.SnapshotAge)
	bad(p.KeepSnapshots < 1, "keep_snapshots: %d is below 1", p.KeepSnapshots)
	bad(p.OrphanAge < LeastOrphanAge, "orphan_age: %s is below %s", p.OrphanAge, LeastOrphanAge)
	bad(p.ArchiveClass != "standard" && p.ArchiveClass != "infrequent", "archive_class: %q is neither standard nor infrequent", p.ArchiveClass)
	return errors.Join(errs...)
}

// maxSortColumns bounds a sort order: its key is a part of every row while it is sorted.
const maxSortColumns = 8

// ErrPolicy says that a policy does not fit the table: a column that is not there, or has no order.
var ErrPolicy = errors.New("the policy does not fit the table")

// fits says whether the order of a policy can be made of a table's columns. It reports every problem, each an ErrPolicy.
func (p Policy) fits(sc *iceberg.Schema) error {
	var errs []error
	look := func(field string, i int, t order.Term) {
		f, ok := sc.FindFieldByName(t.Column)
		if !ok {
			var names []string
			for _, f := range sc.Fields() {
				names = append(names, f.Name)
			}
			errs = append(errs, fmt.Errorf("%w: %s[%d]: there is no column %s; there are %s", ErrPolicy, field, i, t.Column, strings.Join(names, ", ")))
			return
		}
		switch f.Type.(type) {
		case iceberg.TimestampType, iceberg.TimestampTzType:
			return
		case iceberg.Int32Type, iceberg.Int64Type, iceberg.DateType, iceberg.TimeType, iceberg.StringType, iceberg.BinaryType, iceberg.BooleanType, iceberg.Float32Type, iceberg.Float64Type, iceberg.DecimalType:
			if t.Unit == 0 {
				return
			}
			errs = append(errs, fmt.Errorf("%w: %s[%d]: column %s is %s, which has no days and hours", ErrPolicy, field, i, t.Column, f.Type))
		default:
			errs = append(errs, fmt.Errorf("%w: %s[%d]: column %s is %s, which has no order", ErrPolicy, field, i, t.Column, f.Type))
		}
	}
	for i, s := range p.Sort {
		t, err := order.Parse(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: sort[%d]: %w", ErrPolicy, i, err))
			continue
		}
		look("sort", i, t)
	}
	for i, c := range p.ZOrder {
		look("zorder", i, order.Term{Column: c})
	}
	return errors.Join(errs...)
}

// order is the order of the policy for rows of a schema.
func (p Policy) order(sc *arrow.Schema) (*order.Order, error) {
	by, err := order.New(p.Sort, p.ZOrder, sc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return by, nil
}
