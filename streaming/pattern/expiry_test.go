package pattern

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/streaming"
)

// TestAMillionKeysThatNeverComeBackLeaveNothing: each key begins one match of a pattern that waits for a second event, and one of a pattern that waits for there to be none.
// All of them are held at once; then event time goes on by another key's events alone.
func TestAMillionKeysThatNeverComeBackLeaveNothing(t *testing.T) {
	const keys, commit = 1_000_000, 50_000
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // most of the time would go into collecting what is all live
	found := 0
	two := compile(t, New[ev]("two").Begin("a", is('a')).FollowedBy("b", is('b')).Within(time.Minute))
	none := compile(t, New[ev]("none").Begin("a", func(e ev, _ Earlier[ev]) bool { return e.kind == 'a' && e.n%10 == 0 }).NotFollowedBy("b", is('b')).Within(time.Minute))
	var set *Set[ev]
	top := topology([]*Pattern[ev]{two, none}, func(s *Spec[ev]) { s.Match = func(*Match[ev]) error { found++; return nil } })
	made := top.New
	top.New = func(t *streaming.Task) (streaming.Operator, error) {
		x, err := made(t)
		if err == nil {
			set = x.(*op).set
			x = &lightOp{op: x.(*op)}
		}
		return x, err
	}
	b := newBench(t, top)
	before := heap()
	second := func(i int) int64 { return int64(i/commit)*1e6 + epoch.UnixMicro() }
	feed := func(key string, at int64, kind byte, n int) {
		b.Produce(0, &kgo.Record{Key: []byte(key), Value: appendLight(nil, at, ev{kind, n})})
	}
	for i := range keys {
		feed("visitor-"+strconv.Itoa(i), second(i), 'a', i)
		if i%commit == commit-1 {
			must(t, b.Feed())
			_, err := b.Commit()
			must(t, err)
		}
	}
	if set.Len() != keys+keys/10 || found != 0 {
		t.Fatalf("%d partial matches are held and %d were found, want %d and none", set.Len(), found, keys+keys/10)
	}
	memory := heap() - before
	for i := 0; set.Len() > 0 && i < 200; i++ {
		feed("clock", second(keys)+int64(i)*1e6, '-', 0)
		must(t, b.Feed())
		_, err := b.Commit()
		must(t, err)
	}
	held, left := 0, 0 // every key is written once and deleted once
	for _, r := range b.Outputs("state.test.pattern") {
		if id := binary.BigEndian.Uint16(r.Key); id != storeRuns && id != storeTimers {
			continue
		}
		if r.Value == nil {
			left--
		} else {
			left++
			held += len(r.Key) + len(r.Value)
		}
	}
	if set.Len() != 0 || left != 0 {
		t.Fatalf("%d partial matches and %d entries of the changelog are left", set.Len(), left)
	}
	if found != keys/10 {
		t.Errorf("%d found by waiting, want %d", found, keys/10)
	}
	t.Logf("%d bytes of changelog a key were held; memory a key, the harness's own records included: %d bytes held, %d left", held/keys, memory/keys, (heap()-before)/keys)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lightOp reads events of a few bytes.
type lightOp struct{ *op }

func appendLight(b []byte, at int64, e ev) []byte {
	return evCodec{}.Append(strconv.AppendInt(append(b, 0), at, 36), e)
}

func (o *lightOp) Process(in int, r *kgo.Record) error {
	const digits = 10 // of a time of this century in base 36
	at, err := strconv.ParseInt(string(r.Value[1:1+digits]), 36, 64)
	if err != nil {
		return err
	}
	e, err := evCodec{}.Decode(r.Value[1+digits:])
	if err != nil {
		return err
	}
	o.t.Observe(in, streaming.LaneLive, at)
	return o.set.Add(string(r.Key), at, e)
}
