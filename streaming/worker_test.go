package streaming

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/fault"
)

// TestOnKfake runs the contract of the worker on the broker of tests.
func TestOnKfake(t *testing.T) {
	t.Parallel()
	runConformance(t, kfakeBrokers(t), true)
}

// runConformance is what a worker promises, on any broker.
func runConformance(t *testing.T, brokers []string, onKfake bool) {
	for _, c := range []struct {
		name string
		run  func(*bed)
	}{
		{"each record is processed once", once},
		{"a crash within a transaction loses and doubles nothing", crashes},
		{"an unknown outcome is settled by the broker", unknownOutcomes},
		{"an operator that cannot go back is restored after a rebalance", rebalances(false)},
		{"workers come and go and nothing is lost or doubled", rebalances(true)},
		{"a transaction that only commits offsets moves the group", offsetsOnly},
		{"timers and windows fire without input, once", timersOnly},
		{"a paused worker can commit nothing", paused},
		{"a paused worker whose transactions hold nothing but offsets can commit none", pausedOffsets},
		{"a killed worker's slot is taken up at once", killed},
		{"two workers in one slot: one ends", duel(ProtocolClassic)},
		{"two workers in one slot of a group of KIP-848: one ends", duel(ProtocolConsumer)},
		{"another partition count is refused", otherPartitions},
		{"an input made anew is refused", recreated},
		{"input lost to retention is refused", retained},
		{"a task holds few records while an input is far behind", farBehind},
		{"an output that is too large ends the worker", tooLarge},
		{"workers come, are restarted and go under load", rebalanced},
		{"a restart goes on from its local snapshot", localState},
		{"a record is shown while the transaction before it ends", previews},
		{"what an earlier stage announces is shown before it is committed", announced},
		{"sessions that end while snapshots are written lose nothing", localCrashes},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("t%x", time.Now().UnixNano())
			c.run(newBed(t, brokers, name, 4, onKfake))
		})
	}
}

func once(b *bed) {
	w := b.start("w0", nil)
	b.ready(w)
	b.feed("x", 200, 1_000_000_000)
	b.count(800)
	must(b.t, w.stop())
	w = b.start("w0", nil)
	b.feed("y", 100, 2_000_000_000)
	b.count(1200)
	b.stateIsOne(w)
}

// stateIsOne compares counts in the changelog with what was put out.
func (b *bed) stateIsOne(w *running) {
	b.t.Helper()
	must(b.t, w.stop())
	want := map[string]int64{}
	for _, r := range b.all(outTopic) {
		want[fmt.Sprintf("%d/%s", r.Partition, r.Key)]++
	}
	got := map[string]int64{}
	top := b.topology()
	for _, r := range b.read(ChangelogTopic(top)) {
		if k := string(r.Key); k[:2] == "\x00\x10" {
			v, err := Int64{}.Decode(r.Value[1:])
			must(b.t, err)
			got[fmt.Sprintf("%d/%s", r.Partition, k[2:])] = v
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Fatalf("counts in state and in outputs differ (-outputs +state):\n%s", diff)
	}
}

var errCrash = errors.New("crash")

func crashes(b *bed) {
	b.feed("x", 300, 1_000_000_000)
	for i := range 6 {
		var commits atomic.Int64
		w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
			c.CommitRecords, c.PollRecords, c.CommitInterval = 100, 50, time.Millisecond
			top.New = func(t *Task) (Operator, error) {
				return &crashing{testOp: newTestOp(t, b.prefix), commits: &commits, at: int64(i)}, nil
			}
		})
		if err := w.err(); !errors.Is(err, errCrash) {
			b.t.Fatalf("the worker ended with %v", err)
		}
	}
	b.stateIsOneAfter(1200)
}

func (b *bed) stateIsOneAfter(n int) {
	w := b.start("w0", nil)
	b.count(n)
	b.stateIsOne(w)
}

