package lakehouse

import (
	"strings"
	"testing"

	"github.com/apache/iceberg-go"

	"millrace/event/schema"
)

func TestFiltersSelectWhatTheySay(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	commits(t, c, 0, 2, 30) // value null for i%5 == 0; currency by i%3; ingested one each ms
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"currency = 'EUR'":                   16,
		"currency='EUR' and kafka_offset<30": 8,
		"value IS NULL":                      12,
		"value IS NOT NULL":                  48,
		"value >= 20.00002":                  32,
		"value = 1.000002":                   1,
		"event_id IN ('e-000001', 'e-000059', 'nobody''s')": 2,
		"event_id NOT IN ('e-000001')":                      59,
		"event_id LIKE 'e-00001%'":                          10,
		"event_id not like 'e-0000%'":                       0,
		"ingested_at >= '2026-03-01T00:00:00.050Z'":         10,
		"ingested_at < '2026-03-01'":                        0,
		"kafka_partition != 0":                              0,
		"tax > 49.5 AND schema_version = 1":                 0,
		"tax >= 0.000050":                                   10,
		"raw_topic <> 'raw.page' AND raw_offset <= 9":       10,
	} {
		f, err := ParseFilter(tbl.Schema(), text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		n := 0
		for _, offs := range offsetsOf(t, c, ScanOptions{Filter: f}) {
			n += len(offs)
		}
		if n != want {
			t.Errorf("%s selects %d rows, not %d", text, n, want)
		}
	}
}

func TestAWrongFilterIsNamedWithWhatToWrite(t *testing.T) {
	t.Parallel()
	c := ensureTest(t)
	tbl, err := c.Load(t.Context(), purchases)
	if err != nil {
		t.Fatal(err)
	}
	for text, say := range map[string]string{
		"":                                    "empty",
		"curency = 'EUR'":                     "did you mean currency?",
		"zzzzzzzzzzzzzz = 1":                  "there are event_id",
		"currency = EUR":                      "single quotes",
		"currency 'EUR'":                      "a comparison is expected",
		"currency =":                          "a value is expected",
		"value = 1.0000001":                   "at most 6 decimals",
		"value = 'x'":                         "decimals",
		"kafka_offset = x":                    "an example is 42",
		"ingested_at > 7":                     "2026-03-01",
		"items = 1":                           "is a list",
		"currency = 'EUR' or value = 1":       "AND or the end",
		"currency = 'EUR":                     "not closed",
		"currency IN 'EUR'":                   "( is expected",
		"currency IN ('EUR'":                  ", or )",
		"currency LIKE '%x'":                  "a beginning",
		"currency IS 7":                       "NULL or NOT NULL",
		"currency NOT = 'x'":                  "IN or LIKE",
		"currency = 'EUR' AND":                "a column is expected",
		"kafka_offset = 99999999999999999999": "an example is 42",
	} {
		if _, err := ParseFilter(tbl.Schema(), text); !isFault(err, "MR-ICE-063") || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := CheckColumns(tbl.Schema(), []string{"event_id", "visitorid", "valu"}); !isFault(err, "MR-ICE-063") || !strings.Contains(err.Error(), "visitor_id") || !strings.Contains(err.Error(), "value") {
		t.Errorf("got %v", err)
	}
	if err := CheckColumns(tbl.Schema(), []string{"event_id"}); err != nil {
		t.Error(err)
	}
}

func FuzzFiltersNeverPanic(f *testing.F) {
	for _, s := range []string{"a = 'b'", "event_id IN ('a', 'b') AND value >= 1.5", "'", "(", "event_id IS", "value = .", "value = -.5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := ParseFilter(eventsSchema(t), s); (e == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", s, e, err)
		}
	})
}

func eventsSchema(t testing.TB) *iceberg.Schema {
	t.Helper()
	tab, err := schema.TableNamed(purchases)
	if err != nil {
		t.Fatal(err)
	}
	return IcebergSchema(tab)
}
