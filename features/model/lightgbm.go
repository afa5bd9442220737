package model

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"millrace/internal/fault"
)

// lightgbm reads LightGBM's text format, versions v2 to v4: a head of key=value lines, a block of them for each tree, "end of trees", and then what does not concern a
// prediction. Source: LightGBM 4.7 src/boosting/gbdt_model_text.cpp and src/io/tree.cpp.
type lightgbm struct {
	rest []byte
	line int
	m    *Model
	bits int // words of all sets
}

func (p *lightgbm) broken(format string, a ...any) error {
	return fault.Newf("MR-MOD-001", "line %d: "+format, append([]any{p.line}, a...)...)
}

func (p *lightgbm) foreign(format string, a ...any) error {
	return fault.Newf("MR-MOD-002", "line %d: "+format, append([]any{p.line}, a...)...)
}

func (p *lightgbm) large(what string, n, most int) error {
	return fault.Newf("MR-MOD-003", "line %d: %d %s, at most %d", p.line, n, what, most)
}

// next gives the next line; false at the end of the file.
func (p *lightgbm) next() (string, bool) {
	if len(p.rest) == 0 {
		return "", false
	}
	line, rest, _ := bytes.Cut(p.rest, []byte{'\n'})
	p.rest = rest
	p.line++
	return strings.TrimRight(string(line), "\r"), true
}

// block reads key=value lines up to an empty one, or to the end; words without = are keys without a value.
func (p *lightgbm) block() (map[string]string, map[string]int, error) {
	kv, lines := map[string]string{}, map[string]int{}
	for {
		line, ok := p.next()
		if !ok || line == "" && len(kv) > 0 {
			return kv, lines, nil
		}
		if line == "" {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if _, twice := kv[key]; twice {
			return nil, nil, p.broken("%.40q comes twice", key)
		}
		kv[key], lines[key] = value, p.line
	}
}

func parseLightGBM(file []byte) (*Model, error) {
	p := &lightgbm{rest: bytes.TrimPrefix(file, []byte("\ufeff")), m: &Model{Format: LightGBM}}
	head, lines, err := p.block()
	if err != nil {
		return nil, err
	}
	number := func(key string, low, high int) (int, error) {
		if line, ok := lines[key]; ok {
			p.line = line
		}
		n, err := strconv.Atoi(head[key])
		switch {
		case err != nil:
			return 0, p.broken("%s is %.40q, no number", key, head[key])
		case n > high:
			return 0, p.large(key, n, high)
		case n < low:
			return 0, p.broken("%s is %d, at least %d is needed", key, n, low)
		}
		return n, nil
	}
	end := p.line
	classes, err := number("num_class", 1, MaxOutputs)
	if err != nil {
		return nil, err
	}
	each, err := number("num_tree_per_iteration", 1, MaxOutputs)
	if err != nil {
		return nil, err
	}
	last, err := number("max_feature_idx", 0, MaxFeatures-1)
	if err != nil {
		return nil, err
	}
	m := p.m
	m.outputs, m.base = each, make([]float64, each)
	if m.Features = strings.Fields(head["feature_names"]); len(m.Features) == 0 {
		m.Features = make([]string, last+1)
	} else if len(m.Features) != last+1 {
		p.line = lines["feature_names"]
		return nil, p.broken("%d feature_names, max_feature_idx says %d", len(m.Features), last+1)
	}
	if err := p.objective(head, lines, classes); err != nil {
		return nil, err
	}
	p.line = end
	for {
		line, ok := p.next()
		switch {
		case !ok:
			return nil, p.broken("the file ends after %d trees, before \"end of trees\"", m.Trees)
		case line == "":
		case line == "end of trees":
			return m, p.finish(head, each)
		case strings.HasPrefix(line, "Tree="):
			if line != "Tree="+strconv.Itoa(m.Trees) {
				return nil, p.broken("%.40q where Tree=%d is expected", line, m.Trees)
			}
			if err := p.tree(); err != nil {
				return nil, err
			}
		default:
			return nil, p.broken("%.40q where a tree is expected", line)
		}
	}
}

// finish checks what only the whole file shows.
func (p *lightgbm) finish(head map[string]string, each int) error {
	m := p.m
	if sizes, ok := head["tree_sizes"]; ok {
		if want := len(strings.Fields(sizes)); want != m.Trees {
			return p.broken("%d trees, tree_sizes names %d", m.Trees, want)
		}
	}
	if m.Trees%each != 0 {
		return p.broken("%d trees are no multiple of num_tree_per_iteration, %d", m.Trees, each)
	}
	if _, ok := head["average_output"]; ok && m.Trees > 0 {
		m.average = float64(m.Trees / each)
	}
	if each > 1 {
		m.group = make([]int32, m.Trees)
		for i := range m.group {
			m.group[i] = int32(i % each)
		}
	}
	return nil
}

// objective chooses how sums become predictions: ConvertOutput of src/objective/*.hpp.
func (p *lightgbm) objective(head map[string]string, lines map[string]int, classes int) error {
	m := p.m
	text, ok := head["objective"]
	if !ok { // a custom objective is not named, and predictions are sums
		m.Objective, m.turn = "custom", identity
		return nil
	}
	p.line = lines["objective"]
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return p.broken("objective is empty")
	}
	m.Objective, m.param = fields[0], 1
	root := false
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, ":")
		switch key {
		case "sigmoid":
			v, err := strconv.ParseFloat(value, 64)
			if err != nil || !(v > 0) || math.IsInf(v, 0) {
				return p.broken("sigmoid is %.40q, no number above 0", value)
			}
			m.param = v
		case "num_class":
			if n, err := strconv.Atoi(value); err != nil || n != classes {
				return p.broken("num_class of the objective is %.40q, of the model %d", value, classes)
			}
		case "sqrt":
			root = true
		}
	}
	switch m.Objective {
	case "binary", "cross_entropy", "multiclassova":
		m.turn = logistic
	case "multiclass":
		m.turn = softmax
	case "poisson", "gamma", "tweedie":
		m.turn = exponential
	case "cross_entropy_lambda":
		m.turn = logOnePlusExp
	case "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom":
		if m.turn = identity; root {
			m.turn = signedSquare
		}
	default:
		return p.foreign("objective %.40q is not known", m.Objective)
	}
	if many := m.Objective == "multiclass" || m.Objective == "multiclassova"; many != (m.outputs > 1) && m.Objective != "custom" {
		return p.broken("objective %s with %d trees an iteration", m.Objective, m.outputs)
	}
	return nil
}

