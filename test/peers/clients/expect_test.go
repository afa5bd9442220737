package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/test/peers/clients/proxy"
)

// stored gives the rows of a store that has exactly what is wanted.
func stored(wants []want, now time.Time) []row {
	var out []row
	for i, w := range wants {
		at := w.at
		if at.IsZero() {
			at = now
		}
		r := row{EventID: w.name + "/" + string(rune('a'+i)), Name: w.name, At: at.UnixMicro(), Products: w.products, Properties: "{}", Visitor: w.visitor}
		if w.value != "null" && w.value != "" {
			value, currency := w.value+"000", w.currency
			if !strings.Contains(w.value, ".") {
				value = w.value + ".000000"
			}
			r.Value, r.Currency = &value, &currency
		}
		if w.order != "" {
			r.Order = &w.order
		}
		if w.note {
			b, _ := json.Marshal(object{"traits": object{"note": note}})
			r.Properties = string(b)
		}
		out = append(out, r)
	}
	return out
}

func TestEveryDifferenceIsFound(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	from, to := now.Add(-time.Minute), now.Add(time.Minute)
	for _, c := range clients() {
		s := newSession(7, now)
		wants, _ := c.wants(s, proxy.None)
		if missing, other := differences(wants, stored(wants, now), from, to); len(missing)+len(other) > 0 {
			t.Errorf("%s: differences in what agrees: %v, %v", c.name, missing, other)
		}
		for name, spoil := range map[string]func(rows []row) []row{
			"a missing row":       func(rows []row) []row { return rows[1:] },
			"a row twice":         func(rows []row) []row { return append(rows, rows[len(rows)-1]) },
			"a second copy":       func(rows []row) []row { r := rows[4]; r.EventID = "new"; return append(rows, r) },
			"a millisecond off":   func(rows []row) []row { rows[1].At += 1000; return rows },
			"another name":        func(rows []row) []row { rows[2].Name = "Product Added"; return rows },
			"a rounded amount":    func(rows []row) []row { v := "1234567.90"; rows[7].Value = &v; return rows },
			"another currency":    func(rows []row) []row { v := "USD"; rows[6].Currency = &v; return rows },
			"a positive refund":   func(rows []row) []row { v := "19.99"; rows[8].Value = &v; return rows },
			"a lost order":        func(rows []row) []row { rows[5].Order = nil; return rows },
			"another product":     func(rows []row) []row { rows[5].Products = []string{"x"}; return rows },
			"another person":      func(rows []row) []row { rows[1].Visitor = "x"; return rows },
			"a damaged text":      func(rows []row) []row { rows[len(rows)-1].Properties = `{"note":"na?ve"}`; return rows },
			"an event of no step": func(rows []row) []row { return append(rows, row{EventID: "e", Name: "$pageleave"}) },
		} {
			if missing, other := differences(wants, spoil(stored(wants, now)), from, to); len(missing)+len(other) == 0 {
				t.Errorf("%s: %s was not found", c.name, name)
			}
		}
	}
}

func TestAClientThatNeverSendsAgainLosesExactlyWhatWasRefused(t *testing.T) {
	t.Parallel()
	s := newSession(7, time.Now())
	c := client{dialect: dialect{session.measurement, adaptMeasurement}, every: 3, once: true}
	all, _ := c.wants(s, proxy.None)
	for _, fault := range proxy.Faults() {
		kept, _ := c.wants(s, fault)
		lost := len(all) - len(kept)
		if want := (len(all) + 2) / 3; fault.Reaches() && lost != 0 || !fault.Reaches() && lost != want {
			t.Errorf("%s: %d of %d lost", fault, lost, len(all))
		}
	}
}

func TestTheSessionHasATimeForEveryStepAndExactAmounts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newSession(3, now)
	for i, st := range s.steps {
		if !st.at.Before(now) || i > 0 && !st.at.Truncate(time.Second).After(s.steps[i-1].at) {
			t.Errorf("step %d is at %s", i, st.at)
		}
	}
	b, err := json.Marshal(s.segment())
	if err != nil {
		t.Fatal(err)
	}
	for _, literal := range []string{`"revenue":0.10`, `"revenue":19.99`, `"revenue":1234567.89`, `"revenue":12345`, `"currency":"JPY"`} {
		if !strings.Contains(string(b), literal) {
			t.Errorf("the drivers are not told %s", literal)
		}
	}
}

func TestTheDocsHaveAProgramForEveryClient(t *testing.T) {
	t.Parallel()
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	found, err := snippets(filepath.Join(root, "docs", "producers.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients() {
		name := strings.TrimSuffix(strings.Replace(c.name, "ga4mp", "ga4", 1), "-retried")
		if runners[name] != c.run {
			t.Errorf("%s is run by %q, its program of the docs by %q", c.name, c.run, runners[name])
		}
	}
	if len(found) != len(runners) {
		t.Errorf("%d programs, %d runners", len(found), len(runners))
	}
}
