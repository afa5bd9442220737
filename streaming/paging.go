package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// A store with a local base keeps its committed keys in two places: cells in memory, and the worker's disk. A key with a cell is what
// the cell says; a key without one is what the disk says. Cells change in memory, go to the disk with the task's next snapshot, and may
// be dropped from memory once they are there (the clock's hand takes those not used since it passed last). While every key has a
// cell, nothing is asked of the disk.

// diskState says how a cell stands to the disk.
type diskState uint8

const (
	onDisk         diskState = iota // the disk says the same
	unflushed                       // it does not; the cell is in the list of those to write
	flying                          // the cell's value is in a batch under way
	flyingOutdated                  // and it has changed since: it is in the list again
)

// paging is what a store with a local base has besides.
type paging[V any] struct {
	local  *localPart
	prefix []byte // of the store's keys on disk
	key    []byte // scratch: prefix ‖ key
	away   int    // keys that exist and have no cell
	blind  bool   // restoring more than memory holds: entries go to the disk unseen, keys are counted at the end
	each   int64  // of a key in memory, on average
	absent []byte // the key last looked for on disk in vain: a Put follows its Get
	asked  bool   // absent holds one

	cells[V]
	todo []*cell[V] // unflushed
	gone []*cell[V] // flying

	ranging int                 // Ranges under way
	fetched map[string]struct{} // keys that they made cells of
}

func newPaging[V any](l *localPart, id uint16) *paging[V] {
	p := binary.BigEndian.AppendUint16(l.dataPrefix(), id)
	return &paging[V]{local: l, prefix: p, key: slices.Clone(p)}
}

func (d *paging[V]) paged() bool { return d.away > 0 }

func (d *paging[V]) diskKey(key []byte) []byte {
	d.key = append(d.key[:len(d.prefix)], key...)
	return d.key
}

// fetch makes the cell of a key that has none in base; nil when the key has no value. A disk that fails ends the session (see localError).
func (s *Store[V]) fetch(key []byte) *cell[V] {
	if r := s.rest; r != nil {
		if r.old == nil && r.packed.n == 0 {
			return nil
		}
		return s.thaw(key)
	}
	if s.disk.away == 0 {
		return nil
	}
	c, err := s.find(key)
	if err != nil {
		panic(localError{err})
	}
	return c
}

func (s *Store[V]) find(key []byte) (*cell[V], error) {
	d := s.disk
	if d.away == 0 || d.asked && string(key) == string(d.absent) {
		return nil, nil
	}
	v, closer, err := d.local.base.db.Get(d.diskKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		d.absent, d.asked = append(d.absent[:0], key...), true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a key of store %s: %w", s.s.Name, err)
	}
	val, err := s.codec.Decode(v)
	n := len(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return nil, s.cannotDecode(err)
	}
	d.local.fetches++
	c := s.cell(string(key))
	c.now, c.live, c.used = val, true, true
	s.resize(c, n)
	d.away--
	if d.ranging > 0 {
		d.fetched[c.key] = struct{}{}
	}
	return c, nil
}

// mark lists a cell to be written.
func (d *paging[V]) mark(c *cell[V]) {
	switch c.disk {
	case onDisk:
		c.disk = unflushed
	case flying:
		c.disk = flyingOutdated
	default:
		return
	}
	d.todo = append(d.todo, c)
	d.asked = false
}

// commitPaged: a deleted key keeps its cell until the disk knows of it.
func (s *Store[V]) commitPaged(c *cell[V]) {
	if !c.live && !c.lived && c.disk == onDisk {
		s.forget(c) // came and went in the transaction
		return
	}
	s.disk.mark(c)
}

func (s *Store[V]) loadPaged(c *cell[V], key, value []byte) error {
	if value == nil {
		if c == nil || !c.live {
			return nil
		}
		var zero V
		c.now, c.live = zero, false
		s.live--
		s.disk.mark(c)
		return nil
	}
	known := c != nil
	if err := s.loadCell(c, key, value); err != nil {
		return err
	}
	if !known {
		c = s.base[string(key)]
	}
	s.disk.mark(c)
	return nil
}

// write puts an entry to the disk unseen.
func (d *paging[V]) write(key, value []byte) error {
	b, err := d.local.blindBatch()
	switch {
	case err != nil:
		return err
	case value == nil:
		return b.Delete(d.diskKey(key), nil)
	default:
		return b.Set(d.diskKey(key), value, nil)
	}
}

// collect encodes up to limit of the cells to be written into b; what is left is told. Nothing may be dirty.
func (s *Store[V]) collect(b *pebble.Batch, limit int) (left int, err error) {
	d := s.disk
	n := min(limit, len(d.todo))
	for _, c := range d.todo[:n] {
		c.disk = flying
		d.gone = append(d.gone, c)
		if c.live {
			s.buf = s.codec.Append(s.buf[:0], c.now)
			err = errors.Join(err, b.Set(d.diskKey(unsafeBytes(c.key)), s.buf, nil))
		} else {
			err = errors.Join(err, b.Delete(d.diskKey(unsafeBytes(c.key)), nil))
		}
	}
	rest := copy(d.todo, d.todo[n:])
	clear(d.todo[rest:])
	d.todo = d.todo[:rest]
	if cap(d.todo) > 1<<16 && rest == 0 {
		d.todo = nil // a burst, or a restore
	}
	return rest, err
}

