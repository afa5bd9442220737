package model

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/internal/fault"
)

const smallTree = `tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b
tree_sizes=100

Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
threshold=0.5 0
decision_type=10 1
left_child=-1 -2
right_child=1 -3
leaf_value=1 2 3
cat_boundaries=0 1
cat_threshold=6
is_linear=0
shrinkage=1


end of trees
`

const smallForest = `{"learner":{"feature_names":[],"gradient_booster":{"name":"gbtree","model":{"tree_info":[0],"trees":[{"left_children":[1,-1,-1],"right_children":[2,-1,-1],"split_indices":[0,0,0],"split_conditions":[0.5,1,2],"default_left":[1,0,0],"split_type":[0,0,0],"tree_param":{"size_leaf_vector":"1"}}]}},"learner_model_param":{"base_score":"5E-1","num_class":"0","num_feature":"1","num_target":"1"},"objective":{"name":"binary:logistic"}},"version":[3,2,0]}`

func TestWhatIsWrongWithAFileIsSaidWithItsPlace(t *testing.T) {
	if _, err := Parse("m", []byte(smallTree)); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("m", []byte(smallForest)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text, from, to string
		id             fault.ID
		says           string
	}{
		"a tree leads in a circle":       {smallTree, "right_child=1 -3", "right_child=1 1", "MR-MOD-001", "two splits lead to split 1"},
		"a split leads to itself":        {smallTree, "left_child=-1 -2", "left_child=0 -2", "MR-MOD-001", "two splits lead to split 0"},
		"a leaf hangs on two splits":     {smallTree, "left_child=-1 -2", "left_child=-1 -1", "MR-MOD-001", "two splits lead to leaf 0"},
		"a split leads beyond the tree":  {smallTree, "left_child=-1 -2", "left_child=9 -2", "MR-MOD-001", "split 9 of 2"},
		"a leaf beyond the tree":         {smallTree, "left_child=-1 -2", "left_child=-9 -2", "MR-MOD-001", "leaf 8 of 3"},
		"a feature beyond the model's":   {smallTree, "split_feature=0 1", "split_feature=0 2", "MR-MOD-001", "line 13: split 1 asks for feature 2 of 2"},
		"a negative feature":             {smallTree, "split_feature=0 1", "split_feature=-1 1", "MR-MOD-001", "feature -1"},
		"a threshold that is no number":  {smallTree, "threshold=0.5 0", "threshold=nan 0", "MR-MOD-001", "line 14"},
		"a word for a threshold":         {smallTree, "threshold=0.5 0", "threshold=x 0", "MR-MOD-001", "no number"},
		"a leaf that is no number":       {smallTree, "leaf_value=1 2 3", "leaf_value=1 nan 3", "MR-MOD-001", "no finite number"},
		"an infinite leaf":               {smallTree, "leaf_value=1 2 3", "leaf_value=1 inf 3", "MR-MOD-001", "no finite number"},
		"too few leaves":                 {smallTree, "leaf_value=1 2 3", "leaf_value=1 2", "MR-MOD-001", "line 18: leaf_value has 2 values, 3 are expected"},
		"a set that is not there":        {smallTree, "threshold=0.5 0", "threshold=0.5 1", "MR-MOD-001", "set 1 of 1"},
		"half a set":                     {smallTree, "threshold=0.5 0", "threshold=0.5 0.5", "MR-MOD-001", "set 0.5 of 1"},
		"sets beyond their words":        {smallTree, "cat_boundaries=0 1", "cat_boundaries=0 2", "MR-MOD-001", "from 0 to 2"},
		"sets that go back":              {smallTree, "cat_boundaries=0 1", "cat_boundaries=1 1", "MR-MOD-001", "from 1 to 1"},
		"more sets than splits":          {smallTree, "num_cat=1", "num_cat=3", "MR-MOD-001", "num_cat"},
		"a decision that is none":        {smallTree, "decision_type=10 1", "decision_type=12 1", "MR-MOD-001", "decision_type of split 0 is 12"},
		"leaves without end":             {smallTree, "num_leaves=3", "num_leaves=999999999", "MR-MOD-003", "nodes"},
		"leaves that are none":           {smallTree, "num_leaves=3", "num_leaves=0", "MR-MOD-001", "num_leaves"},
		"features without end":           {smallTree, "max_feature_idx=1", "max_feature_idx=99999999", "MR-MOD-003", "line 5"},
		"names that do not fit":          {smallTree, "feature_names=a b", "feature_names=a b c", "MR-MOD-001", "line 7"},
		"classes without end":            {smallTree, "num_class=1", "num_class=1000000", "MR-MOD-003", "num_class"},
		"linear leaves":                  {smallTree, "is_linear=0", "is_linear=1", "MR-MOD-002", "linear"},
		"an objective nobody knows":      {smallTree, "binary sigmoid:1", "magic", "MR-MOD-002", "magic"},
		"a sigmoid of zero":              {smallTree, "sigmoid:1", "sigmoid:0", "MR-MOD-001", "sigmoid"},
		"a tree twice":                   {smallTree, "Tree=0", "Tree=1", "MR-MOD-001", "Tree=0 is expected"},
		"a key twice":                    {smallTree, "num_cat=1", "num_cat=1\nnum_cat=1", "MR-MOD-001", "comes twice"},
		"fewer trees than the head says": {smallTree, "tree_sizes=100", "tree_sizes=100 100", "MR-MOD-001", "tree_sizes names 2"},
		"no end":                         {smallTree, "end of trees", "", "MR-MOD-001", "before \"end of trees\""},
		"something else between trees":   {smallTree, "end of trees", "hello", "MR-MOD-001", "hello"},

		"a node leads in a circle":          {smallForest, `"left_children":[1,-1,-1]`, `"left_children":[0,-1,-1]`, "MR-MOD-001", "two nodes lead to node 0"},
		"a node beyond the tree":            {smallForest, `"right_children":[2,`, `"right_children":[7,`, "MR-MOD-001", "node 7 of 3"},
		"a negative node":                   {smallForest, `"right_children":[2,`, `"right_children":[-2,`, "MR-MOD-001", "node -2 of 3"},
		"a feature that is not there":       {smallForest, `"split_indices":[0,`, `"split_indices":[3,`, "MR-MOD-001", "split_indices[0] is 3"},
		"arrays of different length":        {smallForest, `"default_left":[1,0,0]`, `"default_left":[1,0]`, "MR-MOD-001", "default_left has 2 values"},
		"a default of two":                  {smallForest, `"default_left":[1,`, `"default_left":[2,`, "MR-MOD-001", "no truth value"},
		"a condition beyond a float32":      {smallForest, `[0.5,1,2]`, `[0.5,1e39,2]`, "MR-MOD-001", "model.trees[0]: byte"},
		"a categorical split without one":   {smallForest, `"split_type":[0,0,0]`, `"split_type":[1,0,0]`, "MR-MOD-001", "no categories"},
		"leaves that are vectors":           {smallForest, `"size_leaf_vector":"1"`, `"size_leaf_vector":"3"`, "MR-MOD-002", "vectors of 3"},
		"an output that is not there":       {smallForest, `"tree_info":[0]`, `"tree_info":[1]`, "MR-MOD-001", "tree_info[0] is 1"},
		"too few outputs of trees":          {smallForest, `"tree_info":[0]`, `"tree_info":[]`, "MR-MOD-001", "0 values for 1 trees"},
		"a base score that cannot be":       {smallForest, `"5E-1"`, `"1"`, "MR-MOD-001", "nothing that binary:logistic can begin with"},
		"a base score that is no number":    {smallForest, `"5E-1"`, `"nan"`, "MR-MOD-001", "base_score"},
		"two base scores for one output":    {smallForest, `"5E-1"`, `"[5E-1,5E-1]"`, "MR-MOD-001", "2 values for 1"},
		"a booster without trees":           {smallForest, `"name":"gbtree"`, `"name":"gblinear"`, "MR-MOD-002", "gblinear"},
		"an objective it does not know":     {smallForest, `"binary:logistic"`, `"survival:cox"`, "MR-MOD-002", "survival:cox"},
		"classes beyond the bound":          {smallForest, `"num_class":"0"`, `"num_class":"5000"`, "MR-MOD-003", "num_class"},
		"a text where a number belongs":     {smallForest, `"tree_info":[0]`, `"tree_info":["x"]`, "MR-MOD-001", "tree_info"},
		"a tree without nodes":              {smallForest, `"left_children":[1,-1,-1],"right_children":[2,-1,-1],"split_indices":[0,0,0],"split_conditions":[0.5,1,2],"default_left":[1,0,0]`, `"left_children":[]`, "MR-MOD-001", "no nodes"},
		"another JSON":                      {smallForest, `"learner"`, `"teacher"`, "MR-MOD-001", "no learner"},
		"a file of something else":          {smallTree, "tree\n", "forest\n", "MR-MOD-001", "neither"},
		"categories at the wrong segment":   {smallForest, `"split_type":[0,0,0]`, `"split_type":[1,0,0],"categories":[1],"categories_nodes":[0],"categories_segments":[1],"categories_sizes":[1]`, "MR-MOD-001", "categories_segments"},
		"a category beyond what is counted": {smallForest, `"split_type":[0,0,0]`, `"split_type":[1,0,0],"categories":[99999999],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[1]`, "MR-MOD-001", "category 99999999"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(c.text, c.from, c.to, 1)
			if text == c.text {
				t.Fatal("nothing was changed")
			}
			m, err := Parse("m", []byte(text))
			if err == nil {
				t.Fatalf("it is taken: %+v", m)
			}
			if id, _ := fault.IDOf(err); id != c.id || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %s and %q", err, c.id, c.says)
			}
		})
	}
}

// FuzzParse: whatever the file, there is an error with an id or a model that scores without a panic.
func FuzzParse(f *testing.F) {
	f.Add([]byte(smallTree))
	f.Add([]byte(smallForest))
	files, err := filepath.Glob("testdata/*_more_*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse("fuzz", text)
		if err != nil {
			if _, ok := fault.IDOf(err); !ok {
				t.Fatalf("%v has no id", err)
			}
			return
		}
		for _, v := range []float64{0, -1, 1e30, math.NaN()} {
			row := make([]float64, len(m.Features))
			for i := range row {
				row[i] = v
			}
			if out, err := m.Predict(nil, row); err != nil || len(out) != m.Outputs() {
				t.Fatalf("%d outputs, %v", len(out), err)
			}
		}
	})
}
