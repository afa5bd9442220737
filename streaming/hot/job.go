package hot

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/streaming"
)

// job is one piece of the topology's work over accepted live events. All jobs of a task share its goroutine, its stores and its transaction.
type job interface {
	event(e *event.Event, r *kgo.Record) error // on arrival, once for each accepted live event that is no copy; both are valid during the call only
	timer(tm streaming.Timer) error            // tm.Owner is one of its own numbers
	tick(now time.Time) error
	beforeCommit() error
	committed()
	aborted()
	restored() error
}

// noJob does nothing. A job embeds it and has what it needs.
type noJob struct{}

func (noJob) event(*event.Event, *kgo.Record) error { return nil }
func (noJob) timer(streaming.Timer) error           { return nil }
func (noJob) tick(time.Time) error                  { return nil }
func (noJob) beforeCommit() error                   { return nil }
func (noJob) committed()                            {}
func (noJob) aborted()                              {}
func (noJob) restored() error                       { return nil }

// jobs are those of a task, in the order in which they see an event, and which of them owns a timer.
type jobs struct {
	all    []job
	owners map[uint16]job
}

// add puts a job behind the others; owners are the numbers of its timers.
func (j *jobs) add(x job, owners ...uint16) {
	if j.owners == nil {
		j.owners = map[uint16]job{}
	}
	j.all = append(j.all, x)
	for _, o := range owners {
		j.owners[o] = x
	}
}

func (j *jobs) each(f func(job) error) error {
	for _, x := range j.all {
		if err := f(x); err != nil {
			return err
		}
	}
	return nil
}
