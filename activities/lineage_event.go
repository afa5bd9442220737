package activities

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"millrace/event"
	"millrace/workflows/name"
)

// Of the OpenLineage specification, https://openlineage.io/spec/2-0-2/OpenLineage.json.
const (
	lineageSchema   = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
	lineageProducer = "urn:millrace"
	facetSpec       = "https://openlineage.io/spec/facets/"

	lineageStart    = "START"
	lineageComplete = "COMPLETE"
	lineageFail     = "FAIL"
	lineageAbort    = "ABORT"
)

// lineageEvent is an OpenLineage run event. It names jobs, tables and numbers; nothing of a person.
type lineageEvent struct {
	EventTime string           `json:"eventTime"`
	EventType string           `json:"eventType"`
	Producer  string           `json:"producer"`
	SchemaURL string           `json:"schemaURL"`
	Run       lineageRun       `json:"run"`
	Job       lineageJob       `json:"job"`
	Inputs    []lineageDataset `json:"inputs"`
	Outputs   []lineageDataset `json:"outputs"`
}

type lineageRun struct {
	RunID  string         `json:"runId"`
	Facets map[string]any `json:"facets"`
}

type lineageJob struct {
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	Facets    map[string]any `json:"facets"`
}

type lineageDataset struct {
	Namespace    string         `json:"namespace"`
	Name         string         `json:"name"`
	OutputFacets map[string]any `json:"outputFacets,omitempty"`
}

// text names a dataset in one piece.
func (d lineageDataset) text() string { return d.Namespace + "/" + d.Name }

// facet adds what every facet has.
func facet(schema string, fields map[string]any) map[string]any {
	fields["_producer"], fields["_schemaURL"] = lineageProducer, facetSpec+schema
	return fields
}

// LineagePlaces are the stores as lineage names them. None holds a credential.
type LineagePlaces struct {
	Iceberg    string // such as "iceberg://millrace"
	ClickHouse string // such as "clickhouse://host:9000"
	BigQuery   string // such as "bigquery://project"
	Redis      string
	Database   string // the one name of database, Iceberg namespace and BigQuery dataset
}

// published is the ref of a table that its gate has passed: a dataset of its own.
const published = "@published"

func (p LineagePlaces) lake(tables ...string) []lineageDataset { return p.in(p.Iceberg, tables...) }

func (p LineagePlaces) olap(tables ...string) []lineageDataset { return p.in(p.ClickHouse, tables...) }

func (p LineagePlaces) in(namespace string, tables ...string) []lineageDataset {
	var out []lineageDataset
	for _, t := range tables {
		out = append(out, lineageDataset{Namespace: namespace, Name: p.Database + "." + t})
	}
	return out
}

func eventTables(suffix string) []string {
	var out []string
	for _, c := range event.Categories() {
		out = append(out, c.Table()+suffix)
	}
	return out
}

// lineageOf is the table of what each workflow reads and writes. A type that is not here moves no data: its runs are told without datasets.
func lineageOf(p LineagePlaces, r Run) (in, out []lineageDataset) {
	switch r.Type {
	case name.MaintainTable:
		return p.lake(r.Table), p.lake(r.Table)
	case name.PublishTable:
		return p.lake(r.Table), p.lake(r.Table + published)
	case name.LoadBigQuery:
		return p.lake(r.Table + published), p.in(p.BigQuery, r.Table)
	case name.RecomputeKPIs:
		return p.olap(eventTables("")...), p.olap("kpi_1m", "kpi_1h", "kpi_1d")
	case name.TrainRecommendations:
		return p.lake(event.Page.Table()+published, event.Cart.Table()+published, event.Purchase.Table()+published), p.in(p.Redis, "recommendations")
	case name.ForecastDemand:
		return p.lake(event.Purchase.Table() + published), p.olap("forecasts", "demand_hourly")
	case name.Reconcile:
		tables := eventTables("")
		if r.Table != "" {
			tables = []string{r.Table}
		}
		return slices.Concat(p.olap("event_ledger"), p.olap(tables...), p.lake(tables...)), p.olap("reconcile_runs", "reconcile_differences")
	case name.EraseSubject:
		return p.olap("erasures"), slices.Concat(p.olap(eventTables("")...), p.lake(eventTables("")...))
	case name.ExportSubject:
		return slices.Concat(p.olap(eventTables("")...), p.lake(eventTables("")...)), nil
	}
	return nil, nil
}

// newLineage makes the event of a run. End is nil for its start.
func newLineage(namespace string, p LineagePlaces, r Run, end *RunEnd, now time.Time) lineageEvent {
	e := lineageEvent{
		EventTime: now.UTC().Format(time.RFC3339Nano), EventType: lineageStart, Producer: lineageProducer, SchemaURL: lineageSchema,
		Run: lineageRun{RunID: lineageRunID(r.Workflow), Facets: map[string]any{}},
		Job: lineageJob{Namespace: namespace, Name: r.Type, Facets: map[string]any{
			"jobType": facet("2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet", map[string]any{"processingType": "BATCH", "integration": "TEMPORAL", "jobType": "WORKFLOW"}),
		}},
	}
	if r.Table != "" {
		e.Job.Name += "." + r.Table // one job has one set of datasets
	}
	if r.Day != "" {
		e.Run.Facets["nominalTime"] = facet("1-0-1/NominalTimeRunFacet.json#/$defs/NominalTimeRunFacet", map[string]any{"nominalStartTime": r.Day + "T00:00:00Z"})
	}
	e.Inputs, e.Outputs = lineageOf(p, r)
	if e.Inputs == nil {
		e.Inputs = []lineageDataset{}
	}
	if e.Outputs == nil {
		e.Outputs = []lineageDataset{}
	}
	if end == nil {
		return e
	}
	switch end.Outcome {
	case name.Failed:
		e.EventType = lineageFail
		reason := end.Reason
		if reason == "" {
			reason = "unknown"
		}
		e.Run.Facets["errorMessage"] = facet("1-0-0/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet", map[string]any{"message": reason, "programmingLanguage": "Go"})
	case name.Canceled:
		e.EventType = lineageAbort
	default:
		e.EventType = lineageComplete
	}
	rows, ok := end.Numbers["rows"]
	if ok && len(e.Outputs) == 1 {
		statistics := map[string]any{"rowCount": rows}
		if bytes, ok := end.Numbers["bytes"]; ok {
			statistics["size"] = bytes
		}
		e.Outputs[0].OutputFacets = map[string]any{"outputStatistics": facet("1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet", statistics)}
	}
	return e
}

// lineageRunID is the UUID of a run: Temporal's own, by which it is found in the UI.
func lineageRunID(run string) string {
	if id, err := uuid.Parse(run); err == nil {
		return id.String()
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("millrace:"+run)).String()
}

func (e lineageEvent) text() (string, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("writing a lineage event: %w", err)
	}
	return string(b), nil
}

func datasetNames(ds []lineageDataset) []string {
	out := []string{}
	for _, d := range ds {
		out = append(out, d.text())
	}
	return out
}

// LineageNamespace is the namespace of a store at an address.
func LineageNamespace(scheme string, addrs ...string) string {
	return scheme + "://" + strings.Join(addrs, ",")
}
