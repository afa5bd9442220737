package bigquery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	bq "cloud.google.com/go/bigquery"
)

// Limits of one piece of work: how many ids it may take in all, over all processes that have tried it, and how many jobs one call submits.
const (
	maxIDs     = 100
	maxSubmits = 4
	cancelWait = 10 * time.Second
)

// errAbandoned says that a job did not end in time, and not when it was cancelled.
var errAbandoned = errors.New("the job did not end in time")

// outcome is how a piece of work ended.
type outcome struct {
	id     string
	status *bq.JobStatus
	found  bool // an earlier call had submitted it
}

// once does a piece of work by one job whose id follows from key, however often it is called: a job that is there is not submitted again, its outcome counts. A failed
// one needs another id, since an id is never given twice. What the job does must bear that an earlier one, taken for dead, ends after all.
func (s *Store) once(ctx context.Context, key string, submit func(ctx context.Context, id string) (*bq.Job, error)) (outcome, error) {
	submitted := 0
	for n := range maxIDs {
		id := key + "-a" + strconv.Itoa(n)
		job, err := s.find(ctx, id)
		found := job != nil
		for tries := 0; job == nil && err == nil; tries++ {
			if job, err = submit(ctx, id); err == nil {
				break
			}
			refused := err
			if ctx.Err() != nil {
				return outcome{id: id}, errors.Join(ctx.Err(), refused)
			}
			if !hasStatus(refused, http.StatusConflict) && !transient(refused) {
				return outcome{id: id}, fmt.Errorf("submitting job %s: %w", id, refused)
			}
			// It may have been taken, with the answer lost, or by another process.
			if job, err = s.find(ctx, id); job != nil || err != nil {
				break
			}
			if tries == maxSubmits {
				return outcome{id: id}, fmt.Errorf("submitting job %s: %w", id, refused)
			}
			if err := s.pause(ctx, tries); err != nil {
				return outcome{id: id}, errors.Join(err, refused)
			}
		}
		if err != nil {
			return outcome{id: id}, fmt.Errorf("looking for job %s: %w", id, err)
		}
		if !found {
			submitted++
		}
		status, err := s.await(ctx, job)
		if err == nil {
			return outcome{id, status, found}, nil
		}
		err = fmt.Errorf("job %s: %w", id, err)
		if ctx.Err() != nil {
			return outcome{id: id}, err
		}
		again := found || errors.Is(err, errAbandoned) || transient(err)
		if !again || submitted >= maxSubmits {
			return outcome{id: id, status: status}, err
		}
		s.log.WarnContext(ctx, "a BigQuery job is made again under another id", "job", id, "error", err)
		if !found {
			if err := s.pause(ctx, submitted); err != nil {
				return outcome{id: id}, err
			}
		}
	}
	return outcome{}, fmt.Errorf("%d jobs named %s failed", maxIDs, key)
}

// find looks a job up; nil if there is none.
func (s *Store) find(ctx context.Context, id string) (*bq.Job, error) {
	var job *bq.Job
	err := s.call(ctx, func(ctx context.Context) (err error) {
		job, err = s.client.JobFromID(ctx, id)
		return err
	})
	if hasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	return job, err
}

// await waits for the end of a job, until it is older than jobs may become: then it is cancelled, and given up if that does not end it either. A server that was killed
// may say for ever that a job runs.
func (s *Store) await(ctx context.Context, job *bq.Job) (*bq.JobStatus, error) {
	left := s.cfg.JobTimeout
	if st := job.LastStatus(); st != nil && st.Statistics != nil && !st.Statistics.CreationTime.IsZero() {
		left = min(left, s.cfg.JobTimeout-s.now().Sub(st.Statistics.CreationTime))
	}
	status, err := s.poll(ctx, job, max(left, time.Second))
	if status != nil || err != nil || ctx.Err() != nil {
		return status, errors.Join(err, ctx.Err())
	}
	if err := s.call(ctx, job.Cancel); err != nil {
		return nil, fmt.Errorf("%w, and cannot be cancelled: %w", errAbandoned, err)
	}
	if status, err = s.poll(ctx, job, min(cancelWait, s.cfg.JobTimeout)); status != nil || err != nil || ctx.Err() != nil {
		return status, errors.Join(err, ctx.Err())
	}
	return nil, errAbandoned
}

// poll asks until the job is done or d has passed; then both are nil.
func (s *Store) poll(ctx context.Context, job *bq.Job, d time.Duration) (*bq.JobStatus, error) {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		var status *bq.JobStatus
		err := s.call(ctx, func(ctx context.Context) (err error) {
			status, err = job.Status(ctx)
			return err
		})
		switch {
		case hasStatus(err, http.StatusNotFound): // a server that was killed may have forgotten it
			return nil, errAbandoned
		case err != nil && !transient(err):
			return nil, fmt.Errorf("asking for its status: %w", err)
		case err == nil && status.Done():
			return status, status.Err()
		}
		tick := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil, ctx.Err()
		case <-deadline.C:
			tick.Stop()
			return nil, nil
		case <-tick.C:
		}
	}
}

// pause waits longer each time.
func (s *Store) pause(ctx context.Context, n int) error {
	t := time.NewTimer(s.wait << min(n, 5))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
