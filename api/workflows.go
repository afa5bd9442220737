package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

type workflowRun struct {
	WorkflowID      string  `json:"workflow_id"`
	RunID           string  `json:"run_id"`
	Type            string  `json:"type"`
	Status          string  `json:"status"`
	TaskQueue       string  `json:"task_queue"`
	StartedAt       stamp   `json:"started_at"`
	ClosedAt        *stamp  `json:"closed_at"`
	DurationSeconds float64 `json:"duration_seconds"`
	Phase           *string `json:"phase"`
	URL             string  `json:"url"`
}

type workflowSchedule struct {
	ID           string `json:"id"`
	WorkflowType string `json:"workflow_type"`
	Spec         string `json:"spec"`
	Paused       bool   `json:"paused"`
	Note         string `json:"note"`
	NextAt       *stamp `json:"next_at"`
	LastAt       *stamp `json:"last_at"`
	URL          string `json:"url"`
}

// workflows is the answer of /api/v1/workflows.
type workflows struct {
	Available bool               `json:"available"`
	Detail    string             `json:"detail"`
	UI        string             `json:"ui"`
	Runs      []workflowRun      `json:"runs"`
	Schedules []workflowSchedule `json:"schedules"`
}

const (
	temporalTimeout = 3 * time.Second
	maxSchedules    = 200
	phaseAttribute  = "MillracePhase"
)

// workflowType is what Temporal's visibility query may hold of a client's text: it has no parameters.
var workflowType = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

// statusNames are Temporal's statuses as the API has them.
var statusNames = map[enums.WorkflowExecutionStatus]string{
	enums.WORKFLOW_EXECUTION_STATUS_RUNNING: "running", enums.WORKFLOW_EXECUTION_STATUS_COMPLETED: "completed", enums.WORKFLOW_EXECUTION_STATUS_FAILED: "failed",
	enums.WORKFLOW_EXECUTION_STATUS_CANCELED: "canceled", enums.WORKFLOW_EXECUTION_STATUS_TERMINATED: "terminated",
	enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: "continued_as_new", enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: "timed_out",
	enums.WORKFLOW_EXECUTION_STATUS_PAUSED: "paused",
}

func (a *API) serveWorkflows(r *http.Request) ([]byte, error) {
	q, err := newQuery(r.URL.RawQuery, a.now())
	if err != nil {
		return nil, err
	}
	kind, limit := q.text("type", "", 64), q.integer("limit", 50, 1, 200)
	if kind != "" && !workflowType.MatchString(kind) {
		q.bad("type", "is not a workflow type: letters, digits and _, a letter first")
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	return a.flights.do(r.Context(), fmt.Sprintf("workflows\x00%s\x00%d", kind, limit), func(ctx context.Context) ([]byte, error) {
		out := &workflows{UI: a.ui(), Runs: []workflowRun{}, Schedules: []workflowSchedule{}}
		if a.temporal == nil {
			out.Detail = "Temporal is not configured"
			return encode(out, nil)
		}
		ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
		defer cancel()
		err := a.runs(ctx, kind, limit, out)
		if err == nil {
			err = a.schedules(ctx, out)
		}
		if err != nil {
			a.log.WarnContext(ctx, "workflows not read", "error", err)
			out.Runs, out.Schedules, out.Detail = []workflowRun{}, []workflowSchedule{}, "Temporal does not answer"
			return encode(out, nil)
		}
		out.Available = true
		return encode(out, nil)
	})
}

// ui is the address of Temporal's UI without a slash at its end.
func (a *API) ui() string { return strings.TrimRight(a.cfg.TemporalUI, "/") }

// link is a page of the Temporal UI. Each part is one segment of its path.
func (a *API) link(parts ...string) string {
	if a.ui() == "" {
		return ""
	}
	path := []string{a.ui(), "namespaces", url.PathEscape(a.namespace)}
	for _, p := range parts {
		path = append(path, url.PathEscape(p))
	}
	return strings.Join(path, "/")
}

func (a *API) runs(ctx context.Context, kind string, limit int, out *workflows) error {
	query := ""
	if kind != "" {
		query = "WorkflowType = '" + kind + "'"
	}
	res, err := a.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: int32(limit), Query: query})
	if err != nil {
		return fmt.Errorf("listing workflows: %w", err)
	}
	for _, e := range res.GetExecutions() {
		if len(out.Runs) < limit {
			out.Runs = append(out.Runs, a.run(e))
		}
	}
	return nil
}

