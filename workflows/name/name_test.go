package name_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/workflows/name"
)

func TestInputsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		text string
		want []string // parts of the error
	}{
		"an unknown field is named with the nearest one":   {`{"tabel": "events_page"}`, []string{"tabel: unknown field, did you mean table?"}},
		"a field in the wrong case is unknown":             {`{"Table": "events_page"}`, []string{"Table: unknown field, did you mean table?"}},
		"a field far from all others lists them":           {`{"table": "t", "zzzzzzzzzzzzzzzzz": 1}`, []string{"zzzzzzzzzzzzzzzzz: unknown field; there are columns, dry_run, keep_snapshots"}},
		"a repeated field is refused":                      {`{"table": "a", "table": "b"}`, []string{"table: is there twice"}},
		"a number for a string":                            {`{"table": 7}`, []string{"table: a string is expected, this is the number 7"}},
		"a string for a number":                            {`{"table": "t", "keep_snapshots": "9"}`, []string{`keep_snapshots: a whole number is expected, this is the string "9"`}},
		"a fraction for a whole number":                    {`{"table": "t", "keep_snapshots": 1.5}`, []string{"keep_snapshots: a whole number is expected, this is the number 1.5"}},
		"a number too large":                               {`{"table": "t", "keep_snapshots": 99999999999999999999}`, []string{"keep_snapshots: a whole number"}},
		"a duration without a unit":                        {`{"table": "t", "snapshot_age": "7"}`, []string{`snapshot_age: "7" is not a duration such as "7d" or "90m"`}},
		"a duration as a number":                           {`{"table": "t", "snapshot_age": 7}`, []string{`snapshot_age: 7 is not a duration`}},
		"a duration as an object":                          {`{"table": "t", "snapshot_age": {"d": 7}}`, []string{`snapshot_age: a duration such as "7d"`}},
		"a negative duration":                              {`{"table": "t", "snapshot_age": "-7d"}`, []string{`snapshot_age: "-7d" is not a duration`}},
		"a string for a list":                              {`{"table": "t", "steps": "compact"}`, []string{"steps: a list is expected"}},
		"a wrong element of a list":                        {`{"table": "t", "steps": ["compact", 3]}`, []string{"steps[1]: a string is expected, this is the number 3"}},
		"a list for a flag":                                {`{"table": "t", "dry_run": [true]}`, []string{"dry_run: true or false is expected, this is a list"}},
		"something behind the object":                      {`{"table": "t"} {"table": "u"}`, []string{"something stands behind it"}},
		"a list instead of an object":                      {`["events_page"]`, []string{"the input: an object is expected, this is a list"}},
		"a bare string":                                    {`"events_page"`, []string{`the input: an object is expected, this is the string "events_page"`}},
		"text that ends early":                             {`{"table": "t"`, []string{"not JSON: it ends in the middle"}},
		"no JSON at all":                                   {`table=t`, []string{"the input is not JSON"}},
		"nothing":                                          {``, []string{`table: is missing; an example is {"table": "events_page"}`}},
		"null":                                             {`null`, []string{"table: is missing"}},
		"a table name that is none":                        {`{"table": "../events"}`, []string{`table: "../events" is no table name`}},
		"an unknown step":                                  {`{"table": "t", "steps": ["compakt"]}`, []string{`steps[0]: "compakt" is not one of compact, manifests, expire, orphans`}},
		"a step twice":                                     {`{"table": "t", "steps": ["expire", "expire"]}`, []string{"steps[1]: \"expire\" is there twice"}},
		"orphans younger than a day":                       {`{"table": "t", "orphan_age": "1h"}`, []string{"orphan_age: 1h is below 1d"}},
		"a target that is too small":                       {`{"table": "t", "target_file_bytes": 5}`, []string{"target_file_bytes: 5 is not between"}},
		"an order that is none":                            {`{"table": "t", "order": "hilbert"}`, []string{`order: "hilbert" is not one of sort, zorder, none`}},
		"columns without an order":                         {`{"table": "t", "columns": ["a"]}`, []string{"columns: order is missing"}},
		"columns of no order":                              {`{"table": "t", "order": "none", "columns": ["a"]}`, []string{`columns: order is "none"`}},
		"a z-order of one column":                          {`{"table": "t", "order": "zorder", "columns": ["a"]}`, []string{"columns: a z-order has at least 2"}},
		"a z-order of too many columns":                    {`{"table": "t", "order": "zorder", "columns": ["a", "b", "c", "d", "e", "f"]}`, []string{"columns: 6 are more than 5"}},
		"a z-order of days":                                {`{"table": "t", "order": "zorder", "columns": ["a", "day(b)"]}`, []string{`columns[1]: "day(b)" is no column`}},
		"a sort by a month":                                {`{"table": "t", "order": "sort", "columns": ["month(a)", "b", "b"]}`, []string{`columns[0]: "month(a)" is no column`, `columns[2]: "b" is there twice`}},
		"an order without compaction":                      {`{"table": "t", "steps": ["expire"], "rewrite_all": true}`, []string{"steps: rewrite_all, order and columns are of compact"}},
		"a run with a space":                               {`{"table": "t", "run": "to day"}`, []string{"run: \"to day\" has other characters"}},
		"several problems are all reported":                {`{"table": "T", "steps": ["x"], "min_input_files": 1}`, []string{"table:", "steps[0]:", "min_input_files: 1 is not between 2 and 10000"}},
		"unknown fields and wrong types are reported both": {`{"tabel": "t", "dry_run": 1}`, []string{"tabel:", "dry_run:"}},
		"more than an input may have":                      {`{"table": "` + strings.Repeat("t", 70_000) + `"}`, []string{"at most 65536"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, err := name.Decode[name.MaintainTableInput]([]byte(c.text))
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

func TestAFullInputIsReadAsWritten(t *testing.T) {
	t.Parallel()
	in, err := name.Decode[name.MaintainTableInput]([]byte(`{"table": "events_page", "steps": ["compact", "expire"], "target_file_bytes": 134217728, "min_input_files": 4,
		"order": "sort", "columns": ["day(occurred_at)", "visitor_id"], "rewrite_all": true, "snapshot_age": "1d12h", "keep_snapshots": 20, "orphan_age": "3d", "dry_run": true, "run": "2026-10-22T03:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := name.MaintainTableInput{
		Table: "events_page", Steps: []string{"compact", "expire"}, TargetFileBytes: 128 << 20, MinInputFiles: 4, SnapshotAge: name.Duration(36 * time.Hour), KeepSnapshots: 20,
		OrphanAge: name.Duration(72 * time.Hour), DryRun: true, Order: name.OrderSort, Columns: []string{"day(occurred_at)", "visitor_id"}, RewriteAll: true, Run: "2026-10-22T03:00:00Z",
	}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Error(diff)
	}
	again, err := name.Decode[name.MaintainTableInput]([]byte(name.Text(in)))
	if err != nil || !cmp.Equal(in, again) {
		t.Errorf("written and read again it is %+v, %v", again, err)
	}
	if in.Wants(name.StepOrphans) || !in.Wants(name.StepExpire) || !(name.MaintainTableInput{}).Wants(name.StepOrphans) {
		t.Error("the steps that are wanted are not those of the input")
	}
}

func TestDurationsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for d, text := range map[time.Duration]string{0: "0s", 7 * 24 * time.Hour: "7d", 90 * time.Minute: "1h30m", 36 * time.Hour: "1d12h", 1500 * time.Millisecond: "1.5s", 10 * time.Minute: "10m", time.Hour: "1h"} {
		if got := name.Duration(d).String(); got != text {
			t.Errorf("%s is written %s", d, got)
		}
	}
	for _, bad := range []string{"", "d", "7", "-1h", "+1h", "1d-2h", "x7d", "7 d", "99999d", "1d2", "7days"} {
		if d, err := name.ParseDuration(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := name.Duration(rapid.Int64Range(0, int64(3000*24*time.Hour)).Draw(t, "d"))
		got, err := name.ParseDuration(d.String())
		if err != nil || got != d {
			t.Fatalf("%d is written %s and read as %d, %v", d, d, got, err)
		}
	})
}

func TestEveryTypeTakesItsExampleAndHasItsID(t *testing.T) {
	t.Parallel()
	ids := map[string]string{
		name.MaintainTable: "maintain/events_page", name.MaintainTableTick: "tick/maintain/events_page", name.Nightly: "nightly/2026-10-22", name.Nightly + name.TickSuffix: "tick/nightly/2026-10-22",
	}
	seen := map[string]string{}
	for _, typ := range name.Types() {
		target, err := typ.Target([]byte(typ.Example))
		if want := ids[typ.Name]; err != nil || target.ID == "" || want != "" && target.ID != want {
			t.Errorf("%s: %+v, %v", typ.Name, target, err)
		}
		if other := seen[target.ID]; other != "" {
			t.Errorf("%s and %s have the id %s", typ.Name, other, target.ID)
		}
		seen[target.ID] = typ.Name
		if _, err := typ.Target([]byte(`{"no_such_field": 1}`)); err == nil {
			t.Errorf("%s takes a field that it does not know", typ.Name)
		}
	}
}

func TestAnUnknownTypeNamesTheNearest(t *testing.T) {
	t.Parallel()
	for n, want := range map[string]string{
		"MaintianTable": "did you mean MaintainTable?", "maintaintable": "did you mean MaintainTable?", "xyzxyzxyz": "there are MaintainTable, MaintainTableTick",
	} {
		if _, err := name.TypeNamed(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", n, err)
		}
	}
}

func TestSearchAttributesFitSQLVisibility(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for n, kind := range name.Attributes() {
		if !strings.HasPrefix(n, "Millrace") {
			t.Errorf("%s has not our prefix", n)
		}
		count[kind.String()]++
	}
	if diff := cmp.Diff(map[string]int{"Keyword": 10, "Int": 2}, count); diff != "" {
		t.Error(diff)
	}
}

// The strict reader must agree with encoding/json on what is JSON, and never panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"table": "t", "steps": [[{}]], "snapshot_age": {"a": [1]}}`))
	f.Add([]byte(`{"table": nul`))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := name.Decode[name.MaintainTableInput](text)
		if err != nil {
			return
		}
		again, err := name.Decode[name.MaintainTableInput]([]byte(name.Text(in)))
		if err != nil || !cmp.Equal(in, again) {
			t.Fatalf("%q is taken as %+v, which is %+v, %v when written and read again", text, in, again, err)
		}
	})
}

func TestTheNightsBeforeANight(t *testing.T) {
	t.Parallel()
	daily := name.NightlyInput{Day: "2026-03-01"}
	if diff := cmp.Diff([]string{"2026-02-27", "2026-02-28"}, daily.Before(2)); diff != "" {
		t.Error(diff)
	}
	short := name.NightlyInput{Day: "2026-03-01T00:00:30Z", Every: name.Duration(time.Minute)}
	if diff := cmp.Diff([]string{"2026-02-28T23:58:30Z", "2026-02-28T23:59:30Z"}, short.Before(2)); diff != "" {
		t.Error(diff)
	}
	if daily.LookBack() != 7 || (name.NightlyInput{Gaps: -1}).LookBack() != 0 || (name.NightlyInput{Gaps: 30}).LookBack() != 30 {
		t.Error("how far back is looked")
	}
	if daily.DataDay() != "2026-03-01" || short.DataDay() != "2026-02-28" || len(daily.Hours()) != 24 || !short.Hours()[0].Equal(time.Date(2026, 2, 28, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("%s, %s, %v", daily.DataDay(), short.DataDay(), short.Hours())
	}
}

func TestATickKeepsWhatItsInputSays(t *testing.T) {
	t.Parallel()
	nightly, err := name.TypeNamed(name.Nightly)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 10, 23, 2, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{``: `{"day":"2026-10-22"}`, `null`: `{"day":"2026-10-22"}`, `{"gaps": 12345678901234567890}`: `{"day":"2026-10-22","gaps":12345678901234567890}`} {
		got, err := name.TickInput(nightly, []byte(in), at)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, bad := range []string{`[]`, `{`, `{} {}`, `"x"`} {
		if got, err := name.TickInput(nightly, []byte(bad), at); err == nil {
			t.Errorf("%s gives %s", bad, got)
		}
	}
}
