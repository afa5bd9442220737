package streaming

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// table is a piece of a task's state as the engine sees it: typed outside, keys and encoded values inside. It holds the committed base
// and what the open transaction changed in it; between begin and end each changed key is remembered once, with the value to go back to.
// A table that keeps its base elsewhere (on disk) implements the same five calls.
type table interface {
	store() StoreSpec
	load(key, value []byte) error            // one changelog entry on restore; a nil value deletes
	flush(put func(key, value []byte)) error // gives every key changed in the transaction its final value; nil deletes
	commit()                                 // what was flushed is the base now
	abort()                                  // back to the base
	size() int                               // keys
}

// Codec turns values to bytes and back. Append must write what Decode reads; bytes of an older StoreSpec.Format never reach Decode.
type Codec[V any] interface {
	Append(dst []byte, v V) []byte
	Decode(src []byte) (V, error) // must not retain src
}

// Store is keyed state of one task. Values are never mutated in place: Put a new one. It belongs to the task's goroutine.
//
// Without a local base (Config.StateDir) base holds the keys that are in use, and what is at rest is bytes, see rest.go. With one, base holds what is in memory of the store,
// see paging.go.
type Store[V any] struct {
	t     *Task
	s     StoreSpec
	codec Codec[V]
	base  map[string]*cell[V]
	dirty []*cell[V]
	live  int   // keys that exist now
	bytes int64 // what the cells take, about
	cost  int64 // of a cell, without its key and what its value points to
	epoch uint64
	buf   []byte
	disk  *paging[V]  // nil without a local base
	rest  *resting[V] // nil with one
}

// cell is one key: what it is now, and what it was when the open transaction first changed it.
type cell[V any] struct {
	key         string
	now, before V
	epoch       uint64 // of the transaction that changed it last
	size        uint32 // of the encoded value as of the last flush
	live, lived bool
	used        bool // since the clock's hand passed, see paging.go and rest.go
	disk        diskState
}

// mapCost is what a key takes in a map of cells, about.
const mapCost = 40

// OpenStore makes the store with the given id, which the topology declares. It is called in Topology.New only; a wrong or repeated id
// fails the task.
func OpenStore[V any](t *Task, id uint16, c Codec[V]) *Store[V] {
	s := &Store[V]{t: t, s: t.declared(id), codec: c, base: map[string]*cell[V]{}, epoch: 1, cost: mapCost + int64(unsafe.Sizeof(cell[V]{}))}
	if t.local != nil {
		s.disk = newPaging[V](t.local, id)
	} else {
		s.rest = &resting[V]{}
	}
	t.register(s)
	return s
}

// Get gives the value of key.
func (s *Store[V]) Get(key string) (V, bool) {
	c := s.base[key]
	if c == nil {
		c = s.fetch(unsafeBytes(key))
	}
	return c.value()
}

// GetBytes is Get without making a string of the key.
func (s *Store[V]) GetBytes(key []byte) (V, bool) {
	c := s.base[string(key)]
	if c == nil {
		c = s.fetch(key)
	}
	return c.value()
}

// value is what Get gives of a key's cell, which may be none.
func (c *cell[V]) value() (v V, ok bool) {
	if c == nil || !c.live {
		return v, false
	}
	if !c.used {
		c.used = true
	}
	return c.now, true
}

// Put sets the value of key.
func (s *Store[V]) Put(key string, v V) {
	c := s.base[key]
	if c == nil {
		if c = s.fetch(unsafeBytes(key)); c == nil {
			c = s.cell(key)
		}
	}
	s.set(c, v, true)
}

// PutBytes is Put; it makes a string of the key only when the key is new.
func (s *Store[V]) PutBytes(key []byte, v V) {
	c := s.base[string(key)]
	if c == nil {
		if c = s.fetch(key); c == nil {
			c = s.cell(string(key))
		}
	}
	s.set(c, v, true)
}

// Delete removes key.
func (s *Store[V]) Delete(key string) { s.DeleteBytes(unsafeBytes(key)) }

// DeleteBytes is Delete.
func (s *Store[V]) DeleteBytes(key []byte) { s.drop(key) }

// drop is Delete, and says whether there was a value.
func (s *Store[V]) drop(key []byte) bool {
	c := s.base[string(key)]
	if c == nil {
		c = s.fetch(key)
	}
	if c == nil || !c.live {
		return false
	}
	var zero V
	s.set(c, zero, false)
	return true
}

// has says whether key has a value, without making a cell of it.
func (s *Store[V]) has(key []byte) bool {
	c := s.held(key)
	if c == nil {
		if s.disk == nil {
			return s.rest.packed.has(key)
		}
		c = s.fetch(key)
	}
	return c != nil && c.live
}

// add is Put of a key that has no value; it gives the key as a string, or says that it has one.
func (s *Store[V]) add(key []byte, v V) (string, bool) {
	c := s.held(key)
	if c == nil {
		if s.disk != nil {
			c = s.fetch(key)
		} else if s.rest.packed.has(key) {
			return "", false
		}
	}
	if c == nil {
		c = s.cell(string(key))
	} else if c.live {
		return "", false
	}
	s.set(c, v, true)
	return c.key, true
}

