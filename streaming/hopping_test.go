package streaming

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// windowCase is a set of windows of every kind over one input, drawn at random, and the input.
type windowCase struct {
	tumbling   time.Duration // lateness of a cascade of 1 s and 10 s
	hops       []hopCase
	sessions   []sessionCase
	in         [2][]*kgo.Record
	disorder   time.Duration
	partitions int32
}

type hopCase struct {
	size, slide, lateness int64 // µs
	closedOnly            bool
}

func (c windowCase) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tumbling lateness %s, disorder %s\nhops %+v\nsessions %+v\n", c.tumbling, c.disorder, c.hops, c.sessions)
	for in := range c.in {
		for _, r := range c.in[in] {
			fmt.Fprintf(&b, "in %d at %d: %s %s\n", in, r.Timestamp.Sub(testEpoch).Milliseconds(), r.Key, r.Value)
		}
	}
	return b.String()
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// drawWindows draws a case. With calm nothing comes later than the disorder that is allowed for.
func drawWindows(r *rand.Rand, calm bool) windowCase {
	c := windowCase{disorder: time.Second, partitions: 1, tumbling: pick(r, 0, 3*time.Second, 20*time.Second)}
	for range 3 {
		unit := pick[int64](r, 250_000, 1_000_000)
		slide := unit * (1 + r.Int64N(4))
		size := slide * pick[int64](r, 1, 2, 5)
		if r.IntN(3) == 0 {
			size += unit * r.Int64N(3) // slices shorter than the slide
		}
		c.hops = append(c.hops, hopCase{size, slide, pick[int64](r, 0, 1_500_000, 6_000_000, 30_000_000), r.IntN(2) == 0})
	}
	c.sessions = drawSessions(r)
	behind := []int{0, 0, 0, 100, 900, 1500, 5000, 9000, 19000, 23000, 60000}
	if calm {
		behind = []int{0, 0, 100, 500, 999}
	}
	arrival, gap, keys := testEpoch, pick(r, 20, 100, 400, 1500), 1+r.IntN(4)
	for id := range 1 + r.IntN(120) {
		arrival = arrival.Add(time.Duration(r.IntN(gap+1)) * time.Millisecond)
		at := arrival.Add(-time.Duration(pick(r, behind...)) * time.Millisecond).Truncate(50 * time.Millisecond).UnixMicro() // often equal
		x := record("k"+strconv.Itoa(r.IntN(keys)), at, strconv.Itoa(id)+pick(r, "x", "y", "y", "y"))
		x.Timestamp = arrival
		in := r.IntN(2)
		c.in[in] = append(c.in[in], x)
	}
	return c
}

const (
	storeTestTumbling = 16
	storeTestHop      = 20 // and those after it
	storeTestSession  = 30
	outcomeTopic      = "outcomes"
)

type windowOp struct {
	idleOp
	t        *Task
	c        *windowCase
	tumbling *Windows[string, *sum]
	hops     []*Hopping[string, *sum]
	sessions []*Sessions[string, *visit]
}

func (c *windowCase) topology() Topology {
	top := Topology{Name: "test", Stage: "windows", Inputs: []string{"in.a", "in.b"}, Partitions: c.partitions, Stores: []StoreSpec{{storeTestTumbling, "tumbling", 1}}}
	for i := range c.hops {
		top.Stores = append(top.Stores, StoreSpec{storeTestHop + uint16(i), "hop" + strconv.Itoa(i), 1})
	}
	for i := range c.sessions {
		top.Stores = append(top.Stores, StoreSpec{storeTestSession + uint16(i), "session" + strconv.Itoa(i), 1})
	}
	top.New = func(t *Task) (Operator, error) {
		o := &windowOp{t: t, c: c}
		o.tumbling = OpenWindows(t, WindowsSpec[string, *sum]{
			Store: storeTestTumbling, Lateness: c.tumbling, Keys: strs{}, Values: sums{}, Emit: o.row("t"),
			Grains: []Grain[string]{Fixed[string]("1s", 0, time.Second), Fixed[string]("10s", 0, 10*time.Second)},
		})
		for i, h := range c.hops {
			o.hops = append(o.hops, OpenHopping(t, HoppingSpec[string, *sum]{
				Store: storeTestHop + uint16(i), Size: time.Duration(h.size) * time.Microsecond, Slide: time.Duration(h.slide) * time.Microsecond, Lateness: time.Duration(h.lateness) * time.Microsecond,
				ClosedOnly: h.closedOnly, Keys: strs{}, Values: sums{}, Emit: o.row("h" + strconv.Itoa(i)),
			}))
		}
		for i, s := range c.sessions {
			o.sessions = append(o.sessions, s.open(t, storeTestSession+uint16(i), o.say, "s"+strconv.Itoa(i)))
		}
		return o, nil
	}
	return top
}

