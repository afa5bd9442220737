package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The states, and how bad each is.
const (
	stateOK       = "ok"
	stateDegraded = "degraded"
	stateDown     = "down"
)

var severity = map[string]int{stateOK: 0, stateDegraded: 1, stateDown: 2}

func worse(a, b string) string {
	if severity[b] > severity[a] {
		return b
	}
	return a
}

// finding is what a rule found of a part.
type finding struct{ part, severity, message string }

// rule turns facts into findings. A shop without traffic breaks none: a sink is only stale if something waits for it.
type rule struct {
	name   string
	remedy string
	check  func(f *facts) []finding
}

// Bounds of the rules.
const (
	lagBound        = 100              // records that may wait in passing
	downAfter       = 10 * time.Minute // of a sink that stores nothing while something waits
	slowRequest     = 1.0              // seconds, p99 at the gateway
	failedShare     = 0.05
	failedRate      = 1.0 // a second; below it a share says nothing
	sessionsPerPart = 3   // sessions made anew in errorWindow
	spoolShare      = 0.5
)

// rules is the table of what is judged.
var rules = []rule{
	{
		"role answers", "See `millrace status` and the role's log in DIR/logs; the supervisor starts it again. A role that is held down comes back with `millrace child start ROLE`.",
		func(f *facts) (out []finding) {
			for _, role := range slices.Sorted(maps.Keys(f.sample.up)) {
				if f.sample.up[role] != nil {
					s := stateDegraded
					if role == "gateway" || role == "stream" {
						s = stateDown
					}
					out = append(out, finding{role, s, "does not answer"})
				}
			}
			return out
		},
	},
	{
		"kafka answers", "Check that the broker runs (`millrace status`) and that kafka.brokers is right. The gateway keeps events in its spool meanwhile.",
		func(f *facts) []finding {
			if f.have.kafka && f.lagErr != nil {
				return []finding{{"kafka", stateDown, "the broker does not answer"}}
			}
			return nil
		},
	},
	{
		"clickhouse answers", "Check that the server runs (`millrace status`) and that clickhouse.addr, user and password are right. Nothing is lost: the sink goes on where it was.",
		func(f *facts) []finding {
			if f.clickHouse != nil {
				return []finding{{"clickhouse", stateDown, "ClickHouse does not answer: series, products and events cannot be shown"}}
			}
			return nil
		},
	},
	{
		"redis answers", "Check that the server runs (`millrace status`) and that redis.addr is right. Live KPIs come from ClickHouse meanwhile, some seconds later.",
		func(f *facts) []finding {
			if f.have.redis && f.redis != nil {
				return []finding{{"redis", stateDegraded, "Redis does not answer: live KPIs come from ClickHouse"}}
			}
			return nil
		},
	},
	{
		"iceberg answers", "Check iceberg.catalog_uri and that the catalog's file or server can be reached.",
		func(f *facts) []finding {
			if f.have.lake && f.lakeErr != nil {
				return []finding{{"iceberg", stateDegraded, "the Iceberg catalog does not answer"}}
			}
			return nil
		},
	},
	{
		"temporal answers", "Check that the server runs (`millrace status`); its first build takes some minutes. Batch work waits meanwhile, the stream goes on.",
		func(f *facts) []finding {
			if f.have.temporal && f.temporal != nil {
				return []finding{{"temporal", stateDegraded, "Temporal does not answer"}}
			}
			return nil
		},
	},
	{
		"broker takes events", "The broker is slow or away; the gateway acknowledges into its spool and delivers later. See the health of kafka.",
		func(f *facts) []finding {
			if v, ok := f.sample.greatest("millrace_gateway_breaker_state"); ok && v >= 2 {
				return []finding{{"gateway", stateDegraded, "the breaker of the broker is open: events go to the spool"}}
			}
			return nil
		},
	},
	{
		"spool is empty", "It drains by itself once the broker takes events; if it fills up, producers are told to come back later (429).",
		func(f *facts) []finding {
			if v, ok := f.sample.greatest("millrace_gateway_spool_overdue"); ok && v > 0 {
				return []finding{{"gateway", stateDegraded, "events have waited in the spool for longer than spool.max_age"}}
			}
			used, ok1 := f.sample.greatest("millrace_gateway_spool_bytes")
			bound, ok2 := f.sample.greatest("millrace_gateway_spool_max_bytes")
			if ok1 && ok2 && bound > 0 && used/bound > spoolShare {
				return []finding{{"gateway", stateDegraded, fmt.Sprintf("the spool is %.0f %% full", 100*used/bound)}}
			}
			return nil
		},
	},
	{
		"gateway is quick", "Look at gateway produce beside it: if that is slow too, the broker is; else the machine is short of CPU, or requests are large.",
		func(f *facts) []finding {
			if !f.sample.has("millrace_gateway_request_seconds") || f.recent == nil {
				return nil
			}
			if p := f.sample.quantiles("millrace_gateway_request_seconds", f.recent, 0.99)[0]; p != nil && *p > slowRequest && positive(f.accepted()) {
				return []finding{{"gateway", stateDegraded, fmt.Sprintf("one request in a hundred takes %.1f s or longer", *p)}}
			}
			return nil
		},
	},
	{
		"events are well formed", "See the failed events by reason: most often one producer changed what it sends. `ReplayFailedEvents` brings them in after a fix.",
		func(f *facts) []finding {
			failed, accepted := f.failed(), f.accepted()
			if failed == nil || accepted == nil || *failed < failedRate || *failed < failedShare*(*accepted+*failed) {
				return nil
			}
			return []finding{{"gateway", stateDegraded, fmt.Sprintf("%.1f events a second fail, %.0f %% of all", *failed, 100**failed/(*accepted+*failed))}}
		},
	},
	{
		"stream keeps up", "If the role runs, it has more events than it can take: add workers up to the number of partitions. If it stands still, its log says why (MR-STR-…).",
		func(f *facts) []finding {
			behind := f.behind("millrace.hot")
			delay, ok := f.sample.greatest("millrace_stream_watermark_delay_seconds")
			if behind <= lagBound || ok && delay < f.staleAfter.Seconds() {
				return nil
			}
			s := stateDegraded
			if delay > downAfter.Seconds() {
				s = stateDown
			}
			msg := fmt.Sprintf("%d events wait to be processed", behind)
			if ok {
				msg += fmt.Sprintf(", event time is %s behind", short(time.Duration(delay)*time.Second))
			}
			return []finding{{"stream", s, msg}}
		},
	},
	{
		"sinks keep up", "If the role runs, look at its store; if it does not, see `millrace status` and its log. Nothing is lost while Kafka holds the events: the sink goes on where it was.",
		func(f *facts) (out []finding) {
			for _, sink := range []string{"clickhouse", "redis", "iceberg"} {
				behind := f.behind("millrace.sink." + sink)
				if behind <= lagBound {
					continue
				}
				newest, known := f.stored(sink)
				if sink == "clickhouse" && !known {
					for name, t := range f.newest {
						if t.After(newest) && strings.HasPrefix(name, "events_") {
							newest, known = t, true
						}
					}
				}
				age := f.now.Sub(newest)
				if known && age < f.staleAfter {
					continue
				}
				s, msg := stateDegraded, fmt.Sprintf("%d records wait to be stored", behind)
				if known {
					msg += fmt.Sprintf(", the newest stored is %s old", short(age.Truncate(time.Second)))
				}
				if known && age > downAfter {
					s = stateDown
				}
				out = append(out, finding{"sink-" + sink, s, msg})
			}
			return out
		},
	},
	{
		"stream is steady", "Transactions end with errors and are made anew: see the log of the stream role and the health of kafka. Nothing is lost or doubled.",
		func(f *facts) []finding {
			if f.old == nil {
				return nil
			}
			var n float64
			f.sample.each("millrace_stream_sessions_total", func(id seriesID, _ map[string]string, _ float64) {
				if d, ok := f.sample.grown(id, f.old); ok {
					n += d
				}
			})
			if n < sessionsPerPart {
				return nil
			}
			return []finding{{"stream", stateDegraded, fmt.Sprintf("%.0f sessions ended with an error in the last minutes", n)}}
		},
	},
}

