package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Lanes keep apart what drives event time and what is re-read of the past.
const (
	LaneLive   uint8 = 0 // drives Task.Watermark, windows and timers
	LaneReplay uint8 = 1 // has a watermark of its own, for observation only
	lanes            = 2
)

// watermarks is the event time of a task: for each input and lane the latest event time seen, less the disorder that is allowed; over
// inputs the minimum of those that are not idle. It is a table, so it commits and aborts with everything else.
//
// That an input is idle is decided by processing time. Such a decision changes what the watermark is, hence which windows close: it
// is written to the decisions store, in the transaction in which it takes effect, like an input.
type watermarks struct {
	t         *Task
	s         StoreSpec
	decisions *Store[int64]
	disorder  int64
	idleAfter time.Duration

	now   [lanes]int64
	in    []inputTime
	stale bool // some maximum or idleness changed since advance

	dirty     bool
	savedNow  [lanes]int64
	saved     []inputTime
	untimed   []bool
	buf       []byte
	lastHeard []time.Time // processing time of the last Observe in the live lane: an observation, not state
}

type inputTime struct {
	max  [lanes]int64
	idle bool
}

func openWatermarks(t *Task) *watermarks {
	w := &watermarks{
		t: t, s: t.declared(storeWatermarks), disorder: t.cfg.Disorder.Microseconds(), idleAfter: t.cfg.IdleAfter,
		now: [lanes]int64{noTime, noTime}, in: make([]inputTime, len(t.in)), saved: make([]inputTime, len(t.in)),
		untimed: make([]bool, len(t.in)), lastHeard: make([]time.Time, len(t.in)),
	}
	for i, topic := range t.top.Inputs {
		w.in[i].max = [lanes]int64{noTime, noTime}
		w.untimed[i] = slices.Contains(t.top.Untimed, topic)
		w.lastHeard[i] = t.clock
	}
	t.register(w)
	w.decisions = OpenStore(t, storeDecisions, Codec[int64](Int64{}))
	return w
}

func (w *watermarks) observe(in int, lane uint8, at int64) {
	x := &w.in[in] // a lane that does not exist is a bug of the operator: the panic names the record
	if lane == LaneLive && w.t.up.in[in] != nil {
		return // the tasks that write the input say
	}
	if lane == LaneLive {
		w.lastHeard[in] = w.t.clock
		if x.idle {
			w.touch()
			x.idle, w.stale = false, true
			w.decisions.Put(w.t.top.Inputs[in], 0)
		}
	}
	if at > x.max[lane] {
		w.touch()
		x.max[lane], w.stale = at, true
	}
}

func (w *watermarks) touch() {
	if !w.dirty {
		w.dirty, w.savedNow = true, w.now
		copy(w.saved, w.in)
		w.t.touched = true
	}
}

// decideIdle marks the inputs that have been silent for too long with nothing left to read. It tells whether any was.
func (w *watermarks) decideIdle(now time.Time, caughtUp func(in int) bool) bool {
	decided := false
	for i := range w.in {
		if w.t.up.in[i] != nil {
			if caughtUp(i) && w.t.up.decideGone(i, now) {
				w.stale, decided = true, true
			}
			continue
		}
		if x := &w.in[i]; !x.idle && !w.untimed[i] && now.Sub(w.lastHeard[i]) >= w.idleAfter && caughtUp(i) {
			w.touch()
			x.idle, w.stale, decided = true, true, true
			w.decisions.Put(w.t.top.Inputs[i], 1)
		}
	}
	return decided
}

// idle says whether no input is waited for.
func (w *watermarks) idle() bool {
	for i := range w.in {
		if w.untimed[i] {
			continue
		}
		if up := w.t.up.in[i]; up != nil {
			if _, idle := w.t.up.at(up); !idle {
				return false
			}
		} else if !w.in[i].idle {
			return false
		}
	}
	return true
}

// advance computes the watermarks; it tells whether the live one moved. With every input idle there is nothing to wait for: the
// latest input counts.
func (w *watermarks) advance() bool {
	if !w.stale {
		return false
	}
	w.stale = false
	before := w.now[LaneLive]
	for lane := range w.now {
		low, high, waiting := int64(0), int64(noTime), false
		for i := range w.in {
			x := &w.in[i]
			if w.untimed[i] {
				continue
			}
			at, idle := x.max[lane], x.idle
			if up := w.t.up.in[i]; up != nil && lane == int(LaneLive) {
				if at, idle = w.t.up.at(up); at != noTime {
					at += w.disorder // it is a watermark already
				}
			}
			high = max(high, at)
			if lane == int(LaneLive) && idle || lane != int(LaneLive) && at == noTime {
				continue
			}
			if !waiting || at < low {
				low, waiting = at, true
			}
		}
		if !waiting {
			low = high
		}
		if low != noTime && low-w.disorder > w.now[lane] {
			w.touch()
			w.now[lane] = low - w.disorder
		}
	}
	return w.now[LaneLive] != before
}

// restored takes over the idle decisions; silence is counted from now.
func (w *watermarks) restored(now time.Time) {
	for i, topic := range w.t.top.Inputs {
		v, _ := w.decisions.Get(topic)
		w.in[i].idle = v == 1
		w.lastHeard[i] = now
	}
	w.t.up.restored(now)
	w.stale = true
}

func (w *watermarks) store() StoreSpec { return w.s }
func (w *watermarks) size() int        { return 1 }

// The table has one entry, with an empty key: the watermark of each lane, then for each input its topic and maxima. One small record
// a commit is cheaper than one per input.
func (w *watermarks) flush(put func(key, value []byte)) error {
	if !w.dirty {
		return nil
	}
	b := w.buf[:0]
	for _, v := range w.now {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	for i := range w.in {
		b = binary.AppendUvarint(b, uint64(len(w.t.top.Inputs[i])))
		b = append(b, w.t.top.Inputs[i]...)
		for _, v := range w.in[i].max {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
	}
	w.buf = b
	put(nil, b)
	return nil
}

func (w *watermarks) load(_, value []byte) error {
	if len(value) < 8*lanes {
		return fmt.Errorf("decoding watermarks: %d bytes", len(value))
	}
	for lane := range w.now {
		w.now[lane] = int64(binary.BigEndian.Uint64(value[8*lane:]))
	}
	for b := value[8*lanes:]; len(b) > 0; {
		n, k := binary.Uvarint(b)
		if k <= 0 || uint64(len(b)-k) < n+8*lanes {
			return errors.New("decoding watermarks: cut off")
		}
		topic := string(b[k : k+int(n)])
		b = b[k+int(n):]
		if i := slices.Index(w.t.top.Inputs, topic); i >= 0 {
			for lane := range w.in[i].max {
				w.in[i].max[lane] = int64(binary.BigEndian.Uint64(b[8*lane:]))
			}
		}
		b = b[8*lanes:]
	}
	return nil
}

func (w *watermarks) commit() { w.dirty = false }

func (w *watermarks) abort() {
	if w.dirty {
		w.now, w.dirty = w.savedNow, false
		copy(w.in, w.saved)
	}
	w.stale = true
}
