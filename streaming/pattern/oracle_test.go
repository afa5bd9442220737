package pattern

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"millrace/streaming"
)

// timed is an event of a sequence: its time in seconds.
type timed struct {
	at int
	e  ev
}

// spec is a pattern as data, for the builder and for the definition. A predicate is data too: the letters that fit, and a bound against an earlier step.
type stepSpec struct {
	kind                  kind
	letters               string
	above                 int // index of a step whose last event must have a lower number; -1: none
	min, max              int
	optional, consecutive bool
}

type patternSpec struct {
	steps  []stepSpec
	within int // seconds
	skip   bool
}

func stepName(i int) string { return fmt.Sprintf("s%d", i) }

func (s patternSpec) String() string {
	out := fmt.Sprintf("within %d skip %v:", s.within, s.skip)
	for i, x := range s.steps {
		out += fmt.Sprintf(" [%s kind %d %q above %d times %d-%d opt %v cons %v]", stepName(i), x.kind, x.letters, x.above, x.min, x.max, x.optional, x.consecutive)
	}
	return out
}

func (s patternSpec) build(rt testing.TB, name string) *Pattern[ev] {
	b := New[ev](name).Within(time.Duration(s.within) * time.Second)
	for i, x := range s.steps {
		holds := func(e ev, earlier Earlier[ev]) bool {
			if !slices.Contains([]byte(x.letters), e.kind) {
				return false
			}
			if x.above < 0 {
				return true
			}
			last, _, ok := earlier.Last(stepName(x.above))
			return !ok || e.n > last.n
		}
		switch x.kind {
		case begin:
			b.Begin(stepName(i), holds)
		case next:
			b.Next(stepName(i), holds)
		case followedBy:
			b.FollowedBy(stepName(i), holds)
		case notFollowedBy:
			b.NotFollowedBy(stepName(i), holds)
			continue
		}
		b.Times(x.min, x.max)
		if x.optional {
			b.Optional()
		}
		if x.consecutive {
			b.Consecutive()
		}
	}
	if s.skip {
		b.SkipPast()
	}
	return compile(rt, b)
}

func drawPattern(rt *rapid.T) patternSpec {
	s := patternSpec{within: rapid.IntRange(1, 8).Draw(rt, "within"), skip: rapid.IntRange(0, 3).Draw(rt, "skip") == 0}
	n := rapid.IntRange(1, 4).Draw(rt, "steps")
	for i := range n {
		x := stepSpec{letters: rapid.SampledFrom([]string{"a", "b", "c", "ab", "abc"}).Draw(rt, "letters"), above: -1, min: 1, max: 1}
		if i > 0 {
			x.kind = rapid.SampledFrom([]kind{next, followedBy, followedBy, notFollowedBy}).Draw(rt, "kind")
			if x.kind == next && s.steps[i-1].kind == notFollowedBy {
				x.kind = followedBy
			}
			if rapid.IntRange(0, 2).Draw(rt, "related") == 0 {
				x.above = rapid.IntRange(0, i-1).Draw(rt, "above")
			}
			x.optional = x.kind != notFollowedBy && rapid.IntRange(0, 2).Draw(rt, "optional") == 0
		}
		if x.kind != notFollowedBy && rapid.IntRange(0, 2).Draw(rt, "times") == 0 {
			x.min = rapid.IntRange(1, 3).Draw(rt, "least")
			x.max = x.min + rapid.IntRange(0, 2).Draw(rt, "more")
			x.consecutive = rapid.Bool().Draw(rt, "consecutive")
		}
		s.steps = append(s.steps, x)
	}
	return s
}

func drawEvents(rt *rapid.T, most int) []timed {
	var out []timed
	at := 0
	for i := range rapid.IntRange(1, most).Draw(rt, "events") {
		at += rapid.SampledFrom([]int{0, 1, 1, 2, 5}).Draw(rt, "gap")
		out = append(out, timed{at, ev{rapid.SampledFrom([]byte("abc")).Draw(rt, "letter"), rapid.IntRange(0, 3).Draw(rt, "number")*100 + i}})
	}
	return out
}

// taken is an event of a match: its index in the sequence, and the step's.
type taken struct{ event, step int }

// definition lists the matches as the package comment defines them: every way to give events to steps is tried, and kept if it obeys each rule.
func definition(s patternSpec, in []timed) [][]taken {
	var out [][]taken
	var try func(m []taken, from int)
	try = func(m []taken, from int) {
		if len(m) > 0 && s.isMatch(in, m) {
			out = append(out, slices.Clone(m))
		}
		for e := from; e < len(in); e++ {
			first := 0
			if len(m) > 0 {
				first = m[len(m)-1].step
			}
			for st := first; st < len(s.steps); st++ {
				if s.steps[st].kind != notFollowedBy {
					try(append(m[:len(m):len(m)], taken{e, st}), e+1)
				}
			}
		}
	}
	try(nil, 0)
	return out
}

