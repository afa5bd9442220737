package streaming

import (
	"strconv"
	"time"

	"github.com/zeebo/xxh3"
)

// A partition is one goroutine's work, so a key that is a large part of it cannot be spread. hotKeys notices: it looks at a sample of
// the records and counts their keys in a space-saving sketch, for some seconds at a time.
type hotKeys struct {
	skip    int // records until the next sample
	random  uint64
	seen    int
	top     [hotCounters]hotKey
	since   time.Time
	current HotKey
	said    uint64 // the hot key that was told of last
}

// hotKey is a counter of the sketch: at most over of count were other keys, which had the counter before.
type hotKey struct {
	hash        uint64
	count, over int
}

// HotKey is the key that most records of a task had of late.
type HotKey struct {
	Share float64 // of the records, at least
	Hash  string  // xxh3 of the key: keys may be personal
}

const (
	hotCounters = 32
	hotEvery    = 32 // records a sample, on average
	hotWindow   = 10 * time.Second
	hotSamples  = 200 // a share of fewer means nothing
	// HotKeyShare is from where a key is called hot. A sample shows a few per cent more or less than there is, and the sketch tells only what it is sure of: a key of 30 % is to
	// be found all the same.
	HotKeyShare = 0.25
)

// note sees one record in hotEvery.
func (h *hotKeys) note(key []byte) {
	if h.skip--; h.skip >= 0 {
		return
	}
	// A distance that varies, since input may have a rhythm.
	h.random = h.random*6364136223846793005 + 1442695040888963407
	h.skip = int(h.random>>33) % (2*hotEvery - 1)
	h.add(xxh3.Hash(key))
}

func (h *hotKeys) add(hash uint64) {
	h.seen++
	least := 0
	for i := range h.top {
		c := &h.top[i]
		if c.hash == hash && c.count > 0 {
			c.count++
			return
		}
		if c.count < h.top[least].count {
			least = i
		}
	}
	c := &h.top[least]
	*c = hotKey{hash: hash, count: c.count + 1, over: c.count}
}

// read gives the hottest key of the last whole window, and whether it has just become hot.
func (h *hotKeys) read(now time.Time) (k HotKey, news bool) {
	if h.since.IsZero() {
		h.since = now
	}
	if age := now.Sub(h.since); age >= hotWindow && h.seen >= hotSamples || age >= 6*hotWindow {
		best := hotKey{}
		if h.seen >= hotSamples {
			for _, c := range h.top {
				if c.count-c.over > best.count-best.over {
					best = c
				}
			}
		}
		h.current = HotKey{Share: float64(best.count-best.over) / float64(max(h.seen, 1)), Hash: strconv.FormatUint(best.hash, 16)}
		switch {
		case h.current.Share < HotKeyShare:
			h.said = 0
		case h.said != best.hash:
			h.said, news = best.hash, true
		}
		h.seen, h.top, h.since = 0, [hotCounters]hotKey{}, now
	}
	return h.current, news
}