func (o *windowOp) say(topic, key, value string) {
	r := o.t.Record()
	r.Topic, r.Key, r.Value = topic, o.t.Copy([]byte(key)), o.t.Copy([]byte(value))
	o.t.Emit(r)
}

func (o *windowOp) row(name string) func(Window[string], *sum) error {
	return func(w Window[string], a *sum) error {
		o.say(rowTopic, fmt.Sprintf("%s.%d/%d-%d/%s", name, w.Grain, w.Start, w.End, w.Key), fmt.Sprintf("%d %d %v", a.n, a.total, w.Closed))
		return nil
	}
}

func (o *windowOp) Process(in int, r *kgo.Record) error {
	at, id, err := parseInput(r.Value)
	if err != nil {
		return err
	}
	o.t.Observe(in, LaneLive, at)
	said := []Outcome{}
	add := func(d **sum, outcome Outcome) {
		if d != nil {
			(*d).n++
			(*d).total += number(id)
		}
		said = append(said, outcome)
	}
	add(o.tumbling.At(string(r.Key), at))
	for _, h := range o.hops {
		add(h.At(string(r.Key), at))
	}
	for _, s := range o.sessions {
		d, _, outcome := s.Add(string(r.Key), at)
		if d != nil {
			(*d).add(at, id)
		}
		said = append(said, outcome)
	}
	o.say(outcomeTopic, id, fmt.Sprintf("%d", said))
	return nil
}

func number(id string) int64 {
	n, _ := strconv.ParseInt(id[:len(id)-1], 10, 64)
	return n
}

func (c *windowCase) harness(t testing.TB, part int32) *Harness {
	h, err := NewHarness(Config{MergeWait: 50 * time.Millisecond, Disorder: c.disorder, IdleAfter: time.Hour}, c.topology(), part, testEpoch.Add(time.Hour))
	must(t, err)
	for in := range c.in {
		for _, r := range c.in[in] {
			h.Produce(in, clone(r))
		}
		h.Poll(in, 0)
	}
	return h
}

// end reads what is left, and lets every input become idle, so the watermark reaches the latest event.
func (c *windowCase) end(t testing.TB, h *Harness) {
	t.Helper()
	must(t, h.Feed())
	must(t, h.Advance(100*time.Millisecond))
	_, err := h.Commit()
	must(t, err)
	h.now = h.now.Add(time.Hour)
	must(t, h.Advance(2*time.Second))
	_, err = h.Commit()
	must(t, err)
}

// cutWindows runs h by a random schedule.
func cutWindows(t testing.TB, r *rand.Rand, h *Harness) {
	t.Helper()
	for range r.IntN(60) {
		switch pick(r, "poll", "poll", "poll", "run", "run", "run", "commit", "commit", "abort", "crash", "unknown", "advance") {
		case "poll":
			h.Poll(r.IntN(2), 1+r.IntN(40))
		case "run":
			must(t, h.Run())
		case "commit":
			_, err := h.Commit()
			must(t, err)
		case "abort":
			must(t, h.Abort())
		case "crash":
			must(t, h.Crash())
		case "unknown": // it committed, and the worker did not learn of it
			_, err := h.Commit()
			must(t, err)
			must(t, h.Crash())
		case "advance":
			must(t, h.Advance(time.Duration(1+r.IntN(1500))*time.Millisecond))
		}
	}
}

// tables are the final values by window and key, and the outcome of each event. What a window said last counts; a retraction takes it back.
func tables(h *Harness) map[string]string {
	out := map[string]string{}
	for _, r := range h.Outputs(rowTopic) {
		if r.Value == nil || string(r.Value) == "retracted" {
			delete(out, string(r.Key))
		} else {
			out[string(r.Key)] = string(r.Value)
		}
	}
	for _, r := range h.Outputs(outcomeTopic) {
		out["outcome of "+string(r.Key)] += string(r.Value)
	}
	return out
}

