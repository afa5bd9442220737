package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/failpoint"
)

// Spool is the spool of one process. Append is safe for concurrent use.
type Spool struct {
	cfg  Config
	log  *slog.Logger
	own  *folder
	m    *metrics
	sync func(*os.File) error

	calm bool // the drainer's: the last delivery of our own succeeded

	mu       sync.Mutex
	closed   bool
	bytes    int64 // on disk, all folders
	reserved int64 // waiting to be written
	backlog  map[slot]int64
	records  int64 // of our own, not drained
	oldest   time.Time
	adopted  []*folder
	seg      segment
	ready    chan struct{} // something to drain; capacity 1
	gate     bool          // the drainer is about to empty the spool: see Enter
	coming   int           // callers between Enter and Leave that will append
	moved    *sync.Cond    // gate, coming or reserved has changed

	queue []*waiter
	ends  map[int]int64 // durable bytes of our own segments
	kick  chan struct{} // something to write; capacity 1
	done  chan struct{} // the writer has ended
}

// slot is one partition of one topic.
type slot struct {
	topic     string
	partition int32
}

// segment is the file being written.
type segment struct {
	n      int
	file   *os.File
	synced int64 // bytes that are durable
}

// waiter is one Append.
type waiter struct {
	frames []byte
	slots  []slot
	err    chan error
}

// Open claims a folder of its own under cfg.Dir and adopts those of processes that are gone.
func Open(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the spool's root: %w", err)
	}
	path := filepath.Join(cfg.Dir, uuid.NewString())
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the spool's folder: %w", err)
	}
	own, err := claim(path)
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, fmt.Errorf("spool folder %s is locked by another process", path)
	}
	s := &Spool{
		cfg: cfg, log: log, own: own, sync: (*os.File).Sync, backlog: map[slot]int64{}, ready: make(chan struct{}, 1),
		ends: map[int]int64{}, kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.moved = sync.NewCond(&s.mu)
	s.m = newMetrics(reg, s)
	if err := s.Adopt(); err != nil {
		return nil, errors.Join(err, own.remove())
	}
	go s.write()
	return s, nil
}

// Adopt takes over the folders of processes that are gone.
func (s *Spool) Adopt() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("listing the spool: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.cfg.Dir, e.Name())
		if !e.IsDir() || e.Name() == asideName || path == s.own.path || s.has(path) {
			continue
		}
		f, err := claim(path)
		if err != nil {
			return err
		}
		if f == nil {
			continue
		}
		n, err := f.bytes()
		if err != nil {
			return errors.Join(err, f.lock.Close())
		}
		s.log.Info("spool folder of an ended process adopted", "folder", f.path, "bytes", n)
		s.mu.Lock()
		s.adopted = append(s.adopted, f)
		s.bytes += n
		s.mu.Unlock()
		s.wake()
	}
	return nil
}

func (s *Spool) has(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.adopted {
		if f.path == path {
			return true
		}
	}
	return false
}

func (s *Spool) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Enter calls f with a function that says whether records of a partition wait in the spool, so that newer ones have to queue behind them. f says whether the
// caller will append because of it; Leave has to follow in any case, after the Append.
//
// Under steady load a spool would never be empty: there would always be newer records behind the last ones. So when little is left the drainer holds callers
// back here for a moment, lets those within finish, hands what is left to the producers, and lets callers go on directly: their records are then behind in the
// same producers.
func (s *Spool) Enter(f func(waits func(topic string, partition int32) bool) bool) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.gate {
		s.moved.Wait()
	}
	if !f(func(topic string, partition int32) bool { return s.backlog[slot{topic, partition}] > 0 }) {
		return func() {}
	}
	s.coming++
	return func() {
		s.mu.Lock()
		s.coming--
		s.moved.Broadcast()
		s.mu.Unlock()
	}
}

// maxGate is how long callers are held back at most.
const maxGate = 250 * time.Millisecond

// shut holds callers back and waits until nobody is within. It says whether that came to be; open has to follow in any case.
func (s *Spool) shut() bool {
	timer := time.AfterFunc(maxGate, func() {
		s.mu.Lock()
		s.moved.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	until := time.Now().Add(maxGate)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = true
	for s.coming > 0 || s.reserved > 0 {
		if !time.Now().Before(until) {
			return false
		}
		s.moved.Wait()
	}
	return true
}

// letIn ends shut.
func (s *Spool) letIn() {
	s.mu.Lock()
	s.gate = false
	s.moved.Broadcast()
	s.mu.Unlock()
}

// Status is the state of the spool.
type Status struct {
	Bytes    int64
	MaxBytes int64
	Records  int64         // own, waiting
	Adopted  int           // folders of ended processes still to be drained
	Oldest   time.Duration // age of the oldest own record waiting
}

// Empty says whether nothing waits.
func (s Status) Empty() bool { return s.Records == 0 && s.Adopted == 0 }

// Status looks at the spool.
func (s *Spool) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Bytes: s.bytes, MaxBytes: s.cfg.MaxBytes, Records: s.records, Adopted: len(s.adopted)}
	if s.records > 0 {
		st.Oldest = time.Since(s.oldest)
	}
	for _, f := range s.adopted {
		if !f.oldest.IsZero() {
			st.Oldest = max(st.Oldest, time.Since(f.oldest))
		}
	}
	return st
}