func (a *API) run(e *workflow.WorkflowExecutionInfo) workflowRun {
	id, run := e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId()
	started := e.GetStartTime().AsTime()
	out := workflowRun{
		WorkflowID: id, RunID: run, Type: e.GetType().GetName(), Status: statusNames[e.GetStatus()], TaskQueue: e.GetTaskQueue(), StartedAt: stamp(started),
		Phase: phase(e.GetSearchAttributes()), URL: a.link("workflows", id, run, "history"),
	}
	if out.Status == "" {
		out.Status = "unknown"
	}
	ended := a.now()
	if e.GetCloseTime() != nil {
		ended = e.GetCloseTime().AsTime()
		out.ClosedAt = stampOf(ended)
	}
	out.DurationSeconds = max(0, ended.Sub(started).Seconds())
	return out
}

// phase reads the search attribute in which a workflow says how far it is.
func phase(attrs *commonpb.SearchAttributes) *string {
	p := attrs.GetIndexedFields()[phaseAttribute]
	if p == nil {
		return nil
	}
	var s string
	if err := converter.GetDefaultDataConverter().FromPayload(p, &s); err != nil {
		return nil // of another type: not ours
	}
	return &s
}

func (a *API) schedules(ctx context.Context, out *workflows) error {
	it, err := a.temporal.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: maxSchedules})
	if err != nil {
		return fmt.Errorf("listing schedules: %w", err)
	}
	for it.HasNext() && len(out.Schedules) < maxSchedules {
		s, err := it.Next()
		if err != nil {
			return fmt.Errorf("listing schedules: %w", err)
		}
		one := workflowSchedule{ID: s.ID, WorkflowType: s.WorkflowType.Name, Spec: when(s.Spec), Paused: s.Paused, Note: s.Note, URL: a.link("schedules", s.ID)}
		if len(s.NextActionTimes) > 0 {
			one.NextAt = stampOf(s.NextActionTimes[0])
		}
		if n := len(s.RecentActions); n > 0 {
			one.LastAt = stampOf(s.RecentActions[n-1].ActualTime)
		}
		out.Schedules = append(out.Schedules, one)
	}
	slices.SortFunc(out.Schedules, func(a, b workflowSchedule) int { return strings.Compare(a.ID, b.ID) })
	return nil
}

// when says in words when a schedule runs.
func when(spec *client.ScheduleSpec) string {
	if spec == nil {
		return ""
	}
	var out []string
	for _, i := range spec.Intervals {
		s := "every " + i.Every.String()
		if i.Offset > 0 {
			s += " offset " + i.Offset.String()
		}
		out = append(out, s)
	}
	for _, c := range spec.Calendars {
		words := []string{"at " + ranges(c.Hour) + ":" + ranges(c.Minute) + ":" + ranges(c.Second)}
		for _, part := range []struct {
			name, all string
			in        []client.ScheduleRange
		}{{"day", "1-31", c.DayOfMonth}, {"month", "1-12", c.Month}, {"weekday", "0-6", c.DayOfWeek}} {
			if text := ranges(part.in); text != "" && text != "0" && text != part.all {
				words = append(words, part.name+" "+text)
			}
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(append(out, spec.CronExpressions...), ", ")
}

func ranges(rs []client.ScheduleRange) string {
	if len(rs) == 0 {
		return "0"
	}
	var out []string
	for _, r := range rs {
		s := fmt.Sprintf("%02d", r.Start)
		if r.End > r.Start {
			s = fmt.Sprintf("%d-%d", r.Start, r.End)
		}
		if r.Step > 1 {
			s += fmt.Sprintf("/%d", r.Step)
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}
