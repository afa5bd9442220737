package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
)

// Progress is what the heartbeats of a long activity tell: the UI shows it beside the pending activity.
type Progress struct {
	Rows  int64 `json:"rows,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
	Files int64 `json:"files,omitempty"`
	// RunID is the run that an activity waits for; a later attempt waits for the same one.
	RunID string `json:"run_id,omitempty"`
	// State says why nothing moves.
	State string `json:"state,omitempty"`
}

// beats sends heartbeats while an activity runs, with the progress that was last noted: the server learns within the heartbeat timeout that a worker is gone, and the
// activity learns that it was cancelled.
type beats struct {
	last atomic.Pointer[Progress]
	done sync.WaitGroup
	stop context.CancelFunc
}

// startBeats begins. The caller ends it.
func startBeats(ctx context.Context) *beats {
	b := &beats{}
	b.last.Store(&Progress{})
	every := activity.GetInfo(ctx).HeartbeatTimeout / 4
	running, stop := context.WithCancel(ctx)
	b.stop = stop
	if every <= 0 {
		return b
	}
	b.done.Go(func() {
		t := time.NewTicker(min(every, time.Second))
		defer t.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-t.C:
				activity.RecordHeartbeat(ctx, *b.last.Load()) // the client sends the newest of them every few seconds
			}
		}
	})
	return b
}

// note sets what the next heartbeat tells.
func (b *beats) note(p Progress) { b.last.Store(&p) }

func (b *beats) end() {
	b.stop()
	b.done.Wait()
}