// held is the cell of a key that has one now.
func (s *Store[V]) held(key []byte) *cell[V] {
	c := s.base[string(key)]
	if c == nil && s.disk == nil && s.rest.old != nil {
		c = s.rest.old[string(key)]
	}
	return c
}

// Len is the number of keys.
func (s *Store[V]) Len() int { return s.live }

// Range calls f for every key in no order until it gives false. f may Put and Delete; keys put meanwhile may or may not be seen.
// An operator whose outputs depend on that order is not deterministic.
func (s *Store[V]) Range(f func(key string, v V) bool) {
	switch {
	case s.disk != nil && s.disk.paged():
		s.rangePaged(f)
		return
	case s.disk == nil && (s.rest.packed.n > 0 || s.rest.old != nil):
		s.rangeResting(f)
		return
	}
	for k, c := range s.base {
		if c.live && !f(k, c.now) {
			return
		}
	}
}

// cell makes one for a key that has none.
func (s *Store[V]) cell(key string) *cell[V] {
	var c *cell[V]
	if s.disk != nil {
		c = s.disk.take()
	} else {
		c = s.rest.take()
	}
	c.key = key
	s.base[key] = c
	s.bytes += s.cost + int64(len(key))
	return c
}

// forget takes a cell away.
func (s *Store[V]) forget(c *cell[V]) {
	s.bytes -= s.cost + int64(len(c.key)) + int64(c.size)
	if s.disk == nil && s.rest.old[c.key] == c {
		delete(s.rest.old, c.key)
		*c = cell[V]{}
		return
	}
	delete(s.base, c.key)
	if s.disk != nil {
		s.disk.give(c)
	} else {
		s.rest.give(c)
	}
}

func (s *Store[V]) resize(c *cell[V], n int) {
	s.bytes += int64(n) - int64(c.size)
	c.size = uint32(n)
}

func (s *Store[V]) set(c *cell[V], v V, live bool) {
	if c.epoch != s.epoch {
		c.epoch, c.before, c.lived = s.epoch, c.now, c.live
		s.dirty = append(s.dirty, c)
		s.t.touched = true
	}
	if c.live != live {
		if live {
			s.live++
		} else {
			s.live--
		}
	}
	c.now, c.live, c.used = v, live, true
}

func (s *Store[V]) store() StoreSpec { return s.s }
func (s *Store[V]) size() int        { return s.live }

func (s *Store[V]) resident() int64 {
	if s.rest != nil {
		return s.bytes + s.rest.packed.bytes()
	}
	return s.bytes
}

func (s *Store[V]) load(key, value []byte) error {
	if d := s.disk; d != nil {
		if d.blind {
			return d.write(key, value)
		}
		c := s.base[string(key)]
		if c == nil {
			var err error
			if c, err = s.find(key); err != nil {
				return localError{err}
			}
		}
		return s.loadPaged(c, key, value)
	}
	return s.loadResting(key, value)
}

func (s *Store[V]) loadCell(c *cell[V], key, value []byte) error {
	v, err := s.codec.Decode(value)
	if err != nil {
		return s.cannotDecode(err)
	}
	if c == nil {
		c = s.cell(string(key))
	}
	if !c.live {
		s.live++
	}
	c.now, c.live = v, true
	s.resize(c, len(value))
	return nil
}

func (s *Store[V]) cannotDecode(err error) error {
	return fmt.Errorf("decoding a value of store %s: %w", s.s.Name, err)
}

func (s *Store[V]) flush(put func(key, value []byte)) error {
	for _, c := range s.dirty {
		switch {
		case c.live:
			s.buf = s.codec.Append(s.buf[:0], c.now)
			if s.buf == nil {
				s.buf = []byte{}
			}
			s.resize(c, len(s.buf))
			put(unsafeBytes(c.key), s.buf)
		case c.lived:
			put(unsafeBytes(c.key), nil)
		}
	}
	return nil
}

func (s *Store[V]) commit() {
	var zero V
	for i, c := range s.dirty {
		c.before = zero
		if s.disk != nil {
			s.commitPaged(c)
		} else if !c.live {
			s.forget(c)
		}
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
	s.epoch++
}

func (s *Store[V]) abort() {
	var zero V
	for i, c := range s.dirty {
		if c.live && !c.lived {
			s.live--
		} else if !c.live && c.lived {
			s.live++
		}
		c.now, c.live, c.before = c.before, c.lived, zero
		if !c.live && c.disk == onDisk {
			s.forget(c)
		}
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
	s.epoch++
}

// Bytes is the codec of raw bytes. The value put must not be changed afterwards.
type Bytes struct{}

// Append implements Codec.
func (Bytes) Append(dst []byte, v []byte) []byte { return append(dst, v...) }

// Decode implements Codec.
func (Bytes) Decode(src []byte) ([]byte, error) { return append([]byte{}, src...), nil }

// Int64 is the codec of integers (zig-zag varint).
type Int64 struct{}

// Append implements Codec.
func (Int64) Append(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// Decode implements Codec.
func (Int64) Decode(src []byte) (int64, error) {
	v, n := binary.Varint(src)
	if n <= 0 || n != len(src) {
		return 0, fmt.Errorf("%d bytes are no integer", len(src))
	}
	return v, nil
}
