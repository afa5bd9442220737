package name

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Activities of Nightly.
const (
	NightlyPlan = "nightly.plan" // which tables there are, what is configured, and which earlier nights never ran
	NightlyDone = "nightly.done" // which parts of a step the same night has done before
)

// Failures of Nightly.
const (
	NightFailed = "NightFailed" // steps did not succeed: the message says which, and what to do
	PartsFailed = "PartsFailed" // of a step: workflows that it started did not succeed
)

// Partial is the outcome of a night of which some steps were asked for and done, and others are not done yet.
const Partial = "partial"

// ByNight is the trigger of the runs that a night starts.
const ByNight = "nightly"

// NightlySchedule is the id of the schedule of Nightly.
const NightlySchedule = "nightly"

// Steps of Nightly, in their order.
const (
	NightGaps            = "gaps" // earlier nights that never ran
	NightQuality         = "quality"
	NightPublish         = "publish"
	NightMaintain        = "maintain"
	NightLoad            = "load"
	NightKPIs            = "kpis"
	NightFeatures        = "features"
	NightExperiments     = "experiments"
	NightRecommendations = "recommendations"
	NightForecasts       = "forecasts"
	NightReconcile       = "reconcile"
)

// NightlySteps lists the steps in their order.
func NightlySteps() []string {
	return []string{NightGaps, NightQuality, NightPublish, NightMaintain, NightLoad, NightKPIs, NightFeatures, NightExperiments, NightRecommendations, NightForecasts, NightReconcile}
}

// NightlyID is the workflow id of the night of a day, or of a time where nights are shorter.
func NightlyID(night string) string { return "nightly/" + night }

// NightlyInput is the input of Nightly.
type NightlyInput struct {
	// Day is the day whose data is completed, which is over. Where nights are shorter than a day, the time of the night: "2026-10-22T14:05:00Z".
	Day string `json:"day"`
	// Steps are done and no others, however often; absent: all. What they need must be done already.
	Steps []string `json:"steps,omitempty"`
	// Force does steps again that are done.
	Force bool `json:"force,omitempty"`
	// Every is the distance between two nights; absent: a day.
	Every Duration `json:"every,omitempty"`
	// Gaps is how many earlier nights are looked at: those that never ran are made up for first. Absent: 7; -1: none.
	Gaps int `json:"gaps,omitempty"`
	// Hold is how long a failed step that others need waits for the update approve, after which these go on; absent: not at all.
	Hold Duration `json:"hold,omitempty"`
	// Run names the logical run; absent: the day.
	Run string `json:"run,omitempty"`
}

const (
	nightForm   = "2006-01-02T15:04:05Z"
	defaultGaps = 7
	maxGaps     = 100
	minNight    = 10 * time.Second
)

// Validate implements Input.
func (in NightlyInput) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, a ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	switch {
	case in.Day == "":
		bad(true, `day: is missing; an example is {"day": "2026-10-22"}`)
	case in.Time().IsZero():
		bad(true, "day: %.60q is neither a day such as 2026-10-22 nor the time of a night such as 2026-10-22T14:05:00Z", in.Day)
	}
	seen := map[string]bool{}
	for i, s := range in.Steps {
		bad(!slices.Contains(NightlySteps(), s), "steps[%d]: %.60q is not one of %s", i, s, strings.Join(NightlySteps(), ", "))
		bad(seen[s], "steps[%d]: %.60q is there twice", i, s)
		seen[s] = true
	}
	every := time.Duration(in.Every)
	bad(every != 0 && (every < minNight || every > day), "every: %s is not between 10s and 1d", in.Every)
	bad(in.Daily() && every != 0 && every != day, "every: %s goes with the time of a night, not with a day", in.Every)
	bad(in.Gaps < -1 || in.Gaps > maxGaps, "gaps: %d is not between -1 and %d", in.Gaps, maxGaps)
	bad(time.Duration(in.Hold) > 7*day, "hold: %s is above 7d", in.Hold)
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Time is the time of the night: of a day its first instant. Zero if it is none.
func (in NightlyInput) Time() time.Time {
	for _, form := range []string{time.DateOnly, nightForm} {
		if t, err := time.Parse(form, in.Day); err == nil {
			return t
		}
	}
	return time.Time{}
}

// Daily says whether the night is that of a day.
func (in NightlyInput) Daily() bool { return len(in.Day) == len(time.DateOnly) }

// Over is when what the night completes is over: before, it would be noted as done and left incomplete.
func (in NightlyInput) Over() time.Time {
	if in.Daily() {
		return in.Time().Add(day)
	}
	return in.Time()
}

// Before lists the n nights before this one, the oldest first.
func (in NightlyInput) Before(n int) []string {
	at, every, form := in.Time(), time.Duration(in.Every), nightForm
	if in.Daily() {
		form = time.DateOnly
	}
	if every == 0 {
		every = day
	}
	var out []string
	for i := n; i > 0; i-- {
		out = append(out, at.Add(-time.Duration(i)*every).Format(form))
	}
	return out
}

// LookBack is how many earlier nights are looked at.
func (in NightlyInput) LookBack() int {
	switch in.Gaps {
	case 0:
		return defaultGaps
	case -1:
		return 0
	}
	return in.Gaps
}

// DataDay is the day that the night completes: its own, or where nights are shorter the last that is over.
func (in NightlyInput) DataDay() string {
	if in.Daily() {
		return in.Day
	}
	return in.Time().Add(-day).Format(time.DateOnly)
}

// Hours are those of the day, or where nights are shorter the last one that is over.
func (in NightlyInput) Hours() []time.Time {
	if !in.Daily() {
		return []time.Time{in.Time().Truncate(time.Hour).Add(-time.Hour)}
	}
	out := make([]time.Time, 24)
	for i := range out {
		out[i] = in.Time().Add(time.Duration(i) * time.Hour)
	}
	return out
}

// Wants says whether the input asks for a step.
func (in NightlyInput) Wants(step string) bool {
	return len(in.Steps) == 0 || slices.Contains(in.Steps, step)
}

func nightlyTypes() []Type {
	nightly := Type{
		Name:    Nightly,
		Doc:     "do everything that completes a day, in its order; what is done is not done again",
		Example: `{"day": "2026-10-22"}`,
		Target: func(text []byte) (Target, error) {
			in, err := Decode[NightlyInput](text)
			return Target{ID: NightlyID(in.Day), Input: in}, err
		},
		Tick: func(fields map[string]any, at time.Time) {
			if fields["day"] != nil {
				return
			}
			if fields["every"] == nil {
				fields["day"] = at.Add(-day).Format(time.DateOnly) // the day that is over
			} else {
				fields["day"] = at.Format(nightForm)
			}
		},
	}
	return []Type{nightly, TickOf(nightly)}
}

// NightlyResult is what Nightly gives.
type NightlyResult struct {
	Day     string       `json:"day"`
	Run     string       `json:"run"`
	Outcome string       `json:"outcome"`
	Steps   []StepResult `json:"steps"`
}
