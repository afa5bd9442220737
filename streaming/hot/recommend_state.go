package hot

import (
	"encoding/binary"
	"errors"
	"strings"

	"millrace/event"
	"millrace/features/recommend"
)

// recentItems are the items that a visitor looked at in the session at hand, the last first. Like the other values they belong to the transaction of their epoch, which
// changes them in place.
type recentItems struct {
	items []event.RecentItem
	timer int64  // µs, of the timer that is set
	key   string // of the store, "" if restored
	epoch uint64
	told  uint64 // epoch in which it was last served
	room  [recentRoom]event.RecentItem
}

// recentRoom is how many items are held with the rest.
const recentRoom = 3

func (r *recentItems) newest() int64 {
	newest := int64(0)
	for i := range r.items {
		newest = max(newest, r.items[i].At)
	}
	return newest
}

// look puts an item first, of which most are kept.
func (r *recentItems) look(item string, weight float64, at int64, most int) {
	first := event.RecentItem{Item: item, Weight: int64(weight), At: at}
	i := 0
	for i < len(r.items) && r.items[i].Item != item {
		i++
	}
	switch {
	case i < len(r.items):
		first.Weight = max(first.Weight, r.items[i].Weight)
	case len(r.items) < most:
		r.items = append(r.items, event.RecentItem{})
	default:
		i = len(r.items) - 1
	}
	copy(r.items[1:i+1], r.items[:i])
	r.items[0] = first
}

// recentCodec writes the timer and then what Redis holds, too.
type recentCodec struct{}

// Append implements streaming.Codec.
func (recentCodec) Append(dst []byte, r *recentItems) []byte {
	return event.AppendRecent(binary.AppendVarint(dst, r.timer), r.items)
}

// Decode implements streaming.Codec.
func (recentCodec) Decode(src []byte) (*recentItems, error) {
	timer, n := binary.Varint(src)
	if n <= 0 {
		return nil, errRecent
	}
	items, err := event.DecodeRecent(src[n:])
	return &recentItems{items: items, timer: timer}, err
}

var errRecent = errors.New("not the items of a visitor")

// itemLists and ranking belong to the transaction of their epoch.
type itemLists struct {
	recommend.Together
	epoch uint64
	round uint64 // in which it was noted as changed
}

type ranking struct {
	recommend.Ranked
	epoch uint64
	round uint64
}

type togetherCodec struct{}

// Append implements streaming.Codec.
func (togetherCodec) Append(dst []byte, v *itemLists) []byte { return v.Append(dst) }

// Decode implements streaming.Codec.
func (togetherCodec) Decode(src []byte) (*itemLists, error) {
	v, err := recommend.DecodeTogether(src)
	return &itemLists{Together: v}, err
}

type rankedCodec struct{}

// Append implements streaming.Codec.
func (rankedCodec) Append(dst []byte, v *ranking) []byte { return v.Append(dst) }

// Decode implements streaming.Codec.
func (rankedCodec) Decode(src []byte) (*ranking, error) {
	v, rest, err := recommend.DecodeRanked(src)
	if err == nil && len(rest) > 0 {
		err = errProduct
	}
	return &ranking{Ranked: v}, err
}

func cutSep(key string) (before, after string) {
	before, after, _ = strings.Cut(key, string(rune(event.Sep)))
	return before, after
}

// splitScope takes a key of three parts apart.
func splitScope(key string) (tenant, kind, name string) {
	tenant, rest := cutSep(key)
	kind, name = cutSep(rest)
	return tenant, kind, name
}