// merged gives the input in the order in which a task sees it, with the watermark before and after each event.
func (c *windowCase) merged() (evs []seen, last int64) {
	latest := [2]int64{noTime, noTime}
	last = noTime
	for in := range c.in {
		for _, r := range c.in[in] {
			at, id, _ := parseInput(r.Value)
			evs = append(evs, seen{key: string(r.Key), id: id, at: at, in: in, arrival: r.Timestamp})
		}
	}
	slices.SortStableFunc(evs, func(a, b seen) int {
		if c := a.arrival.Compare(b.arrival); c != 0 {
			return c
		}
		return a.in - b.in
	})
	for i := range evs {
		e := &evs[i]
		e.before, e.n = last, i
		latest[e.in] = max(latest[e.in], e.at)
		if low := min(latest[0], latest[1]); low != noTime {
			last = max(last, low-c.disorder.Microseconds())
		}
		e.after = last
	}
	if high := max(latest[0], latest[1]); high != noTime {
		last = max(last, high-c.disorder.Microseconds())
	}
	return evs, last
}

type seen struct {
	key, id       string
	at            int64
	in, n         int // n counts arrivals
	arrival       time.Time
	before, after int64 // watermarks
}

// oracle computes the tables from the input by definition: every window by itself, from all events.
func (c *windowCase) oracle() map[string]string {
	evs, last := c.merged()
	out := map[string]string{}
	outcomes := make([][]Outcome, len(evs))
	windows := func(name string, grain int, size, slide, lateness int64, closedOnly bool) (said []Outcome) {
		total := map[string]*sum{}
		ends := map[string]int64{}
		for _, e := range evs {
			closed, gone, all := 0, 0, 0
			for start := floorTo(e.at, slide); start > e.at-size; start -= slide {
				all++
				if end := start + size; end <= e.before {
					closed++
					if end+lateness <= e.before {
						gone++
						continue
					}
				}
				k := fmt.Sprintf("%s.%d/%d-%d/%s", name, grain, start, start+size, e.key)
				if total[k] == nil {
					total[k] = &sum{}
				}
				total[k].n++
				total[k].total += number(e.id)
				ends[k] = start + size
			}
			switch {
			case gone == all:
				said = append(said, Dropped)
			case closed > 0:
				said = append(said, Late)
			default:
				said = append(said, OnTime)
			}
		}
		for k, v := range total {
			if !closedOnly || ends[k] <= last {
				out[k] = fmt.Sprintf("%d %d %v", v.n, v.total, ends[k] <= last)
			}
		}
		return said
	}
	note := func(said []Outcome) {
		for i, o := range said {
			outcomes[i] = append(outcomes[i], o)
		}
	}
	said := windows("t", 0, 1e6, 1e6, c.tumbling.Microseconds(), false)
	note(said)
	for i, h := range c.hops {
		note(windows("h"+strconv.Itoa(i), 0, h.size, h.slide, h.lateness, h.closedOnly))
	}
	for i, s := range c.sessions {
		note(s.oracle("s"+strconv.Itoa(i), evs, last, out))
	}
	// the larger grain holds what the smaller one took
	tens := map[string]*sum{}
	for i, e := range evs {
		if said[i] == Dropped {
			continue
		}
		start := floorTo(e.at, 10e6)
		k := fmt.Sprintf("t.1/%d-%d/%s", start, start+10e6, e.key)
		if tens[k] == nil {
			tens[k] = &sum{}
		}
		tens[k].n++
		tens[k].total += number(e.id)
	}
	for k, v := range tens {
		out[k] = fmt.Sprintf("%d %d", v.n, v.total)
	}
	for i, e := range evs {
		out["outcome of "+e.id] = fmt.Sprintf("%d", outcomes[i])
	}
	return out
}

// loosen drops what is not promised of a cascade: that a window which has not changed since says that it is closed.
func loosen(m map[string]string) map[string]string {
	out := maps.Clone(m)
	for k, v := range m {
		if strings.HasPrefix(k, "t.") {
			out[k] = strings.TrimSuffix(strings.TrimSuffix(v, " true"), " false")
		}
	}
	return out
}