// crashing fails at the end of some transaction of the worker, with outputs already produced.
type crashing struct {
	*testOp
	commits *atomic.Int64
	at      int64
}

func (c *crashing) BeforeCommit() error {
	if c.commits.Add(1) > c.at {
		return errCrash
	}
	return nil
}

func unknownOutcomes(b *bed) {
	b.feed("x", 300, 1_000_000_000)
	var ends atomic.Int64
	w := b.start("w0", func(c *Config, _ *Topology, w *Worker) {
		c.CommitRecords, c.PollRecords = 100, 50
		if w != nil {
			w.afterEnd = func(committed bool) error {
				if n := ends.Add(1); committed && n%3 == 1 && n < 12 {
					return errCrash
				}
				return nil
			}
		}
	})
	b.count(1200)
	if ends.Load() < 3 {
		b.t.Fatalf("only %d transactions", ends.Load())
	}
	b.stateIsOne(w)
}

// plain hides Committed and Aborted.
type plain struct{ o *testOp }

func (p plain) Process(in int, r *kgo.Record) error { return p.o.Process(in, r) }
func (p plain) Timer(tm Timer) error                { return p.o.Timer(tm) }
func (p plain) Tick(now time.Time) error            { return p.o.Tick(now) }
func (p plain) BeforeCommit() error                 { return p.o.BeforeCommit() }
func (p plain) RestoreLog(log string, v []byte, at time.Time) error {
	return p.o.RestoreLog(log, v, at)
}

func rebalances(committer bool) func(b *bed) {
	return func(b *bed) {
		change := func(c *Config, top *Topology, _ *Worker) {
			c.LeaveOnStop = true
			if !committer {
				top.New = func(t *Task) (Operator, error) { return plain{newTestOp(t, b.prefix)}, nil }
			}
		}
		w0 := b.start("w0", change)
		b.ready(w0)
		n := 0
		feed := func() {
			b.feed(fmt.Sprintf("x%d", n), 50, 1_000_000_000+int64(n)*500_000)
			n++
		}
		feed()
		w1 := b.start("w1", change)
		eventually(b.t, patience, func() string {
			feed()
			if err := w1.Ready(); err != nil {
				return err.Error()
			}
			return ""
		})
		b.count(200 * n)
		must(b.t, w0.stop()) // leaves: w1 takes over at once
		for range 5 {
			feed()
		}
		b.count(200 * n)
		b.stateIsOne(w1)
	}
}

type nothing struct{ idleOp }

// nothingAtAll is a topology that reads, and does nothing.
func nothingAtAll(_ *Config, top *Topology, _ *Worker) {
	top.Stores, top.Logs, top.Untimed = nil, nil, top.Inputs
	top.New = func(*Task) (Operator, error) { return &nothing{}, nil }
}

// pausedOffsets: a worker is stopped for longer than its session lives, and then ends a transaction that has only offsets: older ones than its successor's.
func pausedOffsets(b *bed) {
	offsets := func() (least, sum int64) {
		b.t.Helper()
		var got kadm.OffsetResponses
		eventually(b.t, patience, func() string { // the coordinator may be starting
			var err error
			if got, err = b.adm.FetchOffsets(b.t.Context(), b.prefix+"g"); err != nil {
				return err.Error()
			}
			return ""
		})
		least = 1 << 40
		for _, in := range b.topology().Inputs {
			for p := range b.parts {
				o, _ := got.Lookup(in, p)
				least, sum = min(least, o.At), sum+o.At
			}
		}
		return least, sum
	}
	reach := func(n int64) {
		b.t.Helper()
		eventually(b.t, patience, func() string {
			if least, _ := offsets(); least < n {
				return fmt.Sprintf("the group stands at %d, want %d", least, n)
			}
			return ""
		})
	}
	c := b.child("w0", "nothing")
	b.feed("x", 100, 1_000_000_000)
	reach(50)
	b.feed("y", 2000, 1_000_500_000)
	must(b.t, c.Process.Signal(syscall.SIGSTOP))
	w := b.start("w1", nothingAtAll)
	b.feed("z", 100, 1_030_500_000)
	reach(1100)
	b.ready(w)
	_, before := offsets()
	must(b.t, c.Process.Signal(syscall.SIGCONT))
	for i := range 10 {
		b.feed(fmt.Sprintf("a%d", i), 20, 1_032_000_000)
		reach(1100 + int64(i+1)*10)
		if _, sum := offsets(); sum < before {
			b.t.Fatalf("the group's offsets went back from %d to %d", before, sum)
		} else {
			before = sum
		}
	}
}