func positive(v *float64) bool { return v != nil && *v > 0 }

// behind is how many records wait for a group.
func (f *facts) behind(group string) (sum int64) {
	for _, l := range f.lag {
		if l.Group == group && l.Records > markerLag {
			sum += l.Records
		}
	}
	return sum
}

// apply asks all rules, and gives each part its state.
func (f *facts) apply() ([]part, []reason) {
	reasons := []reason{}
	found := map[string][]finding{}
	for _, r := range rules {
		for _, x := range r.check(f) {
			found[x.part] = append(found[x.part], x)
			reasons = append(reasons, reason{x.part, x.severity, x.message, r.remedy})
		}
	}
	parts := []part{}
	for _, name := range f.partNames() {
		p := part{Name: name, State: stateOK, Detail: f.detail(name)}
		var said []string
		for _, x := range found[name] {
			p.State = worse(p.State, x.severity)
			said = append(said, x.message)
		}
		if len(said) > 0 {
			p.Detail = strings.Join(said, "; ")
		}
		parts = append(parts, p)
	}
	return parts, reasons
}

// partNames lists the parts in the order of the flow.
func (f *facts) partNames() []string {
	var out []string
	add := func(name string, there bool) {
		if there && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	role := func(name string) bool { _, ok := f.sample.up[name]; return ok }
	add("gateway", role("gateway"))
	add("kafka", f.have.kafka)
	add("registry", role("registry"))
	add("stream", role("stream"))
	for _, s := range []string{"clickhouse", "redis", "iceberg"} {
		add("sink-"+s, role("sink-"+s))
	}
	add("clickhouse", true)
	add("redis", f.have.redis)
	add("iceberg", f.have.lake)
	add("temporal", f.have.temporal)
	for _, r := range slices.Sorted(maps.Keys(f.sample.up)) {
		add(r, true)
	}
	return out
}

// detail says in a few words how a healthy part does.
func (f *facts) detail(name string) string {
	for group, role := range groups {
		if role == name && f.have.kafka && f.lagErr == nil {
			return fmt.Sprintf("%d records wait", f.behind(group))
		}
	}
	if name == "gateway" {
		if v := f.accepted(); v != nil {
			return fmt.Sprintf("%.1f events a second", *v)
		}
	}
	return "answers"
}
