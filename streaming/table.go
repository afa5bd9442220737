package streaming

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// TableSpec describes a table that a stream is joined with.
type TableSpec[V any] struct {
	Store uint16 // declared in Topology.Stores
	Codec Codec[V]
	// Keep is how far behind the watermark AsOf can be asked. Default 0, which is enough for what an Ordered buffer without Lateness gives back; with one, Keep is at least it.
	Keep time.Duration
}

// Table is the right side of a stream–table join: for each key its value over event time, kept in the changelog like any other state. A topology fills it from an input
// that is co-partitioned with the stream.
//
// AsOf gives the value as of an event's time. Whether that is the value that history will show depends on when it is asked: on arrival of the event it is what had been
// read of the table by then; from an Ordered buffer, once the watermark has passed the event, it is final however the two inputs arrived (Flink's event-time temporal
// join). A change that comes later than the watermark counts for what is asked after it. Latest is the value whatever the time, for tables whose history does not matter.
//
// A version is forgotten when a later one is older than watermark − Keep, and a deleted key altogether.
type Table[V any] struct {
	t    *Task
	base *Store[[]version[V]]
	keep int64
	// old is the watermark before the step in hand: what an Ordered buffer gives back in this step is not older. now is the one of the step.
	old, now int64
	aging    timerHeap // time ‖ key: when a version becomes old; an index over the store that may hold what is gone
	popped   []string  // out of it in the open transaction
	buf      []byte
}

// version is the value from a time on; nothing is there if it was deleted.
type version[V any] struct {
	at      int64
	v       V
	deleted bool
}

// OpenTable makes the table of a declared store. It is called in Topology.New only.
func OpenTable[V any](t *Task, spec TableSpec[V]) *Table[V] {
	if spec.Codec == nil || spec.Keep < 0 {
		t.openErr = errors.Join(t.openErr, fmt.Errorf("table %d: Codec and a Keep of 0 or more are needed", spec.Store))
	}
	x := &Table[V]{t: t, base: OpenStore(t, spec.Store, Codec[[]version[V]](versionsCodec[V]{spec.Codec})), keep: spec.Keep.Microseconds(), old: noTime, now: noTime}
	s := tableStore[V]{x.base, x} // in place of the store
	t.tables[len(t.tables)-1], t.byID[spec.Store] = s, s
	t.windows = append(t.windows, x)
	return x
}

// tableStore is the store of a Table, which hears through it how transactions end.
type tableStore[V any] struct {
	*Store[[]version[V]]
	x *Table[V]
}

func (s tableStore[V]) commit() {
	s.Store.commit()
	clear(s.x.popped)
	s.x.popped = s.x.popped[:0]
}

func (s tableStore[V]) abort() {
	s.Store.abort()
	x := s.x
	for _, k := range x.popped {
		heap.Push(&x.aging, k)
	}
	clear(x.popped)
	x.popped = x.popped[:0]
	x.old, x.now = x.t.Watermark(), x.t.Watermark()
}

// Put says that key has the value v from the given event time on. Of two values for one time the one put last counts.
func (x *Table[V]) Put(key string, at int64, v V) { x.put(key, version[V]{at: at, v: v}) }

// Delete says that key has no value from the given event time on.
func (x *Table[V]) Delete(key string, at int64) { x.put(key, version[V]{at: at, deleted: true}) }

func (x *Table[V]) put(key string, n version[V]) {
	old, _ := x.base.Get(key)
	i := x.place(old, n.at)
	list := make([]version[V], 0, len(old)+1)
	list = append(list, old[:i]...)
	if i > 0 && old[i-1].at == n.at {
		list = list[:i-1]
	}
	list = append(append(list, n), old[i:]...)
	if list = x.prune(list); len(list) == 0 {
		x.base.Delete(key)
		return
	}
	x.base.Put(key, list)
	x.age(key, list)
}

// place is the number of versions that begin at or before at.
func (x *Table[V]) place(list []version[V], at int64) int {
	i := len(list)
	for i > 0 && list[i-1].at > at {
		i--
	}
	return i
}