func offsetsOnly(b *bed) {
	w := b.start("w0", nothingAtAll)
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	top := b.topology()
	eventually(b.t, patience, func() string {
		got, err := b.adm.FetchOffsets(b.t.Context(), b.prefix+"g")
		if err != nil {
			return err.Error()
		}
		for _, in := range top.Inputs {
			for p := range b.parts {
				if o, ok := got.Lookup(in, p); !ok || o.At != 5 {
					return fmt.Sprintf("offset of %s/%d is %d", in, p, o.At)
				}
			}
		}
		return ""
	})
	before := len(b.read(ChangelogTopic(top)))
	b.feed("y", 10, 1_000_000_000)
	eventually(b.t, patience, func() string {
		got, err := b.adm.FetchOffsets(b.t.Context(), b.prefix+"g")
		if err != nil {
			return err.Error()
		}
		if o, _ := got.Lookup(top.Inputs[1], b.parts-1); o.At != 10 {
			return fmt.Sprintf("offset is %d", o.At)
		}
		return ""
	})
	if after := len(b.read(ChangelogTopic(top))); after != before {
		b.t.Fatalf("the changelog grew from %d to %d records although nothing changed", before, after)
	}
}

// timersOnly: the watermark moves past timers and windows only when the inputs are found idle, long after the last record committed.
func timersOnly(b *bed) {
	w := b.start("w0", func(c *Config, _ *Topology, _ *Worker) { c.IdleAfter = time.Second })
	b.ready(w)
	b.feed("x", 100, 1_000_000_000) // 1 s of events: at 1001 s the watermark is 999.99 s
	b.count(400)
	b.feed("y", 1, 1_010_000_000) // one input only: until it is idle the other one holds the watermark
	want := []string{}
	for p := range b.parts {
		for _, k := range []string{"k0", "k1", "k2"} {
			want = append(want, fmt.Sprintf("%d %s@1005000000", p, k))
		}
	}
	slices.Sort(want)
	fired := func() []string {
		got := []string{}
		for _, r := range b.all(firedTopic) {
			got = append(got, fmt.Sprintf("%d %s", r.Partition, r.Key))
		}
		slices.Sort(got)
		return got
	}
	eventually(b.t, patience, func() string { return cmp.Diff(want, fired()) })
	must(b.t, w.stop())
	w = b.start("w0", nil) // nothing fires again
	b.ready(w)
	b.feed("z", 1, 1_011_000_000)
	b.count(404 + 4)
	if diff := cmp.Diff(want, fired()); diff != "" {
		b.t.Fatal(diff)
	}
	rows := map[string]string{}
	for _, r := range b.all(rowTopic) {
		rows[fmt.Sprintf("%d %s", r.Partition, r.Key)] = string(r.Value)
	}
	if got := rows["0 1/1000000000/k0"]; got != "34 0" {
		b.t.Fatalf("row of 10 s is %q, rows: %v", got, slices.Sorted(maps.Keys(rows)))
	}
}

const childEnv = "MILLRACE_STREAM_TEST_CHILD"

