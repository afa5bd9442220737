package streaming

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// Worker runs the tasks of a topology that its consumer group gives it.
type Worker struct {
	cfg     Config
	top     Topology
	opts    []kgo.Opt
	log     *slog.Logger
	metrics *metrics

	// Of the goroutine of Run:
	ids        map[string]topicID
	stateID    topicID    // of the changelog
	local      *localBase // nil: state is in memory alone
	tasks      map[int32]*Task
	sorted     []*Task
	restoring  map[int32]uint64 // the batch that makes each task
	batch      uint64
	touchedAt  time.Time // first change in the open transaction
	readFailed error     // while the last transaction ended
	polled     time.Time // last
	member     string    // of the group, as the last session was that joined it; "" before the first
	last       string    // how the slot's last transaction ended, as the coordinator calls it; "" if it is not known
	gauged     time.Time
	status     statuses
	ends       atomic.Pointer[map[int32][]int64] // of the inputs, by partition

	announcer *kgo.Client                  // nil without Topology.Announces
	start     func(map[int32][]inputStart) // restores tasks in the background, for the session in hand
	results   chan restored
	wake      chan struct{}
	ready     atomic.Pointer[error]
	// afterEnd sees each ended transaction; its error makes the outcome unknown. Tests set it.
	afterEnd func(committed bool) error
	// afterRank sees what has been written at least once, see deliver; its error ends the session there. Tests set it.
	afterRank func(rank int) error
}

var errNotStarted = errors.New("the stream worker has not started")

// NewWorker makes a worker. opts are what every client needs: seed brokers, TLS, SASL. Topics must exist (Topology.RequiredTopics).
func NewWorker(cfg Config, top Topology, opts []kgo.Opt, reg prometheus.Registerer, log *slog.Logger) (*Worker, error) {
	cfg = cfg.Defaults()
	if err := errors.Join(cfg.Validate(), top.Validate()); err != nil {
		return nil, err
	}
	m, err := newMetrics(reg, top)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, top: top, opts: opts, metrics: m, log: log.With("topology", top.Name, "stage", top.Stage, "instance", cfg.InstanceID),
		tasks: map[int32]*Task{}, restoring: map[int32]uint64{}, results: make(chan restored, 16), wake: make(chan struct{}, 1),
		afterEnd: func(bool) error { return nil }, afterRank: func(int) error { return nil },
	}
	w.ready.Store(&errNotStarted)
	if cfg.Guarantee == ExactlyOnce {
		m.exactlyOnce.Set(1)
	}
	return w, nil
}

// Guarantee is ExactlyOnce or AtLeastOnce.
func (w *Worker) Guarantee() string { return w.cfg.Guarantee }

// Ready is nil while the worker is a member of its group and has the state of every task that is its own.
func (w *Worker) Ready() error { return *w.ready.Load() }

func (w *Worker) setReady(err error) { w.ready.Store(&err) }

// Run works until ctx ends, then commits what is open and gives nil. Trouble with the broker is ridden out by new sessions; an error
// is what another session cannot mend: this worker's place was taken, state or input do not fit, an operator failed.
func (w *Worker) Run(ctx context.Context) (err error) {
	defer w.setReady(errors.New("the stream worker has stopped"))
	if len(w.top.Announces) > 0 {
		if w.announcer, err = w.newAnnouncer(); err != nil {
			return err
		}
		defer w.announcer.Close()
	}
	if w.cfg.StateDir != "" {
		base, err := openLocal(filepath.Join(w.cfg.StateDir, w.top.Name+"."+w.top.Stage, url.PathEscape(w.cfg.InstanceID)), w.cfg.StateBytes, w.log)
		if err != nil {
			return err
		}
		w.local = base
		defer func() { err = errors.Join(err, base.close()); w.local = nil }()
	}
	w.log.Info("stream worker starts", "guarantee", w.cfg.Guarantee)
	wait := time.Duration(0)
	for {
		began := time.Now()
		err := w.session(ctx)
		if err == nil || ctx.Err() != nil && !isFault(err) {
			return nil
		}
		w.setReady(err)
		if local := (localError{}); errors.As(err, &local) {
			w.metrics.localErrors.Inc()
			w.log.Warn("the local state failed and is made anew from the changelog", "error", err)
			if err := w.local.reset(); err != nil {
				return err
			}
		}
		if fatal := w.fatalErr(err); fatal != nil {
			return fatal
		}
		if time.Since(began) > 10*time.Second {
			wait = 0
		}
		w.metrics.sessions.Inc()
		w.log.Warn("session ended, another follows", "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait + rand.N(wait+time.Millisecond)): // two in one slot must not keep step
		}
		wait = min(max(2*wait, 50*time.Millisecond), time.Second)
	}
}

