package model

import "math"

// A node of the forest takes 16 bytes. The children of a split lie side by side, so that a step is one addition of the outcome of a comparison, which no branch has
// to predict; a leaf leads to itself, so that trees of different depth can be walked side by side.
type node struct {
	threshold float64 // of a number: left if x <= threshold. Of categories: index into sets. Of a leaf: its value
	child     int32   // left child; the right one follows it. Of a leaf: itself
	feature   uint16
	how       uint8
	step      uint8 // 1; 0 for a leaf
}

// How a node decides, in bits. A leaf has none.
const (
	defaultLeft uint8 = 1 << iota // what is missing goes left; 1, as the outcome of a comparison is
	missingZero                   // zero and NaN are missing; else NaN alone is
	categories                    // left if the category is in the set
	split                         // no leaf
	slow        = missingZero | categories
)

// kZeroThreshold of LightGBM: a float32 literal in a double.
var zeroBound = float64(float32(1e-35))

// set is a bitmap of categories within forest.bits.
type set struct{ from, words uint32 }

// forest is any number of trees, walked by groups.
type forest struct {
	nodes []node
	roots []int32 // in the order of the model: sums depend on it
	sets  []set
	bits  []uint32
}

// lanes is how many trees are walked side by side: each step of a tree waits for the one before, so that the loads of several are under way at once.
const lanes = 4

// walk gives the value of each tree's leaf for x to each, in the order of the trees.
func (f *forest) walk(x []float64, each *[lanes]float64, from int) int {
	nodes, roots := f.nodes, f.roots[from:]
	if len(roots) < lanes {
		i := roots[0]
		for nodes[i].how != 0 {
			i = f.next(&nodes[i], x)
		}
		each[0] = nodes[i].threshold
		return 1
	}
	a, b, c, d := roots[0], roots[1], roots[2], roots[3]
	for {
		na, nb, nc, nd := &nodes[a], &nodes[b], &nodes[c], &nodes[d]
		how := na.how | nb.how | nc.how | nd.how
		if how&slow != 0 {
			a, b, c, d = f.next(na, x), f.next(nb, x), f.next(nc, x), f.next(nd, x)
			continue
		}
		if how&split == 0 {
			break // all are leaves
		}
		a = na.child + int32(right(x[na.feature], na))
		b = nb.child + int32(right(x[nb.feature], nb))
		c = nc.child + int32(right(x[nc.feature], nc))
		d = nd.child + int32(right(x[nd.feature], nd))
	}
	*each = [lanes]float64{nodes[a].threshold, nodes[b].threshold, nodes[c].threshold, nodes[d].threshold}
	return lanes
}

// right is 1 where x goes right of a number's split, without a branch that would have to be predicted. NaN is above everything, unless what is missing goes left.
func right(x float64, n *node) uint8 {
	var above, missing uint8
	if !(x <= n.threshold) {
		above = 1
	}
	if x != x {
		missing = 1
	}
	return above &^ (missing & n.how) & n.step
}

// next is one step with every rule: LightGBM's NumericalDecision and CategoricalDecision (include/LightGBM/tree.h), to which XGBoost's are brought by the parser.
func (f *forest) next(n *node, x []float64) int32 {
	v := x[n.feature]
	missing := v != v
	switch {
	case n.how&categories != 0 && !missing:
		out := uint8(1)
		s := f.sets[int(n.threshold)]
		if v > -1 && v < 1<<31 { // the conversion to an integer cuts off, so that -0.5 is category 0
			if c := uint32(v); c/32 < s.words && f.bits[s.from+c/32]>>(c%32)&1 == 1 {
				out = 0
			}
		}
		return n.child + int32(out&n.step)
	case n.how&categories != 0, n.how&missingZero != 0 && (missing || v >= -zeroBound && v <= zeroBound):
		return n.child + int32(^n.how&defaultLeft&n.step)
	}
	return n.child + int32(right(v, n))
}

// A tree as files have it: splits and leaves by index, a child that is negative is leaf ^child.
type rawTree struct {
	left, right []int32
	feature     []int32
	threshold   []float64 // of a categorical split the index into sets
	how         []uint8
	leaf        []float64
}

// add brings a tree into the forest, its nodes level by level, and gives what is wrong with its shape.
func (f *forest) add(t *rawTree) (problem string) {
	root := int32(len(f.nodes))
	f.roots = append(f.roots, root)
	type place struct{ raw, at int32 }
	queue := []place{{0, root}}
	if len(t.left) == 0 {
		queue[0].raw = ^0
	}
	f.nodes = append(f.nodes, node{})
	seen, leaves := make([]bool, len(t.left)), make([]bool, len(t.leaf))
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if p.raw < 0 {
			i := int(^p.raw)
			if i >= len(t.leaf) {
				return "a split leads to leaf " + itoa(i) + " of " + itoa(len(t.leaf))
			}
			if leaves[i] {
				return "two splits lead to leaf " + itoa(i)
			}
			leaves[i] = true
			if v := t.leaf[i]; math.IsNaN(v) || math.IsInf(v, 0) {
				return "the value of leaf " + itoa(i) + " is no finite number"
			}
			f.nodes[p.at] = node{threshold: t.leaf[i], child: p.at}
			continue
		}
		i := int(p.raw)
		if i >= len(t.left) {
			return "a split leads to split " + itoa(i) + " of " + itoa(len(t.left))
		}
		if seen[i] {
			return "two splits lead to split " + itoa(i)
		}
		seen[i] = true
		child := int32(len(f.nodes))
		f.nodes = append(f.nodes, node{}, node{})
		f.nodes[p.at] = node{threshold: t.threshold[i], child: child, feature: uint16(t.feature[i]), how: t.how[i] | split, step: 1}
		queue = append(queue, place{t.left[i], child}, place{t.right[i], child + 1})
	}
	for i, ok := range seen {
		if !ok {
			return "nothing leads to split " + itoa(i)
		}
	}
	for i, ok := range leaves {
		if !ok {
			return "nothing leads to leaf " + itoa(i)
		}
	}
	return ""
}
