package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// HeaderWatermark is the header of a record that a task writes for a later stage: its partition (u32), its watermark (i64, µs), big endian, and whether its inputs are idle
// (u8).
//
// Behind a change of keys a partition holds what many tasks wrote, and these may be far apart: a bound on disorder that is right for what one of them writes is wrong for
// all of them together. So each says how far it is, and the later stage is as far as the last of them that is not idle (as in Flink, where watermarks travel through every channel: Carbone
// et al., "Apache Flink", IEEE Data Eng. Bull. 2015, §4.2).
const HeaderWatermark = "wm"

const watermarkBytes = 13

// upstream is the event time of those inputs that tasks of an earlier stage write. Its store holds, for each such topic, how far every task has come.
type upstream struct {
	t     *Task
	store *Store[[]source]
	in    []*sources // nil for other inputs
}

type sources struct {
	topic string
	n     int
	own   bool        // the store's value was made in the open transaction, and may be changed
	heard []time.Time // processing time of the last record of each: an observation, not state
}

// source is one task of the earlier stage.
type source struct {
	at   int64
	idle bool
}

func openUpstream(t *Task) *upstream {
	u := &upstream{t: t, in: make([]*sources, len(t.in))}
	if len(t.top.Upstream) > 0 {
		u.store = OpenStore(t, storeUpstream, Codec[[]source](sourcesCodec{}))
	}
	for i, topic := range t.top.Inputs {
		if n := int(t.top.Upstream[topic]); n > 0 {
			u.in[i] = &sources{topic: topic, n: n, heard: slices.Repeat([]time.Time{t.clock}, n)}
		}
	}
	return u
}

// observe takes over what a record says of its writer. It tells whether that is all there is in the record.
func (u *upstream) observe(in int, r *kgo.Record) (heartbeat bool) {
	x := u.in[in]
	if x == nil {
		return false
	}
	i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == HeaderWatermark && len(h.Value) == watermarkBytes })
	if i < 0 {
		return false
	}
	h := r.Headers[i].Value
	p, at, idle := int(binary.BigEndian.Uint32(h)), int64(binary.BigEndian.Uint64(h[4:])), h[12] == 1
	if p >= x.n { // of a stage with more tasks than the topology says: nothing to go by
		return r.Key == nil && r.Value == nil
	}
	x.heard[p] = u.t.clock
	if s := u.sources(x)[p]; s.idle != idle || at > s.at {
		u.change(x)[p] = source{at: max(at, s.at), idle: idle}
		u.t.water.stale = true
	}
	return r.Key == nil && r.Value == nil
}

// says tells of a record that there is nothing in it but what it says of its writer.
func (u *upstream) says(in int, r *kgo.Record) bool {
	return u.in[in] != nil && r.Key == nil && r.Value == nil
}

func (u *upstream) sources(x *sources) []source {
	s, _ := u.store.Get(x.topic)
	for len(s) < x.n {
		s = append(s[:len(s):len(s)], source{at: noTime})
	}
	return s
}

// change gives the tasks of x such that they may be changed until the transaction ends.
func (u *upstream) change(x *sources) []source {
	s := u.sources(x)
	if !x.own {
		s, x.own = slices.Clone(s), true
		u.store.Put(x.topic, s)
	}
	return s
}

// decideGone no longer waits for tasks that nothing has been heard of for so long that nobody can be running them. Silence alone is no sign that a task is idle: what it has
// written comes with its next commit.
func (u *upstream) decideGone(in int, now time.Time) (decided bool) {
	x := u.in[in]
	for p, heard := range x.heard {
		if now.Sub(heard) >= u.t.cfg.UpstreamGone && !u.sources(x)[p].idle {
			u.change(x)[p].idle = true
			decided = true
		}
	}
	return decided
}

// at is how far the input is: as far as the last task that is not idle; with every task idle, as far as the first.
func (u *upstream) at(x *sources) (at int64, idle bool) {
	high, idle := int64(noTime), true
	for _, s := range u.sources(x) {
		high = max(high, s.at)
		if !s.idle && (idle || s.at < at) {
			at, idle = s.at, false
		}
	}
	if idle {
		at = high
	}
	return at, idle
}

func (u *upstream) restored(now time.Time) {
	for _, x := range u.in {
		if x != nil {
			for p := range x.heard {
				x.heard[p] = now
			}
		}
	}
}

