package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"millrace/workflows/name"
)

// catchup is how long after its time a start is still made up for, when Temporal was away.
const catchup = 30 * 24 * time.Hour

// Schedule is one schedule as the platform wants it. Whether it is paused is the user's and stays as it is.
type Schedule struct {
	ID     string          `json:"id"`
	Type   string          `json:"type"` // what is started: a tick
	Table  string          `json:"table,omitempty"`
	Input  json.RawMessage `json:"input"`
	Every  name.Duration   `json:"every"`
	Offset name.Duration   `json:"offset"` // after each full multiple of Every since 1970, UTC
	// Buffer: a start that falls into a running one waits for its end, so that each is done, in order. Else it is skipped.
	Buffer bool `json:"buffer,omitempty"`
}

const maintainPrefix = "maintain/"

// Schedules are those of the platform: each table is maintained once in every, one after the other. every 0 gives none.
func Schedules(tables []string, every time.Duration) []Schedule {
	if every <= 0 {
		return nil
	}
	out := make([]Schedule, 0, len(tables))
	for i, t := range tables {
		in := name.MaintainTableInput{Table: t}
		out = append(out, Schedule{
			ID: maintainPrefix + t, Type: name.MaintainTableTick, Table: t, Input: json.RawMessage(name.Text(in)), Every: name.Duration(every),
			Offset: name.Duration((every * time.Duration(i) / time.Duration(len(tables))).Truncate(time.Second)),
		})
	}
	return out
}

// NightlySchedule is that of Nightly: once in every, at an offset from midnight UTC where that is a day. every 0 gives none.
func NightlySchedule(every, at time.Duration) []Schedule {
	if every <= 0 {
		return nil
	}
	s := Schedule{ID: name.NightlySchedule, Type: name.Nightly + name.TickSuffix, Input: json.RawMessage("{}"), Every: name.Duration(every), Buffer: true}
	if every < 24*time.Hour {
		s.Input = json.RawMessage(`{"every":"` + s.Every.String() + `"}`)
	} else {
		s.Offset = name.Duration(at)
	}
	return []Schedule{s}
}

// BigQuerySchedules load each table once in every, one after the other. every 0 gives none.
func BigQuerySchedules(tables []string, every time.Duration) []Schedule {
	if every <= 0 {
		return nil
	}
	out := make([]Schedule, 0, len(tables))
	for i, t := range tables {
		in := name.LoadBigQueryInput{Table: t}
		out = append(out, Schedule{
			ID: name.BigQueryID(t), Type: name.LoadBigQuery + name.TickSuffix, Table: t, Input: json.RawMessage(name.Text(in)), Every: name.Duration(every),
			Offset: name.Duration((every * time.Duration(i) / time.Duration(len(tables))).Truncate(time.Second)),
		})
	}
	return out
}

// ReconcileSchedules are those of Reconcile: each topic once in every, some minutes after the full hour, one topic after the other. every 0 gives none.
func ReconcileSchedules(topics []string, every time.Duration, repair bool) []Schedule {
	if every <= 0 {
		return nil
	}
	out := make([]Schedule, 0, len(topics))
	for i, topic := range topics {
		in := map[string]any{"topic": topic}
		if repair {
			in["repair"] = true
		}
		text, err := json.Marshal(in)
		if err != nil { // a map of texts
			panic(err)
		}
		out = append(out, Schedule{
			ID: "reconcile/" + topic, Type: name.Reconcile + name.TickSuffix, Table: name.ReconcileInput{Topic: topic}.Table(), Input: text, Every: name.Duration(every),
			Offset: name.Duration(name.ReconcileDelay + time.Duration(i)*time.Minute), Buffer: true,
		})
	}
	return out
}

// Applied says what Apply changed.
type Applied struct {
	Created []string `json:"created"`
	Updated []string `json:"updated"`
	Removed []string `json:"removed"`
}

