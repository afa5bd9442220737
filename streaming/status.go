package streaming

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// TaskStatus is where one task of a worker stands. What a running task says is at most a second old.
type TaskStatus struct {
	Partition      int32
	Lag            int64         // records of its inputs, up to their last stable offsets, that are not processed
	WatermarkDelay time.Duration // how far its watermark is behind the clock; 0 while it has none
	StateKeys      int           // of the topology's stores and windows
	StateBytes     int64         // about what its stores take in memory
	CommitLatency  time.Duration // from the first change to the commit, the last time it was part of one
	Restoring      bool
	HotKeyShare    float64 // of its records of late that had the same key
	RestoredShare  float64 // 0 to 1 of what there was to read; 1 once it runs
}

// statuses is what the worker's goroutines say of its tasks, for anyone to read.
type statuses struct {
	mu        sync.Mutex
	running   []TaskStatus
	restoring map[int32]*restoreProgress
}

// restoreProgress is how much of a task's partitions has been read.
type restoreProgress struct {
	of, read atomic.Int64
}

func (p *restoreProgress) share() float64 {
	of := p.of.Load()
	if of <= 0 {
		return 0
	}
	return min(1, float64(p.read.Load())/float64(of))
}

// Status gives every task of the worker in the order of partitions, those being restored among them.
func (w *Worker) Status() []TaskStatus {
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	out := slices.Clone(w.status.running)
	for p, r := range w.status.restoring {
		out = append(out, TaskStatus{Partition: p, Restoring: true, RestoredShare: r.share()})
	}
	slices.SortFunc(out, func(a, b TaskStatus) int { return cmp.Compare(a.Partition, b.Partition) })
	return out
}

func (s *statuses) set(running []TaskStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
	for _, t := range running {
		delete(s.restoring, t.Partition)
	}
}

func (s *statuses) begin(part int32) *restoreProgress {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restoring == nil {
		s.restoring = map[int32]*restoreProgress{}
	}
	p := &restoreProgress{}
	s.restoring[part] = p
	return p
}

// end forgets a restore, if it is still that one.
func (s *statuses) end(part int32, p *restoreProgress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restoring[part] == p {
		delete(s.restoring, part)
	}
}

// status is what the task says of itself. ends are as for metrics.gauge.
func (t *Task) status(ends []int64, now time.Time) TaskStatus {
	s := TaskStatus{Partition: t.part, RestoredShare: 1, CommitLatency: t.latency, StateBytes: t.stateBytes()}
	for i := range t.in {
		s.Lag += t.lag(i, ends)
	}
	for _, x := range t.tables {
		if x.store().ID >= FirstStoreID {
			s.StateKeys += x.size()
		}
	}
	if wm := t.Watermark(); wm != noTime {
		s.WatermarkDelay = max(0, now.Sub(time.UnixMicro(wm)))
	}
	return s
}

func (t *Task) lag(in int, ends []int64) int64 {
	end := t.merge.q[in].end
	if ends != nil {
		end = max(end, ends[in])
	}
	return max(0, end-t.in[in].next)
}

// entryCost is what an entry of a table that does not know takes besides its bytes.
const entryCost = 100

// sized is a table that knows what it takes in memory.
type sized interface{ resident() int64 }

// stateBytes is about what the task's stores take in memory. Of a table that does not know it is what it last wrote of an entry, times its entries.
func (t *Task) stateBytes() int64 {
	n := int64(0)
	for i, x := range t.tables {
		if s, ok := x.(sized); ok {
			n += s.resident()
		} else {
			n += int64(x.size()) * (entryCost + t.entry[i])
		}
	}
	return n
}
