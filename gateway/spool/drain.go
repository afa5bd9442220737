package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// Deliver gives records to producers, in their order and without waiting, and gives a function that waits until all are durable elsewhere. That one gives the
// indexes of records that will never be taken; those are put aside. After an error the same records come again.
type Deliver func(ctx context.Context, recs []Record) (wait func() (refused []int, err error), err error)

const (
	batchRecords = 5_000
	batchBytes   = 4 << 20
	lastBytes    = 1 << 20                // when less is left, it is handed over with callers held back
	retryAfter   = 500 * time.Millisecond // between attempts while the broker is away
)

// Run drains, and looks for folders to adopt, until ctx ends.
func (s *Spool) Run(ctx context.Context, deliver Deliver) error {
	adopt := time.NewTicker(s.cfg.AdoptEvery)
	defer adopt.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for ctx.Err() == nil {
		moved, failed := s.drainOnce(ctx, deliver)
		if ctx.Err() != nil {
			return nil
		}
		if moved && !failed {
			continue
		}
		if failed {
			retry.Reset(retryAfter)
		} else {
			retry.Reset(time.Hour)
		}
		select {
		case <-ctx.Done():
		case <-s.wakeUnless(failed):
		case <-retry.C:
		case <-adopt.C:
			if err := s.Adopt(); err != nil {
				s.log.Warn("looking for spool folders to adopt failed", "error", err)
			}
		}
	}
	return nil
}

// wakeUnless is where new records are told of; while the broker is away they do not matter.
func (s *Spool) wakeUnless(failed bool) <-chan struct{} {
	if failed {
		return nil
	}
	return s.ready
}

// drainOnce takes one batch of every folder: those of ended processes first, because theirs are older.
func (s *Spool) drainOnce(ctx context.Context, deliver Deliver) (moved, failed bool) {
	s.mu.Lock()
	folders := append(slices.Clone(s.adopted), s.own)
	s.mu.Unlock()
	for _, f := range folders {
		m, err := s.step(ctx, f, deliver)
		moved = moved || m
		if err != nil {
			failed = true
			if ctx.Err() == nil {
				s.m.drainErrors.Inc()
				s.log.Debug("spool not drained, will try again", "folder", f.path, "error", err)
			}
		}
	}
	return moved, failed
}

// step drains one batch of a folder. It says whether it got on.
func (s *Spool) step(ctx context.Context, f *folder, deliver Deliver) (moved bool, err error) {
	own := f == s.own
	ok, err := s.open(f)
	if err != nil || !ok {
		return false, err
	}
	last := own && s.calm && f.cur.limit-f.cur.offset() < lastBytes
	if last {
		last = s.shut()
		defer s.letIn()
		if ok, err = s.open(f); err != nil || !ok { // with what has come meanwhile
			return false, err
		}
	}
	from := f.cur.offset()
	recs, d, end, err := f.cur.batch()
	if err != nil {
		return false, err
	}
	s.report(f, d)
	if len(recs) > 0 {
		if err := s.hand(ctx, f, recs, last && s.atEnd(), deliver); err != nil {
			f.cur.rewind(from)
			if own {
				s.calm = false
			}
			return false, err
		}
		if own {
			s.calm = true
		}
	}
	moved = f.cur.offset() > from
	s.mu.Lock()
	s.bytes -= f.cur.offset() - from
	f.at.Offset = f.cur.offset()
	if own && s.endIs(f.at) && s.reserved == 0 { // damaged frames were not among recs
		clear(s.backlog)
		s.records = 0
	}
	s.mu.Unlock()
	if end {
		m, err := s.leave(f)
		return moved || m, err
	}
	if moved {
		return true, f.save(f.at)
	}
	return false, nil
}

// endIs says whether nothing is behind a position of our own folder. The lock is held.
func (s *Spool) endIs(p position) bool { return p.Segment == s.seg.n && p.Offset == s.ends[s.seg.n] }

// atEnd says whether the cursor has read all there is.
func (s *Spool) atEnd() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved == 0 && s.endIs(position{s.own.at.Segment, s.own.cur.offset()})
}

// report tells of what was broken in a segment.
func (s *Spool) report(f *folder, d damage) {
	if d.skipped > 0 {
		s.m.damaged.Add(float64(d.skipped))
		s.log.Error("damaged bytes in a spool segment skipped", "folder", f.path, "segment", f.at.Segment, "bytes", d.skipped)
	}
	if d.torn == 0 {
		return
	}
	if f == s.own { // damage, not a torn tail: the writer is behind it
		s.m.damaged.Add(float64(d.torn))
		return
	}
	s.log.Info("unfinished frame at the end of a spool segment dropped: it was never acknowledged", "folder", f.path, "segment", f.at.Segment, "bytes", d.torn)
	if err := os.Truncate(f.segment(f.at.Segment), f.cur.offset()-d.torn); err != nil {
		s.log.Warn("truncating a spool segment failed", "folder", f.path, "error", err)
	}
}

