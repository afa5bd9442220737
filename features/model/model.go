package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"millrace/internal/fault"
)

// Bounds of a model. What is beyond them is refused before memory is taken for it.
const (
	MaxBytes    = 256 << 20
	MaxTrees    = 50_000
	MaxNodes    = 16 << 20 // of all trees
	MaxFeatures = math.MaxUint16
	MaxOutputs  = 1024
)

// The formats that are read.
const (
	LightGBM = "lightgbm"
	XGBoost  = "xgboost"
)

// Model is a forest of gradient-boosted trees. It does not change, and is safe for concurrent use.
type Model struct {
	Format    string   // LightGBM or XGBoost
	Objective string   // as the file names it: "binary", "multi:softprob"
	Version   string   // SHA-256 of the file, in hex
	Features  []string // names in order; "" where the file has none
	Trees     int
	outputs   int

	forest  forest
	group   []int32   // output that a tree adds to; nil: there is one
	base    []float64 // where the sum of each output begins
	single  bool      // features and sums are float32
	average float64   // iterations over which a random forest averages; 0: none
	turn    turn
	param   float64 // of turn
}

// Outputs is how many numbers a score has: one, or one for each class.
func (m *Model) Outputs() int { return m.outputs }

// The errors of scoring. They are values, so that a refusal costs nothing either.
var (
	ErrFewFeatures = fault.New("MR-MOD-004", errors.New("fewer features than the model has"))
	ErrInfinite    = fault.New("MR-MOD-004", errors.New("a feature is infinite, or beyond a float32 in a model of XGBoost"))
)

// roundBuffer is how many features are rounded to float32 on the stack.
const roundBuffer = 128

// Raw appends the sums of the trees to dst: the margin, one number for each output. A feature that is not known is NaN. Features beyond the model's are not looked at.
// It does not allocate where dst has room.
func (m *Model) Raw(dst, features []float64) ([]float64, error) {
	if len(features) < len(m.Features) {
		return dst, ErrFewFeatures
	}
	n := len(dst)
	dst = append(dst, m.base...)
	out := dst[n:]
	if m.single {
		var buf [roundBuffer]float64
		rounded := buf[:0]
		for _, v := range features[:len(m.Features)] {
			if v = float64(float32(v)); v-v != 0 && v == v {
				return dst[:n], ErrInfinite
			}
			rounded = append(rounded, v)
		}
		m.sumSingle(out, rounded)
		return dst, nil
	}
	m.sum(out, features)
	return dst, nil
}

func (m *Model) sum(out, x []float64) {
	var leaf [lanes]float64
	if m.group == nil {
		total := out[0]
		for i := 0; i < m.Trees; {
			n := m.forest.walk(x, &leaf, i)
			for _, v := range leaf[:n] {
				total += v
			}
			i += n
		}
		out[0] = total
		return
	}
	for i := 0; i < m.Trees; {
		n := m.forest.walk(x, &leaf, i)
		for j, v := range leaf[:n] {
			out[m.group[i+j]] += v
		}
		i += n
	}
}

// sumSingle adds as XGBoost does: the float64 sum of two float32, rounded, is their float32 sum.
func (m *Model) sumSingle(out, x []float64) {
	var leaf [lanes]float64
	for i := 0; i < m.Trees; {
		n := m.forest.walk(x, &leaf, i)
		for j, v := range leaf[:n] {
			o := int32(0)
			if m.group != nil {
				o = m.group[i+j]
			}
			out[o] = float64(float32(out[o] + v))
		}
		i += n
	}
}

// Predict appends what the model predicts to dst: probabilities for a classifier, else values. See Raw.
func (m *Model) Predict(dst, features []float64) ([]float64, error) {
	n := len(dst)
	dst, err := m.Raw(dst, features)
	if err != nil {
		return dst, err
	}
	out := dst[n:]
	if m.average > 0 {
		for i := range out {
			out[i] /= m.average
		}
	}
	m.turn.apply(out, m.param)
	return dst, nil
}

// Score is what a model with one output predicts. Of one with several it is the last: of two classes that is the probability of class 1.
func (m *Model) Score(features []float64) (float64, error) {
	var buf [16]float64
	out, err := m.Predict(buf[:0], features)
	if err != nil {
		return 0, err
	}
	return out[len(out)-1], nil
}

// Parse reads a model file of either format. name is for errors, which say where in the file they are.
func Parse(name string, file []byte) (*Model, error) {
	if len(file) > MaxBytes {
		return nil, fault.Newf("MR-MOD-003", "model %s has %d bytes, at most %d are read", name, len(file), MaxBytes)
	}
	var m *Model
	var err error
	switch text := bytes.TrimLeft(file, " \t\r\n\ufeff"); {
	case len(text) == 0:
		return nil, fault.Newf("MR-MOD-001", "model %s is empty", name)
	case text[0] == '{':
		m, err = parseXGBoost(file)
	case bytes.HasPrefix(text, []byte("tree")):
		m, err = parseLightGBM(file)
	default:
		return nil, fault.Newf("MR-MOD-001", "model %s: it begins with %.20q: neither a text file of LightGBM nor a JSON file of XGBoost", name, text)
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	sum := sha256.Sum256(file)
	m.Version = hex.EncodeToString(sum[:])
	return m, nil
}

// Open reads a model file.
func Open(path string) (*Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Newf("MR-MOD-001", "opening model: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fault.Newf("MR-MOD-001", "reading model %s: %w", path, err)
	}
	return Parse(path, data)
}

func itoa(i int) string { return strconv.Itoa(i) }
