package workers

import (
	"testing"
	"time"

	"millrace/event"
)

// A table of ten small files is a job of a few activities: what it takes beyond reading and writing them is Temporal's and ours. Times are printed, not asserted.
func TestASmallJobIsDoneByItsCommitterAndOneWithoutACommitterDoesNotWait(t *testing.T) {
	b := newBatchTest(t)
	b.start(t)
	eventuallySo(t, "the role is ready", func() bool { return b.ready(t) == "" })
	table := event.Page.Table()
	there := committers(b.client)
	if ok, err := there(t.Context(), table); err != nil || !ok {
		t.Errorf("the committer of %s is not seen: %t %v", table, ok, err)
	}
	if ok, err := there(t.Context(), "nobodys_table"); err != nil || ok {
		t.Errorf("somebody commits to a table that is not there: %t %v", ok, err)
	}
	for i := range 3 {
		b.fill(t, event.Page, 10)
		start := time.Now()
		run, _ := b.run(t, `{"table": "`+table+`", "min_input_files": 2}`)
		out := b.result(t, run)
		t.Logf("run %d took %d ms: %+v", i+1, time.Since(start).Milliseconds(), out.Steps)
		if n := out.Steps[0].Numbers; n["files_removed"] < 10 || n["commits_lane"] != 1 || n["files_read_before"] < n["files_read_after"] || n["files_read_after"] == 0 {
			t.Errorf("%+v", n)
		}
	}
}
