// Package name is the vocabulary of the batch path: what workflows, activities, queues, queries and updates are called, which ids workflows have, what their inputs
// look like, and which search attributes they carry. It is a leaf, so that whoever starts a workflow (command line, API, schedule) needs nothing of what runs it.
//
// All of these names are promises: they stand in histories, schedules and bookmarks. A name is added, never changed; a field of an input is deprecated, never removed.
package name

// Workflow types, as the Temporal UI and the command line name them.
const (
	MaintainTable     = "MaintainTable"     // compact, rewrite manifests, expire snapshots and remove orphans of one table
	MaintainTableTick = "MaintainTableTick" // what a schedule starts: it starts MaintainTable or joins the one that runs
)

// Task queues.
const (
	Queue      = "millrace"       // workflows and short activities
	HeavyQueue = "millrace-heavy" // activities that read and write data, within a budget of bytes a worker
)

// CommitQueue is polled by the process that commits the stream's rows to a table: it applies a prepared commit between two of its own.
func CommitQueue(table string) string { return "lake-commit." + table }

// Queries and updates.
const (
	Progress = "progress" // query of every workflow here
	Pause    = "pause"    // update: start nothing more until resume; what runs is finished
	Resume   = "resume"   // update
)

// Types of failures, as the Temporal UI shows them.
const (
	InvalidInput  = "InvalidInput"  // the input is wrong, every problem is listed; the same input fails again
	UnknownTable  = "UnknownTable"  // there is no such table
	Conflict      = "Conflict"      // the table was changed in a way that a prepared commit cannot follow: plan again
	NotCommitter  = "NotCommitter"  // this process does not commit to that table
	PlanLost      = "PlanLost"      // the file with the plan, or with a group's result, is not there
	StillConflict = "StillConflict" // every plan of a run met a conflict
)

// Activity types.
const (
	PlanTable        = "maintain.plan"      // which files are rewritten together
	CompactGroup     = "maintain.compact"   // rewrites one group of files
	CommitRewrite    = "maintain.commit"    // makes rewritten files visible
	DropPlan         = "maintain.drop"      // gives up a plan's lease and files
	RewriteManifests = "maintain.manifests" // merges manifests
	ExpireSnapshots  = "maintain.expire"    // removes old snapshots
	RemoveOrphans    = "maintain.orphans"   // removes files that no snapshot names
	BeginRun         = "runs.begin"         // notes a run in workflow_runs and tells which of its steps are done
	NoteStep         = "runs.step"          // notes a step in maintenance_runs
	EndRun           = "runs.end"           // notes the outcome of a run
	StartAndWait     = "workflows.run"      // starts a workflow by its canonical id, or joins it, and waits for its end
)

// Steps of MaintainTable, in their order.
const (
	StepCompact   = "compact"
	StepManifests = "manifests"
	StepExpire    = "expire"
	StepOrphans   = "orphans"
)

// MaintainSteps lists the steps in their order.
func MaintainSteps() []string { return []string{StepCompact, StepManifests, StepExpire, StepOrphans} }

// Outcomes of runs and steps.
const (
	Running  = "running"
	Done     = "done"
	Failed   = "failed"
	Canceled = "canceled"
	Skipped  = "skipped" // it was done before, under the same run and input
)

// Triggers of a run.
const (
	Manual    = "manual"
	Scheduled = "schedule"
)

// MaintainID is the workflow id of MaintainTable of a table.
func MaintainID(table string) string { return "maintain/" + table }

// TickID is the workflow id of a tick; the schedule adds the time to it.
func TickID(schedule string) string { return "tick/" + schedule }
