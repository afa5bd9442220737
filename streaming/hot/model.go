package hot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	scoring "millrace/features/model"
	"millrace/features/rules"
	"millrace/internal/fault"
)

// ModelConfig says which model rules of kind model ask. Without one they are never met.
type ModelConfig struct {
	Path   string               `koanf:"path" desc:"file of a model (LightGBM's text, XGBoost's JSON) that rules of kind model ask, or a folder of such files; empty: none (docs/models.md)"`
	Server scoring.ServerConfig `koanf:"server"` // no URL: none
}

// DefaultModelConfig has none.
func DefaultModelConfig() ModelConfig { return ModelConfig{Server: scoring.DefaultServerConfig()} }

// Validate reports every problem.
func (c ModelConfig) Validate() error {
	var errs []error
	if c.Path != "" && c.Server.URL != "" {
		errs = append(errs, errors.New("path: there is a server.url as well, one of both is wanted"))
	}
	if c.Server.URL != "" {
		errs = append(errs, prefixed("server", c.Server.Validate()))
	}
	return errors.Join(errs...)
}

// Models gives sets of rules the model that they ask. A set keeps the one that it was given: another model comes with another set, between two records, so that the version
// of the rules says all there is to say of an alert.
type Models struct {
	cfg    ModelConfig
	log    *slog.Logger
	remote *remoteModel
	failed prometheus.Counter

	mu   sync.Mutex
	have []loaded // the last that were asked for, newest first
}

// loaded is a model for the sets that name its version, or for a set that names none.
type loaded struct {
	asked string // version that was named, or the hash of a set that names none
	*rules.Scorer
}

// modelsKept is how many: those of sets that tasks may still have in force.
const modelsKept = 4

// NewModels checks the configuration. Files are read when a set asks for them.
func NewModels(cfg ModelConfig, reg prometheus.Registerer, log *slog.Logger) (*Models, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fault.New("MR-MOD-006", err)
	}
	m := &Models{cfg: cfg, log: log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "millrace_model_failed_total", Help: "Times a model in the process gave no score for its features; the rule was not met.",
	})}
	reg.MustRegister(m.failed)
	if cfg.Server.URL == "" {
		return m, nil
	}
	var err error
	m.remote, err = newRemoteModel(cfg.Server, reg)
	return m, err
}

// Run asks a model server until ctx ends, if there is one.
func (m *Models) Run(ctx context.Context) error {
	if m != nil && m.remote != nil {
		m.remote.run(ctx)
	}
	return nil
}

// For is what a set's rules of kind model ask, nil if it has none, or no model is configured and it names none. An error says why the set cannot be used.
func (m *Models) For(set *rules.Set) (*rules.Scorer, error) {
	switch {
	case !set.Asks():
		return nil, nil
	case m == nil || m.cfg.Path == "" && m.remote == nil:
		if set.Model != "" {
			return nil, fault.Newf("MR-MOD-007", "the rules ask for version %s of a model, and neither hot.model.path nor hot.model.server.url is set", set.Model)
		}
		return nil, nil
	case m.remote != nil:
		if v := m.cfg.Server.Version; set.Model != "" && set.Model != v {
			return nil, fault.Newf("MR-MOD-007", "the rules ask for version %s of model %s, hot.model.server.version is %q", set.Model, m.cfg.Server.Model, v)
		}
		return &rules.Scorer{Model: m.cfg.Server.Model, Version: m.cfg.Server.Version, Score: m.remote.score}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := set.Model
	if asked == "" {
		asked = set.Hash
	}
	if i := slices.IndexFunc(m.have, func(l loaded) bool { return l.asked == asked }); i >= 0 {
		return m.have[i].Scorer, nil
	}
	by, err := m.open(set.Model)
	if err != nil {
		return nil, err
	}
	m.have = slices.Insert(m.have, 0, loaded{asked, by})
	m.have = m.have[:min(len(m.have), modelsKept)]
	m.log.Info("rules: a model was read", "model", by.Model, "model_version", by.Version, "rules_version", set.Version)
	return by, nil
}

// open reads the file of a version, "" for the only file.
func (m *Models) open(version string) (*rules.Scorer, error) {
	path := m.cfg.Path
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.Newf("MR-MOD-007", "looking for the model: %w", err)
	}
	if info.IsDir() {
		if version == "" {
			return nil, fault.Newf("MR-MOD-007", "hot.model.path %s is a folder, and the rules do not say which version of a model they ask", path)
		}
		if path, err = fileOf(path, version); err != nil {
			return nil, err
		}
	}
	f, err := scoring.Open(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(f.Version, strings.ToLower(version)) || version != "" && len(version) < minVersion {
		return nil, fault.Newf("MR-MOD-007", "the rules ask for version %s of the model, %s has version %s", version, path, f.Version[:12])
	}
	if err := fits(f); err != nil {
		return nil, fault.Newf("MR-MOD-004", "model %s: %w", path, err)
	}
	name := filepath.Base(path)
	return &rules.Scorer{Model: strings.TrimSuffix(name, filepath.Ext(name)), Version: f.Version[:12], Score: func(features []float64) float64 {
		v, err := f.Score(features)
		if err != nil {
			m.failed.Inc()
			return math.NaN()
		}
		return v
	}}, nil
}

// minVersion is how many digits of a file's SHA-256 are enough.
const minVersion = 8

// fileOf finds the file of a folder whose SHA-256 begins with version.
func fileOf(dir, version string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fault.Newf("MR-MOD-007", "looking for the model: %w", err)
	}
	var there []string
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		sum, err := digest(path)
		if err != nil {
			return "", fault.Newf("MR-MOD-001", "reading model %s: %w", path, err)
		}
		if len(version) >= minVersion && strings.HasPrefix(sum, strings.ToLower(version)) {
			return path, nil
		}
		there = append(there, e.Name()+" "+sum[:12])
	}
	return "", fault.Newf("MR-MOD-007", "no file in %s has version %s (SHA-256, at least %d digits); there are: %s", dir, version, minVersion, strings.Join(there, ", "))
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fits says whether a model can be asked with the features of rules. A model that names its features must name these.
func fits(m *scoring.Model) error {
	want := rules.Features()
	if len(m.Features) > len(want) {
		return fmt.Errorf("it asks for %d features, rules have %d: %s", len(m.Features), len(want), strings.Join(want, ", "))
	}
	for i, name := range m.Features {
		if name != "" && name != want[i] && name != fmt.Sprintf("Column_%d", i) && name != fmt.Sprintf("f%d", i) {
			return fmt.Errorf("its feature %d is %q, that of rules is %q; in order they are %s", i, name, want[i], strings.Join(want, ", "))
		}
	}
	return nil
}
