package activities

import (
	"context"
	"time"

	"millrace/lakehouse"
)

// Lake is what maintenance asks of the lakehouse.
type Lake interface {
	Tables(ctx context.Context) ([]lakehouse.TableInfo, error)
	Head(ctx context.Context, table string) (lakehouse.Head, error)
	PlanCompaction(ctx context.Context, table string, p lakehouse.Policy) (lakehouse.Plan, error)
	CompactGroup(ctx context.Context, plan lakehouse.Plan, group int, progress func(rows, bytes int64)) (lakehouse.GroupResult, error)
	CommitRewrite(ctx context.Context, plan lakehouse.Plan, results []lakehouse.GroupResult) (lakehouse.CommitResult, error)
	Lease(ctx context.Context, table, kind, run string, snapshot int64, d time.Duration) (release func(context.Context) error, err error)
	RewriteManifests(ctx context.Context, table string) (lakehouse.ManifestResult, error)
	Expire(ctx context.Context, table string, p lakehouse.Policy) (lakehouse.ExpireResult, error)
	RemoveOrphans(ctx context.Context, table string, olderThan time.Duration, dryRun bool, progress func(files int64)) (lakehouse.OrphanResult, error)
}
