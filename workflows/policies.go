package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"millrace/workflows/name"
)

// Limits.
const (
	maxInFlight = 64 // activities of one run at a time: more would only wait in the queue, and a cancelled run would have them all to end
	maxRounds   = 5  // plans that meet a conflict before a run gives up: something rewrites the same files all the time
	maxPlans    = 50 // plans of one run in all, where a plan leaves work for the next one
	laneWait    = time.Minute
	heartbeat   = 20 * time.Second // a worker that died is noticed within it
)

// final are failures that no repetition mends.
func final(more ...string) []string {
	return append([]string{name.InvalidInput, name.UnknownTable, name.PlanLost}, more...)
}

// record is for notes in ClickHouse: the run must not end without them, and a store that is away comes back. An hour of waiting is visible as a pending activity; after
// it somebody has to look.
func record(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.Queue, StartToCloseTimeout: 30 * time.Second, ScheduleToCloseTimeout: time.Hour, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, NonRetryableErrorTypes: final()},
	})
}

// metadata is for planning and for steps that read and write metadata: a catalog that is locked or away for a moment is the usual failure, and six attempts cover about a
// minute. The next scheduled run is the longer retry.
func metadata(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.Queue, StartToCloseTimeout: 30 * time.Minute, HeartbeatTimeout: heartbeat, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 6, NonRetryableErrorTypes: final(name.Conflict)},
	})
}

// heavy is for groups. A worker that dies is not the group's fault and shows as a heartbeat timeout, which counts as an attempt: ten of them outlast a roll-out of all
// workers, and a group that kills its worker each time still ends.
func heavy(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.HeavyQueue, StartToCloseTimeout: 2 * time.Hour, HeartbeatTimeout: heartbeat, Summary: summary,
		WaitForCancellation: true, // its plan is dropped afterwards
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 10, NonRetryableErrorTypes: final(name.Conflict)},
	})
}

// lane is for a commit by the stream's committer, which applies it between two of its own, so that the stream never loses a race to it. Nobody may be there: after a
// minute without an answer, or three failures, the commit is made directly. Temporal does not retry when nobody took the task in time.
func lane(ctx workflow.Context, table string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.CommitQueue(table), ScheduleToStartTimeout: laneWait, StartToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: heartbeat, Summary: "commit through the stream's committer",
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 3, NonRetryableErrorTypes: final(name.Conflict)},
	})
}

// wait is for a tick that waits for the run it has started: it lasts as long as the run. Attempts cost nothing and have no limit; a run that failed is not started again
// by its tick, but by the next one.
func wait(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: name.Queue, StartToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: heartbeat, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, NonRetryableErrorTypes: final()},
	})
}

// cleanup is a context that a cancelled workflow can still work with.
func cleanup(ctx workflow.Context) (workflow.Context, workflow.CancelFunc) {
	return workflow.NewDisconnectedContext(ctx)
}
