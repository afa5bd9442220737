package rules

import (
	"bytes"
	_ "embed" // the default rules
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
	"go.yaml.in/yaml/v3"

	"millrace/event"
)

// Bounds of a file.
const (
	MaxBytes  = 256 << 10
	maxRules  = 100
	maxNames  = 20
	maxMarks  = 200 // values that a key remembers
	maxScore  = 0.999
	maxReason = 300
)

//go:embed rules.yaml
var defaultFile []byte

// Default is the set of rules that is in force until another is applied: version 1.
func Default() (*Set, error) { return Parse(defaultFile) }

// file is what a file says; lines say where.
type file struct {
	Version int    `yaml:"version"`
	Model   string `yaml:"model"`
	Rules   []yaml.Node
}

type entry struct {
	Name      string   `yaml:"name"`
	Kind      Kind     `yaml:"kind"`
	Entity    string   `yaml:"entity"`
	On        []string `yaml:"on"`
	Where     string   `yaml:"where"`
	Of        []string `yaml:"of"`
	From      string   `yaml:"from"`
	Sequence  []string `yaml:"sequence"`
	Window    span     `yaml:"window"`
	Threshold float64  `yaml:"threshold"`
	Declines  int      `yaml:"declines"`
	History   int      `yaml:"history"`
	Severity  string   `yaml:"severity"`
	Score     float64  `yaml:"score"`
	Reason    string   `yaml:"reason"`
	Cooldown  span     `yaml:"cooldown"`
}

// span is a duration, which may be in days.
type span time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *span) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if d, ok := strings.CutSuffix(text, "d"); ok {
		if v, err := strconv.Atoi(d); err == nil && v >= 0 && v <= 10_000 {
			*s = span(time.Duration(v) * 24 * time.Hour)
			return nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration such as 90s, 10m, 24h or 30d", n.Line, text)
	}
	*s = span(d)
	return nil
}

var versionOfModel = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// problems collects what is wrong, with its line.
type problems struct{ errs []error }

func (p *problems) at(line int, format string, a ...any) {
	p.errs = append(p.errs, fmt.Errorf("line %d: "+format, append([]any{line}, a...)...))
}

// Parse reads a file of rules. The error lists every problem with its line and what to do.
func Parse(data []byte) (*Set, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("the file has %d bytes, at most %d are taken", len(data), MaxBytes)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("the file is no YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("the file has several documents; one is wanted")
	}
	p := &problems{}
	if plain(&doc, p); len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("line 1: a mapping with version and rules is wanted")
	}
	root := doc.Content[0]
	var f file
	known(root, []string{"version", "model", "rules"}, "the file", p)
	if v := value(root, "version"); v == nil || v.Decode(&f.Version) != nil || f.Version < 1 || f.Version > math.MaxInt32 {
		p.at(line(v, root), "version: a whole number from 1 is wanted, greater than that of the set in force")
	}
	if v := value(root, "model"); v != nil && (v.Decode(&f.Model) != nil || !versionOfModel.MatchString(f.Model)) {
		p.at(v.Line, "model: the version of the model is wanted, in quotes: the first 8 or more hexadecimal digits of the SHA-256 of its file, or a model server's version")
	}
	list := value(root, "rules")
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) > maxRules {
		p.at(line(list, root), "rules: a list of 0 to %d rules is wanted", maxRules)
		return nil, errors.Join(p.errs...)
	}
	set := &Set{Version: f.Version, Model: f.Model, source: bytes.Clone(data)}
	seen := map[string]int{}
	for _, n := range list.Content {
		r := readRule(n, p)
		if r == nil {
			continue
		}
		if at, ok := seen[r.Name]; ok {
			p.at(n.Line, "rule %s: there is another of this name on line %d", r.Name, at)
		}
		seen[r.Name] = n.Line
		set.Rules = append(set.Rules, r)
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	set.compile()
	return set, nil
}

// plain refuses anchors and aliases, of which a small file can make a huge one.
func plain(n *yaml.Node, p *problems) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.at(n.Line, "anchors and aliases are not taken: write it out")
		return
	}
	for _, c := range n.Content {
		plain(c, p)
	}
}

func line(n, otherwise *yaml.Node) int {
	if n != nil {
		return n.Line
	}
	return otherwise.Line
}