// holds is the predicate of a step for event e after those of m.
func (s patternSpec) holds(in []timed, st, e int, m []taken) bool {
	x := s.steps[st]
	if !slices.Contains([]byte(x.letters), in[e].e.kind) {
		return false
	}
	for _, t := range slices.Backward(m) {
		if t.step == x.above {
			return in[e].e.n > in[t.event].e.n
		}
	}
	return true
}

func (s patternSpec) isMatch(in []timed, m []taken) bool {
	if in[m[len(m)-1].event].at-in[m[0].event].at > s.within || m[0].step != 0 {
		return false
	}
	count := make([]int, len(s.steps))
	for i, t := range m {
		count[t.step]++
		if !s.holds(in, t.step, t.event, m[:i]) {
			return false
		}
		if i == 0 {
			continue
		}
		prev := m[i-1]
		strict := s.steps[t.step].kind == next
		if prev.step == t.step {
			strict = s.steps[t.step].consecutive
		}
		for between := prev.event + 1; between < t.event; between++ {
			if strict || s.holds(in, t.step, between, m[:i]) {
				return false
			}
			for st := prev.step + 1; st < t.step; st++ {
				if s.steps[st].kind == notFollowedBy && s.holds(in, st, between, m[:i]) {
					return false
				}
			}
		}
	}
	for st, x := range s.steps {
		if x.kind != notFollowedBy && (count[st] < x.min || count[st] > x.max) && (count[st] > 0 || !x.optional) {
			return false
		}
	}
	for st := m[len(m)-1].step + 1; st < len(s.steps); st++ {
		if s.steps[st].kind != notFollowedBy {
			continue
		}
		for e := m[len(m)-1].event + 1; e < len(in) && in[e].at <= in[m[0].event].at+s.within; e++ {
			if s.holds(in, st, e, m) {
				return false
			}
		}
	}
	return true
}

// waits: a not-followed-by stands behind the last event.
func (s patternSpec) waits(m []taken) bool {
	return slices.ContainsFunc(s.steps[m[len(m)-1].step+1:], func(x stepSpec) bool { return x.kind == notFollowedBy })
}

func (s patternSpec) foundAt(in []timed, m []taken) int {
	if s.waits(m) {
		return in[m[0].event].at + s.within
	}
	return in[m[len(m)-1].event].at
}

func (s patternSpec) show(name string, in []timed, m []taken) string {
	x := &Match[ev]{Pattern: name, At: int64(s.foundAt(in, m)) * 1e6}
	for _, t := range m {
		x.Events = append(x.Events, Captured[ev]{stepName(t.step), int64(in[t.event].at) * 1e6, in[t.event].e})
	}
	return show(x)
}

func engine(tb testing.TB, s patternSpec, in []timed) []string {
	b := newBench(tb, topology([]*Pattern[ev]{s.build(tb, "p")}, nil))
	for _, x := range in {
		b.produce("k", fmt.Sprintf("%d %c %d", x.at, x.e.kind, x.e.n))
	}
	got := b.end()
	if left := b.left(); len(left) != 0 {
		tb.Fatalf("left behind: %v", left)
	}
	return got
}

func TestMatchesAgreeWithTheirDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s, in := drawPattern(rt), drawEvents(rt, 8)
		all := definition(s, in)
		got := engine(t, s, in)
		if s.skip {
			checkSkipped(rt, s, in, all, got)
			return
		}
		want := []string{}
		for _, m := range all {
			want = append(want, s.show("p", in, m))
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("%s\nof %v (-definition +engine):\n%s", s, in, diff)
		}
	})
}

// checkSkipped follows what the engine gave: each must be, of the matches that nothing before has consumed, one that is found first and, of those found together, one
// that began first; and none may be left.
func checkSkipped(rt *rapid.T, s patternSpec, in []timed, all [][]taken, got []string) {
	left := slices.Clone(all)
	order := func(m []taken) [3]int {
		if s.waits(m) { // found when the first event after its time comes: by then what was found at an event has been
			return [3]int{s.foundAt(in, m), 1 << 30, m[0].event}
		}
		return [3]int{s.foundAt(in, m), m[len(m)-1].event, m[0].event}
	}
	for _, g := range got {
		i := slices.IndexFunc(left, func(m []taken) bool { return s.show("p", in, m) == g })
		if i < 0 {
			rt.Fatalf("%s\nof %v gives %s, which is no match or overlaps one; all: %v", s, in, g, got)
		}
		m := left[i]
		for _, x := range left {
			if a, b := order(x), order(m); slices.Compare(a[:], b[:]) < 0 {
				rt.Fatalf("%s\nof %v gives %s before %s; all: %v", s, in, g, s.show("p", in, x), got)
			}
		}
		last := m[len(m)-1].event
		left = slices.DeleteFunc(left, func(x []taken) bool { return x[0].event <= last })
	}
	if len(left) > 0 {
		rt.Fatalf("%s\nof %v does not give %s; gave %v", s, in, s.show("p", in, left[0]), got)
	}
}

