package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/internal/fault"
	"millrace/olap"
)

func TestARangeOfNightsIsOfDaysThatAreOver(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 1, 0, 0, 0, time.UTC)
	got, err := dayRange("2026-02-27", "2026-03-01", now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"2026-02-27", "2026-02-28", "2026-03-01"}, got); diff != "" {
		t.Error(diff)
	}
	for what, c := range map[string]struct{ from, to, says string }{
		"ends before it starts": {"2026-02-02", "2026-02-01", "--to 2026-02-01 is before --from 2026-02-02"},
		"today":                 {"2026-03-01", "2026-03-02", "the day is not over"},
		"no day":                {"yesterday", "2026-13-01", `--from: "yesterday" is not a day`},
		"both wrong":            {"yesterday", "2026-13-01", `--to: "2026-13-01" is not a day`},
		"long ago":              {"0001-01-01", "2026-01-01", "no events before 1990"},
	} {
		_, err := dayRange(c.from, c.to, now)
		if id, _ := fault.IDOf(err); id != "MR-NIT-005" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestGapsAreBetweenTheFirstNightAndYesterday(t *testing.T) {
	t.Parallel()
	have := []olap.Night{{Night: "2026-03-04"}, {Night: "2026-03-01T12:00:00Z"}, {Night: "2026-03-01"}}
	yesterday := time.Date(2026, 3, 6, 0, 0, 0, 0, time.UTC)
	if diff := cmp.Diff([]string{"2026-03-02", "2026-03-03", "2026-03-05", "2026-03-06"}, gapsUntil(have, yesterday, 30)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"2026-03-05", "2026-03-06"}, gapsUntil(have, yesterday, 3)); diff != "" {
		t.Error(diff)
	}
	if got := gapsUntil(nil, yesterday, 30); len(got) != 0 {
		t.Errorf("a platform without a night misses %v", got)
	}
}