const seedOfTests = 20260301

func TestWindowsOfEveryKindAgreeWithTheirDefinition(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		c := drawWindows(rand.New(rand.NewPCG(seedOfTests, seed)), false)
		h := c.harness(t, 0)
		c.end(t, h)
		if diff := cmp.Diff(loosen(c.oracle()), loosen(tables(h))); diff != "" {
			t.Fatalf("seed %d differs (-oracle +engine):\n%s\n%s", seed, diff, c)
		}
		if err := c.checkCounts(h); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// checkCounts: in = on time + late + dropped.
func (c *windowCase) checkCounts(h *Harness) error {
	o, in := h.task.op.(*windowOp), int64(len(c.in[0])+len(c.in[1]))
	counts := []WindowCounts{o.tumbling.Counts()}
	for _, x := range o.hops {
		counts = append(counts, x.Counts())
	}
	for _, x := range o.sessions {
		counts = append(counts, x.Counts())
	}
	for i, n := range counts {
		if n.OnTime+n.Late+n.Dropped != in {
			return fmt.Errorf("window set %d: in %d is not %+v", i, in, n)
		}
	}
	return nil
}

func TestWindowsOfEveryKindAreTheSameHoweverTheirInputIsCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1200) {
		r := rand.New(rand.NewPCG(seedOfTests+1, seed))
		c := drawWindows(r, false)
		h := c.harness(t, 0)
		cutWindows(t, r, h)
		c.end(t, h)
		if diff := cmp.Diff(loosen(c.oracle()), loosen(tables(h))); diff != "" {
			t.Fatalf("seed %d differs (-oracle +engine):\n%s\n%s", seed, diff, c)
		}
		if err := retractedFirst(h); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, c)
		}
		// what is derived from the state is as a restore would make it
		before := state(h)
		must(t, h.Crash())
		if diff := cmp.Diff(before, state(h)); diff != "" {
			t.Fatalf("seed %d: the task's state is not that of its changelog (-task +restored):\n%s", seed, diff)
		}
	}
}

// state lists what the window sets hold.
func state(h *Harness) map[string]string {
	out := map[string]string{}
	o := h.task.op.(*windowOp)
	for i, w := range o.hops {
		n := 0
		for key, k := range w.keys {
			for _, s := range k.slices {
				n++
				out[fmt.Sprintf("h%d/%d/%s", i, s.start, key)] = fmt.Sprintf("%+v fresh %v late %v due %v", *s.a, s.fresh, s.late != never, k.due)
			}
		}
		if n != w.n || n != w.size() {
			out[fmt.Sprintf("h%d", i)] = fmt.Sprintf("%d slices, counted %d", n, w.n)
		}
	}
	for i, w := range o.sessions {
		for k, v := range w.state() {
			out[fmt.Sprintf("s%d/%s", i, k)] = v
		}
	}
	return out
}

func TestWindowsOfEveryKindAreTheSameForAnyNumberOfPartitions(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seedOfTests+2, seed))
		whole := drawWindows(r, true)
		// each partition ends with an event far later in each input, so every window closes in all of them
		end := testEpoch.Add(10 * time.Minute)
		results := []map[string]string{}
		for _, n := range []int{1, 2 + r.IntN(3)} {
			all := map[string]string{}
			for p := range n {
				c := whole
				c.partitions = int32(n)
				for in := range c.in {
					c.in[in] = slices.DeleteFunc(slices.Clone(whole.in[in]), func(x *kgo.Record) bool { return int(x.Key[1])%n != p })
					last := record("end", end.UnixMicro(), "0x")
					last.Timestamp = end
					c.in[in] = append(c.in[in], last)
				}
				h := c.harness(t, int32(p))
				cutWindows(t, r, h)
				c.end(t, h)
				for k, v := range loosen(tables(h)) {
					if !strings.HasSuffix(k, "/end") && k != "outcome of 0x" {
						all[k] = v
					}
				}
			}
			results = append(results, all)
		}
		if diff := cmp.Diff(results[0], results[1]); diff != "" {
			t.Fatalf("seed %d differs (-one partition +several):\n%s\n%s", seed, diff, whole)
		}
	}
}
