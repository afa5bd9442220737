package main

import (
	"time"

	"millrace/test/peers/clients/proxy"
)

// client is one real package that the suite runs.
type client struct {
	name    string
	version string // of the package that is run, for the report; what is installed is pinned by the lock files
	run     runner
	program string
	dialect dialect
	// every: with a fault, the requests 1, 1+every, 1+2·every, … are spoilt.
	every int
	// once: the SDK sends a request once and never again, one event each, so what a fault keeps from the gateway is lost.
	once bool
	// drops gives the ids of the events of a request that the SDK throws away after a 429, which it takes for final.
	drops func(body []byte) ([]string, error)
	// retried: the same SDK, in an application that repeats what was not taken.
	retried bool
	slow    bool // waits a quarter of a minute before it sends again
}

// runner is what a driver is written for.
type runner string

const (
	node    runner = "node"
	browser runner = "browser"
	python  runner = "python"
	java    runner = "java"
)

func clients() []client {
	segment := dialect{session.segment, adaptSegment}
	snowplow := dialect{session.snowplow, adaptSnowplow}
	measurement := dialect{session.measurement, adaptMeasurement}
	ga4 := dialect{func(s session) object { return s.cloudevents(true) }, adaptCloudEvents}
	commerce := dialect{func(s session) object { return s.cloudevents(false) }, adaptCloudEvents}
	posthog := func(browser, timed bool, set string) dialect {
		return dialect{func(s session) object { return s.posthog(browser) }, adaptPostHog(browser, timed, set)}
	}
	return []client{
		{name: "segment-java", version: "3.5.4", run: java, program: "SegmentJava", dialect: segment, every: 3, slow: true},
		{name: "segment-node", version: "3.1.0", run: node, program: "segment-node.mjs", dialect: segment, every: 3},
		{name: "segment-python", version: "2.4.0", run: python, program: "segment_python.py", dialect: segment, every: 3},
		{name: "segment-browser", version: "1.84.3", run: browser, program: "pages/segment-browser.js", dialect: segment, every: 3},
		{name: "rudderstack-node", version: "3.0.13", run: node, program: "rudderstack-node.mjs", dialect: segment, every: 3},
		{name: "rudderstack-python", version: "2.1.9", run: python, program: "rudderstack_python.py", dialect: segment, every: 3},
		{name: "rudderstack-browser", version: "3.34.1", run: browser, program: "pages/rudderstack-browser.js", dialect: segment, every: 3},
		{name: "snowplow-node", version: "4.8.0", run: node, program: "snowplow-node.mjs", dialect: snowplow, every: 3},
		{name: "snowplow-python", version: "1.1.0", run: python, program: "snowplow_python.py", dialect: snowplow, every: 3},
		{name: "snowplow-browser", version: "4.10.1", run: browser, program: "pages/snowplow-browser.js", dialect: snowplow, every: 3},
		{name: "posthog-node", version: "5.70.0", run: node, program: "posthog-node.mjs", dialect: posthog(false, false, "identify"), every: 3},
		{name: "posthog-python", version: "7.91.1", run: python, program: "posthog_python.py", dialect: posthog(false, true, "$set"), every: 3},
		{name: "posthog-browser", version: "1.449.2", run: browser, program: "pages/posthog-browser.js", dialect: posthog(true, false, "identify"), every: 3, drops: capturedIDs},
		{name: "cloudevents-node", version: "10.0.0", run: node, program: "cloudevents-node.mjs", dialect: ga4, every: 3, once: true},
		{name: "cloudevents-node-retried", version: "10.0.0", run: node, program: "cloudevents-node.mjs", dialect: ga4, every: 3, retried: true},
		{name: "cloudevents-python", version: "2.2.0", run: python, program: "cloudevents_python.py", dialect: commerce, every: 3, once: true},
		{name: "cloudevents-python-retried", version: "2.2.0", run: python, program: "cloudevents_python.py", dialect: commerce, every: 3, retried: true},
		{name: "ga4mp-python", version: "2.0.4", run: python, program: "ga4mp_python.py", dialect: measurement, every: 3, once: true},
		{name: "ga4mp-python-retried", version: "2.0.4", run: python, program: "ga4mp_python.py", dialect: measurement, every: 3, retried: true},
	}
}

// wants is what must be in the stores after a run with a fault, and in words what that means.
func (c client) wants(s session, fault proxy.Fault) ([]want, string) {
	all := c.dialect.wants(s)
	switch {
	case fault == proxy.None:
		return all, "every event once"
	case fault == proxy.TooManyRequests && c.drops != nil:
		return all, "thrown away by the SDK: exactly the refused events are missing"
	case !c.once:
		return all, "sent again: every event once"
	case fault.Reaches():
		return all, "never sent again, but the gateway has it: every event once"
	}
	var kept []want
	for i, w := range all {
		if i%c.every != 0 {
			kept = append(kept, w)
		}
	}
	return kept, "never sent again: exactly the refused requests are missing"
}

// The patience with drivers: how long an SDK waits for an answer, how long it may take to deliver everything.
const (
	answerTimeout = 3 * time.Second
	patience      = 100 * time.Second
	idleTime      = 20 * time.Second // after which a page that sends nothing is closed
)