func isFault(err error) bool { _, ok := fault.IDOf(err); return ok }

// session is one life of the worker between two errors. It ends with every task forgotten.
func (w *Worker) session(ctx context.Context) (err error) {
	if err := w.checkTopics(ctx); err != nil {
		return err
	}
	s, err := w.openSession(ctx)
	if err != nil {
		return err
	}
	if len(w.top.Announced) > 0 && s.txn != nil {
		if s.peek, err = w.newPeeker(ctx, s.interrupt.now); err != nil {
			s.close()
			return err
		}
		defer s.peek.close()
	}
	w.readFailed = nil
	restores, stopRestores := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		stopRestores()
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for open := true; open; {
			select {
			case r := <-w.results:
				w.dropAll(r.tasks)
			case <-done:
				open = false
			}
		}
		member, gen := s.cl.GroupMetadata()
		if gen > 0 {
			w.member = member
		}
		s.close()
		if fenced(err) {
			err = w.settle(ctx, member, err)
		}
		for _, t := range w.tasks {
			w.drop(t)
		}
		clear(w.tasks)
		w.status.set(nil)
		w.metrics.tasks.Set(0)
		w.metrics.restoring.Set(0)
		clear(w.restoring)
		w.sorted, w.touchedAt = nil, time.Time{}
		if err == nil && w.cfg.LeaveOnStop {
			err = w.leave(context.WithoutCancel(ctx))
		}
	}()
	w.start = func(parts map[int32][]inputStart) {
		w.batch++
		batch := w.batch
		for p := range parts {
			w.restoring[p] = batch
		}
		share := w.share(len(w.tasks) + len(w.restoring))
		wg.Go(func() {
			tasks, err := w.restore(restores, parts, share)
			w.results <- restored{session: s, batch: batch, tasks: tasks, err: err}
			s.awake()
		})
	}
	wg.Go(func() { w.watchEnds(restores, s) })
	for ctx.Err() == nil {
		if err := w.handle(ctx, s); err != nil {
			return err
		}
		if err := w.step(ctx, s); err != nil {
			return err
		}
	}
	w.setReady(errors.New("the stream worker is stopping"))
	if err := w.commit(context.WithoutCancel(ctx), s, time.Now()); err != nil || w.local == nil {
		return err
	}
	return w.each(w.sorted, func(t *Task) error { return t.flushNow(time.Now()) })
}