// Append makes records durable: when it returns nil they are fsynced. It fails with ErrFull if they would fill more than share (0 to 1) of the spool, so that
// what matters more can be given more room. Waiting Appends share one fsync.
func (s *Spool) Append(recs []Record, share float64) error {
	if len(recs) == 0 {
		return nil
	}
	now := time.Now()
	w := &waiter{err: make(chan error, 1), slots: make([]slot, len(recs))}
	for i := range recs {
		recs[i].SpooledAt = now
		w.frames = appendFrame(w.frames, &recs[i], now)
		w.slots[i] = slot{recs[i].Topic, recs[i].Partition}
	}
	n := int64(len(w.frames))
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return errors.New("spool is closed")
	case float64(s.bytes+s.reserved+n) > share*float64(s.cfg.MaxBytes):
		s.mu.Unlock()
		s.m.full.Inc()
		return ErrFull
	}
	s.reserved += n
	if s.records == 0 {
		s.oldest = now
	}
	// Newer records queue behind these from now on.
	for _, one := range w.slots {
		s.backlog[one]++
	}
	s.records += int64(len(w.slots))
	s.queue = append(s.queue, w)
	s.mu.Unlock()
	s.rouse()
	return <-w.err
}

func (s *Spool) rouse() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// write is the writer: it takes all that waits, writes it and fsyncs once.
func (s *Spool) write() {
	defer close(s.done)
	for {
		s.mu.Lock()
		batch, closed := s.queue, s.closed
		s.queue = nil
		s.mu.Unlock()
		switch {
		case len(batch) > 0:
			s.flush(batch)
		case closed:
			return
		default:
			<-s.kick
		}
	}
}

func (s *Spool) flush(batch []*waiter) {
	size := 0
	for _, w := range batch {
		size += len(w.frames)
	}
	buf := make([]byte, 0, size)
	for _, w := range batch {
		buf = append(buf, w.frames...)
	}
	start := time.Now()
	err := s.store(buf)
	s.m.fsync.Observe(time.Since(start).Seconds())
	s.mu.Lock()
	s.reserved -= int64(size)
	s.moved.Broadcast()
	if err != nil {
		for _, w := range batch {
			for _, one := range w.slots {
				s.records--
				s.unqueue(one)
			}
		}
	}
	s.mu.Unlock()
	for _, w := range batch {
		w.err <- err
	}
	s.wake()
}

// unqueue takes a record off its partition's backlog. The lock is held.
func (s *Spool) unqueue(one slot) {
	if s.backlog[one]--; s.backlog[one] <= 0 {
		delete(s.backlog, one)
	}
}

// store writes and fsyncs. After an error nothing is known of what the file holds, so it is given up: its durable part is drained, the next store begins
// another one.
func (s *Spool) store(buf []byte) (err error) {
	s.mu.Lock()
	seg := s.seg
	if drained := s.own.at.Segment == seg.n && s.own.at.Offset == seg.synced; drained && seg.synced > 0 {
		seg.synced = s.cfg.SegmentBytes // nothing in it is needed: begin another, so that the drainer can remove it
	}
	s.mu.Unlock()
	if seg.file != nil && seg.synced >= s.cfg.SegmentBytes {
		if err := seg.file.Close(); err != nil {
			return fmt.Errorf("closing spool segment: %w", err)
		}
		seg.file = nil
	}
	if seg.file == nil {
		seg = segment{n: seg.n + 1}
		seg.file, err = os.OpenFile(s.own.segment(seg.n), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return s.failed(segment{n: seg.n}, fmt.Errorf("making spool segment: %w", err))
		}
		if err := syncDir(s.own.path); err != nil {
			return s.failed(seg, fmt.Errorf("syncing spool folder: %w", err))
		}
	}
	if _, err := seg.file.Write(buf); err != nil {
		return s.failed(seg, fmt.Errorf("writing spool segment: %w", err))
	}
	failpoint.Hit("gateway.spool.written")
	if err := s.sync(seg.file); err != nil {
		return s.failed(seg, fmt.Errorf("syncing spool segment: %w", err))
	}
	failpoint.Hit("gateway.spool.synced")
	seg.synced += int64(len(buf))
	s.mu.Lock()
	s.seg = seg
	s.ends[seg.n] = seg.synced
	s.bytes += int64(len(buf))
	s.mu.Unlock()
	return nil
}

// failed gives a segment up after an error. What was written but not acknowledged is cut off as far as the disk lets us; if it stays, it is delivered twice.
func (s *Spool) failed(seg segment, err error) error {
	s.m.errors.Inc()
	if seg.file != nil {
		if terr := seg.file.Truncate(seg.synced); terr != nil {
			err = errors.Join(err, terr)
		}
		if cerr := seg.file.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}
	s.mu.Lock()
	s.seg = segment{n: seg.n}
	s.mu.Unlock()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errors.Join(ErrFull, err)
	}
	return err
}

// Close ends writing; Run must have ended before. What waits stays on disk and is adopted by the next process; an empty spool leaves nothing behind.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.rouse()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.seg.file != nil {
		errs = append(errs, s.seg.file.Close())
	}
	if s.records == 0 {
		errs = append(errs, s.own.remove())
	} else {
		errs = append(errs, s.own.release())
	}
	for _, f := range s.adopted {
		errs = append(errs, f.release())
	}
	return errors.Join(errs...)
}