// hand delivers a batch. With the last one of our own the partitions are free again as soon as it is with the producers, and queue again if it fails.
func (s *Spool) hand(ctx context.Context, f *folder, recs []Record, last bool, deliver Deliver) error {
	s.mu.Lock()
	f.oldest = recs[0].SpooledAt
	s.mu.Unlock()
	wait, err := deliver(ctx, recs)
	if err != nil {
		return err
	}
	if last {
		s.mu.Lock()
		clear(s.backlog)
		s.mu.Unlock()
		s.letIn()
	}
	refused, err := wait()
	for _, i := range refused {
		if err != nil {
			break
		}
		s.m.refused.Inc()
		s.log.Error("spooled record put aside: no broker takes it", "topic", recs[i].Topic, "partition", recs[i].Partition, "bytes", len(recs[i].Value))
		err = f.putAside(s.cfg.Dir, &recs[i])
	}
	if f == s.own {
		s.mu.Lock()
		for _, r := range recs {
			one := slot{r.Topic, r.Partition}
			switch {
			case err != nil && last:
				s.backlog[one]++
			case err == nil && !last:
				s.unqueue(one)
			}
			if err == nil {
				s.records--
				s.oldest = r.SpooledAt
			}
		}
		s.mu.Unlock()
	}
	if err == nil {
		s.m.drained.Add(float64(len(recs)))
	}
	return err
}

// open readies the cursor at the folder's position; false if there is nothing to read.
func (s *Spool) open(f *folder) (bool, error) {
	if f.cur == nil {
		ns, err := f.segments()
		if err != nil {
			return false, err
		}
		i, _ := slices.BinarySearch(ns, f.at.Segment)
		if i == len(ns) {
			if f == s.own {
				return false, nil
			}
			return false, s.abandon(f)
		}
		if f == s.own && !s.written(ns[i]) { // being made just now
			return false, nil
		}
		if ns[i] != f.at.Segment {
			s.mu.Lock()
			f.at = position{Segment: ns[i]}
			s.mu.Unlock()
		}
		file, err := os.Open(f.segment(ns[i]))
		if err != nil {
			return false, fmt.Errorf("opening spool segment: %w", err)
		}
		f.cur = &cursor{file: file, start: f.at.Offset}
	}
	if f == s.own {
		s.mu.Lock()
		f.cur.limit = s.ends[f.at.Segment] // always the end of a frame
		s.mu.Unlock()
		return true, nil
	}
	info, err := f.cur.file.Stat()
	if err != nil {
		return false, fmt.Errorf("looking at spool segment: %w", err)
	}
	f.cur.limit = info.Size()
	return true, nil
}

func (s *Spool) written(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[n] > 0 || s.seg.n > n
}

// leave goes on to the next segment of a folder, if this one is finished, and removes it.
func (s *Spool) leave(f *folder) (bool, error) {
	n := f.at.Segment
	s.mu.Lock()
	finished := f != s.own || s.seg.n > n && f.at.Offset >= s.ends[n]
	if finished {
		f.at = position{Segment: n + 1}
		delete(s.ends, n)
	}
	s.mu.Unlock()
	if !finished {
		return false, f.save(f.at)
	}
	err := f.cur.file.Close()
	f.cur = nil
	if err = errors.Join(err, os.Remove(f.segment(n)), f.save(f.at)); err != nil {
		return true, fmt.Errorf("removing a drained spool segment: %w", err)
	}
	return true, nil
}

// abandon removes an adopted folder that is drained.
func (s *Spool) abandon(f *folder) error {
	s.mu.Lock()
	s.adopted = slices.DeleteFunc(s.adopted, func(one *folder) bool { return one == f })
	s.mu.Unlock()
	s.log.Info("adopted spool folder drained", "folder", f.path)
	return f.remove()
}

// batch reads the next records. end says that there is nothing behind them for now.
func (c *cursor) batch() (recs []Record, d damage, end bool, err error) {
	size := 0
	for len(recs) < batchRecords && size < batchBytes {
		r, err := c.next(&d)
		switch {
		case errors.Is(err, errMore):
			if err := c.refill(); err != nil {
				return nil, d, false, err
			}
			continue
		case errors.Is(err, io.EOF):
			return recs, d, true, nil
		case err != nil:
			return nil, d, false, err
		}
		recs = append(recs, r)
		size += len(r.Value) + len(r.Key)
	}
	return recs, d, false, nil
}

// rewind goes back to an offset.
func (c *cursor) rewind(to int64) { c.buf, c.start, c.at = nil, to, 0 }