// TestAnyBatchingCrashOrAbortGivesTheSameMatches cuts the same input in ways that a worker might, with several keys and two patterns.
func TestAnyBatchingCrashOrAbortGivesTheSameMatches(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		specs := []patternSpec{drawPattern(rt), drawPattern(rt)}
		in := drawEvents(rt, 40)
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"k", "l"}), len(in), len(in)).Draw(rt, "keys")
		top := topology([]*Pattern[ev]{specs[0].build(t, "p"), specs[1].build(t, "q")}, func(s *Spec[ev]) { s.MaxRuns = 12 })
		fill := func() *bench {
			b := newBench(t, top)
			for i, x := range in {
				b.Produce(0, &kgo.Record{Key: []byte(keys[i]), Value: fmt.Appendf(nil, "%d %c %d", x.at, x.e.kind, x.e.n)})
			}
			return b
		}
		want := fill().end()
		b := fill()
		for range rapid.IntRange(0, 40).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"poll", "poll", "poll", "commit", "commit", "abort", "crash", "unknown"}).Draw(rt, "step") {
			case "poll":
				b.Poll(0, rapid.IntRange(1, 6).Draw(rt, "n"))
				must(t, b.Run())
			case "commit":
				_, err := b.Commit()
				must(t, err)
			case "abort":
				must(t, b.Abort())
			case "crash":
				must(t, b.Crash())
			case "unknown":
				_, err := b.Commit()
				must(t, err)
				must(t, b.Crash())
			}
		}
		got := b.end()
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("matches differ (-plain +cut):\n%s", diff)
		}
		if left := b.left(); len(left) != 0 {
			rt.Fatalf("left behind: %v", left)
		}
	})
}

// TestTheFormatOfPartialMatchesIsForEver: state in the field is read by later versions.
func TestTheFormatOfPartialMatchesIsForEver(t *testing.T) {
	t.Parallel()
	p := compile(t, New[ev]("p").Version(3).Begin("a", is('a')).Times(1, 2).FollowedBy("b", is('b')).Optional().NotFollowedBy("x", is('x')).Within(time.Minute))
	now := &runs[ev]{mark: p.mark, timer: 60_000_001}
	var out advance[ev]
	for i, k := range []byte("acab") {
		n := *now
		p.advance(&out, now, int64(i)*1000, ev{k, i})
		n.list, n.seq = slices.Clone(out.list), n.seq+1
		now = &n
	}
	got := fmt.Sprintf("%x", (&codec[ev]{events: evCodec{}}).Append(nil, now))
	const want = "01ce196773829c9c390300026100a01f026104f02e0262060600000002010101000102010301000002010506000104010101020204030101040105050101"
	if got != want {
		t.Errorf("partial matches are written as\n%s, were written as\n%s", got, want)
	}
}

func FuzzStoredPartialMatchesNeverPanic(f *testing.F) {
	p := New[ev]("p").Begin("a", is('a')).Times(1, 3).FollowedBy("b", is('b')).Optional().NotFollowedBy("x", is('x')).Within(time.Minute)
	pat, err := p.Compile()
	if err != nil {
		f.Fatal(err)
	}
	c := &codec[ev]{events: evCodec{}}
	now := &runs[ev]{mark: pat.mark, timer: 7}
	var out advance[ev]
	for i, k := range []byte("aabaab") {
		n := *now
		pat.advance(&out, now, int64(i), ev{k, i})
		n.list, n.seq = slices.Clone(out.list), n.seq+1
		now = &n
		f.Add(c.Append(nil, now))
	}
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := c.Decode(b)
		if err != nil {
			return
		}
		again := c.Append(nil, v)
		w, err := c.Decode(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if twice := c.Append(nil, w); !slices.Equal(again, twice) {
			t.Fatalf("written again it is %x, was %x", twice, again)
		}
		if pat.fits(v) {
			pat.advance(&out, v, 5, ev{'b', 5})
			pat.expire(&out, v, 1<<40)
		}
	})
}

var _ streaming.Codec[*runs[ev]] = (*codec[ev])(nil)
