package live

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/zeebo/xxh3"
)

// A model of recommendations lives under keys of one hash tag:
//
//	rec:{tenant|model}                       hash: "current" → version served; "v:<version>" → ModelVersion of each version kept
//	rec:{tenant|model}:<version>:<bucket>    hash: item → its neighbours, "item TAB score LF" …, best first
//	rec:{tenant|model}:<version>:popular     string: the most popular items in the same form
//
// A version's keys are written first, with a time to live, so that what nobody publishes goes by itself. Publishing makes them stay and then swaps the field "current"
// by one script: a reader sees the version before or the new one, whole. Rolling back is the same swap.

// RecommendationModel names a model.
type RecommendationModel struct{ Tenant, Model string }

func (m RecommendationModel) key() string { return "rec:{" + m.Tenant + "|" + m.Model + "}" }

// ModelVersion is one trained version of a model. Versions are ordered by InputAt, then by name.
type ModelVersion struct {
	Version   string             `json:"version"`
	InputAt   time.Time          `json:"input_at"` // of the newest event it was trained on
	TrainedAt time.Time          `json:"trained_at"`
	Items     int                `json:"items"`   // that have neighbours
	Buckets   int                `json:"buckets"` // keys that they are in
	Metrics   map[string]float64 `json:"metrics,omitempty"`
}

// Scored is an item and how much it is recommended.
type Scored struct {
	Item  string  `json:"item"`
	Score float64 `json:"score"`
}

const (
	uploadTTL  = 24 * time.Hour // of a version that is written and not published
	retiredTTL = time.Hour      // of one that is no longer kept: readers may be at it
	perBucket  = 64             // items of a key, about
	maxBuckets = 4096
	writeBatch = 256 // items of one round trip
)

// Why a model is not published or rolled back.
var (
	ErrNoModel         = errors.New("no version of the model is published")
	ErrNoVersion       = errors.New("the model has no such version")
	ErrModelIncomplete = errors.New("keys of the version are missing: it was not written to its end, or Redis has lost some")
	ErrSuperseded      = errors.New("a version trained on newer events is served")
	ErrWithdrawn       = errors.New("somebody has rolled back from this version")
)

// Buckets is how many keys so many items are in.
func Buckets(items int) int { return min(max(1, (items+perBucket-1)/perBucket), maxBuckets) }

func (m RecommendationModel) bucket(v ModelVersion, item string) string {
	return m.key() + ":" + v.Version + ":" + strconv.FormatUint(xxh3.HashString(item)%uint64(max(1, v.Buckets)), 10)
}

func (m RecommendationModel) popular(version string) string {
	return m.key() + ":" + version + ":popular"
}

func encodeScored(list []Scored) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteString(s.Item)
		b.WriteByte('\t')
		b.WriteString(strconv.FormatFloat(s.Score, 'g', 6, 64))
		b.WriteByte('\n')
	}
	return b.String()
}

func decodeScored(text string) ([]Scored, error) {
	var out []Scored
	for line := range strings.Lines(text) {
		item, score, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		v, err := strconv.ParseFloat(score, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("recommendations hold %q, which is no item and score", line)
		}
		out = append(out, Scored{item, v})
	}
	return out, nil
}

// StoreModel writes a version without publishing it. each calls put with every item and its neighbours. It may be repeated after any error: the same version has the
// same content. Items that hold control characters are refused.
func StoreModel(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel, v ModelVersion, popular []Scored, each func(put func(item string, neighbours []Scored) error) error) error {
	pipe := rdb.Pipeline()
	waiting, seen := 0, map[string]bool{}
	flush := func() error {
		if waiting == 0 {
			return nil
		}
		waiting = 0
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("writing version %s of model %s: %w", v.Version, m.Model, err)
		}
		return nil
	}
	put := func(item string, ns []Scored) error {
		for _, s := range append([]Scored{{Item: item}}, ns...) {
			if strings.ContainsAny(s.Item, "\t\n") {
				return fmt.Errorf("item %q cannot be recommended: it holds a control character", s.Item)
			}
		}
		key := m.bucket(v, item)
		pipe.HSet(ctx, key, item, encodeScored(ns))
		if !seen[key] {
			seen[key] = true
			pipe.Expire(ctx, key, uploadTTL)
		}
		if waiting++; waiting >= writeBatch {
			return flush()
		}
		return nil
	}
	if err := each(put); err != nil {
		return err
	}
	pipe.Set(ctx, m.popular(v.Version), encodeScored(popular), uploadTTL)
	waiting++
	return flush()
}

