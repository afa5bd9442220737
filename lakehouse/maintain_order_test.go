package lakehouse

import (
	"errors"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

func TestAPolicyThatDoesNotFitTheTableIsRefusedWithAllThatIsWrong(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	for want, p := range map[string]Policy{
		"there is no column nothing":         small().Ordered([]string{"day(occurred_at)", "nothing"}, nil),
		"which has no days and hours":        small().Ordered([]string{"hour(visitor_id)"}, nil),
		"items is list":                      small().Ordered(nil, []string{"occurred_at", "items"}),
		"zorder[1]: there is no column what": small().Ordered(nil, []string{"occurred_at", "what"}),
	} {
		if _, err := c.PlanCompaction(t.Context(), purchases, p); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestARewriteCountsTheFilesThatReadersOpen compares the numbers of a rewrite with iceberg-go's planner.
func TestARewriteCountsTheFilesThatReadersOpen(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	appendMany(t, c, 0, 8, 8000)
	read := map[string]int64{}
	for _, order := range []string{"none", "zorder"} {
		p := small()
		p.TargetFileBytes, p.MaxGroupBytes = 100<<10, 16<<20
		switch order {
		case "none":
			p = p.Ordered(nil, nil)
		case "zorder":
			p = p.Ordered(nil, []string{"occurred_at", "visitor_id"})
		}
		p.Queries = []Query{{"a visitor", []Match{{Column: "visitor_id"}}}}
		plan, err := c.PlanCompaction(t.Context(), purchases, p.All())
		if err != nil {
			t.Fatal(err)
		}
		results := groups(t, c, plan)
		if len(results) != 1 || results[0].ReadBefore == 0 || results[0].ReadAfter == 0 || results[0].Files < 4 {
			t.Fatalf("%s: %+v", order, results)
		}
		if order == "none" && results[0].ReadBefore != probes*8 {
			t.Errorf("files as they came: %d were read, every visitor is in all of them", results[0].ReadBefore)
		}
		read[order] = results[0].ReadAfter * 1000 / results[0].Files
		if _, err := c.CommitRewrite(t.Context(), plan, results); err != nil {
			t.Fatal(err)
		}
		wantRows(t, c, 8*8000)
	}
	if read["none"] != probes*1000 || read["zorder"] > read["none"]*3/4 {
		t.Errorf("files read for 1000 files: %v", read)
	}
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := tbl.Scan().PlanFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []iceberg.DataFile
	for _, task := range tasks {
		files = append(files, task.File)
	}
	visitor := purchase(4321).VisitorID
	planned, err := tbl.Scan(table.WithRowFilter(iceberg.EqualTo(iceberg.Reference("visitor_id"), visitor))).PlanFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, _ := tbl.Schema().FindFieldByName("visitor_id")
	q := &questions{asked: [][]bound{{{field: f.ID, lo: []byte(visitor), hi: []byte(visitor)}}}}
	if got := q.opened(files, tbl.Schema()); got != int64(len(planned)) || got == 0 || got == int64(len(files)) {
		t.Errorf("%d of %d files are opened, by iceberg-go %d", got, len(files), len(planned))
	}
}
