package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"millrace/streaming"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ev is an event of the tests: a letter and a number.
type ev struct {
	kind byte
	n    int
}

type evCodec struct{}

func (evCodec) Append(b []byte, e ev) []byte {
	return binary.AppendVarint(append(b, e.kind), int64(e.n))
}

func (evCodec) Decode(b []byte) (ev, error) {
	if len(b) < 2 {
		return ev{}, errors.New("cut off")
	}
	n, k := binary.Varint(b[1:])
	if k != len(b)-1 {
		return ev{}, errors.New("cut off")
	}
	return ev{b[0], int(n)}, nil
}

func is(kind byte) Predicate[ev] { return func(e ev, _ Earlier[ev]) bool { return e.kind == kind } }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	storeTimers = 2 // the engine's
	storeRuns   = 20
	ownRuns     = 3
	matches     = "matches"
)

// op feeds a set straight from the input, whose records are `seconds kind number`, and emits what it finds.
type op struct {
	t    *streaming.Task
	set  *Set[ev]
	late int64
}

func (o *op) Process(in int, r *kgo.Record) error {
	at, e, err := parse(string(r.Value))
	if err != nil {
		return err
	}
	o.t.Observe(in, streaming.LaneLive, at)
	if at < o.late { // what streaming.Ordered would not let through
		return nil
	}
	return o.set.Add(string(r.Key), at, e)
}

func parse(v string) (at int64, e ev, err error) {
	f := strings.Fields(v)
	sec, err := strconv.Atoi(f[0])
	if err != nil {
		return 0, e, err
	}
	n, err := strconv.Atoi(f[2])
	return int64(sec) * 1e6, ev{f[1][0], n}, err
}

func (o *op) Timer(tm streaming.Timer) error { return o.set.Timer(tm) }
func (o *op) Tick(time.Time) error           { return nil }
func (o *op) BeforeCommit() error            { return nil }
func (o *op) Committed()                     {}
func (o *op) Aborted()                       {}

func (o *op) match(m *Match[ev]) error {
	r := o.t.Record()
	r.Topic, r.Key, r.Value = matches, []byte(m.Key), []byte(show(m))
	o.t.Emit(r)
	return nil
}

// show writes a match as name@time of finding step:kind+number@time …
func show(m *Match[ev]) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s@%d", m.Pattern, m.At/1e6)
	for _, c := range m.Events {
		fmt.Fprintf(&b, " %s:%c%d@%d", c.Step, c.Event.kind, c.Event.n, c.At/1e6)
	}
	return b.String()
}

func topology(patterns []*Pattern[ev], change func(*Spec[ev])) streaming.Topology {
	return streaming.Topology{
		Name: "test", Stage: "pattern", Inputs: []string{"in"}, Partitions: 1, Stores: []streaming.StoreSpec{{ID: storeRuns, Name: "runs", Format: 1}},
		New: func(t *streaming.Task) (streaming.Operator, error) {
			o := &op{t: t}
			spec := Spec[ev]{Store: storeRuns, Owner: ownRuns, Codec: evCodec{}, Patterns: patterns, Match: o.match, MaxRuns: 1000}
			if change != nil {
				change(&spec)
			}
			var err error
			o.set, err = Open(t, spec)
			return o, err
		},
	}
}

type bench struct {
	*streaming.Harness
	tb testing.TB
}