// swap makes ARGV[1] (version) the current one. For a rollback ARGV[2] is empty: the version must be there, and the one it takes the place of is marked, so that a
// training that is repeated does not bring it back. Else ARGV[2] is the ModelVersion, ARGV[3] its order, below which a current version is not replaced, and ARGV[4] is
// '1' to publish whatever was rolled back. It answers the version that was current, or an error's word.
var swap = redis.NewScript(`
local have = redis.call('HGET', KEYS[1], 'current')
if ARGV[2] == '' then
  if redis.call('HEXISTS', KEYS[1], 'v:' .. ARGV[1]) == 0 then return 'missing' end
  if have and have ~= ARGV[1] then redis.call('HSET', KEYS[1], 'r:' .. have, '1') end
else
  if ARGV[4] ~= '1' and redis.call('HEXISTS', KEYS[1], 'r:' .. ARGV[1]) == 1 then return 'withdrawn' end
  if have and have ~= ARGV[1] then
    local order = redis.call('HGET', KEYS[1], 'o:' .. have)
    if order and string.sub(order, 1, 20) > string.sub(ARGV[3], 1, 20) then return 'superseded' end
  end
  redis.call('HSET', KEYS[1], 'v:' .. ARGV[1], ARGV[2], 'o:' .. ARGV[1], ARGV[3])
end
redis.call('HDEL', KEYS[1], 'r:' .. ARGV[1])
redis.call('HSET', KEYS[1], 'current', ARGV[1])
return '=' .. (have or '')`)

// order sorts versions: 20 digits of the time of the newest events, then the version. Publishing compares the time alone: of two versions that were trained on the same
// events, the one that is published last is served.
func (v ModelVersion) order() string {
	return fmt.Sprintf("%020d %s", max(0, v.InputAt.UnixMicro()), v.Version)
}

// PublishModel makes a stored version the one that is served, and keeps the newest `keep` others for RollbackModel. Publishing the version that is served again changes
// nothing. ErrModelIncomplete if not all of it is there, ErrSuperseded if a version trained on newer events is served, ErrWithdrawn if somebody has rolled back from this
// version and it is not forced; none of them changes what is served.
func PublishModel(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel, v ModelVersion, keep int, force bool) error {
	if err := m.settle(ctx, rdb, v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("publishing version %s of model %s: %w", v.Version, m.Model, err)
	}
	was, err := swap.Run(ctx, rdb, []string{m.key()}, v.Version, text, v.order(), map[bool]string{true: "1"}[force]).Text()
	if err != nil {
		return fmt.Errorf("publishing version %s of model %s: %w", v.Version, m.Model, err)
	}
	switch was {
	case "superseded":
		return fmt.Errorf("version %s of model %s: %w", v.Version, m.Model, ErrSuperseded)
	case "withdrawn":
		return fmt.Errorf("version %s of model %s: %w", v.Version, m.Model, ErrWithdrawn)
	}
	return m.retire(ctx, rdb, keep)
}

// settle makes the keys of a version stay, once it is certain that all are there.
func (m RecommendationModel) settle(ctx context.Context, rdb redis.UniversalClient, v ModelVersion) error {
	read := rdb.Pipeline()
	lens := make([]*redis.IntCmd, v.Buckets)
	for i := range lens {
		lens[i] = read.HLen(ctx, m.key()+":"+v.Version+":"+strconv.Itoa(i))
	}
	popular := read.Exists(ctx, m.popular(v.Version))
	if _, err := read.Exec(ctx); err != nil {
		return fmt.Errorf("looking at version %s of model %s: %w", v.Version, m.Model, err)
	}
	items := int64(0)
	for _, n := range lens {
		items += n.Val()
	}
	if items != int64(v.Items) || popular.Val() != 1 {
		return fmt.Errorf("version %s of model %s has %d of %d items: %w", v.Version, m.Model, items, v.Items, ErrModelIncomplete)
	}
	pipe := rdb.Pipeline()
	for i := range lens {
		pipe.Persist(ctx, m.key()+":"+v.Version+":"+strconv.Itoa(i))
	}
	pipe.Persist(ctx, m.popular(v.Version))
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("keeping version %s of model %s: %w", v.Version, m.Model, err)
	}
	return nil
}