// Apply brings the schedules in Temporal to those wanted: missing ones are made, the others are set to what they should be, ours that are no longer wanted are removed. It
// may run in several processes at once, and again at any time.
func Apply(ctx context.Context, c client.Client, want []Schedule) (Applied, error) {
	out := Applied{Created: []string{}, Updated: []string{}, Removed: []string{}}
	for _, s := range want {
		created, err := s.apply(ctx, c)
		if err != nil {
			return out, fmt.Errorf("schedule %s: %w", s.ID, err)
		}
		if created {
			out.Created = append(out.Created, s.ID)
		} else {
			out.Updated = append(out.Updated, s.ID)
		}
	}
	have, err := List(ctx, c)
	if err != nil {
		return out, err
	}
	for _, h := range have {
		if !ours(h) || slices.ContainsFunc(want, func(s Schedule) bool { return s.ID == h.ID }) {
			continue
		}
		var gone *serviceerror.NotFound
		if err := c.ScheduleClient().GetHandle(ctx, h.ID).Delete(ctx); err != nil && !errors.As(err, &gone) {
			return out, fmt.Errorf("removing schedule %s: %w", h.ID, err)
		}
		out.Removed = append(out.Removed, h.ID)
	}
	return out, nil
}

// schedulePrefixes are the ids of the platform's schedules, by what they start. Other schedules of the same types are somebody's own.
func schedulePrefixes() map[string]string {
	return map[string]string{
		name.MaintainTableTick:               maintainPrefix,
		name.Nightly + name.TickSuffix:       name.NightlySchedule,
		name.PublishTable + name.TickSuffix:  "publish/",
		name.LoadBigQuery + name.TickSuffix:  "bigquery/",
		name.Reconcile + name.TickSuffix:     "reconcile/",
		name.RecomputeKPIs + name.TickSuffix: "kpi/",
	}
}

func ours(l Listed) bool {
	prefix, ok := schedulePrefixes()[l.Type]
	return ok && strings.HasPrefix(l.ID, prefix)
}

func (s Schedule) apply(ctx context.Context, c client.Client) (created bool, err error) {
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Duration(s.Every), Offset: time.Duration(s.Offset)}}}
	// A list of arguments of one JSON text: the payload is what the UI would send.
	action := &client.ScheduleWorkflowAction{
		ID: name.TickID(s.ID), Workflow: s.Type, Args: []any{s.Input}, TaskQueue: name.Queue, StaticSummary: "tick of " + s.ID,
	}
	attrs := []temporal.SearchAttributeUpdate{name.AttrTrigger.ValueSet(name.Scheduled)}
	if s.Table != "" {
		attrs = append(attrs, name.AttrTable.ValueSet(s.Table))
	}
	action.TypedSearchAttributes = temporal.NewSearchAttributes(attrs...)
	policy := client.SchedulePolicies{Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchup}
	if s.Buffer {
		policy.Overlap = enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL
	}
	_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: s.ID, Spec: spec, Action: action, Overlap: policy.Overlap, CatchupWindow: policy.CatchupWindow,
	})
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return false, err
	}
	return false, c.ScheduleClient().GetHandle(ctx, s.ID).Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		next := in.Description.Schedule
		next.Spec, next.Action, next.Policy = &spec, action, &policy
		return &client.ScheduleUpdate{Schedule: &next}, nil
	}})
}

// Listed is a schedule as Temporal has it.
type Listed struct {
	ID     string     `json:"id"`
	Type   string     `json:"type"`
	Paused bool       `json:"paused"`
	Every  string     `json:"every"`
	Next   *time.Time `json:"next,omitempty"`
	Last   *time.Time `json:"last,omitempty"`
	Note   string     `json:"note,omitempty"`
}

// List lists all schedules of the namespace, by id.
func List(ctx context.Context, c client.Client) ([]Listed, error) {
	it, err := c.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 200})
	if err != nil {
		return nil, fmt.Errorf("listing schedules: %w", err)
	}
	out := []Listed{}
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return nil, fmt.Errorf("listing schedules: %w", err)
		}
		l := Listed{ID: e.ID, Type: e.WorkflowType.Name, Paused: e.Paused, Note: e.Note}
		if e.Spec != nil && len(e.Spec.Intervals) > 0 {
			l.Every = name.Duration(e.Spec.Intervals[0].Every).String()
		}
		if len(e.NextActionTimes) > 0 {
			l.Next = &e.NextActionTimes[0]
		}
		if n := len(e.RecentActions); n > 0 {
			l.Last = &e.RecentActions[n-1].ActualTime
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Listed) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
