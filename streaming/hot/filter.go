package hot

// filter is a blocked Bloom filter (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007): all bits of an id are in one block of a cache
// line, so that a test costs one memory access. The bits come from the id itself. It is used because with an unblocked filter the seven accesses of each test
// were the greatest cost of an event whose copy is looked for in 24 hours.
type filter struct {
	blocks   [][8]uint64
	capacity int
	n        int
}

const (
	bitsPerID  = 16 // false positives: 0.2 % when full
	bitsPerRun = 10 // of the filters of closed buckets, which are asked after the front only: 1.5 %
)

func newFilter(capacity, bitsEach int) filter {
	return filter{blocks: make([][8]uint64, max(1, (capacity*bitsEach+511)/512)), capacity: capacity}
}

func (f *filter) block(x id) *[8]uint64 {
	return &f.blocks[(x.lo>>32)*uint64(len(f.blocks))>>32]
}

func (f *filter) add(x id) {
	b := f.block(x)
	for h, i := x.hi, 0; i < 7; i++ {
		b[h>>6&7] |= 1 << (h & 63)
		h >>= 9
	}
	f.n++
}

func (f *filter) has(x id) bool {
	b := f.block(x)
	for h, i := x.hi, 0; i < 7; i++ {
		if b[h>>6&7]&(1<<(h&63)) == 0 {
			return false
		}
		h >>= 9
	}
	return true
}

// front says of an id that it is in no closed bucket, by looking at a few filters in place of one for each of 144 buckets. Its filters follow one another as they
// fill up. While the window fills for the first time each new one doubles the room; afterwards each has room for half of all ids that are alive, so that two to four of
// them cover the window at a steady rate. Bits of an aborted transaction stay; they only make false positives.
type front struct {
	generations []generation // oldest first
	ids         int
	full        bool // something has left the window
}

type generation struct {
	filter
	newest int64 // bucket
}

const minGeneration = 1 << 16 // 128 KiB

func (f *front) add(x id, bucket int64) {
	n := len(f.generations)
	if n == 0 || f.generations[n-1].n >= f.generations[n-1].capacity {
		room := f.ids
		if f.full {
			room /= 2
		}
		f.generations = append(f.generations, generation{filter: newFilter(max(minGeneration, room), bitsPerID)})
		n++
	}
	g := &f.generations[n-1]
	g.add(x)
	g.newest = bucket
	f.ids++
}

func (f *front) has(x id) bool {
	for i := range f.generations {
		if f.generations[i].has(x) {
			return true
		}
	}
	return false
}

// expire forgets the generations that have nothing of a bucket or a later one.
func (f *front) expire(oldest int64) {
	for len(f.generations) > 0 && f.generations[0].newest < oldest {
		f.ids -= f.generations[0].n
		f.generations[0] = generation{}
		f.generations, f.full = f.generations[1:], true
	}
}

func (f *front) bytes() int {
	n := 0
	for i := range f.generations {
		n += 64 * len(f.generations[i].blocks)
	}
	return n
}
