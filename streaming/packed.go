package streaming

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// packed is a table of keys and values as bytes, in which the garbage collector finds nothing to mark: entries lie one behind another in pages, and the index says where,
// as numbers. Keys are hostile input, so their hash has a seed of its own; the index keeps a part of it and asks the page for the key, so that equal hashes cost time and
// nothing else.
//
// An entry that goes leaves a gap. A page of nothing but gaps is used again at once, one that is mostly gaps when tidy comes by.
type packed struct {
	seed   maphash.Seed
	mask   uint64 // of the hash; tests make it narrow
	shards []packedShard
	n      int // entries
	slots  int // of all shards

	pages []packedPage // the first stays empty, so that no entry lies at 0
	open  uint64       // page that is appended to; 0: none
	free  []uint64     // pages without bytes
	spare [][]byte     // bytes without a page
	held  int          // bytes of pages and spare
	used  int          // of them with entries or gaps
	gaps  int          // of them gaps
	hand  int          // page that tidy looks at next
}

// packedShard is a part of the index: open addressing with linear probing. A slot is tag ‖ page ‖ offset, 0 if it is empty; tags stand in their order, so that neither
// growing nor shrinking has to look at a key.
type packedShard struct {
	slots []uint64
	n     int
}

// packedPage has entries of uvarint length ‖ key ‖ uvarint length ‖ value.
type packedPage struct {
	b    []byte
	live int // bytes of entries that are none but here
}

const (
	packedBytes    = 64 << 10 // of a page; an entry that is longer has one of its own
	packedShards   = 64       // so that none is moved for longer than a step may take
	offsetBits     = 16
	placeBits      = 36 // page and offset: 64 GiB
	tagBits        = 64 - placeBits
	packedSpare    = 2    // pages
	tidyLook       = 4096 // pages
	packedMinSlots = 8
)

func (p *packed) hash(key []byte) uint64 { return maphash.Bytes(p.seed, key) & p.mask }

func (p *packed) shard(h uint64) (s *packedShard, tag uint64) {
	return &p.shards[h>>58], h << 6 >> placeBits
}

func (s *packedShard) home(tag uint64) int {
	return int(tag >> (tagBits + 1 - bits.Len(uint(len(s.slots)))))
}

// entry reads what lies at a place.
func (p *packed) entry(place uint64) (key, value []byte) {
	key, value, _ = cutEntry(p.pages[place>>offsetBits].b[place&(1<<offsetBits-1):])
	return key, value
}

// cutEntry reads the entry that b begins with, and how long it is.
func cutEntry(b []byte) (key, value []byte, size int) {
	n, k := binary.Uvarint(b)
	at := k + int(n)
	key = b[k:at:at]
	n, k = binary.Uvarint(b[at:])
	at += k
	return key, b[at : at+int(n) : at+int(n)], at + int(n)
}

// find gives the slot of a key, -1 if there is none.
func (p *packed) find(h uint64, key []byte) (s *packedShard, at int) {
	s, tag := p.shard(h)
	if s.n == 0 {
		return s, -1
	}
	for i := s.home(tag); s.slots[i] != 0; i = (i + 1) & (len(s.slots) - 1) {
		if x := s.slots[i]; x>>placeBits == tag {
			if k, _ := p.entry(x & (1<<placeBits - 1)); string(k) == string(key) {
				return s, i
			}
		}
	}
	return s, -1
}

// at gives the slot of the entry at a place, -1 if that is a gap.
func (p *packed) at(place uint64, key []byte) (s *packedShard, at int) {
	s, tag := p.shard(p.hash(key))
	if s.n == 0 {
		return s, -1
	}
	for i, want := s.home(tag), tag<<placeBits|place; s.slots[i] != 0; i = (i + 1) & (len(s.slots) - 1) {
		if s.slots[i] == want {
			return s, i
		}
	}
	return s, -1
}

// get gives the value of a key, which is good until the table changes, and its place.
func (p *packed) get(key []byte) (value []byte, place uint64, ok bool) {
	if p.n == 0 {
		return nil, 0, false
	}
	s, i := p.find(p.hash(key), key)
	if i < 0 {
		return nil, 0, false
	}
	place = s.slots[i] & (1<<placeBits - 1)
	_, value = p.entry(place)
	return value, place, true
}

func (p *packed) has(key []byte) bool {
	if p.n == 0 {
		return false
	}
	_, i := p.find(p.hash(key), key)
	return i >= 0
}

// put sets the value of a key. It says whether the key is new, and whether there was room: not in a table of more pages than can be told apart.
func (p *packed) put(key, value []byte) (added, ok bool) {
	if p.shards == nil {
		if p.mask == 0 {
			p.mask = 1<<64 - 1
		}
		p.seed, p.shards, p.pages = maphash.MakeSeed(), make([]packedShard, packedShards), make([]packedPage, 1)
	}
	h := p.hash(key)
	s, i := p.find(h, key)
	size := uvarintLen(len(key)) + len(key) + uvarintLen(len(value)) + len(value)
	no := p.room(size)
	if no == 0 {
		return false, false
	}
	page := &p.pages[no]
	place := no<<offsetBits | uint64(len(page.b))
	page.b = append(binary.AppendUvarint(page.b, uint64(len(key))), key...)
	page.b = append(binary.AppendUvarint(page.b, uint64(len(value))), value...)
	page.live += size
	p.used += size
	if i >= 0 {
		old := s.slots[i] & (1<<placeBits - 1)
		s.slots[i] = s.slots[i]&^(1<<placeBits-1) | place
		p.gap(old)
		return false, true
	}
	if (s.n+1)*4 > len(s.slots)*3 {
		p.resize(s, max(packedMinSlots, 2*len(s.slots)))
	}
	_, tag := p.shard(h)
	s.insert(tag<<placeBits | place)
	s.n++
	p.n++
	return true, true
}

func uvarintLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

func (s *packedShard) insert(x uint64) {
	i := s.home(x >> placeBits)
	for s.slots[i] != 0 {
		i = (i + 1) & (len(s.slots) - 1)
	}
	s.slots[i] = x
}

func (p *packed) resize(s *packedShard, n int) {
	old := s.slots
	p.slots += n - len(old)
	s.slots = make([]uint64, n)
	for _, x := range old {
		if x != 0 {
			s.insert(x)
		}
	}
}

// remove takes a key away. It says whether there was one.
func (p *packed) remove(key []byte) bool {
	if p.n == 0 {
		return false
	}
	s, i := p.find(p.hash(key), key)
	if i < 0 {
		return false
	}
	p.gap(s.slots[i] & (1<<placeBits - 1))
	for last, j := len(s.slots)-1, i; ; { // what lies behind moves up, as far as it may
		j = (j + 1) & last
		if s.slots[j] == 0 {
			break
		}
		if home := s.home(s.slots[j] >> placeBits); (j-home)&last >= (j-i)&last {
			s.slots[i], i = s.slots[j], j
		}
	}
	s.slots[i] = 0
	s.n--
	p.n--
	if len(s.slots) > packedMinSlots && s.n*8 < len(s.slots) {
		p.resize(s, len(s.slots)/2)
	}
	return true
}

// gap makes one of the entry at a place.
func (p *packed) gap(place uint64) {
	no := place >> offsetBits
	page := &p.pages[no]
	_, _, size := cutEntry(page.b[place&(1<<offsetBits-1):])
	page.live -= size
	p.gaps += size
	if page.live == 0 {
		p.release(no)
	}
}

func (p *packed) release(no uint64) {
	page := &p.pages[no]
	p.used -= len(page.b)
	p.gaps -= len(page.b)
	if no == p.open {
		page.b = page.b[:0]
		return
	}
	if cap(page.b) == packedBytes && len(p.spare) < packedSpare {
		p.spare = append(p.spare, page.b[:0])
	} else {
		p.held -= cap(page.b)
	}
	page.b = nil
	p.free = append(p.free, no)
}

// room gives a page with room for n bytes, 0 if there is none to be had.
func (p *packed) room(n int) uint64 {
	if p.open != 0 && len(p.pages[p.open].b)+n <= packedBytes {
		return p.open
	}
	no := uint64(len(p.pages))
	switch last := len(p.free) - 1; {
	case last >= 0:
		no, p.free = p.free[last], p.free[:last]
	case no >= 1<<(placeBits-offsetBits):
		return 0
	default:
		p.pages = append(p.pages, packedPage{})
	}
	page := &p.pages[no]
	if n > packedBytes {
		page.b = make([]byte, 0, n)
		p.held += cap(page.b)
		return no
	}
	if last := len(p.spare) - 1; last >= 0 {
		page.b, p.spare[last] = p.spare[last], nil
		p.spare = p.spare[:last]
	} else {
		page.b = make([]byte, 0, packedBytes)
		p.held += packedBytes
	}
	p.open = no
	return no
}

// tidy looks for a page that is mostly gaps, and moves its entries on. It says whether there was one.
func (p *packed) tidy() bool {
	if p.gaps < (p.used-p.gaps)/4+packedBytes {
		return false
	}
	for range min(tidyLook, len(p.pages)) {
		if p.hand++; p.hand >= len(p.pages) {
			p.hand = 0
		}
		page := p.pages[p.hand]
		if no := uint64(p.hand); no == p.open || page.b == nil || page.live*2 > len(page.b) {
			continue
		}
		return p.empty(uint64(p.hand))
	}
	return false
}

func (p *packed) empty(no uint64) bool {
	b := p.pages[no].b
	for off := 0; off < len(b); {
		key, _, size := cutEntry(b[off:])
		if s, i := p.at(no<<offsetBits|uint64(off), key); i >= 0 {
			to := p.room(size)
			if to == 0 {
				return false
			}
			page := &p.pages[to]
			s.slots[i] = s.slots[i]&^(1<<placeBits-1) | to<<offsetBits | uint64(len(page.b))
			page.b = append(page.b, b[off:off+size]...)
			page.live += size
			p.used += size
			p.gap(no<<offsetBits | uint64(off))
		}
		off += size
	}
	return true
}

// each calls f for every entry until it gives false. f may remove entries, and must not put any.
func (p *packed) each(f func(place uint64, key, value []byte) bool) bool {
	for no := 1; no < len(p.pages); no++ {
		b := p.pages[no].b
		for off := 0; off < len(b); {
			key, value, size := cutEntry(b[off:])
			place := uint64(no)<<offsetBits | uint64(off)
			if _, i := p.at(place, key); i >= 0 && !f(place, key, value) {
				return false
			}
			off += size
		}
	}
	return true
}

// bytes is what the table takes.
func (p *packed) bytes() int64 { return int64(p.held + 8*p.slots + 32*len(p.pages)) }
