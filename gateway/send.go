package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"millrace/event"
	"millrace/gateway/spool"
)

// topic is what the gateway needs of a raw topic.
type topic struct {
	name     string
	category []byte // header ca
	class    event.ShedClass
}

var lanes = [2][]byte{{0}, {1}}

// route completes a record whose key and value are set.
func (c *call) route(s *slot, t *topic, lane event.Lane) {
	g, b := c.g, c.b
	start := len(b.buf)
	b.buf = event.AppendGateway(b.buf, g.instance, atomic.AddUint64(&g.sequence, 1))
	s.Topic, s.class, s.client = t.name, t.class, g.brokers.byTopic[t.name]
	s.part = event.Partition(s.Key, g.cfg.Partitions)
	s.Partition = s.part
	h := s.headers[:5]
	h[0].Key, h[0].Value = event.HeaderCategory, t.category
	h[1].Key, h[1].Value = event.HeaderTenant, c.src.tenant
	h[2].Key, h[2].Value = event.HeaderReceived, b.rx
	h[3].Key, h[3].Value = event.HeaderLane, lanes[lane]
	h[4].Key, h[4].Value = event.HeaderGateway, b.buf[start:len(b.buf):len(b.buf)]
	if c.trace != nil {
		h = s.headers[:6]
		h[5].Key, h[5].Value = event.HeaderTrace, c.trace
	}
	s.Record.Headers = h
}

// send makes the batch durable and says how it went.
//
// A record goes to the broker unless the breaker is open, older records of its partition wait in the spool, or memory is short and its class is shed. What the
// broker has not acknowledged within AckTimeout goes to the spool, whatever becomes of the copy in flight.
func (c *call) send(ctx context.Context) answer {
	g, b := c.g, c.b
	slots := b.used()
	if len(slots) == 0 {
		return c.done()
	}
	var size int64
	for _, s := range slots {
		size += int64(len(s.Key) + len(s.Value) + 128)
	}
	g.budget.force(size, &b.spent)

	start := time.Now()
	fill := g.budget.fill()
	direct := 0
	leave := g.spool.Enter(func(waits func(string, int32) bool) bool {
		for _, s := range slots {
			switch {
			case s.class == event.ShedFirst && fill > 0.5, s.class == event.ShedLater && fill > 0.75:
				g.m.shedMemory.Inc()
			case waits(s.Topic, s.part):
				g.m.shedBehind.Inc()
			default:
				s.direct = true
				direct++
			}
		}
		return direct < len(slots)
	})
	var report func(error)
	if direct > 0 {
		var err error
		if report, err = g.brokers.breaker.Allow(); err != nil {
			g.m.shedBroker.Add(float64(direct))
			direct = 0
			for _, s := range slots {
				s.direct = false
			}
		}
	}
	deadline, stop := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.AckTimeout)
	b.stop = stop
	if direct > 0 {
		b.refs.Add(int64(direct))
		b.left.Store(int64(direct))
		for _, s := range slots {
			if s.direct {
				s.client.TryProduce(deadline, &s.Record, s.promise)
			}
		}
	}
	full, broken := c.toSpool(func(s *slot) bool { return !s.direct })
	leave()
	if direct > 0 {
		select {
		case <-b.done:
		case <-deadline.Done():
		}
	}
	missed := 0
	for _, s := range slots {
		if s.direct && s.state.Load() != acked {
			missed++
		}
	}
	if direct > 0 {
		if missed > 0 {
			report(errUnacknowledged)
		} else {
			report(nil)
		}
	}
	if direct > 0 && missed == 0 {
		took := time.Since(start)
		g.brokers.observe(took)
		g.m.produce.Observe(took.Seconds())
	}
	if missed > 0 {
		f, e := c.toSpool(func(s *slot) bool { return s.direct && s.state.Load() != acked })
		full, broken = full || f, errors.Join(broken, e)
	}
	switch {
	case broken != nil:
		g.log.Error("spool failed", "error", broken)
		return answer{code: http.StatusServiceUnavailable, reason: "spool", retryAfter: 5 * time.Second}
	case full:
		return later("full", 10*time.Second)
	}
	return c.done()
}

var errUnacknowledged = errors.New("records not acknowledged in time")

// The share of the spool that a class may fill: what matters more finds room for longer.
var shares = map[event.ShedClass]float64{event.ShedFirst: 0.8, event.ShedLater: 0.9, event.ShedNever: 1}

// toSpool spools the records that which chooses.
func (c *call) toSpool(which func(*slot) bool) (full bool, broken error) {
	byClass := map[event.ShedClass][]spool.Record{}
	any := false
	for _, s := range c.b.used() {
		if which(s) {
			byClass[s.class] = append(byClass[s.class], s.spooled())
			any = true
		}
	}
	if !any {
		return false, nil
	}
	for _, class := range []event.ShedClass{event.ShedNever, event.ShedLater, event.ShedFirst} {
		recs := byClass[class]
		if len(recs) == 0 {
			continue
		}
		err := c.g.spool.Append(recs, shares[class])
		switch {
		case errors.Is(err, spool.ErrFull):
			full = true
		case err != nil:
			broken = errors.Join(broken, err)
		default:
			for _, r := range recs {
				c.g.m.events[strings.TrimPrefix(r.Topic, "raw.")][outSpool].Inc()
			}
		}
	}
	return full, broken
}

func (c *call) done() answer {
	for _, s := range c.b.used() {
		if s.direct && s.state.Load() == acked {
			c.g.m.events[strings.TrimPrefix(s.Topic, "raw.")][outKafka].Inc()
		}
	}
	return answer{code: http.StatusOK, accepted: c.accepted, failed: c.b.n - c.accepted}
}
