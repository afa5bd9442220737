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

	"millrace/activities"
	"millrace/workflows/name"
)

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
		env.ExecuteWorkflow(typ, json.RawMessage(text))
		if err := env.GetWorkflowError(); err != nil {
			t.Errorf("%s with %s: %v", typ, text, err)
		}
	}
	for _, typ := range name.Types() {
		if examples[typ.Name] == 0 {
			t.Errorf("docs/WORKFLOWS.md shows no input of %s", typ.Name)
		}
	}
	in := reflect.TypeFor[name.MaintainTableInput]()
	for i := range in.NumField() {
		field, _, _ := strings.Cut(in.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(page), "`"+field+"`") {
			t.Errorf("docs/WORKFLOWS.md does not explain the field %s", field)
		}
	}
}
