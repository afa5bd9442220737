package pattern

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"millrace/streaming"
)

// BenchmarkAdvance gives a key events that do nothing to its partial matches, by how many it has.
func BenchmarkAdvance(b *testing.B) {
	for _, live := range []int{0, 1, 3} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			p := compile(b, New[ev]("p").Begin("a", is('a')).FollowedBy("b", is('b')).Times(2, 3).NotFollowedBy("x", is('x')).Within(time.Hour))
			set := openSet(b, p)
			for i := range live {
				must(b, set.Add("visitor-1", epoch.UnixMicro()+int64(i), ev{'a', i}))
			}
			at := epoch.UnixMicro()
			b.ReportAllocs()
			for b.Loop() {
				at++
				if err := set.Add("visitor-1", at-at%1000, ev{'p', 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMatch is a whole life: a partial match begins, goes on and is found.
func BenchmarkMatch(b *testing.B) {
	p := compile(b, New[ev]("p").Begin("a", is('a')).FollowedBy("b", is('b')).FollowedBy("c", is('c')).Within(time.Hour).SkipPast())
	set := openSet(b, p)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "visitor-" + strconv.Itoa(i)
	}
	at, i := epoch.UnixMicro(), 0
	b.ReportAllocs()
	for b.Loop() {
		at++
		if err := set.Add(keys[i/3%len(keys)], at, ev{"abc"[i%3], i}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func openSet(b *testing.B, p *Pattern[ev]) (set *Set[ev]) {
	top := topology([]*Pattern[ev]{p}, func(s *Spec[ev]) { s.Match = func(*Match[ev]) error { return nil } })
	made := top.New
	top.New = func(t *streaming.Task) (streaming.Operator, error) {
		o, err := made(t)
		if err == nil {
			set = o.(*op).set
		}
		return o, err
	}
	newBench(b, top)
	return set
}
