package workflows

import (
	"encoding/json"
	"slices"

	"millrace/activities"
	"millrace/workflows/name"
)

// nightStep is one step of Nightly: what it needs, and the workflows that it runs, each under its canonical id.
type nightStep struct {
	name  string
	needs []string // steps that must be done before, or that are not done on this platform
	typ   string   // of the workflows; a platform that has no such type leaves the step out
	each  func(in name.NightlyInput, p activities.NightPlan) []map[string]any
	alone bool // its parts follow each other
	own   bool // where some tables failed in what the step needs, it is done for the others
	newer bool // nights that were planned by a release without the step go on without it
	once  bool // a part that any run has done is done, not only one of this night
}

// nightSteps is the registry, in the order in which steps are done. A new step is a line here and a name in name.NightlySteps.
func nightSteps() []nightStep {
	return []nightStep{
		{name: name.NightGaps, typ: name.Nightly, each: missing, alone: true},
		{name: name.NightQuality, typ: "CheckQuality", each: perTable},
		{name: name.NightPublish, typ: name.PublishTable, needs: []string{name.NightQuality}, each: perTable},
		{name: name.NightMaintain, typ: name.MaintainTable, each: perTable},
		{name: name.NightLoad, typ: name.LoadBigQuery, needs: []string{name.NightPublish}, each: perLoad, own: true},
		{name: name.NightKPIs, typ: name.RecomputeKPIs, each: perDay},
		{name: name.NightFeatures, typ: "BackfillFeatures", needs: []string{name.NightPublish}, each: perDay},
		{name: name.NightExperiments, typ: "RollUpExperiment", needs: []string{name.NightKPIs}, each: perDay},
		{name: name.NightRecommendations, typ: name.TrainRecommendations, needs: []string{name.NightPublish}, each: single},
		{name: name.NightForecasts, typ: name.ForecastDemand, needs: []string{name.NightPublish}, each: single, newer: true},
		{name: name.NightReconcile, typ: name.Reconcile, each: perHour, once: true},
	}
}

// nightTypes are the types of the steps.
func nightTypes() map[string]string {
	out := map[string]string{}
	for _, s := range nightSteps() {
		out[s.name] = s.typ
	}
	return out
}

func missing(in name.NightlyInput, p activities.NightPlan) []map[string]any {
	var out []map[string]any
	for _, night := range p.Missing {
		part := map[string]any{"day": night, "gaps": -1} // this night looks for gaps: they need not look further
		if in.Every != 0 && !in.Daily() {
			part["every"] = in.Every
		}
		if others := slices.DeleteFunc(slices.Clone(in.Steps), func(s string) bool { return s == name.NightGaps }); len(others) > 0 {
			part["steps"] = others
		}
		out = append(out, part)
	}
	return out
}

func perTable(_ name.NightlyInput, p activities.NightPlan) []map[string]any { return tables(p.Tables) }

func perLoad(_ name.NightlyInput, p activities.NightPlan) []map[string]any { return tables(p.Loads) }

func tables(names []string) []map[string]any {
	var out []map[string]any
	for _, t := range names {
		out = append(out, map[string]any{"table": t})
	}
	return out
}

func perDay(in name.NightlyInput, _ activities.NightPlan) []map[string]any {
	return []map[string]any{{"day": in.DataDay()}}
}

func single(name.NightlyInput, activities.NightPlan) []map[string]any { return []map[string]any{{}} }

func perHour(in name.NightlyInput, p activities.NightPlan) []map[string]any {
	var out []map[string]any
	for _, topic := range p.Topics {
		for _, hour := range in.Hours() {
			part := map[string]any{"topic": topic, "hour": hour.Format(name.HourForm)}
			if p.Repair {
				part["repair"] = true
			}
			out = append(out, part)
		}
	}
	return out
}

// nightPart is one workflow that a step runs.
type nightPart struct {
	id    string
	table string // ""; of none
	input json.RawMessage
}

// parts gives the workflows of a step. Each belongs to the logical run of the night, so that it too does only what is not done.
func (s nightStep) parts(in name.NightlyInput, p activities.NightPlan, run string) ([]nightPart, error) {
	typ, err := name.TypeNamed(s.typ)
	if err != nil {
		return nil, invalid(err.Error())
	}
	var out []nightPart
	for _, fields := range s.each(in, p) {
		if s.typ != name.Nightly {
			fields["run"] = run
		}
		text, err := json.Marshal(fields)
		if err != nil {
			return nil, invalid(err.Error())
		}
		target, err := typ.Target(text)
		if err != nil {
			return nil, invalid(s.typ + ": " + err.Error())
		}
		out = append(out, nightPart{target.ID, target.Table, text})
	}
	return out, nil
}
