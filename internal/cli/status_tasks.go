package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"millrace/streaming"
	"millrace/workers"
)

// taskStatus is one task of the stream role, as its metrics tell it.
type taskStatus struct {
	Topology       string   `json:"topology"`
	Stage          string   `json:"stage"`
	Partition      int      `json:"partition"`
	Lag            int64    `json:"lag_records"`
	WatermarkDelay *float64 `json:"watermark_delay_seconds"` // null while no events have come
	StateKeys      int64    `json:"state_keys"`
	StateBytes     int64    `json:"state_bytes"`
	DiskKeys       int64    `json:"state_disk_keys"`
	Commit         float64  `json:"commit_seconds"`
	HotKeyShare    float64  `json:"hot_key_share"`
	RulesVersion   *int     `json:"rules_version"` // in force; null in a task without rules
	Restoring      bool     `json:"restoring"`
	RestoredShare  float64  `json:"restored_share"`
}

// rulesStatus is what the roles say of the newest set of rules on the topic control, beside what each task has in force.
type rulesStatus struct {
	Offered int           `json:"offered_version"` // newest usable; 0: no role told
	Model   string        `json:"model,omitempty"` // that it asks, with its version
	Refused *refusedRules `json:"refused"`         // null: the last set is usable
}

// topologyStatus is what a stage of a topology promises.
type topologyStatus struct {
	Topology  string `json:"topology"`
	Stage     string `json:"stage"`
	Guarantee string `json:"guarantee"` // exactly_once, at_least_once, or mixed where workers differ
}

// streamStatus is what the roles say of the stream.
type streamStatus struct {
	Topologies []topologyStatus `json:"topologies"`
	Tasks      []taskStatus     `json:"tasks"`
	Rules      rulesStatus      `json:"rules"`
}

// refusedRules is a set that cannot be used: the one before stays in force.
type refusedRules struct {
	Version int    `json:"version"` // 0: it could not be read
	Reason  string `json:"reason"`
}

const (
	streamMetric  = "millrace_stream_"
	metricsWithin = 2 * time.Second
)

// mixed is the guarantee of a stage whose workers differ: the weaker one holds.
const mixed = "mixed"

// addGuarantees takes over what the workers of a process promise.
func (s *streamStatus) addGuarantees(families map[string]*dto.MetricFamily) {
	for _, m := range families[streamMetric+"exactly_once_workers"].GetMetric() {
		t := topologyStatus{label(m, "topology"), label(m, "stage"), streaming.AtLeastOnce}
		if m.GetGauge().GetValue() > 0 {
			t.Guarantee = streaming.ExactlyOnce
		}
		i := slices.IndexFunc(s.Topologies, func(x topologyStatus) bool { return x.Topology == t.Topology && x.Stage == t.Stage })
		switch {
		case i < 0:
			s.Topologies = append(s.Topologies, t)
		case s.Topologies[i].Guarantee != t.Guarantee:
			s.Topologies[i].Guarantee = mixed
		}
	}
}

// streamOf asks the roles for stream tasks, what they promise and their rules. A role that does not answer has none to tell of: its line in the table of parts says why.
func streamOf(ctx context.Context, e workers.Endpoints) streamStatus {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := streamStatus{Topologies: []topologyStatus{}}
	for _, address := range e.Metrics {
		wg.Go(func() {
			families, err := metricsOf(ctx, address)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.Tasks = append(out.Tasks, tasksOf(families)...)
			out.Rules.add(families)
			out.addGuarantees(families)
		})
	}
	wg.Wait()
	slices.SortFunc(out.Topologies, func(a, b topologyStatus) int {
		return cmp.Or(cmp.Compare(a.Topology, b.Topology), cmp.Compare(a.Stage, b.Stage))
	})
	slices.SortFunc(out.Tasks, func(a, b taskStatus) int {
		return cmp.Or(cmp.Compare(a.Topology, b.Topology), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Partition, b.Partition))
	})
	return out
}

// guaranteeRows is the table of guarantees; the first row is the head.
func guaranteeRows(topologies []topologyStatus) [][]string {
	rows := [][]string{{"TOPOLOGY", "GUARANTEE"}}
	for _, t := range topologies {
		rows = append(rows, []string{t.Topology + "." + t.Stage, t.Guarantee})
	}
	return rows
}

