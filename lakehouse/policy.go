package lakehouse

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// LeastOrphanAge is the age below which no file is taken for an orphan: a writer may still be about to commit it.
const LeastOrphanAge = 24 * time.Hour

// ExpiredGrace is how long files outlive the snapshots that named them, for readers that planned with one of these.
const ExpiredGrace = time.Hour

// streamOrder is the order in which compaction leaves events: statistics then prune by event day, then visitor.
var streamOrder = [...]string{"day(occurred_at)", "visitor_id", "occurred_at"}

// Policy says how a table is kept: what compaction makes of its files, and what is thrown away when.
type Policy struct {
	TargetFileBytes int64         `json:"target_file_bytes"` // of a data file
	SmallFileRatio  float64       `json:"small_file_ratio"`  // a file below this part of the target is small
	MinInputFiles   int           `json:"min_input_files"`   // small files of a similar size that are worth rewriting while their day is open
	MinClosedFiles  int           `json:"min_closed_files"`  // small files that are worth rewriting once their day is closed
	DeleteRatio     float64       `json:"delete_ratio"`      // deleted rows of a partition, by delete files, above which it is rewritten whatever the sizes
	Sort            []string      `json:"sort"`              // order of rows over a whole group; empty: as they come
	MaxGroupBytes   int64         `json:"max_group_bytes"`   // data files rewritten in one piece of work
	MaxGroups       int           `json:"max_groups"`        // pieces of work in one plan; more wait for the next one
	MemoryBytes     int64         `json:"memory_bytes"`      // rows held while sorting one group; more go to disk
	MinManifests    int           `json:"min_manifests"`     // manifests whose partitions overlap that are worth rewriting
	SnapshotAge     time.Duration `json:"snapshot_age"`      // nanoseconds; older snapshots that no ref names are expired
	KeepSnapshots   int           `json:"keep_snapshots"`    // of main, however old
	OrphanAge       time.Duration `json:"orphan_age"`        // nanoseconds; older files that nothing names are deleted
	ArchiveClass    string        `json:"archive_class"`     // storage class of closed days, where the store has such: standard or infrequent
}

// PolicyOf gives the policy of a table.
func PolicyOf(table string) Policy {
	p := Policy{
		TargetFileBytes: 256 << 20, SmallFileRatio: 0.75, MinInputFiles: 8, MinClosedFiles: 2, DeleteRatio: 0.1,
		MaxGroupBytes: 512 << 20, MaxGroups: 512, MemoryBytes: 256 << 20, MinManifests: 4,
		SnapshotAge: time.Hour, KeepSnapshots: 100, OrphanAge: 3 * LeastOrphanAge, ArchiveClass: "standard",
	}
	if table != FailedTable { // failed events have no visitor
		p.Sort = streamOrder[:]
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
	bad(len(p.Sort) > 0 && !slices.Equal(p.Sort, streamOrder[:]), "sort: %v is neither empty nor %v", p.Sort, streamOrder)
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
