package streaming

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// closing counts the tasks whose operator was closed.
type closing struct {
	*testOp
	part   int32
	mu     *sync.Mutex
	closed map[int32]int
}

func (c closing) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed[c.part]++
	return nil
}

func TestGaugesShowATaskAndGoWithIt(t *testing.T) {
	t.Parallel()
	b := newBed(t, kfakeBrokers(t), fmt.Sprintf("g%x", time.Now().UnixNano()), 2, true)
	var mu sync.Mutex
	closed := map[int32]int{}
	hold, release := make(chan struct{}), sync.Once{}
	free := func() { release.Do(func() { close(hold) }) }
	t.Cleanup(free)
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		top.New = func(t *Task) (Operator, error) {
			op := newTestOp(t, b.prefix)
			op.fail = func(r *kgo.Record) error {
				if string(r.Value[len(r.Value)-4:]) == "hold" {
					<-hold
				}
				return nil
			}
			return closing{op, t.Partition(), &mu, closed}, nil
		}
		c.LeaveOnStop = true
	})
	b.ready(w)
	b.feed("x", 100, time.Now().UnixMicro())
	b.count(200)

	want := func(name string, series int, ok func(sum float64) bool) {
		t.Helper()
		eventually(t, patience, func() string {
			sum, n := w.metric(t, name)
			if n != series || !ok(sum) {
				return fmt.Sprintf("%s: %d series, want %d; sum %g", name, n, series, sum)
			}
			return ""
		})
	}
	zero := func(v float64) bool { return v == 0 }
	some := func(v float64) bool { return v > 0 }
	want("lag_records", 4, zero) // two inputs of two tasks
	want("buffered_records", 2, zero)
	want("state_keys", 6, func(v float64) bool { return v >= 6 }) // timers, counts, windows
	want("watermark_delay_seconds", 2, func(v float64) bool { return v > 0 && v < 600 })
	want("tasks", 1, func(v float64) bool { return v == 2 })
	want("restoring_tasks", 1, zero)
	want("last_commit_timestamp_seconds", 1, some)

	// The end of an input is known although its task reads nothing: the operator stands still while more comes.
	r := record("k0", time.Now().UnixMicro(), "hold")
	r.Topic, r.Partition = b.prefix+"in.a", 0
	must(t, b.cl.ProduceSync(t.Context(), r).FirstErr())
	b.feed("y", 100, time.Now().UnixMicro())
	eventually(t, patience, func() string {
		ends := w.ends.Load()
		if got := (*ends)[0][0]; got != 101 {
			return fmt.Sprintf("the first input of task 0 is known to reach to %d", got)
		}
		return ""
	})
	free()
	want("lag_records", 4, zero)

	must(t, w.stop())
	for _, name := range []string{"lag_records", "buffered_records", "state_keys", "watermark_delay_seconds"} {
		if _, n := w.metric(t, name); n != 0 {
			t.Errorf("%d series of %s are left after the worker has given up its tasks", n, name)
		}
	}
	if got, _ := w.metric(t, "tasks"); got != 0 {
		t.Errorf("%g tasks are left", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if made, _ := w.metric(t, "restores_total"); closed[0] == 0 || float64(closed[0]+closed[1]) != made {
		t.Errorf("operators were closed %v times, want each of %g that were made", closed, made)
	}
}

func TestTheLagOfATaskIsUpToTheKnownEnd(t *testing.T) {
	top := testTopology(2, "in.a", "in.b")
	cfg := Config{Group: "g", InstanceID: "i", TransactionalID: "t"}.Defaults()
	now := time.Now()
	task, err := newTask(&top, &cfg, 1, now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(nil, top)
	if err != nil {
		t.Fatal(err)
	}
	lag := func(topic string) float64 { return gaugeValue(t, m.lag.WithLabelValues("1", topic)) }
	for _, c := range []struct {
		name            string
		next, read, ask int64
		want            float64
	}{
		{"a fetch tells the end", 10, 15, 0, 5},
		{"the broker, asked, knows of more", 10, 15, 40, 30},
		{"a fetch is fresher than the answer", 10, 50, 40, 40},
		{"the answer is older than what was processed", 45, 0, 40, 0},
	} {
		task.start(0, c.next, c.read, false)
		m.gauge(task, task.status([]int64{c.ask, 0}, now), []int64{c.ask, 0}, now)
		if got := lag("in.a"); got != c.want {
			t.Errorf("%s: lag %g, want %g", c.name, got, c.want)
		}
	}
	m.forget(1)
	m.gauge(task, task.status(nil, now), nil, now)
	if got := lag("in.a"); got != 0 {
		t.Errorf("without an answer the lag is %g, want 0", got)
	}
}

func gaugeValue(t *testing.T, g prometheus.Gauge) float64 {
	t.Helper()
	var m dto.Metric
	if err := g.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}