// TestChildWorker is no test: it is the worker process of the tests that stop and kill one.
func TestChildWorker(t *testing.T) {
	arg := os.Getenv(childEnv)
	if arg == "" {
		return
	}
	f := strings.Split(arg, "|")
	b := &bed{t: t, brokers: strings.Split(f[0], ","), prefix: f[1], parts: 4}
	cfg, top := b.config(f[2]), b.topology()
	switch f[3] {
	case "nothing":
		nothingAtAll(&cfg, &top, nil)
	case AtLeastOnce:
		atLeastOnce(&cfg, &top, nil)
	}
	w, err := NewWorker(cfg, top, []kgo.Opt{kgo.SeedBrokers(b.brokers...)}, prometheus.NewRegistry(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) child(instance, does string) *exec.Cmd {
	b.t.Helper()
	c := exec.CommandContext(b.t.Context(), os.Args[0], "-test.run=^TestChildWorker$", "-test.timeout=5m")
	c.Env = append(os.Environ(), childEnv+"="+strings.Join(b.brokers, ",")+"|"+b.prefix+"|"+instance+"|"+does)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c
}

// paused: a worker is stopped in the middle of its work for longer than its session lives; another takes over; then it goes on.
func paused(b *bed) {
	c := b.child("w0", "")
	b.feed("x", 50, 1_000_000_000)
	b.count(200)
	b.feed("y", 300, 1_000_500_000)
	must(b.t, c.Process.Signal(syscall.SIGSTOP)) // with some of it read, perhaps produced
	w := b.start("w1", nil)
	b.feed("z", 50, 1_003_500_000)
	b.count(1600)
	b.ready(w)
	must(b.t, c.Process.Signal(syscall.SIGCONT))
	n := 1600
	for i := range 5 {
		b.feed(fmt.Sprintf("a%d", i), 20, 1_004_000_000)
		n += 80
		b.count(n)
	}
	must(b.t, c.Process.Kill())
	b.stateIsOne(w)
}

// killed: the slot's next process does not wait for any timeout, although the transaction of the first was open.
func killed(b *bed) {
	n := 0
	for i := range 4 {
		c := b.child("w0", "")
		b.feed(fmt.Sprintf("x%d", i), 100, 1_000_000_000+int64(i)*1_000_000)
		n += 400
		eventually(b.t, patience, func() string {
			if len(b.all(outTopic)) < n/2 {
				return "nothing comes out"
			}
			return ""
		})
		must(b.t, c.Process.Kill())
		_ = c.Wait()
	}
	w := b.start("w0", nil)
	b.count(n)
	b.stateIsOne(w)
}

func duel(protocol string) func(*bed) {
	in := func(c *Config, _ *Topology, _ *Worker) { c.Protocol = protocol }
	return func(b *bed) {
		w0 := b.start("w0", in)
		b.ready(w0)
		b.feed("x", 50, 1_000_000_000)
		w1 := b.start("w0", in)
		n := 200
		var ended *running
		eventually(b.t, patience, func() string {
			b.feed(fmt.Sprintf("y%d", n), 5, 1_001_000_000)
			n += 20
			select {
			case <-w0.done:
				ended = w0
			case <-w1.done:
				ended = w1
			default:
				return "both live"
			}
			return ""
		})
		if id, _ := fault.IDOf(ended.err()); id != "MR-STR-001" {
			b.t.Fatalf("it ended with %v", ended.err())
		}
		left := w0
		if ended == w0 {
			left = w1
		}
		b.count(n)
		b.stateIsOne(left)
	}
}

func (b *bed) refused(w *running, want fault.ID) {
	b.t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		b.t.Fatal("the worker goes on")
	}
	if id, _ := fault.IDOf(w.err()); id != want {
		b.t.Fatalf("the worker ended with %v, want %s", w.err(), want)
	}
}

func otherPartitions(b *bed) {
	w := b.start("w0", nil)
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	b.count(40)
	must(b.t, w.stop())
	b.refused(b.start("w0", func(_ *Config, top *Topology, _ *Worker) { top.Partitions = 8 }), "MR-STR-002")
	b.refused(b.start("w0", func(c *Config, _ *Topology, _ *Worker) { c.Generation = 2 }), "MR-STR-002")
}

func recreated(b *bed) {
	w := b.start("w0", nil)
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	b.count(40)
	must(b.t, w.stop())
	in := b.topology().Inputs[0]
	if _, err := b.adm.DeleteTopic(b.t.Context(), in); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, patience, func() string {
		if _, err := b.adm.CreateTopic(b.t.Context(), b.parts, 1, nil, in); err != nil {
			return err.Error()
		}
		return ""
	})
	w = b.start("w0", nil)
	select {
	case <-w.done:
	case <-time.After(patience):
		b.t.Fatal("the worker goes on")
	}
	if id, _ := fault.IDOf(w.err()); id != "MR-STR-003" && id != "MR-STR-004" {
		b.t.Fatalf("the worker ended with %v", w.err())
	}
}

