package hot

import (
	"encoding/binary"
	"errors"
	"strings"

	"millrace/event"
	"millrace/features/recommend"
)

// recentItems are the items that a visitor looked at in the session at hand, the last first.
type recentItems struct {
	items []event.RecentItem
	timer int64 // µs, of the timer that is set
}

func (r recentItems) newest() int64 {
	newest := int64(0)
	for _, x := range r.items {
		newest = max(newest, x.At)
	}
	return newest
}

// with puts an item first.
func (r recentItems) with(item string, weight float64, at int64, most int) recentItems {
	out := make([]event.RecentItem, 1, min(len(r.items)+1, most))
	out[0] = event.RecentItem{Item: strings.Clone(item), Weight: int64(weight), At: at} // the text belongs to the record
	for _, x := range r.items {
		switch {
		case x.Item == item:
			out[0].Weight = max(out[0].Weight, x.Weight)
		case len(out) < most:
			out = append(out, x)
		}
	}
	return recentItems{out, r.timer}
}

// recentCodec writes the timer and then what Redis holds, too.
type recentCodec struct{}

// Append implements streaming.Codec.
func (recentCodec) Append(dst []byte, r recentItems) []byte {
	return event.AppendRecent(binary.AppendVarint(dst, r.timer), r.items)
}

// Decode implements streaming.Codec.
func (recentCodec) Decode(src []byte) (recentItems, error) {
	timer, n := binary.Varint(src)
	if n <= 0 {
		return recentItems{}, errRecent
	}
	items, err := event.DecodeRecent(src[n:])
	return recentItems{items, timer}, err
}

var errRecent = errors.New("not the items of a visitor")

// itemLists and ranking belong to the transaction of their epoch.
type itemLists struct {
	recommend.Together
	epoch uint64
}

type ranking struct {
	recommend.Ranked
	epoch uint64
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