// flushed: what was collected is on disk.
func (s *Store[V]) flushed() {
	d := s.disk
	for i, c := range d.gone {
		d.gone[i] = nil
		if c.disk == flyingOutdated {
			c.disk = unflushed
			continue
		}
		c.disk = onDisk
		if !c.live && c.epoch != s.epoch {
			s.forget(c)
		}
	}
	if d.gone = d.gone[:0]; cap(d.gone) > 1<<16 {
		d.gone = nil
	}
}

// evict drops cells that the disk has until about `want` bytes are given back. A visit of the clock's hand ends after a while.
func (s *Store[V]) evict(want int64) {
	d := s.disk
	if len(d.slabs) == 0 {
		return
	}
	look := 20_000 + len(d.slabs)*pageCells/4
	for until := s.bytes - want; s.bytes > until && look > 0; look-- {
		if d.hand >= d.size() {
			d.hand = 0
		}
		c := d.at(d.hand)
		d.hand++
		switch {
		case !c.live || c.disk != onDisk || c.epoch == s.epoch:
		case c.used:
			c.used = false
		default:
			s.forget(c)
			d.away++
		}
	}
}

// rangePaged visits the disk for keys without a cell, then the cells. What a visit fetches has a cell afterwards, and is still the
// disk's to show.
func (s *Store[V]) rangePaged(f func(key string, v V) bool) {
	d := s.disk
	if d.ranging++; d.fetched == nil {
		d.fetched = map[string]struct{}{}
	}
	defer func() {
		if d.ranging--; d.ranging == 0 {
			d.fetched = nil
		}
	}()
	goOn, err := s.rangeDisk(f)
	if err != nil {
		panic(localError{fmt.Errorf("reading store %s: %w", s.s.Name, err)})
	}
	if !goOn {
		return
	}
	for k, c := range s.base {
		if _, shown := d.fetched[k]; c.live && !shown && !f(k, c.now) {
			return
		}
	}
}

func (s *Store[V]) rangeDisk(f func(key string, v V) bool) (goOn bool, err error) {
	d := s.disk
	it, err := d.local.iter(d.prefix)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		key := it.Key()[len(d.prefix):]
		var v V
		if c := s.base[string(key)]; c != nil {
			if _, ours := d.fetched[c.key]; !ours || !c.live {
				continue
			}
			v = c.now
		} else if v, err = s.codec.Decode(it.Value()); err != nil {
			return false, err
		}
		if !f(string(key), v) {
			return false, nil
		}
	}
	return true, nil
}

// adopt takes over what a snapshot holds of the store: all of it into memory, or none of it yet.
func (s *Store[V]) adopt(keys int, intoMemory bool) (err error) {
	d := s.disk
	if !intoMemory {
		s.live, d.away = keys, keys
		return nil
	}
	it, err := d.local.iter(d.prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		if err := s.loadCell(nil, it.Key()[len(d.prefix):], it.Value()); err != nil {
			return err
		}
	}
	return nil
}

// goBlind gives up what is in memory of a restore for room: from here entries go to the disk unseen.
func (s *Store[V]) goBlind() error {
	d := s.disk
	b, err := d.local.blindBatch()
	if err != nil {
		return err
	}
	if _, err := s.collect(b, len(d.todo)); err != nil {
		return err
	}
	d.blind, d.gone, d.todo, d.cells = true, nil, nil, cells[V]{}
	s.base, s.live, s.bytes, d.away = map[string]*cell[V]{}, 0, 0, 0
	return nil
}

// endBlind counts what a blind restore has written.
func (s *Store[V]) endBlind() (err error) {
	d := s.disk
	if !d.blind {
		return nil
	}
	it, err := d.local.iter(d.prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n, bytes := 0, int64(0)
	for it.First(); it.Valid(); it.Next() {
		n++
		bytes += s.cost + int64(len(it.Key())-len(d.prefix)) + int64(len(it.Value()))
	}
	s.live, d.away, d.blind, d.each = n, n, false, bytes/int64(max(n, 1))
	return nil
}

// whole is what all keys would take in memory.
func (s *Store[V]) whole() int64 {
	if n := len(s.base); n > 0 {
		s.disk.each = s.bytes / int64(n)
	}
	return s.bytes + int64(s.disk.away)*max(s.disk.each, s.cost)
}

func (s *Store[V]) onDiskAlone() int { return s.disk.away }

func (s *Store[V]) pinned() bool { return s.s.ID < FirstStoreID }