func retained(b *bed) {
	w := b.start("w0", nil)
	b.ready(w)
	b.feed("x", 10, 1_000_000_000)
	b.count(40)
	must(b.t, w.stop())
	b.feed("y", 10, 1_000_000_000)
	ends, err := b.adm.ListEndOffsets(b.t.Context(), b.topology().Inputs[0])
	must(b.t, err)
	if _, err := b.adm.DeleteRecords(b.t.Context(), ends.Offsets()); err != nil {
		b.t.Fatal(err)
	}
	b.refused(b.start("w0", nil), "MR-STR-004")
}

type large struct{ *testOp }

func (l large) Process(_ int, r *kgo.Record) error {
	l.t.Emit(&kgo.Record{Topic: l.prefix + outTopic, Value: make([]byte, 2<<20)})
	return nil
}

func tooLarge(b *bed) {
	w := b.start("w0", func(_ *Config, top *Topology, _ *Worker) {
		top.New = func(t *Task) (Operator, error) { return large{newTestOp(t, b.prefix)}, nil }
	})
	b.feed("x", 1, 1_000_000_000)
	b.refused(w, "MR-STR-007")
}

// highest raises most to n.
func highest(most *atomic.Int64, n int) {
	for was := most.Load(); int64(n) > was && !most.CompareAndSwap(was, int64(n)); was = most.Load() {
	}
}

// farBehind: the second input's records were written first, so the first input waits in the merge until all of them are processed.
func farBehind(b *bed) {
	in := b.topology().Inputs
	write := func(topic, tag string, n int) {
		var recs []*kgo.Record
		for i := range n {
			for p := range b.parts {
				r := record("k", 1_000_000_000+int64(i), fmt.Sprintf("%s-%d-%d", tag, p, i))
				r.Topic, r.Partition = topic, p
				recs = append(recs, r)
			}
		}
		must(b.t, b.cl.ProduceSync(b.t.Context(), recs...).FirstErr())
	}
	write(in[1], "early", 1500)
	write(in[0], "late", 1500)
	var most atomic.Int64
	w := b.start("w0", func(c *Config, top *Topology, _ *Worker) {
		c.BufferRecords, c.PollRecords, c.CommitRecords = 100, 50, 100
		top.New = func(t *Task) (Operator, error) {
			op := newTestOp(t, b.prefix)
			op.fail = func(*kgo.Record) error {
				highest(&most, t.merge.held(0))
				return nil
			}
			return op, nil
		}
	})
	b.count(3000 * int(b.parts))
	must(b.t, w.stop())
	if n := most.Load(); n > 100+50 {
		b.t.Fatalf("a task held %d records", n)
	}
	first := map[int32]int{}
	for _, r := range b.all(outTopic) {
		if strings.HasPrefix(string(r.Value), "late") {
			first[r.Partition]++
		} else if first[r.Partition] > 0 {
			b.t.Fatalf("%s/%d: %s comes after %d later records", r.Topic, r.Partition, r.Value, first[r.Partition])
		}
	}
}
