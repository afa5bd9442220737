package model

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vectors are scores that the libraries themselves gave.
type vectors struct {
	Inputs [][]*float64 `json:"inputs"`
	Models map[string]struct {
		File string          `json:"file"`
		Raw  json.RawMessage `json:"raw"`
		Pred json.RawMessage `json:"pred"`
	} `json:"models"`
}

func loadVectors(t testing.TB, name string) (vectors, [][]float64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	rows := make([][]float64, len(v.Inputs))
	for i, r := range v.Inputs {
		for _, x := range r {
			if x == nil {
				rows[i] = append(rows[i], math.NaN())
			} else {
				rows[i] = append(rows[i], *x)
			}
		}
	}
	return v, rows
}

// matrix reads a list of numbers as a column, or a list of lists.
func matrix(t testing.TB, text json.RawMessage) [][]float64 {
	t.Helper()
	var m [][]float64
	if json.Unmarshal(text, &m) == nil {
		return m
	}
	m = nil
	var column []float64
	if err := json.Unmarshal(text, &column); err != nil {
		t.Fatal(err)
	}
	for _, v := range column {
		m = append(m, []float64{v})
	}
	return m
}

func open(t testing.TB, file string) *Model {
	t.Helper()
	m, err := Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestScoresAreThoseOfTheLibraries(t *testing.T) {
	files, err := filepath.Glob("testdata/*vectors.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, file := range files {
		v, rows := loadVectors(t, filepath.Base(file))
		for name, of := range v.Models {
			t.Run(name, func(t *testing.T) {
				m := open(t, of.File)
				raw, pred := matrix(t, of.Raw), matrix(t, of.Pred)
				if len(raw) != len(rows) || len(pred) != len(rows) || len(rows) == 0 {
					t.Fatalf("%d rows, %d raw scores, %d predictions", len(rows), len(raw), len(pred))
				}
				same := func(got, want float64) bool { return math.Float64bits(got) == math.Float64bits(want) }
				if m.Format == XGBoost {
					same = func(got, want float64) bool { return math.Abs(got-want) <= 1e-6*max(1, math.Abs(want)) }
				}
				off, worst := 0, 0.0
				for i, row := range rows {
					got, err := m.Raw(nil, row)
					if err != nil || len(got) != len(raw[i]) {
						t.Fatalf("row %d: %v, %v", i, got, err)
					}
					for k := range got {
						if !same(got[k], raw[i][k]) {
							t.Errorf("row %d output %d: sum %v, the library has %v", i, k, got[k], raw[i][k])
						}
					}
					if got, err = m.Predict(got[:0], row); err != nil || len(got) != len(pred[i]) {
						t.Fatalf("row %d: %v, %v", i, got, err)
					}
					for k := range got {
						if !same(got[k], pred[i][k]) {
							off++
							worst = max(worst, math.Abs(got[k]-pred[i][k])/math.Abs(pred[i][k]))
						}
					}
				}
				if off > 0 {
					t.Errorf("%d of %d predictions are not the library's, the worst by %.2g of it", off, len(rows)*m.Outputs(), worst)
				}
			})
		}
	}
}

func TestAModelSaysWhatItIs(t *testing.T) {
	m := open(t, "lgb_multi.txt")
	if m.Format != LightGBM || m.Objective != "multiclass" || m.Outputs() != 3 || m.Trees != 45 || len(m.Features) != 8 || m.Features[6] != "Column_6" || len(m.Version) != 64 {
		t.Errorf("%+v", m)
	}
	x := open(t, "xgb_binary.json")
	if x.Format != XGBoost || x.Objective != "binary:logistic" || x.Outputs() != 1 || x.Trees != 15 || len(x.Features) != 8 {
		t.Errorf("%+v", x)
	}
}

func TestFeaturesThatDoNotFitAreRefused(t *testing.T) {
	m, x := open(t, "lgb_binary.txt"), open(t, "xgb_binary.json")
	if _, err := m.Score(make([]float64, 7)); !errors.Is(err, ErrFewFeatures) {
		t.Errorf("seven features: %v", err)
	}
	if _, err := m.Score(make([]float64, 9)); err != nil {
		t.Errorf("nine features: %v", err)
	}
	for _, v := range []float64{math.Inf(1), math.Inf(-1), 1e39} {
		if _, err := x.Score([]float64{v, 0, 0, 0, 0, 0, 0, 0}); !errors.Is(err, ErrInfinite) {
			t.Errorf("%v for XGBoost: %v", v, err)
		}
		if _, err := m.Score([]float64{v, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Errorf("%v for LightGBM: %v", v, err)
		}
	}
}

func TestAScoreDoesNotAllocate(t *testing.T) {
	for _, file := range []string{"lgb_binary_cat.txt", "lgb_multi.txt", "xgb_binary.json", "xgb_multi.json"} {
		m := open(t, file)
		row := []float64{1, math.NaN(), 0, 0, -1, 2, 3, 1}
		out := make([]float64, 0, m.Outputs())
		if n := testing.AllocsPerRun(100, func() {
			var err error
			if out, err = m.Predict(out[:0], row); err != nil {
				t.Fatal(err)
			}
			if _, err = m.Score(row); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", file, n)
		}
	}
}

func TestAFileThatIsCutOffAnywhereIsRefused(t *testing.T) {
	for _, file := range []string{"lgb_binary_cat.txt", "xgb_multi.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		end := len(text) - 1
		if i := strings.Index(string(text), "end of trees"); i > 0 {
			end = i + len("end of trees") - 1 // what follows does not concern a prediction
		}
		for n := 0; n <= end; n += 1 + end/1500 {
			m, err := Parse("cut", text[:n])
			if err == nil {
				t.Fatalf("%s cut at byte %d of %d is taken, with %d trees", file, n, len(text), m.Trees)
			}
			wantPlace(t, err)
		}
	}
}

// wantPlace wants an error that says where it is.
func wantPlace(t *testing.T, err error) {
	t.Helper()
	s := err.Error()
	if !strings.Contains(s, "MR-MOD-00") {
		t.Fatalf("%v has no id", err)
	}
	for _, place := range []string{"line ", "byte ", "learner", "model.tree", "model.trees", "is empty", "it begins with", "weight_drop"} {
		if strings.Contains(s, place) {
			return
		}
	}
	t.Fatalf("%v names no place", err)
}