// add takes over what a process says of rules. Of several, the one that refuses speaks.
func (s *rulesStatus) add(families map[string]*dto.MetricFamily) {
	for _, m := range families["millrace_rules_offered_version"].GetMetric() {
		s.Offered = max(s.Offered, int(m.GetGauge().GetValue()))
	}
	for _, m := range families["millrace_rules_model_state"].GetMetric() {
		s.Model = strings.TrimSpace(label(m, "model") + " " + label(m, "version"))
	}
	for _, m := range families["millrace_rules_refused_version"].GetMetric() {
		s.Refused = &refusedRules{int(m.GetGauge().GetValue()), label(m, "reason")}
	}
}

// line says it in words, "" if there is nothing to say.
func (s rulesStatus) line() string {
	if s.Offered == 0 {
		return ""
	}
	out := fmt.Sprintf("rules: version %d", s.Offered)
	if s.Model != "" {
		out += ", model " + s.Model
	}
	if s.Refused != nil {
		which := "a set"
		if s.Refused.Version > 0 {
			which = fmt.Sprintf("version %d", s.Refused.Version)
		}
		out += fmt.Sprintf("; %s was refused: %s", which, s.Refused.Reason)
	}
	return out
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func metricsOf(ctx context.Context, address string) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, metricsWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", address, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was read as far as wanted
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the metrics of %s: %w", address, err)
	}
	return families, nil
}

// tasksOf puts the gauges of each (topology, stage, partition) together.
func tasksOf(families map[string]*dto.MetricFamily) []taskStatus {
	type id struct{ topology, stage, partition string }
	tasks := map[id]*taskStatus{}
	each := func(name string, f func(t *taskStatus, v float64)) {
		for _, m := range families[streamMetric+name].GetMetric() {
			var k id
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "topology":
					k.topology = l.GetValue()
				case "stage":
					k.stage = l.GetValue()
				case "partition":
					k.partition = l.GetValue()
				}
			}
			p, err := strconv.Atoi(k.partition)
			if v := m.GetGauge().GetValue(); err == nil && !math.IsNaN(v) {
				if tasks[k] == nil {
					tasks[k] = &taskStatus{Topology: k.topology, Stage: k.stage, Partition: p, RestoredShare: 1}
				}
				f(tasks[k], v)
			}
		}
	}
	each("lag_records", func(t *taskStatus, v float64) { t.Lag += int64(v) })
	each("watermark_delay_seconds", func(t *taskStatus, v float64) { t.WatermarkDelay = &v })
	each("state_keys", func(t *taskStatus, v float64) { t.StateKeys += int64(v) })
	each("state_bytes", func(t *taskStatus, v float64) { t.StateBytes = int64(v) })
	each("state_disk_keys", func(t *taskStatus, v float64) { t.DiskKeys = int64(v) })
	each("task_commit_seconds", func(t *taskStatus, v float64) { t.Commit = v })
	each("hot_key_share", func(t *taskStatus, v float64) { t.HotKeyShare = v })
	each("restored_share", func(t *taskStatus, v float64) { t.Restoring, t.RestoredShare = true, v })
	for k, t := range tasks { // its metric has no label for the topology
		for _, m := range families["millrace_rules_version"].GetMetric() {
			if v := int(m.GetGauge().GetValue()); v > 0 && label(m, "stage") == k.stage && label(m, "partition") == k.partition {
				t.RulesVersion = &v
			}
		}
	}
	out := make([]taskStatus, 0, len(tasks))
	for _, t := range tasks {
		out = append(out, *t)
	}
	return out
}

// taskRows is the table of tasks; the first row is the head.
func taskRows(tasks []taskStatus) [][]string {
	rows := [][]string{{"TASK", "LAG", "WATERMARK", "KEYS", "STATE", "ON DISK", "COMMIT", "HOT KEY", "RULES", "RESTORED"}}
	for _, t := range tasks {
		delay := "-"
		if t.WatermarkDelay != nil {
			delay = (time.Duration(*t.WatermarkDelay*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		restored, rules := "", "-"
		if t.RulesVersion != nil {
			rules = strconv.Itoa(*t.RulesVersion)
		}
		if t.Restoring {
			restored = fmt.Sprintf("%.0f %%", 100*t.RestoredShare)
		}
		rows = append(rows, []string{
			fmt.Sprintf("%s.%s/%d", t.Topology, t.Stage, t.Partition), strconv.FormatInt(t.Lag, 10), delay, strconv.FormatInt(t.StateKeys, 10), bytes(t.StateBytes),
			strconv.FormatInt(t.DiskKeys, 10), (time.Duration(t.Commit*1e6) * time.Microsecond).Round(100 * time.Microsecond).String(), fmt.Sprintf("%.0f %%", 100*t.HotKeyShare), rules, restored,
		})
	}
	return rows
}