// ended is called when a transaction has.
func (u *upstream) ended() {
	for _, x := range u.in {
		if x != nil {
			x.own = false
		}
	}
}

// sourcesCodec packs tasks: idle (u8) and watermark (i64) of each.
type sourcesCodec struct{}

func (sourcesCodec) Append(b []byte, v []source) []byte {
	for _, s := range v {
		idle := byte(0)
		if s.idle {
			idle = 1
		}
		b = binary.BigEndian.AppendUint64(append(b, idle), uint64(s.at))
	}
	return b
}

func (sourcesCodec) Decode(b []byte) ([]source, error) {
	if len(b)%9 != 0 {
		return nil, fmt.Errorf("tasks of an earlier stage: %d bytes", len(b))
	}
	v := make([]source, len(b)/9)
	for i := range v {
		x := b[9*i:]
		if x[0] > 1 {
			return nil, errors.New("tasks of an earlier stage: neither idle nor not")
		}
		v[i] = source{at: int64(binary.BigEndian.Uint64(x[1:9])), idle: x[0] == 1}
	}
	return v, nil
}

// heartbeatsPerSecond is about how many heartbeats a task writes in a second at most. N tasks with N partitions of each topic to tell are N² of them: with a fixed
// interval they would be more than the records at 96 partitions, so the interval grows with what there is to tell.
const heartbeatsPerSecond = 64

// downstream is what a task tells the later stages that read its outputs.
type downstream struct {
	t     *Task
	every time.Duration // how long a partition may hear nothing
	told  []told        // by topic and partition
	beat  time.Time
	// reached is the watermark for which all has been done: while windows close and timers fire at a new one, what they write is still in time for those who are told this.
	reached int64
}

// told is what the last record to a partition said, and when. Whether it was a heartbeat makes no difference: busy partitions need none.
type told struct {
	at   int64
	idle bool
	when time.Time
}

func newDownstream(t *Task) *downstream {
	pairs := len(t.top.Rekeys) * int(t.top.Partitions)
	// A later stage must hear of a task in time not to take it for gone.
	every := min(time.Duration(pairs)*time.Second/heartbeatsPerSecond, t.cfg.UpstreamGone/4)
	return &downstream{t: t, every: max(every, t.cfg.IdleAfter/4)}
}

// header is the header of a record for the given topic and partition.
func (d *downstream) header(topic string, partition int32) kgo.RecordHeader {
	now := told{d.reached, d.t.water.idle(), d.t.clock}
	if i := slices.Index(d.t.top.Rekeys, topic); i >= 0 && partition < d.t.top.Partitions {
		d.told[i*int(d.t.top.Partitions)+int(partition)] = now
	}
	b := binary.BigEndian.AppendUint32(d.t.Buf(watermarkBytes), uint32(d.t.part))
	b = append(binary.BigEndian.AppendUint64(b, uint64(now.at)), 0)
	if now.idle {
		b[watermarkBytes-1] = 1
	}
	return kgo.RecordHeader{Key: HeaderWatermark, Value: d.t.Keep(b)}
}

// tick tells the partitions that have heard nothing for a while how far the task is, by a record of their own, and at once that its inputs are idle now: nobody is to wait
// for it.
func (d *downstream) tick(now time.Time) {
	if len(d.t.top.Rekeys) == 0 || now.Sub(d.beat) < d.t.cfg.IdleAfter/4 {
		return
	}
	d.beat = now
	idle := d.t.water.idle()
	for i, topic := range d.t.top.Rekeys {
		for p := range d.t.top.Partitions {
			was := d.told[i*int(d.t.top.Partitions)+int(p)]
			if was.at == d.reached && was.idle == idle || now.Sub(was.when) < d.every && (was.idle || !idle) {
				continue
			}
			r := d.t.Record()
			r.Topic, r.Headers = topic, []kgo.RecordHeader{d.header(topic, p)}
			d.t.EmitTo(p, r)
		}
	}
}

// aborted forgets what was told: nobody has heard it. It is called with the watermark of the last commit, also when that has been restored.
func (d *downstream) aborted() {
	d.reached = d.t.Watermark()
	d.told = slices.Repeat([]told{{at: noTime}}, len(d.t.top.Rekeys)*int(d.t.top.Partitions))
	d.beat = time.Time{}
}