// AsOf is the value of key at the given event time; false if it had none, or if the time is further back than is kept.
func (x *Table[V]) AsOf(key string, at int64) (v V, ok bool) {
	list, _ := x.base.Get(key)
	if i := x.place(list, at); i > 0 && !list[i-1].deleted {
		return list[i-1].v, true
	}
	return v, false
}

// Latest is the value of key with the latest event time; false if there is none.
func (x *Table[V]) Latest(key string) (v V, ok bool) {
	if list, _ := x.base.Get(key); len(list) > 0 && !list[len(list)-1].deleted {
		return list[len(list)-1].v, true
	}
	return v, false
}

// Len is the number of keys, deleted ones included that are not forgotten yet.
func (x *Table[V]) Len() int { return x.base.Len() }

// prune leaves out what no AsOf can ask for any more.
func (x *Table[V]) prune(list []version[V]) []version[V] {
	if x.old == noTime {
		return list
	}
	cut, from := x.old-x.keep, 0
	for from+1 < len(list) && list[from+1].at < cut {
		from++
	}
	if list[from].deleted && list[from].at < cut {
		from++
	}
	return list[from:]
}

// age remembers when the first version of key can go: when the second is old, or by itself if it is a deletion.
func (x *Table[V]) age(key string, list []version[V]) {
	switch {
	case list[0].deleted:
		x.buf = appendTime(x.buf[:0], list[0].at)
	case len(list) > 1:
		x.buf = appendTime(x.buf[:0], list[1].at)
	default:
		return
	}
	heap.Push(&x.aging, string(append(x.buf, key...)))
}

func (x *Table[V]) advance(watermark int64) error {
	x.old, x.now = x.now, watermark
	for x.old != noTime && len(x.aging) > 0 && timeOf(x.aging[0]) < x.old-x.keep {
		k := heap.Pop(&x.aging).(string)
		x.popped = append(x.popped, k)
		key := k[8:]
		list, ok := x.base.Get(key)
		if !ok {
			continue
		}
		switch rest := x.prune(list); {
		case len(rest) == len(list):
		case len(rest) == 0:
			x.base.Delete(key)
		default:
			x.base.Put(key, slices.Clone(rest))
			x.age(key, rest)
		}
	}
	return nil
}

func (x *Table[V]) tick(time.Time) error { return nil }
func (x *Table[V]) store() StoreSpec     { return x.base.s }
func (x *Table[V]) counts() WindowCounts { return WindowCounts{} }

func (x *Table[V]) restored() {
	x.old, x.now = x.t.Watermark(), x.t.Watermark()
	x.aging = x.aging[:0]
	x.base.Range(func(key string, list []version[V]) bool {
		x.age(key, list)
		return true
	})
}

// versionsCodec writes for each version, the oldest first: varint time, u8 deleted, and if it is not, uvarint length and value.
type versionsCodec[V any] struct{ values Codec[V] }

func (c versionsCodec[V]) Append(b []byte, list []version[V]) []byte {
	for i := range list {
		x := &list[i]
		b = binary.AppendVarint(b, x.at)
		if x.deleted {
			b = append(b, 1)
			continue
		}
		at := len(b) + 1
		b = c.values.Append(append(b, 0), x.v)
		n := uint64(len(b) - at)
		b = slices.Insert(b, at, binary.AppendUvarint(nil, n)...)
	}
	return b
}

func (c versionsCodec[V]) Decode(b []byte) ([]version[V], error) {
	cut := errors.New("versions are cut off")
	var list []version[V]
	for len(b) > 0 {
		at, n := binary.Varint(b)
		if n <= 0 || len(b) == n || b[n] > 1 || len(list) > 0 && at <= list[len(list)-1].at {
			return nil, cut
		}
		x := version[V]{at: at, deleted: b[n] == 1}
		if b = b[n+1:]; !x.deleted {
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, cut
			}
			var err error
			if x.v, err = c.values.Decode(b[n : n+int(size)]); err != nil {
				return nil, err
			}
			b = b[n+int(size):]
		}
		list = append(list, x)
	}
	if len(list) == 0 {
		return nil, cut
	}
	return list, nil
}
