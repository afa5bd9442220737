package workflows_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/workflows/name"
)

func fakePublish(env *testsuite.TestWorkflowEnvironment) { (&press{}).register(env) }

// press is the world of a publication: what the checks say, and what was done.
type press struct {
	pinned   activities.PublishPinned
	problems []string
	did      []string
	rec      activities.PublicationRecord
}

func (p *press) register(env *testsuite.TestWorkflowEnvironment) {
	env.RegisterActivityWithOptions(func(_ context.Context, in activities.PublishRef) (activities.PublishPinned, error) {
		out := p.pinned
		if out.Table = in.Input.Table; in.Input.Approve != nil {
			out.Snapshot = in.Input.Approve.Snapshot
		}
		return out, nil
	}, activity.RegisterOptions{Name: name.PublishPin})
	env.RegisterActivityWithOptions(func(context.Context, activities.PublishCheckInput) (activities.PublishChecked, error) {
		p.did = append(p.did, "check")
		return activities.PublishChecked{Numbers: map[string]int64{"rows_new": 10}, Problems: p.problems}, nil
	}, activity.RegisterOptions{Name: name.PublishCheck})
	env.RegisterActivityWithOptions(func(_ context.Context, rec activities.PublicationRecord) (activities.PublishMoved, error) {
		p.did, p.rec = append(p.did, "move as "+rec.Outcome), rec
		return activities.PublishMoved{Tag: "nightly-2026-03-01", Rows: 10}, nil
	}, activity.RegisterOptions{Name: name.PublishMove})
	env.RegisterActivityWithOptions(func(_ context.Context, rec activities.PublicationRecord) error {
		p.did, p.rec = append(p.did, "note "+rec.Outcome), rec
		return nil
	}, activity.RegisterOptions{Name: name.PublishNote})
}

func TestAPublicationMovesOnlyWhatPassedOrSomebodyAnswersFor(t *testing.T) {
	t.Parallel()
	bad := []string{"3 rows are missing"}
	fresh := activities.PublishPinned{Snapshot: 7, From: 5}
	for what, tc := range map[string]struct {
		in      name.PublishTableInput
		press   press
		approve string
		want    []string
		outcome string
		fails   string
		reason  string
	}{
		"an empty table":          {press: press{}, want: []string{"move as empty"}, outcome: name.Empty},
		"nothing new":             {press: press{pinned: activities.PublishPinned{Snapshot: 5, From: 5}}, want: []string{"move as unchanged"}, outcome: name.Unchanged},
		"a snapshot that is well": {press: press{pinned: fresh}, want: []string{"check", "move as published"}, outcome: name.Published},
		"one that is not":         {press: press{pinned: fresh, problems: bad}, want: []string{"check", "note refused"}, outcome: name.Refused, fails: name.CheckFailed},
		"one that somebody answers for": {
			in: name.PublishTableInput{Approve: &name.PublishApproval{Snapshot: 7, Reason: "known"}}, press: press{pinned: fresh, problems: bad},
			want: []string{"check", "move as approved"}, outcome: name.Approved, reason: "known",
		},
		"one that waits in vain": {
			in: name.PublishTableInput{WaitForApproval: name.Duration(time.Hour)}, press: press{pinned: fresh, problems: bad},
			want: []string{"check", "note refused", "note refused"}, outcome: name.Refused, fails: name.CheckFailed,
		},
		"one that waits and is approved": {
			in: name.PublishTableInput{WaitForApproval: name.Duration(time.Hour)}, press: press{pinned: fresh, problems: bad}, approve: "a gap",
			want: []string{"check", "note refused", "move as approved"}, outcome: name.Approved, reason: "a gap",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			env := newEnv(t, &world{})
			tc.press.register(env)
			if tc.approve != "" {
				env.RegisterDelayedCallback(func() {
					env.UpdateWorkflow(name.Approve, "u1", &testsuite.TestUpdateCallback{
						OnAccept: func() {}, OnReject: func(err error) { t.Error(err) }, OnComplete: func(any, error) {},
					}, name.Approval{Reason: tc.approve})
				}, 10*time.Minute)
			}
			tc.in.Table = "events_page"
			env.ExecuteWorkflow(name.PublishTable, tc.in)
			err := env.GetWorkflowError()
			var app *temporal.ApplicationError
			if tc.fails == "" && err != nil || tc.fails != "" && (!errors.As(err, &app) || app.Type() != tc.fails || !strings.Contains(err.Error(), "millrace lake approve")) {
				t.Fatalf("got %v", err)
			}
			if d := cmp.Diff(tc.want, tc.press.did); d != "" {
				t.Error(d)
			}
			if tc.press.rec.Outcome != tc.outcome || tc.press.rec.Reason != tc.reason {
				t.Errorf("%+v", tc.press.rec)
			}
		})
	}
}
