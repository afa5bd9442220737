package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The topology of the tests: keyed counts, tumbling windows in two grains, timers, a log of unique ids. An input record is
// `time id`, its key the key.
const (
	storeCounts  = 16
	storeWindows = 17
	outTopic     = "out"     // one record per input record that is no duplicate: id, running count of its key
	rowTopic     = "rows"    // windows
	firedTopic   = "fired"   // timers
	lateTopic    = "late"    // events beyond lateness
	timerAfter   = 5_000_000 // µs
)

type sum struct{ n, total int64 }

// sums are accumulators behind pointers, so that a value changed in place shows.
type sums struct{}

func (sums) New() *sum                { return &sum{} }
func (sums) Clone(a *sum) *sum        { c := *a; return &c }
func (sums) Merge(into **sum, d *sum) { (*into).n += d.n; (*into).total += d.total }
func (sums) Append(b []byte, v *sum) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, v.n), v.total)
}

func (sums) Decode(b []byte) (*sum, error) {
	n, k := binary.Varint(b)
	if k <= 0 {
		return nil, errors.New("cut off")
	}
	total, m := binary.Varint(b[k:])
	if m <= 0 {
		return nil, errors.New("cut off")
	}
	return &sum{n, total}, nil
}

type strs struct{}

func (strs) Append(b []byte, v string) []byte { return append(b, v...) }
func (strs) Decode(b []byte) (string, error)  { return string(b), nil }

type testOp struct {
	t       *Task
	counts  *Store[int64]
	windows *Windows[string, *sum]
	seen    map[string]bool
	fresh   []string // of seen, not yet committed
	fail    func(r *kgo.Record) error
	prefix  string // of output topics
}

func testTopology(parts int32, inputs ...string) Topology {
	if len(inputs) == 0 {
		inputs = []string{"in.a", "in.b"}
	}
	return Topology{
		Name: "test", Stage: "one", Inputs: inputs, Partitions: parts,
		Stores: []StoreSpec{{storeCounts, "counts", 1}, {storeWindows, "windows", 1}},
		Logs:   []LogSpec{{"ids", 24 * time.Hour}},
		New:    func(t *Task) (Operator, error) { return newTestOp(t, ""), nil },
	}
}

func newTestOp(t *Task, prefix string) *testOp {
	o := &testOp{t: t, prefix: prefix, counts: OpenStore(t, storeCounts, Codec[int64](Int64{})), seen: map[string]bool{}}
	o.windows = OpenWindows(t, WindowsSpec[string, *sum]{
		Store: storeWindows, Lateness: 20 * time.Second, Keys: strs{}, Values: sums{},
		Grains: []Grain[string]{Fixed[string]("1s", 0, time.Second), Fixed[string]("10s", 0, 10*time.Second)},
		Emit: func(w Window[string], a *sum) error {
			r := t.Record()
			r.Topic, r.Key = o.prefix+rowTopic, t.Copy([]byte(fmt.Sprintf("%d/%d/%s", w.Grain, w.Start, w.Key)))
			r.Value = t.Copy([]byte(fmt.Sprintf("%d %d", a.n, a.total)))
			t.Emit(r)
			return nil
		},
	})
	return o
}

func (o *testOp) Process(in int, r *kgo.Record) error {
	if o.fail != nil {
		if err := o.fail(r); err != nil {
			return err
		}
	}
	at, id, err := parseInput(r.Value)
	if err != nil {
		return err
	}
	o.t.Observe(in, LaneLive, at)
	if o.seen[id] {
		return nil
	}
	o.seen[id] = true
	o.fresh = append(o.fresh, id)
	o.t.AppendLog("ids", []byte(id))
	n, _ := o.counts.GetBytes(r.Key)
	o.counts.PutBytes(r.Key, n+1)
	out := o.t.Record()
	out.Topic, out.Key = o.prefix+outTopic, r.Key
	b := append(o.t.Buf(len(id)), id...)
	out.Value = o.t.Keep(b)
	o.t.Emit(out)
	if d, _ := o.windows.At(string(r.Key), at); d != nil {
		(*d).n++
		(*d).total += at % 1000
	} else {
		l := o.t.Record()
		l.Topic, l.Value = o.prefix+lateTopic, o.t.Copy([]byte(id))
		o.t.Emit(l)
	}
	o.t.SetTimer(7, string(r.Key), at-at%timerAfter+timerAfter)
	return nil
}

func parseInput(v []byte) (int64, string, error) {
	for i, c := range v {
		if c == ' ' {
			at, err := strconv.ParseInt(string(v[:i]), 10, 64)
			return at, string(v[i+1:]), err
		}
	}
	return 0, "", fmt.Errorf("no input: %q", v)
}

func (o *testOp) Timer(tm Timer) error {
	r := o.t.Record()
	r.Topic, r.Key = o.prefix+firedTopic, []byte(fmt.Sprintf("%s@%d", tm.Key, tm.At))
	o.t.Emit(r)
	return nil
}

func (o *testOp) Tick(time.Time) error { return nil }
func (o *testOp) BeforeCommit() error  { return nil }
func (o *testOp) Committed()           { o.fresh = o.fresh[:0] }

func (o *testOp) Aborted() {
	for _, id := range o.fresh {
		delete(o.seen, id)
	}
	o.fresh = o.fresh[:0]
}

func (o *testOp) RestoreLog(_ string, value []byte, _ time.Time) error {
	o.seen[string(value)] = true
	return nil
}

func record(key string, at int64, id string) *kgo.Record {
	return &kgo.Record{Key: []byte(key), Value: []byte(fmt.Sprintf("%d %s", at, id))}
}