func (p *lightgbm) tree() error {
	m := p.m
	if m.Trees == MaxTrees {
		return p.large("trees", m.Trees+1, MaxTrees)
	}
	kv, lines, err := p.block()
	if err != nil {
		return err
	}
	at := func(key string) string {
		if line, ok := lines[key]; ok {
			p.line = line
		}
		return kv[key]
	}
	if at("is_linear") == "1" {
		return p.foreign("tree %d has linear leaves", m.Trees)
	}
	leaves, err := strconv.Atoi(at("num_leaves"))
	if err != nil || leaves < 1 {
		return p.broken("num_leaves of tree %d is %.40q", m.Trees, kv["num_leaves"])
	}
	if nodes := 2*leaves - 1; nodes > MaxNodes-len(m.forest.nodes) {
		return p.large("nodes", len(m.forest.nodes)+nodes, MaxNodes)
	}
	t := rawTree{}
	if t.leaf, err = floats(p, at("leaf_value"), "leaf_value", leaves); err != nil {
		return err
	}
	if leaves > 1 {
		if err := p.splits(&t, leaves-1, at); err != nil {
			return err
		}
	}
	if problem := m.forest.add(&t); problem != "" {
		return p.broken("tree %d: %s", m.Trees, problem)
	}
	m.Trees++
	return nil
}