// handle does what the group and finished restores ask for.
func (w *Worker) handle(ctx context.Context, s *session) error {
	aborted := false
	for _, e := range s.takeEvents() {
		if e.err != nil {
			return e.err
		}
		if e.done != nil { // what the tasks have done so far is not to be done again by their next owner
			if err := w.commit(context.WithoutCancel(ctx), s, time.Now()); err != nil {
				return err
			}
		}
		for _, p := range e.gone {
			if w.tasks[p] != nil || w.restoring[p] != 0 {
				w.log.Info("task given up", "partition", p, "lost", e.lost)
			}
			w.drop(w.tasks[p])
			delete(w.tasks, p)
			delete(w.restoring, p)
			aborted = s.txn != nil
		}
		if e.done != nil {
			close(e.done)
		}
		if e.lost {
			return fmt.Errorf("membership of group %s lost", w.cfg.Group)
		}
		if len(e.assigned) > 0 {
			for p := range e.assigned {
				if w.tasks[p] != nil { // assigned again: what it did in the open transaction must not be part of it
					w.drop(w.tasks[p])
					delete(w.tasks, p)
					aborted = true
				}
			}
			if aborted && s.txn == nil { // what is on its way must be there before the task is restored
				aborted = false
				if err := s.flush(ctx); err != nil {
					return err
				}
			}
			w.member, _ = s.cl.GroupMetadata()
			w.log.Info("tasks assigned", "count", len(e.assigned))
			w.start(e.assigned)
		}
		w.sort()
	}
	if aborted {
		// The session will not commit what is open now that something was revoked: end it at once.
		if err := w.abort(context.WithoutCancel(ctx), s); err != nil {
			return err
		}
	}
	for {
		select {
		case r := <-w.results:
			if r.session != s {
				w.dropAll(r.tasks)
				continue // of a session that has ended
			}
			if r.err != nil {
				return fmt.Errorf("restoring tasks: %w", r.err)
			}
			w.adopt(s, r)
			if s.peek != nil {
				s.peek.follow(w.sorted)
			}
			continue
		default:
		}
		break
	}
	switch _, gen := s.cl.GroupMetadata(); {
	case gen < 0:
		w.setReady(errors.New("the stream worker has not joined its group"))
	case len(w.restoring) > 0:
		w.setReady(fmt.Errorf("%d tasks are being restored", len(w.restoring)))
	default:
		w.setReady(nil)
	}
	return nil
}

func (w *Worker) adopt(s *session, r restored) {
	resume := map[string][]int32{}
	for _, t := range r.tasks {
		if w.restoring[t.part] != r.batch {
			w.drop(t)
			continue // given up meanwhile, or assigned again
		}
		delete(w.restoring, t.part)
		w.tasks[t.part] = t
		for _, in := range w.top.Inputs {
			resume[in] = append(resume[in], t.part)
		}
	}
	w.sort()
	s.cl.ResumeFetchPartitions(resume)
}

func (w *Worker) sort() {
	w.sorted = w.sorted[:0]
	for _, t := range w.tasks {
		w.sorted = append(w.sorted, t)
	}
	slices.SortFunc(w.sorted, func(a, b *Task) int { return int(a.part - b.part) })
	share := w.share(len(w.tasks) + len(w.restoring))
	for _, t := range w.sorted {
		if t.local != nil {
			t.local.share = share
		}
	}
}

// share is what one of n tasks may hold in memory of its stores.
func (w *Worker) share(n int) int64 {
	if w.cfg.StateBytes <= 0 {
		return math.MaxInt64
	}
	return w.cfg.StateBytes / int64(max(n, 1))
}

// maintain lets the tasks see to their snapshots and their memory.
func (w *Worker) maintain(now time.Time) error {
	if w.local == nil {
		return nil
	}
	return w.each(w.sorted, func(t *Task) error { return t.maintain(now) })
}

// step polls once, runs the tasks, and commits when it is time.
func (w *Worker) step(ctx context.Context, s *session) error {
	if w.readFailed != nil {
		return w.readFailed
	}
	f := w.poll(ctx, s)
	now := time.Now()
	if w.gauges(now) {
		if err := w.maintain(now); err != nil {
			return err
		}
	}
	if err := w.distribute(s, f, now); err != nil {
		return err
	}
	busy := w.sorted[:0:0]
	for _, t := range w.sorted {
		if t.merge.buffered > 0 || now.Sub(t.lastTick) >= tickEvery {
			busy = append(busy, t)
		}
	}
	var budget atomic.Int64 // what has been read while the last transaction ended is not one transaction's
	budget.Store(int64(w.cfg.PollRecords))
	err := w.each(busy, func(t *Task) error {
		if err := t.run(now, &budget); err != nil {
			return err
		}
		if err := t.tick(now); err != nil {
			return err
		}
		w.send(context.WithoutCancel(ctx), s, t) // a stop commits it
		return nil
	})
	if err != nil {
		return err
	}
	w.flow(s)
	records, bytes, touched := 0, 0, false
	for _, t := range w.sorted {
		records, bytes, touched = records+t.inTxn, bytes+t.outBytes, touched || t.touched
	}
	if !touched {
		return nil
	}
	if w.touchedAt.IsZero() {
		w.touchedAt = now
	}
	if now.Sub(w.touchedAt) < w.cfg.CommitInterval && records < w.cfg.CommitRecords && bytes < w.cfg.CommitBytes {
		return nil
	}
	return w.commit(context.WithoutCancel(ctx), s, time.Now())
}