func value(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func known(m *yaml.Node, keys []string, what string, p *problems) {
	have := map[string]bool{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k := m.Content[i]
		if !slices.Contains(keys, k.Value) {
			p.at(k.Line, "%s has no field %q; its fields are %s", what, k.Value, strings.Join(keys, ", "))
		}
		if have[k.Value] {
			p.at(k.Line, "%s has field %q twice", what, k.Value)
		}
		have[k.Value] = true
	}
}

var entryFields = []string{"name", "kind", "entity", "on", "where", "of", "from", "sequence", "window", "threshold", "declines", "history", "severity", "score", "reason", "cooldown"}

var (
	ruleName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	placeholder = regexp.MustCompile(`\{[^}]*\}`)
)

// readRule reads one rule; nil if it cannot be read at all.
func readRule(n *yaml.Node, p *problems) *Rule {
	if n.Kind != yaml.MappingNode {
		p.at(n.Line, "a rule is a mapping")
		return nil
	}
	known(n, entryFields, "a rule", p)
	var e entry
	for i := 0; i+1 < len(n.Content); i += 2 { // one by one, so that each problem is told
		one := &yaml.Node{Kind: yaml.MappingNode, Content: n.Content[i : i+2]}
		if err := one.Decode(&e); err != nil {
			text := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n  ")
			if !strings.HasPrefix(text, "line ") {
				text = fmt.Sprintf("line %d: %s", n.Content[i].Line, text)
			}
			p.errs = append(p.errs, fmt.Errorf("%s (field %s)", text, n.Content[i].Value))
		}
	}
	r := &Rule{
		Name: e.Name, Kind: e.Kind, Entity: e.Entity, On: e.On, Of: e.Of, From: e.From, Sequence: e.Sequence, Window: time.Duration(e.Window), Threshold: e.Threshold,
		Declines: e.Declines, History: e.History, Severity: e.Severity, Score: e.Score, Reason: e.Reason, Cooldown: time.Duration(e.Cooldown),
	}
	c := &ruleChecks{n: n, p: p, r: r}
	c.common(e)
	c.byKind()
	if r.Cooldown == 0 {
		r.Cooldown = min(r.Window, 24*time.Hour)
	}
	r.window, r.quiet = r.Window.Microseconds(), r.Cooldown.Microseconds()
	return r
}

// ruleChecks reports what is wrong with a rule.
type ruleChecks struct {
	n *yaml.Node
	p *problems
	r *Rule
}

func (c *ruleChecks) need(ok bool, field, format string, a ...any) {
	if ok {
		return
	}
	at := c.n.Line
	if v := value(c.n, field); v != nil {
		at = v.Line
	}
	c.p.at(at, "rule %s: %s: "+format, append([]any{c.r.Name, field}, a...)...)
}

func (c *ruleChecks) absent(fields ...string) {
	for _, f := range fields {
		c.need(value(c.n, f) == nil, f, "a rule of kind %s has none", c.r.Kind)
	}
}

const day = 24 * time.Hour

func (c *ruleChecks) common(e entry) {
	r := c.r
	c.need(ruleName.MatchString(r.Name), "name", "%q is not made of a lower-case letter, then at most 63 letters, digits and -", r.Name)
	c.need(slices.Contains(Kinds(), r.Kind), "kind", "%q is none of %v", r.Kind, Kinds())
	c.need(slices.Contains(Entities(), r.Entity), "entity", "%q is none of %s", r.Entity, strings.Join(Entities(), ", "))
	if r.Kind != Pattern {
		c.need(len(r.On) > 0 && len(r.On) <= maxNames, "on", "name 1 to %d events: a rule on all events would match everything", maxNames)
	}
	for _, name := range slices.Concat(r.On, r.Sequence) {
		c.need(name != "" && name != "*" && len(name) <= event.MaxIDBytes, "on", "%q is no name of an event; name the events that are meant", name)
	}
	if e.Where != "" {
		var err error
		r.where, r.Where, err = parseWhere(e.Where)
		c.need(err == nil, "where", "%v", err)
	}
	c.need(r.Window >= time.Second && r.Window <= 90*day, "window", "%s is not between 1s and 90d", days(r.Window))
	c.need(r.Cooldown >= 0 && r.Cooldown <= 90*day, "cooldown", "%s is not between 0s and 90d", days(r.Cooldown))
	c.need(slices.Contains([]string{event.SeverityInfo, event.SeverityWarn, event.SeverityCritical}, r.Severity), "severity", "%q is none of info, warn, critical", r.Severity)
	c.need(r.Score > 0 && r.Score <= maxScore, "score", "%g is not above 0 and up to %g", r.Score, maxScore)
	c.need(r.Reason != "" && len(r.Reason) <= maxReason, "reason", "say in 1 to %d bytes what was found", maxReason)
	for _, ph := range placeholder.FindAllString(r.Reason, -1) {
		c.need(slices.Contains([]string{"{n}", "{threshold}", "{window}", "{from}", "{to}"}, ph), "reason", "%s is none of {n}, {threshold}, {window}, {from}, {to}", ph)
	}
	c.need(!math.IsNaN(r.Threshold) && !math.IsInf(r.Threshold, 0), "threshold", "%g is no number", r.Threshold)
}

func (c *ruleChecks) byKind() {
	r := c.r
	if r.Kind != CardTesting {
		c.absent("declines")
	}
	if r.Kind != AmountOutlier {
		c.absent("history")
	}
	if r.Kind != TimeAnomaly {
		c.absent("from")
	}
	if r.Kind != Pattern {
		c.absent("sequence")
	}
	if r.Kind != Distinct && r.Kind != FirstSeen {
		c.absent("of")
	}
	for _, name := range r.Of {
		f, ok := fieldNamed(name)
		c.need(ok && f.kind == text, "of", "%q is no text field; the fields are %s", name, strings.Join(Fields(), ", "))
		r.of = append(r.of, f)
	}
	whole := r.Threshold == math.Trunc(r.Threshold)
	switch r.Kind {
	case Velocity:
		c.need(whole && r.Threshold >= 2 && r.Threshold <= 1e6, "threshold", "%g is no whole number from 2 to 1000000; at 1 or less every event would be an alert", r.Threshold)
		c.need(r.Window <= 7*day, "window", "%s is above 7d", days(r.Window))
	case Distinct:
		c.need(whole && r.Threshold >= 2 && r.Threshold <= maxMarks, "threshold", "%g is no whole number from 2 to %d; at 1 or less every event would be an alert", r.Threshold, maxMarks)
		c.need(len(r.Of) == 1, "of", "name the field whose values are counted")
		c.need(r.Window <= 7*day, "window", "%s is above 7d", days(r.Window))
	case CardTesting:
		c.need(whole && r.Threshold >= 2 && r.Threshold <= maxMarks, "threshold", "%g is no whole number of cards from 2 to %d; with one card every payment would be an alert", r.Threshold, maxMarks)
		c.need(r.Declines == 0 || r.Declines >= 2 && r.Declines <= 1e6, "declines", "%d is neither 0 nor from 2 to 1000000", r.Declines)
		c.need(r.Entity != event.EntityCard, "entity", "cards are counted by visitor, user, ip or device")
		c.need(r.Window <= 7*day, "window", "%s is above 7d", days(r.Window))
	case AmountOutlier:
		c.need(r.Threshold >= 2 && r.Threshold <= 100, "threshold", "%g robust standard deviations are not from 2 to 100; below 2 one order in twenty would be an alert", r.Threshold)
		if value(c.n, "history") == nil {
			r.History = 5
		}
		c.need(r.History >= 5 && r.History <= 1000, "history", "%d orders are not from 5 to 1000; with fewer a scale means nothing", r.History)
	case ImpossibleTravel:
		c.need(r.Threshold >= 100 && r.Threshold <= 100_000, "threshold", "%g km/h is not from 100 to 100000", r.Threshold)
		c.need(r.Entity != event.EntityIP, "entity", "an address does not travel: user, card, visitor or device")
	case TimeAnomaly:
		c.need(r.Threshold > 0 && r.Threshold <= 3600, "threshold", "%g seconds are not above 0 and up to 3600", r.Threshold)
		c.need(r.From != "" && !slices.Contains(r.On, r.From), "from", "name the event from which time is taken, another than those in on")
	case FirstSeen:
		c.need(whole && r.Threshold >= 1 && r.Threshold <= 1e6, "threshold", "%g is no whole number of earlier events from 1 to 1000000; at 0 the first event of everybody would be an alert", r.Threshold)
		c.need(len(r.Of) >= 1 && len(r.Of) <= 4, "of", "name 1 to 4 fields that must all have a new value")
	case Pattern:
		c.absent("on", "threshold")
		c.need(len(r.Sequence) >= 2 && len(r.Sequence) <= 10, "sequence", "name 2 to 10 events in their order")
		c.need(r.Window <= day, "window", "%s is above 1d", days(r.Window))
	case Model:
		c.need(r.Threshold > 0 && r.Threshold < 1, "threshold", "a score of %g is not between 0 and 1", r.Threshold)
		c.need(r.Window <= 7*day, "window", "%s is above 7d", days(r.Window))
	}
}

// compile makes the plans.
func (s *Set) compile() {
	h := xxh3.New()
	_, _ = h.WriteString(strconv.Itoa(s.Version)) // a hash takes everything
	if s.Model != "" {
		_, _ = h.WriteString("\x1dmodel " + s.Model)
	}
	s.plans = map[string]*Plan{}
	for _, r := range s.Rules {
		_, _ = h.WriteString("\x1e" + r.canonical(true))
		r.id = uint32(xxh3.HashString(r.canonical(false))) | 1
		p := s.plans[r.Entity]
		if p == nil {
			p = &Plan{by: map[string][]*Rule{}, ids: map[uint32]*Rule{}}
			s.plans[r.Entity] = p
		}
		p.ids[r.id] = r
		for _, name := range r.watches() {
			p.by[name] = append(p.by[name], r)
		}
	}
	sum := h.Sum128().Bytes()
	s.Hash = hex.EncodeToString(sum[:])
}

// SetScorer gives the rules of kind model what they ask; nil: they are never met. It is called before the set is used.
func (s *Set) SetScorer(by *Scorer) {
	s.scorer = by
	for _, p := range s.plans {
		p.Score = nil
		if by != nil {
			p.Score = by.Score
		}
	}
}
