package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"millrace/event"
	"millrace/test/drills/hotrun"
)

// meter runs traffic at one worker.
type meter struct {
	options
	b      *hotrun.Broker
	spec   hotrun.Spec
	worker *hotrun.Proc
	runs   uint64
}

// lag is how many events have not been processed: by the first stage, and what it passed on by the second.
func (m *meter) lag(ctx context.Context) (float64, error) {
	_, first, err := m.b.Position(ctx, m.spec.Groups()[0], hotrun.Inputs()...)
	if err != nil {
		return 0, err
	}
	_, second, err := m.b.Position(ctx, m.spec.Groups()[1], event.TopicRekeyCard, event.TopicRekeyIP, event.TopicRekeyUser, event.TopicRekeyProduct)
	return float64(first + second), err
}

// sustainable is the highest rate with a flat lag: doubled until it is not, then halved into, then held for the whole time.
func (m *meter) sustainable(ctx context.Context) (float64, error) {
	short := max(m.time/6, 5*time.Second)
	good, bad := 0.0, math.Inf(1)
	for rate := 1000.0; bad-good > 0.12*good || good == 0; {
		flat, err := m.flat(ctx, rate, short)
		if err != nil {
			return 0, err
		}
		if flat {
			good = rate
		} else {
			bad = rate
		}
		switch {
		case math.IsInf(bad, 1):
			rate = 2 * good
		case good == 0:
			rate = bad / 2
			if rate < 10 {
				return 0, fmt.Errorf("the lag is not flat at %.0f events/s either", rate)
			}
		default:
			rate = (good + bad) / 2
		}
	}
	for ; good >= 10; good *= 0.9 {
		flat, err := m.flat(ctx, good, m.time)
		if flat || err != nil {
			return good, err
		}
	}
	return 0, fmt.Errorf("the lag is flat at no rate for %s", m.time)
}

// flat tells whether the lag stays where it is at a rate. A rate that the generator itself does not keep is none.
func (m *meter) flat(ctx context.Context, rate float64, length time.Duration) (bool, error) {
	if err := m.idle(ctx); err != nil {
		return false, err
	}
	m.runs++
	shop := &hotrun.Shop{Seed: m.seed<<16 + m.runs, Rate: rate, For: length, Partitions: int32(m.partitions)}
	if err := shop.Render(ctx); err != nil {
		return false, err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- shop.Run(sending, m.b.Addr) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var lags []float64
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				return false, err
			}
			running = false
		case <-m.worker.Ended():
			return false, fmt.Errorf("the worker has ended: %s", m.worker.Said())
		case <-tick.C:
			lag, err := m.lag(ctx)
			if err != nil {
				return false, err
			}
			lags = append(lags, lag)
			if lag > 5*rate { // far behind
				stop()
			}
		}
	}
	if len(lags) < 9 {
		return false, nil
	}
	before, after := median(lags[len(lags)/3:2*len(lags)/3]), median(lags[2*len(lags)/3:])
	sent := float64(shop.Count.Load()) / shop.Duration.Seconds()
	// Flat: what waits is less than half a second's events, and its growth is less than a hundredth of the rate, or than what two commits make of it.
	third := float64(length/3) / float64(time.Second)
	flat := after < 0.5*rate && after-before < max(0.01*third, 0.1)*rate && sent > 0.95*rate*float64(length)/float64(length+300*time.Millisecond)
	fmt.Printf("     %6.0f events/s for %s: lag of %.0f, then %.0f events; sent %.0f/s, at most %s late; flat %v\n", rate, length, before, after, sent, shop.Behind.Round(time.Millisecond), flat)
	return flat, nil
}

// idle waits until nothing is left to do.
func (m *meter) idle(ctx context.Context) error {
	return hotrun.Eventually(ctx, "the lag to be gone", 10*time.Minute, func() (bool, error) {
		lag, err := m.lag(ctx)
		return lag < 200, err // heartbeats between the stages never end
	})
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