func newBench(tb testing.TB, top streaming.Topology) *bench {
	tb.Helper()
	h, err := streaming.NewHarness(streaming.Config{MergeWait: -1, Disorder: time.Microsecond, IdleAfter: time.Hour}, top, 0, epoch)
	must(tb, err)
	return &bench{h, tb}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (b *bench) produce(key string, values ...string) {
	for _, v := range values {
		b.Produce(0, &kgo.Record{Key: []byte(key), Value: []byte(v)})
	}
}

// end moves event time far on, commits, and gives what was found.
func (b *bench) end() []string {
	b.tb.Helper()
	b.produce("end", "1000000 - 0")
	must(b.tb, b.Feed())
	_, err := b.Commit()
	must(b.tb, err)
	out := []string{}
	for _, r := range b.Outputs(matches) {
		out = append(out, string(r.Value))
	}
	return out
}

// left is what the compacted changelog holds of partial matches and timers.
func (b *bench) left() []string {
	state := map[string]bool{}
	for _, r := range b.Outputs("state.test.pattern") {
		if id := binary.BigEndian.Uint16(r.Key); id == storeRuns || id == storeTimers {
			if r.Value == nil {
				delete(state, string(r.Key))
			} else {
				state[string(r.Key)] = true
			}
		}
	}
	out := []string{}
	for k := range state {
		out = append(out, fmt.Sprintf("%q", k))
	}
	slices.Sort(out)
	return out
}

func compile(tb testing.TB, b *Builder[ev]) *Pattern[ev] {
	tb.Helper()
	p, err := b.Compile()
	must(tb, err)
	return p
}

func TestPatternsFindWhatTheySay(t *testing.T) {
	t.Parallel()
	type B = Builder[ev]
	n := func() *B { return New[ev]("p").Begin("a", is('a')).Within(10 * time.Second) }
	for _, tc := range []struct {
		name    string
		pattern *B
		in      string // events a second apart
		want    []string
	}{
		{"next takes what directly follows", n().Next("b", is('b')), "a b a c b", []string{"p@1 a:a0@0 b:b1@1"}},
		{"followed-by skips what does not fit", n().FollowedBy("b", is('b')), "a c b b", []string{"p@2 a:a0@0 b:b2@2"}},
		{"every event that fits begins a match", n().FollowedBy("b", is('b')), "a a b", []string{"p@2 a:a0@0 b:b2@2", "p@2 a:a1@1 b:b2@2"}},
		{"skip past gives the one that began first", n().FollowedBy("b", is('b')).SkipPast(), "a a b b a b", []string{"p@2 a:a0@0 b:b2@2", "p@5 a:a4@4 b:b5@5"}},
		{"not-followed-by between ends a match", n().NotFollowedBy("x", is('x')).FollowedBy("b", is('b')), "a x b a b", []string{"p@4 a:a3@3 b:b4@4"}},
		{"not-followed-by at the end waits for within", n().NotFollowedBy("x", is('x')), "a c a x", nil},
		{"not-followed-by at the end is found when within is over", n().NotFollowedBy("x", is('x')), "a c", []string{"p@10 a:a0@0"}},
		{"an event at the last moment is within", n().FollowedBy("b", is('b')), "a c c c c c c c c c b", []string{"p@10 a:a0@0 b:b10@10"}},
		{"an event after it is not", n().FollowedBy("b", is('b')), "a c c c c c c c c c c b", nil},
		{"times gives every number of events", n().FollowedBy("b", is('b')).Times(1, 3).FollowedBy("c", is('c')), "a b b c", []string{"p@3 a:a0@0 b:b1@1 c:c3@3", "p@3 a:a0@0 b:b1@1 b:b2@2 c:c3@3"}},
		{"times is relaxed", n().FollowedBy("b", is('b')).Times(2, 2), "a b x b b", []string{"p@3 a:a0@0 b:b1@1 b:b3@3"}},
		{"consecutive is not", n().FollowedBy("b", is('b')).Times(2, 2).Consecutive(), "a b x b b", nil},
		{"optional is tried both ways", n().FollowedBy("b", is('b')).Optional().FollowedBy("c", is('c')), "a b c", []string{"p@2 a:a0@0 c:c2@2", "p@2 a:a0@0 b:b1@1 c:c2@2"}},
		{"an optional end", n().Next("b", is('b')).Optional(), "a b", []string{"p@0 a:a0@0", "p@1 a:a0@0 b:b1@1"}},
		{"one event can be a match", n(), "c a", []string{"p@1 a:a1@1"}},
		{"predicates see earlier events", n().FollowedBy("b", func(e ev, x Earlier[ev]) bool {
			first, _, _ := x.First("a")
			return e.kind == 'b' && e.n-first.n >= 3
		}), "a b c b", []string{"p@3 a:a0@0 b:b3@3"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, topology([]*Pattern[ev]{compile(t, tc.pattern)}, nil))
			for i, k := range strings.Fields(tc.in) {
				b.produce("k", fmt.Sprintf("%d %s %d", i, k, i))
			}
			got := b.end()
			slices.Sort(got)
			slices.Sort(tc.want)
			if diff := cmp.Diff(append([]string{}, tc.want...), got); diff != "" {
				t.Errorf("matches of %s (-want +got):\n%s", tc.in, diff)
			}
			if left := b.left(); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestMistakesInAPatternAreAllReported(t *testing.T) {
	t.Parallel()
	_, err := New[ev]("").FollowedBy("a", is('a')).Begin("a", nil).Times(3, 2).NotFollowedBy("x", is('x')).Optional().Next("y", is('y')).Compile()
	if err == nil {
		t.Fatal("it compiles")
	}
	for _, want := range []string{"a name without", `"a" is named twice`, "needs a name and a predicate", "one Begin", "Times(3, 2)", "takes nothing", "nothing can be between", "Within is 0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestTheOldestPartialMatchGoesWhenThereAreTooMany(t *testing.T) {
	t.Parallel()
	p := compile(t, New[ev]("p").Begin("a", is('a')).FollowedBy("b", is('b')).Within(time.Minute))
	var told int
	b := newBench(t, topology([]*Pattern[ev]{p}, func(s *Spec[ev]) {
		s.MaxRuns, s.Dropped = 2, func(_, _ string, n int) error { told += n; return nil }
	}))
	b.produce("k", "0 a 0", "1 a 1", "2 a 2", "3 a 3", "4 b 4")
	if diff := cmp.Diff([]string{"p@4 a:a2@2 b:b4@4", "p@4 a:a3@3 b:b4@4"}, b.end()); diff != "" {
		t.Errorf("matches (-want +got):\n%s", diff)
	}
	if told != 2 {
		t.Errorf("%d dropped, want 2", told)
	}
}

func TestPartialMatchesOfAnotherVersionAreForgotten(t *testing.T) {
	t.Parallel()
	build := func(version int) *Pattern[ev] {
		return compile(t, New[ev]("p").Version(version).Begin("a", is('a')).FollowedBy("b", is('b')).Within(time.Minute))
	}
	use := []*Pattern[ev]{build(1), compile(t, New[ev]("gone").Begin("a", is('a')).FollowedBy("b", is('b')).Within(time.Minute))}
	top := topology(nil, nil)
	made := top.New
	top.New = func(t *streaming.Task) (streaming.Operator, error) {
		o, err := made(t)
		if err == nil {
			err = o.(*op).set.Use(use...)
		}
		return o, err
	}
	b := newBench(t, top)
	b.produce("k", "0 a 0")
	must(t, b.Feed())
	_, err := b.Commit()
	must(t, err)
	if len(b.left()) != 4 {
		t.Fatalf("held: %v, want two partial matches and their timers", b.left())
	}
	use = []*Pattern[ev]{build(2)}
	must(t, b.Crash())
	b.produce("k", "1 b 1", "2 a 2", "3 b 3")
	if diff := cmp.Diff([]string{"p@3 a:a2@2 b:b3@3"}, b.end()); diff != "" {
		t.Errorf("matches (-want +got):\n%s", diff)
	}
	if left := b.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
