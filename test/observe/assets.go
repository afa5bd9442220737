package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// dashboard is what we look at of a Grafana dashboard.
type dashboard struct {
	UID     string  `json:"uid"`
	Title   string  `json:"title"`
	Panels  []panel `json:"panels"`
	Refresh string  `json:"refresh"`
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Targets []struct {
		RefID      string `json:"refId"`
		Expr       string `json:"expr"`
		Datasource struct {
			UID string `json:"uid"`
		} `json:"datasource"`
	} `json:"targets"`
}

// ruleFile is a file of recording or alert rules.
type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Record      string            `yaml:"record"`
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// assets is deploy/observability.
type assets struct {
	dashboards map[string]dashboard // by file name
	rules      []rule
}

func readAssets(root string) (assets, error) {
	dir := filepath.Join(root, "deploy", "observability")
	a := assets{dashboards: map[string]dashboard{}}
	boards, err := filepath.Glob(filepath.Join(dir, "grafana", "*.json"))
	if err != nil {
		return a, fmt.Errorf("listing dashboards: %w", err)
	}
	for _, file := range boards {
		text, err := os.ReadFile(file)
		if err != nil {
			return a, fmt.Errorf("reading a dashboard: %w", err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			return a, fmt.Errorf("%s: %w", file, err)
		}
		a.dashboards[filepath.Base(file)] = d
	}
	for _, name := range []string{"recording.yml", "alerts.yml"} {
		text, err := os.ReadFile(filepath.Join(dir, "rules", name))
		if err != nil {
			return a, fmt.Errorf("reading rules: %w", err)
		}
		var f ruleFile
		if err := yaml.Unmarshal(text, &f); err != nil {
			return a, fmt.Errorf("%s: %w", name, err)
		}
		for _, g := range f.Groups {
			a.rules = append(a.rules, g.Rules...)
		}
	}
	return a, nil
}

// exprs lists every expression of the dashboards with where it stands, Grafana's variables replaced.
func (a assets) exprs() map[string]string {
	out := map[string]string{}
	for file, d := range a.dashboards {
		for _, p := range d.Panels {
			for _, t := range p.Targets {
				out[fmt.Sprintf("%s, %s, %s", strings.TrimSuffix(file, ".json"), p.Title, t.RefID)] = strings.ReplaceAll(t.Expr, "$__rate_interval", "1m")
			}
		}
	}
	return out
}

// use is a metric in an expression, with the labels that the expression selects by.
type use struct {
	name   string
	labels []string
}

var (
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
	quoted   = regexp.MustCompile(`"[^"]*"`)
	// theirs are what Prometheus and its clients make themselves.
	theirs = regexp.MustCompile(`^(up|ALERTS|process_[a-z_]+|go_[a-z_]+)$`)
)

// uses finds the metrics of an expression: whatever looks like one of ours, of the clients' or a recorded one.
func uses(expr string) []use {
	var out []use
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		name := m[1]
		if !strings.HasPrefix(name, "millrace_") && !strings.HasPrefix(name, "millrace:") && !theirs.MatchString(name) {
			continue
		}
		u := use{name: name}
		for _, l := range matcher.FindAllStringSubmatch(quoted.ReplaceAllString(m[2], `""`), -1) {
			u.labels = append(u.labels, l[1])
		}
		out = append(out, u)
	}
	return out
}
