package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"millrace/internal/fault"
)

// xgbFile is XGBoost's JSON model, from version 1.0; see doc/model.schema of XGBoost 3.2. Numbers of the parameters are texts.
type xgbFile struct {
	Version []int `json:"version"`
	Learner *struct {
		FeatureNames []string `json:"feature_names"`
		Param        struct {
			BaseScore  string `json:"base_score"`
			NumClass   string `json:"num_class"`
			NumFeature string `json:"num_feature"`
			NumTarget  string `json:"num_target"`
		} `json:"learner_model_param"`
		Objective struct {
			Name string `json:"name"`
		} `json:"objective"`
		Booster struct {
			Name  string    `json:"name"`
			Model *xgbTrees `json:"model"`
			Tree  *struct { // of dart
				Model *xgbTrees `json:"model"`
			} `json:"gbtree"`
			WeightDrop []float32 `json:"weight_drop"`
		} `json:"gradient_booster"`
	} `json:"learner"`
}

type xgbTrees struct {
	Trees    []json.RawMessage `json:"trees"`
	TreeInfo []int32           `json:"tree_info"`
}

type xgbTree struct {
	Left       []int32   `json:"left_children"`
	Right      []int32   `json:"right_children"`
	Feature    []int32   `json:"split_indices"`
	Condition  []float32 `json:"split_conditions"` // of a leaf: its value
	Default    []xgbFlag `json:"default_left"`
	Type       []int32   `json:"split_type"` // 1: categorical; absent in old files
	Categories []int32   `json:"categories"`
	Nodes      []int32   `json:"categories_nodes"`
	Segments   []int32   `json:"categories_segments"`
	Sizes      []int32   `json:"categories_sizes"`
	Param      struct {
		LeafVector string `json:"size_leaf_vector"`
	} `json:"tree_param"`
}

// xgbFlag is true or 1, false or 0.
type xgbFlag bool

func (f *xgbFlag) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true", "1":
		*f = true
	case "false", "0":
		*f = false
	default:
		return fmt.Errorf("%.20q is no truth value", b)
	}
	return nil
}

func xgbBroken(format string, a ...any) error { return fault.Newf("MR-MOD-001", format, a...) }

func parseXGBoost(file []byte) (*Model, error) {
	var f xgbFile
	if err := json.Unmarshal(file, &f); err != nil {
		return nil, xgbBroken("%s", jsonProblem(err, len(file)))
	}
	if f.Learner == nil {
		return nil, xgbBroken("there is no learner in it")
	}
	l := f.Learner
	trees := l.Booster.Model
	switch l.Booster.Name {
	case "gbtree", "":
	case "dart":
		if l.Booster.Tree != nil {
			trees = l.Booster.Tree.Model
		}
	default:
		return nil, fault.Newf("MR-MOD-002", "learner.gradient_booster: booster %.40q has no trees", l.Booster.Name)
	}
	if trees == nil {
		return nil, xgbBroken("learner.gradient_booster has no model")
	}
	m := &Model{Format: XGBoost, Objective: l.Objective.Name, single: true}
	count := func(key, text string, least, most int) (int, error) {
		if text == "" {
			return least, nil
		}
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n < 0:
			return 0, xgbBroken("learner.learner_model_param.%s is %.40q, no number", key, text)
		case n > most:
			return 0, fault.Newf("MR-MOD-003", "learner.learner_model_param.%s is %d, at most %d", key, n, most)
		}
		return max(n, least), nil
	}
	features, err := count("num_feature", l.Param.NumFeature, 1, MaxFeatures)
	if err != nil {
		return nil, err
	}
	classes, err := count("num_class", l.Param.NumClass, 1, MaxOutputs)
	if err != nil {
		return nil, err
	}
	targets, err := count("num_target", l.Param.NumTarget, 1, MaxOutputs)
	if err != nil {
		return nil, err
	}
	if m.outputs = max(classes, targets); classes > 1 && targets > 1 {
		return nil, fault.Newf("MR-MOD-002", "learner.learner_model_param: %d targets of %d classes", targets, classes)
	}
	if m.Features = l.FeatureNames; len(m.Features) == 0 {
		m.Features = make([]string, features)
	} else if len(m.Features) != features {
		return nil, xgbBroken("learner.feature_names has %d names, num_feature says %d", len(m.Features), features)
	}
	if err := m.xgbObjective(l.Param.BaseScore); err != nil {
		return nil, err
	}
	if err := m.xgbForest(trees, l.Booster.WeightDrop); err != nil {
		return nil, err
	}
	return m, nil
}

