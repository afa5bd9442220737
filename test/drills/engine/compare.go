package main

import (
	"context"
	"fmt"
	"reflect"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/event"
	"millrace/test/drills/drill"
	"millrace/test/drills/hotrun"
)

type record = kgo.Record

// found is what a reader of committed records finds at the end.
type found struct {
	kpis    map[string]event.KPIPartial // the last value of each row of a partition
	written int                         // rows, the earlier values of each among them
	closed  map[string]bool             // whether the last value of a row was final
	opened  int                         // rows that were not final any more, although one before was
	alerts  map[string]event.Alert
	twice   int // alerts
	events  map[string]int64
	again   int // events
}

// read reads what the hot topology wrote.
//
// The flag Final of a row is not the same with kills and without, although both runs end at the same watermark: a window is written at its close only if it has changed since
// it was written last, which is up to once a second of the clock (streaming.WindowsSpec.Emit). If its last event came before such a moment and the watermark passed its end
// after it, there is no final row, since the value that there is is right already; if both came between two moments there is one. A kill moves those moments, and the time
// for which a task waits before it reads on. What holds of every run, and is checked instead: a window does not open again. A row behind a final one is a correction, and
// final too, through every kill, since the watermark is state. DetectedAt of an alert is the clock of the process that raised it; everything else of an alert is compared.
//
// Of alerts it compares those of fraud: whether a stock is low is said in the order in which sales arrive from many tasks.
func read(ctx context.Context, b *hotrun.Broker) (*found, error) {
	codecs, err := hotrun.Codecs()
	if err != nil {
		return nil, err
	}
	f := &found{closed: map[string]bool{}, kpis: map[string]event.KPIPartial{}, alerts: map[string]event.Alert{}, events: map[string]int64{}}
	topics := []string{event.TopicKPIPartial, event.TopicAlerts}
	categories := map[string]event.Category{}
	for _, c := range event.Categories() {
		topics = append(topics, c.EventsTopic())
		categories[c.EventsTopic()] = c
	}
	dec := codecs.NewEventDecoder()
	var e event.Event
	return f, b.ReadCommitted(ctx, topics, func(r *kgo.Record) error {
		switch r.Topic {
		case event.TopicKPIPartial:
			f.written++
			var p event.KPIPartial
			if err := codecs.Decode(ctx, r.Topic, r.Value, &p); err != nil {
				return fmt.Errorf("reading a row of KPIs: %w", err)
			}
			id := strconv.Itoa(int(r.Partition)) + " " + string(r.Key)
			if f.closed[id] && !p.Final {
				f.opened++
			}
			f.closed[id] = p.Final
			p.Final = false
			f.kpis[id] = p
		case event.TopicAlerts:
			var a event.Alert
			if err := codecs.Decode(ctx, r.Topic, r.Value, &a); err != nil {
				return fmt.Errorf("reading an alert: %w", err)
			}
			if _, there := f.alerts[a.AlertID]; there {
				f.twice++
			}
			if a.Kind == event.AlertFraud {
				a.DetectedAt = 0 // by the clock
				f.alerts[a.AlertID] = a
			}
		default:
			if err := dec.DecodeEnriched(ctx, categories[r.Topic], r.Value, &e); err != nil {
				return fmt.Errorf("reading an event: %w", err)
			}
			if _, there := f.events[e.ID]; there {
				f.again++
			}
			f.events[e.ID] = e.RowHash
		}
		return nil
	})
}

// compare is the verdict: what was found with kills is what was found without.
func compare(d *drill.Drill, crashed, calm *found) {
	d.Check(len(calm.events) > 0 && crashed.again == 0 && calm.again == 0, "each of %d events was written once (%d and %d twice)", len(crashed.events), crashed.again, calm.again)
	lost, more, other := differ(crashed.events, calm.events, func(a, b int64) bool { return a == b })
	d.Check(lost+more+other == 0, "the events are those of the run without kills: %d lost, %d more, %d different", lost, more, other)
	lost, more, other = differ(crashed.kpis, calm.kpis, func(a, b event.KPIPartial) bool { return reflect.DeepEqual(a, b) })
	d.Check(len(calm.kpis) > 0 && lost+more+other == 0, "the final values of %d KPI rows are the same (%d and %d values written): %d lost, %d more, %d different", len(calm.kpis), crashed.written, calm.written, lost, more, other)
	if other > 0 {
		crashed.example(calm)
	}
	final := 0
	for _, is := range crashed.closed {
		if is {
			final++
		}
	}
	d.Check(final > 0 && crashed.opened == 0 && calm.opened == 0, "no window opened again behind its final value, of %d that had one (%d, %d)", final, crashed.opened, calm.opened)
	d.Check(crashed.twice == 0 && calm.twice == 0, "no alert was written twice (%d, %d)", crashed.twice, calm.twice)
	lost, more, other = differ(crashed.alerts, calm.alerts, func(a, b event.Alert) bool { return reflect.DeepEqual(a, b) })
	d.Check(len(calm.alerts) > 0 && lost+more+other == 0, "the %d exactly-once alerts of fraud are the same: %d lost, %d more, %d different", len(calm.alerts), lost, more, other)
	shown := 0
	for id, a := range calm.alerts {
		if x, ok := crashed.alerts[id]; !ok || !reflect.DeepEqual(a, x) {
			if shown++; shown <= 3 {
				fmt.Printf("     without kills %+v\n     with kills    %+v\n", a, x)
			}
		}
	}
}

// differ counts what is in want alone, in got alone, and in both but not the same.
func differ[V any](got, want map[string]V, same func(a, b V) bool) (lost, more, other int) {
	for k, w := range want {
		if g, ok := got[k]; !ok {
			lost++
		} else if !same(g, w) {
			other++
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			more++
		}
	}
	return lost, more, other
}

// example shows rows that differ.
func (f *found) example(calm *found) {
	shown := 0
	for k, v := range calm.kpis {
		if got, ok := f.kpis[k]; ok && !reflect.DeepEqual(got, v) && shown < 3 {
			shown++
			fmt.Printf("     without kills %+v\n     with kills    %+v\n", v, got)
		}
	}
}
