package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	"millrace/features/recommend"
	"millrace/internal/fault"
	"millrace/live"
)

const idModel fault.ID = "MR-TRN-001"

// recommendations is the answer of /api/v1/recommendations.
type recommendations struct {
	Tenant    string        `json:"tenant"`
	Model     string        `json:"model"`
	Version   string        `json:"version"` // "" before a model is published: the answer is the stream's alone
	InputAt   *stamp        `json:"input_at"`
	TrainedAt *stamp        `json:"trained_at"`
	Kind      string        `json:"kind"`
	Basis     string        `json:"basis"`   // items or popular
	Session   bool          `json:"session"` // what the visitor did is that of the session at hand
	Known     int           `json:"known"`   // items of the visitor that were looked at
	Items     []recommended `json:"items"`
}

// recommended is one item, with what the two sources say of it.
type recommended struct {
	Item  string   `json:"item"`
	Score float64  `json:"score"`
	Lift  *float64 `json:"lift,omitempty"` // lately, of the item that was asked about
}

const (
	maxItemID          = 128
	maxVisitorID       = 128
	visitorItems       = 50
	visitorLookBack    = 30 * 24 * time.Hour
	recommendationWait = 2 * time.Second // for Redis: a page waits for the answer
)

// Kinds of recommendations.
const (
	kindSimilar = "similar" // what is looked at by those who look at the item
	kindBought  = "bought"  // what is bought in the same orders
)

