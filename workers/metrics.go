package workers

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"millrace/activities"
	"millrace/api"
	"millrace/event/registry"
	"millrace/event/schema"
	"millrace/gateway"
	"millrace/kpi"
	"millrace/streaming"
	"millrace/streaming/hot"
	"millrace/streaming/sink"
)

// Metric is one family of metrics, as docs/METRICS.md lists them.
type Metric struct {
	Name   string
	Type   string // counter, gauge or histogram
	Unit   string
	Help   string
	Labels []string
	Fixed  []string // labels with one value in a process, as name="value"
	Roles  []string // that have it
}

// parts makes what each role registers metrics for, without reaching anything. A role of the table that is missing here fails a test.
func parts() map[string]func(p *process) error {
	stream := func(p *process) error {
		asked := p.cfg.Hot.Model
		asked.Server.URL, asked.Server.Model = "http://127.0.0.1:1", "metrics-only"
		if _, err := hot.NewModels(asked, p.reg, p.log); err != nil {
			return err
		}
		if _, err := hot.NewRules(p.reg, nil, p.log); err != nil {
			return err
		}
		hot.FastAlerts(nil, p.codecs, p.reg)
		tops, err := p.topologies(p.cfg.Hot, p.reg)
		for i, top := range tops {
			_, failed := streaming.NewWorker(p.stage(top, i == 0), top, p.kafka(), p.reg, p.log)
			err = errors.Join(err, failed)
		}
		return err
	}
	return map[string]func(p *process) error{
		"registry": func(p *process) error {
			_, err := registry.New(p.cfg.registryConfig(), p.kafka(), p.reg, p.log)
			return err
		},
		"gateway": func(p *process) error {
			g, err := gateway.New(p.cfg.Gateway, p.codecs, p.kafka(), p.reg, p.log)
			if err != nil {
				return err
			}
			return g.Close()
		},
		"stream": stream,
		"sink-clickhouse": func(p *process) error {
			_, err := sink.NewClickHouse(p.cfg.Sink.ClickHouse, nil, p.codecs, p.kafka(), p.reg, p.log)
			return err
		},
		"sink-redis": func(p *process) error {
			if _, err := sink.NewRedis(p.cfg.Sink.Redis, nil, p.codecs, p.kafka(), p.reg, p.log); err != nil {
				return err
			}
			alerts := sink.DefaultAlertsConfig()
			alerts.Destinations = []sink.Destination{{Name: "example", Kind: sink.KindSlack, URL: "https://example.org/"}} // some are of a destination
			_, err := sink.NewWebhooks(alerts, nil, p.codecs, p.kafka(), p.reg, p.log)
			return err
		},
		"sink-iceberg": func(p *process) error {
			activities.NewMaintain(nil, p.cfg.Batch.Dir, p.cfg.Batch.HeavyBytes, p.reg, p.log) // the commit lane
			_, err := sink.NewIceberg(p.cfg.Sink.Iceberg, nil, p.codecs, p.kafka(), p.reg, p.log)
			return err
		},
		"api": func(p *process) error {
			a, err := api.New(p.cfg.API, api.Deps{Codecs: p.codecs}, p.reg, p.log)
			if err != nil {
				return err
			}
			a.Close()
			return nil
		},
		"batch": func(p *process) error {
			dir := p.cfg.Batch.Dir
			activities.NewMaintain(nil, dir, p.cfg.Batch.HeavyBytes, p.reg, p.log)
			activities.NewPublish(nil, nil, nil, nil, dir, p.reg, p.log)
			activities.NewErase(activities.ErasureConfig{}, activities.EraseParts{Ledger: &activities.ErasedLedger{}}, p.reg)
			activities.NewReconcile(nil, "", nil, nil, nil, p.reg, p.log)
			activities.NewRecompute(nil, "", kpi.Definitions{}, nil, p.reg)
			activities.NewBigQuery(nil, nil, nil, "", p.reg)
			activities.NewTrain(nil, nil, nil, nil, nil, dir, p.reg, p.log)
			activities.NewForecast(nil, nil, nil, nil, nil, dir, p.reg, p.log)
			activities.NewLineage(activities.LineageConfig{}, nil, "", activities.LineagePlaces{}, p.reg, p.log)
			return nil
		},
	}
}

