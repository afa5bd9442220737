package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

// TemporalClient connects to Temporal. It fails at once if nobody answers.
func TemporalClient(ctx context.Context, c TemporalConfig, log *slog.Logger) (client.Client, error) {
	o, err := temporalOptions(c, log)
	if err != nil {
		return nil, err
	}
	cl, err := client.DialContext(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("temporal at %s: %w", c.Address, err)
	}
	return cl, nil
}

// Validate reports every problem.
func (c TemporalConfig) Validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("address: %q is not host:port", c.Address))
	}
	if c.Namespace == "" {
		errs = append(errs, errors.New("namespace: must not be empty"))
	}
	if c.Retention < 24*time.Hour {
		errs = append(errs, fmt.Errorf("retention: %s is below a day", c.Retention))
	}
	if c.CodecTokenFile != "" && (c.EncryptionKeyFile == "" || c.UI == "") {
		errs = append(errs, errors.New("codec_token_file: needs encryption_key_file and ui"))
	}
	return errors.Join(append(errs, c.TLS.validate(), c.Deployment.validate())...)
}

// Pauses between attempts to reach Temporal: on a fresh machine it is built for minutes, and it should be met soon after.
const (
	temporalPauseMin = 500 * time.Millisecond
	temporalPauseMax = 5 * time.Second
	temporalCheck    = 5 * time.Second
	temporalAttempt  = 10 * time.Second
)

// withTemporal calls serve with a client, again and again until ctx ends: Temporal may come late, go away and come back. serve returns when it cannot go on. note is told
// why nothing is served, and nil when it is.
func withTemporal(ctx context.Context, c TemporalConfig, log *slog.Logger, note func(error), serve func(ctx context.Context, cl client.Client, up func()) error) {
	pause := temporalPauseMin
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, temporalAttempt)
		probe, err := TemporalClient(attempt, c, slog.New(slog.DiscardHandler)) // attempts that fail are not worth a line each
		cancel()
		if err == nil {
			probe.Close()
			var cl client.Client
			if cl, err = TemporalClient(ctx, c, log); err == nil {
				err = serve(ctx, cl, func() { pause = temporalPauseMin; note(nil) })
				cl.Close()
			}
		} else {
			err = fmt.Errorf("does not answer yet: %w", err)
		}
		if ctx.Err() != nil {
			return
		}
		note(err)
		log.DebugContext(ctx, "waiting for temporal", "pause", pause, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, temporalPauseMax)
	}
}

// serveWorkers runs Temporal workers until ctx ends, one of them fails for good, or Temporal is away; the first two end it.
func serveWorkers(ctx context.Context, cl client.Client, note func(error), build func(fatal func(error)) []worker.Worker) error {
	failed := make(failure, 1)
	ws := build(failed.set)
	started := ws[:0:0]
	defer func() {
		for _, w := range started {
			w.Stop()
		}
	}()
	for _, w := range ws {
		if err := w.Start(); err != nil {
			return fmt.Errorf("starting a worker: %w", err)
		}
		started = append(started, w)
	}
	note(nil)
	t := time.NewTicker(temporalCheck)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("a worker ended: %w", err)
		case <-t.C:
		}
		attempt, cancel := context.WithTimeout(ctx, temporalAttempt)
		_, err := cl.CheckHealth(attempt, &client.CheckHealthRequest{})
		cancel()
		if ctx.Err() == nil {
			note(err) // workers go on by themselves when it is back
		}
	}
}

// failure holds the first error of several workers.
type failure chan error

func (f failure) set(err error) {
	select {
	case f <- err:
	default:
	}
}