// serveRecommendations answers from Redis: what the night has learnt and what the stream has learnt since, added up. What a visitor did before the session at hand is
// asked of ClickHouse.
func (a *API) serveRecommendations(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	tenant, model, item, visitor, limit := q.tenant(a.cfg.Tenant), q.model(), q.text("item", "", maxItemID), q.text("visitor", "", maxVisitorID), q.integer("limit", 10, 1, 100)
	kind, category, country := q.one("kind", kindSimilar, kindSimilar, kindBought), q.text("category", "", 64), q.text("country", "", 2)
	if item != "" && visitor != "" {
		q.bad("visitor", "excludes item")
	}
	if category != "" && country != "" {
		q.bad("country", "excludes category")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	if a.redis == nil {
		return nil, newProblem(idUnavailable, "no Redis is configured")
	}
	ctx, cancel := context.WithTimeout(r.Context(), recommendationWait)
	defer cancel()
	out := &recommendations{Tenant: tenant, Model: model, Kind: kind, Basis: "popular", Items: []recommended{}}
	var have []recommend.Neighbour
	switch {
	case item != "":
		have = []recommend.Neighbour{{Item: item, Score: 1}}
	case visitor != "":
		if have, out.Session, err = a.visited(r.Context(), ctx, tenant, visitor); err != nil {
			return nil, err
		}
	}
	out.Known = len(have)
	items := make([]string, len(have))
	for i, h := range have {
		items[i] = h.Item
	}
	night, err := live.Neighbours(ctx, a.redis, live.RecommendationModel{Tenant: tenant, Model: model}, items)
	noModel := errors.Is(err, live.ErrNoModel)
	if err != nil && !noModel {
		return nil, a.redisAway(r.Context(), err)
	}
	scope, scopeName := "all", ""
	switch {
	case category != "":
		scope, scopeName = "category", category
	case country != "":
		scope, scopeName = "country", country
	}
	lately, err := live.ReadLately(ctx, a.redis, tenant, items, scope, scopeName)
	if err != nil {
		return nil, a.redisAway(r.Context(), err)
	}
	if noModel && len(lately.Popular) == 0 && len(lately.Views)+len(lately.Orders) == 0 {
		return nil, newProblem(idModel, "no version of model "+model+" is published for tenant "+clean(tenant)+", and the stream has learnt nothing yet")
	}
	if !noModel {
		out.Version, out.InputAt, out.TrainedAt = night.Version.Version, stampOf(night.Version.InputAt), stampOf(night.Version.TrainedAt)
	}
	if err := out.choose(have, night, lately, kind, scope == "all", limit, a.now()); err != nil {
		return nil, defectError{err}
	}
	return encode(out, nil)
}

func (a *API) redisAway(ctx context.Context, err error) error {
	a.log.WarnContext(ctx, "recommendations cannot be read", "error", err)
	return newProblem(idUnavailable, "Redis does not answer")
}

// visited is what a visitor has looked at: in the session at hand, each item half as important as the one after it, or else before.
func (a *API) visited(ctx, redisCtx context.Context, tenant, visitor string) (have []recommend.Neighbour, session bool, err error) {
	recent, err := live.RecentItems(redisCtx, a.redis, tenant, visitor)
	if err != nil {
		return nil, false, a.redisAway(ctx, err)
	}
	for i, x := range recent {
		have = append(have, recommend.Neighbour{Item: x.Item, Score: float64(x.Weight) * math.Exp2(-float64(i))})
	}
	if len(have) > 0 {
		return have, true, nil
	}
	did, err := a.olap.VisitorItems(ctx, tenant, visitor, a.now().Add(-visitorLookBack), visitorItems)
	if err != nil {
		return nil, false, err
	}
	for _, d := range did { // a purchase counts more than the cart, that more than a view, and each half as much for every day since
		have = append(have, recommend.Neighbour{Item: d.Item, Score: d.Weight / (1 + a.now().Sub(d.Last).Hours()/24)})
	}
	return have, false, nil
}

// choose adds the sources up, and fills what is missing from what is popular.
func (out *recommendations) choose(have []recommend.Neighbour, night live.Known, lately live.Lately, kind string, everybody bool, limit int, now time.Time) error {
	online := recommend.DefaultOnline()
	lists := lately.Views
	if kind == kindBought {
		lists = lately.Orders
	}
	similar := map[string][]recommend.Similar{}
	for item, values := range lists {
		var all []recommend.List
		for _, v := range values {
			l, err := recommend.DecodeList(v)
			if err != nil {
				return err
			}
			all = append(all, l)
		}
		similar[item] = recommend.Merge(all, now.UnixMicro(), online)
	}
	streamed := func(item string) []recommend.Neighbour {
		var ns []recommend.Neighbour
		for _, s := range similar[item] {
			ns = append(ns, recommend.Neighbour{Item: s.Item, Score: s.Score})
		}
		return ns
	}
	nightly := func(item string) []recommend.Neighbour { return neighboursOf(night.Neighbours[item]) }
	sources := []func(string) []recommend.Neighbour{nightly, streamed}
	if kind == kindBought {
		sources = sources[1:]
	}
	lift := map[string]float64{}
	if len(have) == 1 {
		for _, s := range similar[have[0].Item] {
			lift[s.Item] = s.Lift
		}
	}
	shown := map[string]bool{}
	for _, h := range have {
		shown[h.Item] = true
	}
	for _, n := range recommend.Blend(have, limit, sources...) {
		one := recommended{Item: n.Item, Score: n.Score}
		if l, ok := lift[n.Item]; ok {
			one.Lift = &l
		}
		out.Items, shown[n.Item], out.Basis = append(out.Items, one), true, "items"
	}
	popular := map[string]float64{}
	for _, v := range lately.Popular {
		r, _, err := recommend.DecodeRanked(v)
		if err != nil {
			return err
		}
		for _, n := range r.Top(online.Popular, now.UnixMicro(), online.HalfLife) {
			popular[n.Item] += n.Score
		}
	}
	most := make([]recommend.Neighbour, 0, len(popular))
	for item, w := range popular {
		most = append(most, recommend.Neighbour{Item: item, Score: w})
	}
	slices.SortFunc(most, recommend.ByScore)
	if everybody { // what is popular in one category or country the night does not know
		most = append(most, neighboursOf(night.Popular)...)
	}
	for _, n := range most {
		if len(out.Items) < limit && !shown[n.Item] {
			shown[n.Item] = true
			out.Items = append(out.Items, recommended{Item: n.Item}) // a score of 0: by popularity alone
		}
	}
	return nil
}

func neighboursOf(scored []live.Scored) []recommend.Neighbour {
	out := make([]recommend.Neighbour, len(scored))
	for i, s := range scored {
		out[i] = recommend.Neighbour(s)
	}
	return out
}