// Metrics lists every metric that the platform has, from what its parts register.
func Metrics() (_ []Metric, err error) {
	dir, err := os.MkdirTemp("", "millrace-metrics-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	codecs, err := schema.NewCodecs()
	if err != nil {
		return nil, err
	}
	makers, byName := parts(), map[string]*Metric{}
	for _, r := range Roles() {
		if makers[r.Name] == nil {
			return nil, fmt.Errorf("role %s has no entry in the table of parts", r.Name)
		}
		cfg := DefaultConfig()
		cfg.Data, cfg.WriteKey, cfg.Kafka.Brokers = filepath.Join(dir, r.Name), "metrics-only", []string{"127.0.0.1:1"}
		rec := &recorder{Registry: prometheus.NewRegistry()}
		newAdmin(rec, []string{r.Name})
		p := &process{cfg: cfg.complete(), log: slog.New(slog.DiscardHandler), reg: rec, codecs: codecs.AssignLocal()}
		if err := makers[r.Name](p); err != nil {
			return nil, fmt.Errorf("role %s: %w", r.Name, err)
		}
		found, err := rec.metrics()
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", r.Name, err)
		}
		for _, m := range found {
			have := byName[m.Name]
			if have == nil {
				have = &m
				byName[m.Name] = have
			}
			if !slices.Contains(have.Roles, r.Name) {
				have.Roles = append(have.Roles, r.Name)
			}
			for _, f := range m.Fixed {
				if !slices.Contains(have.Fixed, f) {
					have.Fixed = append(have.Fixed, f)
				}
			}
		}
	}
	var out []Metric
	for _, m := range byName {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// metricsRegistry is what a process registers metrics with and serves them from.
type metricsRegistry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// recorder remembers what is registered.
type recorder struct {
	*prometheus.Registry
	all []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *recorder) Register(c prometheus.Collector) error {
	r.all = append(r.all, c)
	return r.Registry.Register(c)
}

// MustRegister implements prometheus.Registerer.
func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	r.all = append(r.all, cs...)
	r.Registry.MustRegister(cs...)
}

// What the library says of a metric it only says as text.
var descText = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*")(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) metrics() ([]Metric, error) {
	var out []Metric
	for _, c := range r.all {
		descs := make(chan *prometheus.Desc, 64)
		go func() { defer close(descs); c.Describe(descs) }()
		for d := range descs {
			m, err := parseDesc(d.String())
			if err != nil {
				return nil, err
			}
			if m.Type, err = typeOf(c); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			m.Unit = UnitOf(m.Name, m.Type)
			out = append(out, m)
		}
	}
	return out, nil
}

func parseDesc(text string) (Metric, error) {
	f := descText.FindStringSubmatch(text)
	if f == nil {
		return Metric{}, fmt.Errorf("%s cannot be read", text)
	}
	name, err := strconv.Unquote(f[1])
	if err != nil {
		return Metric{}, fmt.Errorf("%s: %w", text, err)
	}
	help, err := strconv.Unquote(f[2])
	if err != nil {
		return Metric{}, fmt.Errorf("%s: %w", text, err)
	}
	m := Metric{Name: name, Help: help}
	if f[3] != "" {
		m.Fixed = strings.Split(f[3], ",")
	}
	if f[4] != "" {
		m.Labels = strings.Split(f[4], ",")
	}
	return m, nil
}

func typeOf(c prometheus.Collector) (string, error) {
	switch x := c.(type) {
	case *prometheus.CounterVec:
		return "counter", nil
	case *prometheus.GaugeVec:
		return "gauge", nil
	case *prometheus.HistogramVec:
		return "histogram", nil
	case prometheus.Metric:
		var m dto.Metric
		if err := x.Write(&m); err != nil {
			return "", fmt.Errorf("reading it: %w", err)
		}
		switch {
		case m.Counter != nil:
			return "counter", nil
		case m.Gauge != nil:
			return "gauge", nil
		case m.Histogram != nil:
			return "histogram", nil
		}
	}
	return "", fmt.Errorf("%T is neither counter, gauge nor histogram", c)
}

// UnitOf reads the unit from a metric's name, "" if it has none: millrace_<area>_<what>_<unit>, counters with _total behind it.
func UnitOf(name, kind string) string {
	base, counter := strings.CutSuffix(name, "_total")
	if counter != (kind == "counter") {
		return ""
	}
	last := base[strings.LastIndexByte(base, '_')+1:]
	switch {
	case strings.HasSuffix(base, "_timestamp_seconds"):
		return "seconds since 1970"
	case last == "seconds", last == "bytes", last == "ratio", last == "share", last == "version":
		return last
	case last == "ready", last == "state", last == "overdue", last == "paused":
		return "state"
	case kind == "histogram":
		return ""
	case strings.HasSuffix(last, "s"), counter:
		return "count"
	}
	return ""
}
