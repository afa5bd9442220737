package rules

import (
	"strconv"
	"testing"

	"millrace/event"
)

func TestAReplaySaysWhatARuleWouldHaveAlertedAndWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	set, err := Parse([]byte(`version: 2
rules:
  - {name: rare, kind: velocity, entity: card, on: [purchase], window: 10m, threshold: 3, severity: warn, score: 0.5, reason: '{n} orders'}
  - {name: always, kind: velocity, entity: visitor, on: [purchase], window: 10m, threshold: 2, cooldown: 1s, severity: warn, score: 0.5, reason: x}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := NewReplay(set)
	at := int64(1_700_000_000) * second
	for i := range int64(300) {
		card := "c" + strconv.FormatInt(i, 10)
		if i < 3 {
			card = "stolen"
		}
		r.Add(&event.Rekeyed{Name: "purchase", EventID: "e" + strconv.FormatInt(i, 10), VisitorID: "v", CardFingerprint: card, At: at + i*2*second, OccurredAt: at + i*2*second})
	}
	r.Add(&event.Rekeyed{Name: "purchase", VisitorID: "later", At: at + 24*3600*second})
	out := r.Outcomes()
	if len(out) != 2 || out[0].Rule != "rare" || out[0].Alerts != 1 || out[0].Events != 300 || out[0].TooMuch || len(out[0].Examples) != 1 || out[0].Examples[0].EventID != "e2" || out[0].Examples[0].Reason != "3 orders" {
		t.Errorf("%+v, want one alert at the third order of the stolen card", out[0])
	}
	if out[1].Alerts < 200 || !out[1].TooMuch || len(out[1].Examples) != examples {
		t.Errorf("%+v, want too many", out[1])
	}
	if len(r.states) != 1 || r.Events != 301 {
		t.Errorf("%d keys of %d events are remembered a day later, want the last one", len(r.states), r.Events)
	}
}
