// Package activities is what a workflow may do to the world: one struct a domain, with its dependencies as fields. It stands between the orchestration, which is
// deterministic and knows only numbers, and the stores.
//
// Every activity may run twice, also at the same time in two processes, and may end anywhere: what is done is in files or in the store itself, never in memory. What
// an activity takes and gives goes into a history of 30 days, so that is names and numbers: no events, no rows, nothing of a person.
package activities