func (p *lightgbm) splits(t *rawTree, n int, at func(string) string) (err error) {
	if t.feature, err = ints(p, at("split_feature"), "split_feature", n); err != nil {
		return err
	}
	for i, f := range t.feature {
		if f < 0 || int(f) >= len(p.m.Features) {
			return p.broken("split %d asks for feature %d of %d", i, f, len(p.m.Features))
		}
	}
	types, err := ints(p, at("decision_type"), "decision_type", n)
	if err != nil {
		return err
	}
	if t.left, err = ints(p, at("left_child"), "left_child", n); err != nil {
		return err
	}
	if t.right, err = ints(p, at("right_child"), "right_child", n); err != nil {
		return err
	}
	sets := len(p.m.forest.sets)
	if text := at("num_cat"); text != "" && text != "0" {
		if err := p.sets(text, n, at); err != nil {
			return err
		}
	}
	if t.threshold, err = floats(p, at("threshold"), "threshold", n); err != nil {
		return err
	}
	t.how = make([]uint8, n)
	for i, d := range types {
		// Bit 0: categorical. Bit 1: default left. Bits 2 and 3: what is missing: none, zero, NaN.
		if d < 0 || d > 15 || d>>2 == 3 {
			return p.broken("decision_type of split %d is %d", i, d)
		}
		v := t.threshold[i]
		if d&1 != 0 {
			k := v
			if !(k >= 0 && k < float64(len(p.m.forest.sets)-sets)) || k != math.Trunc(k) {
				return p.broken("split %d asks for set %v of %d", i, k, len(p.m.forest.sets)-sets)
			}
			t.how[i], t.threshold[i] = categories, v+float64(sets)
			continue // whatever its other bits say, NaN goes right
		}
		if v != v {
			return p.broken("threshold of split %d is no number", i)
		}
		left := d&2 != 0
		switch d >> 2 {
		case 0:
			left = v >= 0 // nothing is missing: NaN counts as 0
		case 1:
			t.how[i] |= missingZero
		}
		if left {
			t.how[i] |= defaultLeft
		}
	}
	return nil
}

// sets reads the bitmaps of categories.
func (p *lightgbm) sets(text string, splits int, at func(string) string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > splits {
		return p.broken("num_cat is %.40q in a tree of %d splits", text, splits)
	}
	bounds, err := ints(p, at("cat_boundaries"), "cat_boundaries", n+1)
	if err != nil {
		return err
	}
	words := strings.Fields(at("cat_threshold"))
	f := &p.m.forest
	if p.bits += len(words); p.bits > MaxNodes {
		return p.large("words of categories", p.bits, MaxNodes)
	}
	if bounds[0] != 0 || int(bounds[n]) != len(words) {
		return p.broken("cat_boundaries go from %d to %d, there are %d words in cat_threshold", bounds[0], bounds[n], len(words))
	}
	from := uint32(len(f.bits))
	for _, w := range words {
		v, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return p.broken("cat_threshold: %.40q is no number of 32 bits", w)
		}
		f.bits = append(f.bits, uint32(v))
	}
	for i := range n {
		if bounds[i+1] < bounds[i] {
			return p.broken("cat_boundaries go back from %d to %d", bounds[i], bounds[i+1])
		}
		f.sets = append(f.sets, set{from + uint32(bounds[i]), uint32(bounds[i+1] - bounds[i])})
	}
	return nil
}

// list gives the words of a value, which must be n.
func list(p *lightgbm, text, key string, n int) ([]string, error) {
	words := strings.Fields(text)
	if len(words) != n {
		return nil, p.broken("%s has %d values, %d are expected", key, len(words), n)
	}
	return words, nil
}

func ints(p *lightgbm, text, key string, n int) ([]int32, error) {
	words, err := list(p, text, key, n)
	if err != nil {
		return nil, err
	}
	out := make([]int32, n)
	for i, w := range words {
		v, err := strconv.ParseInt(w, 10, 32)
		if err != nil {
			return nil, p.broken("%s: value %d is %.40q, no whole number", key, i, w)
		}
		out[i] = int32(v)
	}
	return out, nil
}

func floats(p *lightgbm, text, key string, n int) ([]float64, error) {
	words, err := list(p, text, key, n)
	if err != nil {
		return nil, err
	}
	out := make([]float64, n)
	for i, w := range words {
		if out[i], err = strconv.ParseFloat(w, 64); err != nil {
			return nil, p.broken("%s: value %d is %.40q, no number", key, i, w)
		}
	}
	return out, nil
}
