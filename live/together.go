package live

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"millrace/event"
)

// Lately is what the stream has learnt, as bytes of its own codecs (package features/recommend): a value for each partition that knows of something.
type Lately struct {
	Views   map[string][][]byte // what was looked at in the same sessions, by item
	Orders  map[string][][]byte // what was bought in the same orders, by item
	Popular [][]byte
}

// ReadLately reads what goes with items and what is popular of a kind (all, category, country), in one round trip.
func ReadLately(ctx context.Context, rdb redis.UniversalClient, tenant string, items []string, kind, name string) (Lately, error) {
	keys := make([]string, 0, len(items)+1)
	for _, i := range items {
		keys = append(keys, event.TogetherLiveKey(tenant, i))
	}
	all, err := ManyFields(ctx, rdb, append(keys, event.PopularLiveKey(tenant, kind, name)))
	if err != nil {
		return Lately{}, fmt.Errorf("reading what goes together lately: %w", err)
	}
	out := Lately{Views: map[string][][]byte{}, Orders: map[string][][]byte{}}
	for i, item := range items {
		for _, f := range slices.Sorted(maps.Keys(all[i])) {
			switch {
			case strings.HasPrefix(f, event.TogetherViews):
				out.Views[item] = append(out.Views[item], []byte(all[i][f]))
			case strings.HasPrefix(f, event.TogetherOrders):
				out.Orders[item] = append(out.Orders[item], []byte(all[i][f]))
			}
		}
	}
	last := all[len(items)]
	for _, f := range slices.Sorted(maps.Keys(last)) {
		out.Popular = append(out.Popular, []byte(last[f]))
	}
	return out, nil
}

// RecentItems reads what a visitor has looked at in the session at hand, as bytes of event.DecodeRecent; none if there is no session.
func RecentItems(ctx context.Context, rdb redis.UniversalClient, tenant, visitor string) ([]event.RecentItem, error) {
	fields, err := Fields(ctx, rdb, event.RecentLiveKey(tenant, visitor))
	if err != nil {
		return nil, fmt.Errorf("reading the session of a visitor: %w", err)
	}
	text, ok := fields[event.RecentLiveItems]
	if !ok {
		return nil, nil
	}
	return event.DecodeRecent([]byte(text))
}
