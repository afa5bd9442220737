package name

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Activities of EraseSubject and ExportSubject.
const (
	EraseScope      = "erase.scope"      // what the request is about, and how long the run waits for what
	EraseLedger     = "erase.ledger"     // the subjects' digests and the cut, to the topic and the table erasures
	EraseClickHouse = "erase.clickhouse" // one table
	EraseRedis      = "erase.redis"
	EraseIceberg    = "erase.iceberg" // one table: its main
	EraseRefs       = "erase.refs"    // one table: tags from before, and which refs still hold rows
	EraseBigQuery   = "erase.bigquery"
	EraseForget     = "erase.forget" // the ids of the request
	ErasePurge      = "erase.purge"  // one table: snapshots and files from before
	EraseCertify    = "erase.certify"
	ExportWrite     = "export.write"
	ExportRemove    = "export.remove"
)

// ByErasure is the trigger of what an erasure starts.
const ByErasure = "erasure"

// ResidueLeft is the failure of an erasure that could not take everything away by its date.
const ResidueLeft = "ResidueLeft"

// Phases of an erasure, each with a certificate.
const (
	PhaseLogical  = "logical"  // no reader finds the subjects any more
	PhasePhysical = "physical" // no file has them
)

// Steps of EraseSubject that stand for a place carry its store and name: "clickhouse/events_page".
const (
	StepScope  = "scope"
	StepLedger = "ledger"
	StepSettle = "settle"
	StepForget = "forget"
)

// EraseID is the workflow id of a request.
func EraseID(request string) string { return "erase/" + request }

// ExportID is the workflow id of a request for an archive.
func ExportID(request string) string { return "export/" + request }

var requestForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{7,63}$`)

func checkRequest(request, example string) error {
	switch {
	case request == "":
		return fmt.Errorf("request: is missing; an example is %s", example)
	case !requestForm.MatchString(request):
		return fmt.Errorf("request: %.70q is not 8 to 64 small letters, digits and dashes", request)
	}
	return nil
}

// EraseSubjectInput is the input of EraseSubject. The ids of the subjects are in the table erasure_subjects, where `millrace erase request` puts them: an input stands in
// histories.
type EraseSubjectInput struct {
	Request string `json:"request"`
	// Subjects is how many ids the request has: a run that finds another number does nothing.
	Subjects int64 `json:"subjects"`
	// Linked adds the visitors that were signed in as one of the users, and as no other.
	Linked bool `json:"linked,omitempty"`
	// PhysicalAfter is when, from the request, snapshots and files from before it go; absent: as configured (erasure.physical_after).
	PhysicalAfter *Duration `json:"physical_after,omitempty"`
	// Run names the logical run; absent: the request.
	Run string `json:"run,omitempty"`
}

const eraseExample = `{"request": "20261122-5f3a9c01", "subjects": 2}`

// Validate implements Input.
func (in EraseSubjectInput) Validate() error {
	var errs []error
	if err := checkRequest(in.Request, eraseExample); err != nil {
		errs = append(errs, err)
	}
	if in.Subjects < 1 || in.Subjects > 1_000_000 {
		errs = append(errs, fmt.Errorf("subjects: %d is not between 1 and 1000000", in.Subjects))
	}
	if in.PhysicalAfter != nil && time.Duration(*in.PhysicalAfter) > 90*day {
		errs = append(errs, fmt.Errorf("physical_after: %s is above 90d", *in.PhysicalAfter))
	}
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// EraseResult is the result of EraseSubject.
type EraseResult struct {
	Request string `json:"request"`
	Rows    int64  `json:"rows"` // erased, over all stores
	Files   int64  `json:"files"`
	Rounds  int    `json:"rounds"` // until nothing was left
}

// ExportSubjectInput is the input of ExportSubject.
type ExportSubjectInput struct {
	Request  string   `json:"request"`
	Subjects int64    `json:"subjects"`
	Keep     Duration `json:"keep,omitempty"` // the archive is removed then; absent: 7d
	Run      string   `json:"run,omitempty"`
}

const exportExample = `{"request": "20261122-77b0e4d2", "subjects": 1, "keep": "7d"}`

// KeepFor is how long the archive is kept.
func (in ExportSubjectInput) KeepFor() time.Duration {
	if in.Keep == 0 {
		return 7 * day
	}
	return time.Duration(in.Keep)
}

// Validate implements Input.
func (in ExportSubjectInput) Validate() error {
	var errs []error
	if err := checkRequest(in.Request, exportExample); err != nil {
		errs = append(errs, err)
	}
	if in.Subjects < 1 || in.Subjects > 1000 {
		errs = append(errs, fmt.Errorf("subjects: %d is not between 1 and 1000", in.Subjects))
	}
	if time.Duration(in.Keep) > 30*day {
		errs = append(errs, fmt.Errorf("keep: %s is above 30d", in.Keep))
	}
	if err := ValidRun(in.Run); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ExportResult is the result of ExportSubject: numbers and a digest.
type ExportResult struct {
	Request string `json:"request"`
	Rows    int64  `json:"rows"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// StepOf is the step of one place.
func StepOf(store, place string) string { return store + "/" + place }

// PlaceOf is StepOf undone; ok is false for other steps.
func PlaceOf(step string) (store, place string, ok bool) {
	return strings.Cut(step, "/")
}

func eraseTypes() []Type {
	return []Type{
		{
			Name:    EraseSubject,
			Doc:     "take persons out of every store: ledger first, certificates of the logical and of the physical state",
			Example: eraseExample,
			Target: func(text []byte) (Target, error) {
				in, err := Decode[EraseSubjectInput](text)
				return Target{ID: EraseID(in.Request), Input: in}, err
			},
		},
		{
			Name:    ExportSubject,
			Doc:     "write everything there is about persons into an archive, which is removed after a time",
			Example: exportExample,
			Target: func(text []byte) (Target, error) {
				in, err := Decode[ExportSubjectInput](text)
				return Target{ID: ExportID(in.Request), Input: in}, err
			},
		},
	}
}
