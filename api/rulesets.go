package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

	fraudrules "millrace/features/rules"
	"millrace/olap"
)

// ruleSets is the answer of /api/v1/rules.
type ruleSets struct {
	AsOf     stamp       `json:"as_of"`
	State    string      `json:"state"` // see stateOfRules
	Version  int         `json:"version"`
	Hash     string      `json:"hash"`
	Default  bool        `json:"default"` // the set that is in force until another is applied
	Rules    []ruleJSON  `json:"rules"`
	Tasks    []rulesTask `json:"tasks"`
	Rejected int64       `json:"rejected"`
	Refused  []refused   `json:"refused"`
	Applied  []appliedAt `json:"applied"`
}

// refused is a set that the stream cannot use, while it is the last one on the topic control. Several roles may say different things of it.
type refused struct {
	Version int    `json:"version"` // 0: it could not be read
	Reason  string `json:"reason"`
}

// ruleJSON is one rule of the set in force.
type ruleJSON struct {
	Rule          string   `json:"rule"`
	Kind          string   `json:"kind"`
	Entity        string   `json:"entity"`
	On            []string `json:"on"`
	Where         string   `json:"where"`
	WindowSeconds float64  `json:"window_seconds"`
	Threshold     float64  `json:"threshold"`
	Severity      string   `json:"severity"`
	Score         float64  `json:"score"`
	Reason        string   `json:"reason"`
}

// rulesTask is the version that a task of the stream has in force.
type rulesTask struct {
	Stage     string `json:"stage"`
	Partition int32  `json:"partition"`
	Version   int    `json:"version"`
}

// appliedAt is a set that was applied.
type appliedAt struct {
	Version      int32  `json:"version"`
	Hash         string `json:"hash"`
	AppliedAt    stamp  `json:"applied_at"`
	Forced       bool   `json:"forced"`
	ReplayFrom   stamp  `json:"replay_from"`
	ReplayTo     stamp  `json:"replay_to"`
	ReplayEvents int64  `json:"replay_events"`
}

const (
	listedRuleSets = 20
	metricRules    = "millrace_rules_version"
)

func (a *API) serveRules(r *http.Request) ([]byte, error) {
	if err := noParameters(r); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), "rules", func(ctx context.Context) ([]byte, error) {
		said, err := a.health.sampled(ctx, metricRules)
		if err != nil {
			return nil, err
		}
		applied, err := a.olap.RuleSets(ctx, listedRuleSets)
		if err != nil {
			return nil, err
		}
		set, err := fraudrules.Default()
		if err != nil {
			return nil, defectError{err}
		}
		out := &ruleSets{AsOf: stamp(a.now()), Default: true, Rules: []ruleJSON{}, Tasks: []rulesTask{}, Refused: []refused{}, Applied: []appliedAt{}}
		for _, s := range applied {
			out.Applied = append(out.Applied, appliedAt{s.Version, s.Hash, stamp(s.AppliedAt), s.Forced, stamp(s.From), stamp(s.To), int64(s.Events)})
			set, out.Default = newerRules(set, s, out.Default)
		}
		out.Version, out.Hash = set.Version, set.Hash
		for _, x := range set.Rules {
			out.Rules = append(out.Rules, ruleJSON{x.Name, string(x.Kind), x.Entity, x.On, x.Where, x.Window.Seconds(), x.Threshold, x.Severity, x.Score, x.Reason})
		}
		out.tasks(said)
		return encode(out, nil)
	})
}

// newerRules is the set that the tasks prefer: the one of the higher version. A text that cannot be read is one that the stream did not take either.
func newerRules(have *fraudrules.Set, s olap.RuleSet, isDefault bool) (*fraudrules.Set, bool) {
	if int(s.Version) <= have.Version {
		return have, isDefault
	}
	if read, err := fraudrules.Parse([]byte(s.Text)); err == nil {
		return read, false
	}
	return have, isDefault
}

// The states of the rules.
const (
	rulesInForce  = "in_force" // in every task
	rulesChanging = "changing" // some tasks have another version
	rulesUnknown  = "unknown"  // no task says what it has
)

// tasks takes what the roles said of themselves.
func (out *ruleSets) tasks(said *sample) {
	out.State = rulesUnknown
	said.each(metricRules, func(_ seriesID, labels map[string]string, v float64) {
		if n, err := strconv.ParseInt(labels["partition"], 10, 32); err == nil && v > 0 {
			out.Tasks = append(out.Tasks, rulesTask{labels["stage"], int32(n), int(v)})
		}
	})
	slices.SortFunc(out.Tasks, func(a, b rulesTask) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Partition, b.Partition))
	})
	said.each("millrace_rules_rejected_total", func(_ seriesID, _ map[string]string, v float64) { out.Rejected += int64(v) })
	said.each("millrace_rules_refused_version", func(_ seriesID, labels map[string]string, v float64) {
		if r := (refused{int(v), labels["reason"]}); !slices.Contains(out.Refused, r) {
			out.Refused = append(out.Refused, r)
		}
	})
	slices.SortFunc(out.Refused, func(a, b refused) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Reason, b.Reason))
	})
	switch {
	case len(out.Tasks) == 0:
	case slices.ContainsFunc(out.Tasks, func(t rulesTask) bool { return t.Version != out.Version }):
		out.State = rulesChanging
	default:
		out.State = rulesInForce
	}
}