// pollEvery is the least time between two polls: each costs the broker as much as hundreds of records.
const pollEvery = 5 * time.Millisecond

// poll waits for records until something else is due.
func (w *Worker) poll(ctx context.Context, s *session) kgo.Fetches {
	until := time.Now().Add(tickEvery)
	if !w.touchedAt.IsZero() {
		if due := w.touchedAt.Add(w.cfg.CommitInterval); due.Before(until) {
			until = due
		}
	}
	for _, t := range w.sorted {
		if t.merge.buffered > 0 {
			if at, ok := t.merge.wake(); ok && at.Before(until) {
				until = at
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	if len(w.restoring) > 0 || len(w.sorted) == 0 {
		go func() { // only while tasks come: in steady work a wake-up may wait for the next record or tick
			select {
			case <-w.wake:
				cancel()
			case <-stop:
			}
		}()
	}
	return w.read(ctx, s, until)
}

// read gives what there is to be read, and waits until a moment for it.
func (w *Worker) read(ctx context.Context, s *session, until time.Time) kgo.Fetches {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case <-time.After(time.Until(w.polled.Add(pollEvery))):
	case <-ctx.Done():
	}
	defer func() { w.polled = time.Now() }()
	if s.peek != nil {
		if s.interrupt.set(cancel); len(s.peek.read) > 0 {
			cancel()
		}
	}
	return s.cl.PollRecords(ctx, w.cfg.PollRecords)
}

// distribute gives what was polled to the tasks, and shows them what they want to see before its turn.
func (w *Worker) distribute(s *session, f kgo.Fetches, now time.Time) error {
	var errs []error
	f.EachError(func(topic string, p int32, err error) {
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		default:
			errs = append(errs, fmt.Errorf("reading %s/%d: %w", topic, p, err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		if t := w.tasks[p.Partition]; t != nil {
			t.offer(slices.Index(w.top.Inputs, p.Topic), p.Records, max(p.LastStableOffset, 0), now)
		}
	})
	if err := w.show(now); err != nil {
		return err
	}
	return w.peek(s.peek, now)
}

// flow pauses inputs of which a task holds too much, because the merge waits for another one, and resumes them.
func (w *Worker) flow(s *session) {
	var pause, resume map[string][]int32
	add := func(m *map[string][]int32, topic string, p int32) {
		if *m == nil {
			*m = map[string][]int32{}
		}
		(*m)[topic] = append((*m)[topic], p)
	}
	for _, t := range w.sorted {
		for i := range t.in {
			switch held := t.merge.held(i); {
			case !t.in[i].paused && held > w.cfg.BufferRecords:
				t.in[i].paused = true
				add(&pause, t.in[i].topic, t.part)
			case t.in[i].paused && held <= w.cfg.BufferRecords/2:
				t.in[i].paused = false
				add(&resume, t.in[i].topic, t.part)
			}
		}
	}
	if pause != nil {
		s.cl.PauseFetchPartitions(pause)
	}
	if resume != nil {
		s.cl.ResumeFetchPartitions(resume)
	}
}

// each runs f for every task, on as many goroutines as may run.
func (w *Worker) each(tasks []*Task, f func(*Task) error) error {
	if len(tasks) == 0 {
		return nil
	}
	n := min(w.cfg.Parallel, len(tasks))
	errs := make([]error, n)
	var next atomic.Int64
	work := func(i int) {
		for {
			k := int(next.Add(1)) - 1
			if k >= len(tasks) || errs[i] != nil {
				return
			}
			errs[i] = f(tasks[k])
		}
	}
	var wg sync.WaitGroup
	for i := 1; i < n; i++ {
		wg.Go(func() { work(i) })
	}
	work(0)
	wg.Wait()
	return errors.Join(errs...)
}

func (w *Worker) admin(s *session) *kadm.Client { return kadm.NewClient(s.cl) }