// forget takes a version that is not current out of the list.
var forget = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'current') == ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'o:' .. ARGV[1], 'r:' .. ARGV[1])
return redis.call('HDEL', KEYS[1], 'v:' .. ARGV[1])`)

// retire gives the keys of versions that are no longer kept a time to live.
func (m RecommendationModel) retire(ctx context.Context, rdb redis.UniversalClient, keep int) error {
	current, versions, err := ModelVersions(ctx, rdb, m)
	if err != nil {
		return err
	}
	kept := 0
	for _, v := range versions {
		if v.Version == current.Version {
			continue
		}
		if kept++; kept <= keep {
			continue
		}
		n, err := forget.Run(ctx, rdb, []string{m.key()}, v.Version).Int()
		if err != nil {
			return fmt.Errorf("retiring version %s of model %s: %w", v.Version, m.Model, err)
		}
		if n == 0 {
			continue // it is current by now
		}
		pipe := rdb.Pipeline()
		for i := range v.Buckets {
			pipe.Expire(ctx, m.key()+":"+v.Version+":"+strconv.Itoa(i), retiredTTL)
		}
		pipe.Expire(ctx, m.popular(v.Version), retiredTTL)
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("retiring version %s of model %s: %w", v.Version, m.Model, err)
		}
	}
	return nil
}

// ModelVersions lists the versions kept, the newest first, and the one that is served. ErrNoModel if there is none.
func ModelVersions(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel) (current ModelVersion, all []ModelVersion, err error) {
	fields, err := rdb.HGetAll(ctx, m.key()).Result()
	if err != nil {
		return current, nil, fmt.Errorf("reading the versions of model %s: %w", m.Model, err)
	}
	for f, text := range fields {
		name, ok := strings.CutPrefix(f, "v:")
		if !ok {
			continue
		}
		var v ModelVersion
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return current, nil, fmt.Errorf("version %s of model %s: %w", name, m.Model, err)
		}
		if v.Version == fields["current"] {
			current = v
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b ModelVersion) int { return cmp.Compare(b.order(), a.order()) })
	if current.Version == "" {
		return current, all, fmt.Errorf("model %s of tenant %s: %w", m.Model, m.Tenant, ErrNoModel)
	}
	return current, all, nil
}

// RollbackModel serves an older version that is kept: the one named, or with "" the newest one before the version served. It says from which to which.
func RollbackModel(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel, to string) (from, now ModelVersion, err error) {
	current, all, err := ModelVersions(ctx, rdb, m)
	if err != nil {
		return current, now, err
	}
	i := slices.IndexFunc(all, func(v ModelVersion) bool {
		if to != "" {
			return v.Version == to
		}
		return v.order() < current.order()
	})
	if i < 0 {
		return current, now, fmt.Errorf("model %s: version %q: %w", m.Model, to, ErrNoVersion)
	}
	if err := m.settle(ctx, rdb, all[i]); err != nil {
		return current, now, err
	}
	was, err := swap.Run(ctx, rdb, []string{m.key()}, all[i].Version, "", "", "").Text()
	if err != nil {
		return current, now, fmt.Errorf("rolling back model %s: %w", m.Model, err)
	}
	if was == "missing" {
		return current, now, fmt.Errorf("model %s: version %s: %w", m.Model, all[i].Version, ErrNoVersion)
	}
	return current, all[i], nil
}

// Recommended is an answer of a model.
type Recommended struct {
	Version ModelVersion
	Basis   string // items: from what was asked about; popular: nothing is known of that
	Items   []Scored
}

// Known is what a model knows: the neighbours of the items that were asked about, and what is popular.
type Known struct {
	Version    ModelVersion
	Neighbours map[string][]Scored
	Popular    []Scored
}

// Neighbours reads what a model knows of items, in two round trips. ErrNoModel if no version is published.
func Neighbours(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel, items []string) (Known, error) {
	current, _, err := ModelVersions(ctx, rdb, m)
	if err != nil {
		return Known{}, err
	}
	out := Known{Version: current, Neighbours: make(map[string][]Scored, len(items))}
	pipe := rdb.Pipeline()
	lists := make([]*redis.StringCmd, len(items))
	for i, item := range items {
		lists[i] = pipe.HGet(ctx, m.bucket(current, item), item)
	}
	popular := pipe.Get(ctx, m.popular(current.Version))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return out, fmt.Errorf("reading model %s: %w", m.Model, err)
	}
	for i, item := range items {
		if out.Neighbours[item], err = decodeScored(lists[i].Val()); err != nil {
			return out, err
		}
	}
	out.Popular, err = decodeScored(popular.Val())
	return out, err
}

// Recommend gives the best n items for what somebody did: items with their strengths. Those items themselves are left out. Where the model knows none of them, and
// where it has too few, the most popular items follow. It takes two round trips. ErrNoModel if no version is published.
func Recommend(ctx context.Context, rdb redis.UniversalClient, m RecommendationModel, have []Scored, n int) (Recommended, error) {
	items := make([]string, len(have))
	for i, h := range have {
		items[i] = h.Item
	}
	model, err := Neighbours(ctx, rdb, m, items)
	if err != nil {
		return Recommended{Version: model.Version}, err
	}
	out := Recommended{Version: model.Version, Basis: "popular"}
	sum, known := map[string]float64{}, map[string]bool{}
	for _, h := range have {
		known[h.Item] = true
	}
	for _, h := range have {
		for _, s := range model.Neighbours[h.Item] {
			if !known[s.Item] {
				sum[s.Item] += h.Score * s.Score
			}
		}
	}
	for item, score := range sum {
		out.Items = append(out.Items, Scored{item, score})
	}
	slices.SortFunc(out.Items, func(a, b Scored) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Item, b.Item)) })
	out.Items = out.Items[:min(n, len(out.Items))]
	if len(out.Items) > 0 {
		out.Basis = "items"
	}
	for _, s := range out.Items {
		known[s.Item] = true
	}
	for _, s := range model.Popular {
		if len(out.Items) >= n {
			break
		}
		if !known[s.Item] {
			out.Items = append(out.Items, Scored{Item: s.Item}) // a score of 0: by popularity alone
		}
	}
	return out, nil
}