// jsonProblem says where JSON ends to be what it should be.
func jsonProblem(err error, size int) string {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		if syntax.Offset >= int64(size) {
			return fmt.Sprintf("byte %d: the file ends before its JSON does", syntax.Offset)
		}
		return fmt.Sprintf("byte %d: %s", syntax.Offset, syntax)
	case errors.As(err, &typ):
		return fmt.Sprintf("byte %d: %s is a %s, a %s is expected", typ.Offset, typ.Field, typ.Value, typ.Type)
	}
	return err.Error()
}

// xgbObjective chooses how sums begin, which is how the objective turns base_score around, and how they become predictions.
func (m *Model) xgbObjective(baseScore string) error {
	logit := func(p float32) float32 { return -float32(math.Log(float64(1/p - 1))) }
	logarithm := func(p float32) float32 { return float32(math.Log(float64(p))) }
	same := func(p float32) float32 { return p }
	begin := same
	switch m.Objective {
	case "binary:logistic", "reg:logistic":
		begin, m.turn = logit, logistic32
	case "binary:hinge":
		m.turn = hinge
	case "multi:softprob":
		m.turn = softmax32
	case "multi:softmax":
		m.turn = hardmax
	case "count:poisson", "reg:gamma", "reg:tweedie":
		begin, m.turn = logarithm, exponential32
	case "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror", "reg:linear", "binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map":
		m.turn = identity
	default:
		return fault.Newf("MR-MOD-002", "learner.objective: %.40q is not known", m.Objective)
	}
	words := strings.Split(strings.Trim(baseScore, "[] "), ",")
	if len(words) != 1 && len(words) != m.outputs {
		return xgbBroken("learner.learner_model_param.base_score has %d values for %d outputs", len(words), m.outputs)
	}
	m.base = make([]float64, m.outputs)
	for i := range m.base {
		word := strings.TrimSpace(words[min(i, len(words)-1)])
		v, err := strconv.ParseFloat(word, 32)
		if err != nil || math.IsInf(v, 0) || v != v {
			return xgbBroken("learner.learner_model_param.base_score: %.40q is no number", word)
		}
		b := float64(begin(float32(v)))
		if b-b != 0 {
			return xgbBroken("learner.learner_model_param.base_score: %.40q is nothing that %s can begin with", word, m.Objective)
		}
		m.base[i] = b
	}
	return nil
}

func (m *Model) xgbForest(trees *xgbTrees, drop []float32) error {
	if len(trees.Trees) > MaxTrees {
		return fault.Newf("MR-MOD-003", "%d trees, at most %d", len(trees.Trees), MaxTrees)
	}
	if len(trees.TreeInfo) != len(trees.Trees) {
		return xgbBroken("model.tree_info has %d values for %d trees", len(trees.TreeInfo), len(trees.Trees))
	}
	if drop != nil && len(drop) != len(trees.Trees) {
		return xgbBroken("weight_drop has %d values for %d trees", len(drop), len(trees.Trees))
	}
	for i, text := range trees.Trees {
		var t xgbTree
		if err := json.Unmarshal(text, &t); err != nil {
			return xgbBroken("model.trees[%d]: %s", i, jsonProblem(err, len(text)))
		}
		if g := trees.TreeInfo[i]; g < 0 || int(g) >= m.outputs {
			return xgbBroken("model.tree_info[%d] is %d, there are %d outputs", i, g, m.outputs)
		}
		weight := float32(1)
		if drop != nil {
			weight = drop[i]
		}
		if err := m.xgbTree(&t, weight); err != nil {
			return fmt.Errorf("model.trees[%d]: %w", i, err)
		}
	}
	if m.Trees = len(trees.Trees); m.outputs > 1 {
		m.group = trees.TreeInfo
	}
	return nil
}

