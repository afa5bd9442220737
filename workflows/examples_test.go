package workflows_test

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/testsuite"

	"millrace/activities"
	"millrace/workflows/name"
)

// fakes add the activities of each part to a test environment: one line a part. What a part's examples call must end well.
func fakes() []func(*testsuite.TestWorkflowEnvironment) {
	return []func(*testsuite.TestWorkflowEnvironment){
		fakeNightly,
		fakePublish,
		fakeErase,
		fakeTrain,
		fakeForecast,
		fakeReconcile,
		fakeBigQuery(&loads{}),
	}
}

// Every example of docs/WORKFLOWS.md is an input that its workflow takes and ends well with.
func TestEveryExampleOfTheDocumentRuns(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/WORKFLOWS.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]int{}
	for _, m := range regexp.MustCompile("(?s)```json (\\w+)\n(.*?)```").FindAllSubmatch(page, -1) {
		typ, text := string(m[1]), m[2]
		if _, err := name.TypeNamed(typ); err != nil {
			t.Error(err)
			continue
		}
		examples[typ]++
		w := &world{plans: []activities.PlanOutput{plan(1)}}
		env := newEnv(t, w)
		env.RegisterActivityWithOptions(func(context.Context, activities.StartRequest) (activities.WaitOutput, error) {
			return activities.WaitOutput{Result: json.RawMessage("{}")}, nil
		}, activity.RegisterOptions{Name: name.StartAndWait})
		for _, fake := range fakes() {
			fake(env)
		}
		env.ExecuteWorkflow(typ, json.RawMessage(text))
		if err := env.GetWorkflowError(); err != nil {
			t.Errorf("%s with %s: %v", typ, text, err)
		}
	}
	for _, typ := range name.Types() {
		if examples[typ.Name] == 0 && !strings.HasSuffix(typ.Name, name.TickSuffix) {
			t.Errorf("docs/WORKFLOWS.md shows no input of %s", typ.Name)
		}
		target, err := typ.Target([]byte(typ.Example))
		if err != nil {
			t.Errorf("the example of %s: %v", typ.Name, err)
			continue
		}
		in := reflect.TypeOf(target.Input)
		if in.Kind() != reflect.Struct { // a tick's: the text itself
			continue
		}
		for i := range in.NumField() {
			field, _, _ := strings.Cut(in.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(string(page), "`"+field+"`") {
				t.Errorf("docs/WORKFLOWS.md does not explain the field %s of %s", field, typ.Name)
			}
		}
	}
}
