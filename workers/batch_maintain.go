package workers

import (
	"context"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"millrace/workflows/name"
)

// committerSeen is how long ago the stream's committer has asked for work at most: its long polls last a minute.
const committerSeen = 90 * time.Second

// committers says whether somebody polls the queue of a table's commits. Where the sink does not run, or not on this Temporal, a rewrite is then committed at once, and
// not after waiting for a minute.
func committers(cl client.Client) func(ctx context.Context, table string) (bool, error) {
	return func(ctx context.Context, table string) (bool, error) {
		q, err := cl.DescribeTaskQueue(ctx, name.CommitQueue(table), enums.TASK_QUEUE_TYPE_ACTIVITY)
		if err != nil {
			return false, fmt.Errorf("looking at task queue %s: %w", name.CommitQueue(table), err)
		}
		for _, p := range q.GetPollers() {
			if time.Since(p.GetLastAccessTime().AsTime()) < committerSeen {
				return true, nil
			}
		}
		return false, nil
	}
}