// xgbTree brings a tree into the form of the forest. x < t is x <= the float32 before t, since x is one. A category in the set goes right here and left there, so the
// children of such splits change places.
func (m *Model) xgbTree(t *xgbTree, weight float32) error {
	n := len(t.Left)
	if s := t.Param.LeafVector; s != "" && s != "0" && s != "1" {
		return fault.Newf("MR-MOD-002", "its leaves are vectors of %.20s", s)
	}
	for _, c := range []struct {
		name string
		n    int
	}{{"right_children", len(t.Right)}, {"split_indices", len(t.Feature)}, {"split_conditions", len(t.Condition)}, {"default_left", len(t.Default)}} {
		if c.n != n {
			return xgbBroken("%s has %d values, left_children %d", c.name, c.n, n)
		}
	}
	if n == 0 {
		return xgbBroken("it has no nodes")
	}
	if n > MaxNodes-len(m.forest.nodes) {
		return fault.Newf("MR-MOD-003", "%d nodes, at most %d", len(m.forest.nodes)+n, MaxNodes)
	}
	if len(t.Type) != 0 && len(t.Type) != n {
		return xgbBroken("split_type has %d values, left_children %d", len(t.Type), n)
	}
	sets, err := m.xgbSets(t)
	if err != nil {
		return err
	}
	// Splits and leaves get numbers of their own. Nodes that pruning removed are left over: nothing leads to them.
	number := make([]int32, n)
	var raw rawTree
	reached := make([]bool, n)
	for stack := []int32{0}; len(stack) > 0; {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i < 0 || int(i) >= n {
			return xgbBroken("a node leads to node %d of %d", i, n)
		}
		if reached[i] {
			return xgbBroken("two nodes lead to node %d", i)
		}
		reached[i] = true
		if t.Left[i] == -1 {
			number[i] = ^int32(len(raw.leaf))
			raw.leaf = append(raw.leaf, float64(t.Condition[i]*weight))
			continue
		}
		number[i] = int32(len(raw.feature))
		how, threshold := uint8(0), float64(math.Nextafter32(t.Condition[i], float32(math.Inf(-1))))
		left, right, toLeft := t.Left[i], t.Right[i], bool(t.Default[i])
		if len(t.Type) > 0 && t.Type[i] == 1 {
			k, ok := sets[i]
			if !ok {
				return xgbBroken("categorical split %d has no categories", i)
			}
			how, threshold = categories, float64(k)
			left, right, toLeft = right, left, !toLeft
		} else if threshold != threshold {
			return xgbBroken("split_conditions[%d] is no number", i)
		}
		if toLeft {
			how |= defaultLeft
		}
		if f := t.Feature[i]; f < 0 || int(f) >= len(m.Features) {
			return xgbBroken("split_indices[%d] is %d, there are %d features", i, f, len(m.Features))
		}
		raw.feature, raw.threshold, raw.how = append(raw.feature, t.Feature[i]), append(raw.threshold, threshold), append(raw.how, how)
		raw.left, raw.right = append(raw.left, left), append(raw.right, right) // numbered below
		stack = append(stack, t.Left[i], t.Right[i])
	}
	for i := range raw.left {
		raw.left[i], raw.right[i] = number[raw.left[i]], number[raw.right[i]]
	}
	if problem := m.forest.add(&raw); problem != "" {
		return xgbBroken("%s", problem)
	}
	return nil
}

// xgbSets makes bitmaps of the categories of a tree's splits, by node.
func (m *Model) xgbSets(t *xgbTree) (map[int32]int, error) {
	if len(t.Nodes) == 0 {
		return nil, nil
	}
	if len(t.Segments) != len(t.Nodes) || len(t.Sizes) != len(t.Nodes) {
		return nil, xgbBroken("categories_segments has %d values, categories_sizes %d, categories_nodes %d", len(t.Segments), len(t.Sizes), len(t.Nodes))
	}
	f := &m.forest
	out := map[int32]int{}
	for i, at := range t.Nodes {
		from, size := int(t.Segments[i]), int(t.Sizes[i])
		if from < 0 || size < 0 || from > len(t.Categories) || size > len(t.Categories)-from {
			return nil, xgbBroken("categories_segments[%d] goes from %d for %d of %d categories", i, from, size, len(t.Categories))
		}
		most := int32(-1)
		for _, c := range t.Categories[from : from+size] {
			if c < 0 || c >= 1<<24 { // XGBoost's own bound: what a float32 counts
				return nil, xgbBroken("category %d is not between 0 and 2^24", c)
			}
			most = max(most, c)
		}
		words := int(most+32) / 32
		if len(f.bits)+words > MaxNodes {
			return nil, fault.Newf("MR-MOD-003", "%d words of categories, at most %d", len(f.bits)+words, MaxNodes)
		}
		s := set{uint32(len(f.bits)), uint32(words)}
		f.bits = append(f.bits, make([]uint32, words)...)
		for _, c := range t.Categories[from : from+size] {
			f.bits[int(s.from)+int(c)/32] |= 1 << (c % 32)
		}
		out[at] = len(f.sets)
		f.sets = append(f.sets, s)
	}
	return out, nil
}
