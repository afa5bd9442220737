package event

import (
	"slices"
	"strings"
	"time"
)

// Store is a kind of place where data rests.
type Store string

// The kinds of places.
const (
	StoreTopic      Store = "topic"      // Kafka
	StoreState      Store = "state"      // of the stream engine, in its changelog topics and on local disks
	StoreClickHouse Store = "clickhouse" // table
	StoreIceberg    Store = "iceberg"    // table
	StoreBigQuery   Store = "bigquery"   // table
	StoreRedis      Store = "redis"      // keys that begin with the name
	StoreFile       Store = "file"       // in a data folder or beside the warehouse
	StoreTemporal   Store = "temporal"   // histories, memos, search attributes
	StoreLog        Store = "log"        // logs, metrics, traces
)

// Stores lists the kinds.
func Stores() []Store {
	return []Store{StoreTopic, StoreState, StoreClickHouse, StoreIceberg, StoreBigQuery, StoreRedis, StoreFile, StoreTemporal, StoreLog}
}

// Erasing is how a person is taken out of a place.
type Erasing string

// The ways of erasing.
const (
	EraseNothing Erasing = "holds none" // there is nothing of a person to be erased
	EraseRows    Erasing = "rows"       // their rows are deleted
	EraseKeys    Erasing = "keys"       // keys that name them are deleted
	EraseExpiry  Erasing = "expiry"     // the place forgets by itself after Within; the certificate lists it with its date
	EraseRequest Erasing = "request"    // kept for the request itself, deleted at its end
	ErasePseudo  Erasing = "pseudonym"  // hashes that cannot be turned back into ids remain in sums; the certificate says so
)

// Holding is one place of the inventory of personal data.
type Holding struct {
	Store  Store
	Name   string   // of the topic, table, store, prefix of keys, path below its folder
	Fields []string // what of a person it holds: columns, or words
	How    Erasing
	Within time.Duration // of EraseExpiry, from the request
	Why    string
}

// Personal lists the fields of an event that are about a person, each by its column. Everything else of a row is about a shop, and goes with the row.
func Personal() []string {
	return []string{
		"visitor_id", "user_id", "previous_id", "client_session_id", "session_id", "ip", "ip_hash", "card_fingerprint", "card_bin", "card_last4", "order_id",
		"page_url", "page_referrer", "search_term", "user_agent", "region", "city", "properties",
	}
}

// personalOf are the personal fields that a category's events have.
func personalOf(c Category) []string {
	return slices.DeleteFunc(Personal(), func(f string) bool { return f == "previous_id" && c != Identity || f == "search_term" && c != Page })
}

// Holdings is the inventory: every place where the platform keeps data, with what of a person it holds and how that is erased. A place that is not listed fails a test.
func Holdings() []Holding {
	var out []Holding
	add := func(h ...Holding) { out = append(out, h...) }
	none := func(store Store, why string, names ...string) {
		for _, n := range names {
			add(Holding{Store: store, Name: n, How: EraseNothing, Why: why})
		}
	}
	pseudo := func(store Store, why string, names ...string) {
		for _, n := range names {
			add(Holding{Store: store, Name: n, Fields: []string{"visitors_sketch"}, How: ErasePseudo, Why: why})
		}
	}
	rows := func(store Store, name string, fields []string, why string) {
		add(Holding{Store: store, Name: name, Fields: fields, How: EraseRows, Why: why})
	}
	for _, t := range Topics() {
		if t.Retention == 0 {
			continue
		}
		if c, ok := categoryOfTopic(t.Name); ok {
			add(Holding{Store: StoreTopic, Name: t.Name, Fields: personalOf(c), How: EraseExpiry, Within: t.Retention, Why: "a log cannot be edited; who reads it again drops erased rows by the ledger"})
		}
	}
	const (
		payload    = "payload"
		aggregates = "sums over windows. Distinct visitors are a sketch, or while they are few a list of 64-bit hashes: no id can be computed from it, though whoever has an id could test for it"
		offsets    = "counts by range of offsets"
		operations = "what workflows did, in numbers, names of tables and ids of runs"
	)
	topicDays := func(name string) time.Duration {
		t, _ := TopicNamed(name)
		return t.Retention
	}
	for _, n := range []string{TopicRawFailed, TopicEventsFailed} {
		add(Holding{Store: StoreTopic, Name: n, Fields: []string{payload}, How: EraseExpiry, Within: topicDays(n), Why: "a log cannot be edited; who reads it again drops erased rows by the ledger"})
	}
	add(
		Holding{Store: StoreTopic, Name: TopicAlerts, Fields: []string{"visitor_id"}, How: EraseExpiry, Within: topicDays(TopicAlerts), Why: "an alert may name the visitor that it is about"},
		Holding{Store: StoreTopic, Name: TopicAlertsFast, Fields: []string{"visitor_id"}, How: EraseExpiry, Within: topicDays(TopicAlertsFast), Why: "as alerts"},
		Holding{Store: StoreTopic, Name: TopicKPILate, Fields: []string{"event_id"}, How: EraseExpiry, Within: topicDays(TopicKPILate), Why: "names events by id and offset"},
	)
	for _, n := range []string{TopicRekeyCard, TopicRekeyIP, TopicRekeyUser, TopicRekeyProduct} {
		add(Holding{Store: StoreTopic, Name: n, Fields: []string{"visitor_id"}, How: EraseExpiry, Within: topicDays(n), Why: "events on their way to the tasks of their card, address, user or product"})
	}
	add(Holding{Store: StoreTopic, Name: TopicLiveUpdates, Fields: []string{"visitor_id"}, How: EraseExpiry, Within: topicDays(TopicLiveUpdates), Why: "values on their way to Redis, some of them of a visitor"})
	pseudo(StoreTopic, aggregates, TopicKPIPartial)
	none(StoreTopic, "counts of tenants by the minute, without visitors", TopicRekeyKPI)
	none(StoreTopic, offsets, TopicLedger)
	none(StoreTopic, "names of properties that became columns, rules of fraud", TopicControl)
	none(StoreTopic, "digests under a secret key, without ids; kept for ever, since it is what keeps a person away", TopicErasures)
	none(StoreTopic, "schemas", "_schemas")

	none(StoreState, offsets, "ledger")
	pseudo(StoreState, aggregates, "kpi.shop", "kpi.items")
	add(Holding{Store: StoreState, Name: "sessions", Fields: []string{"visitor_id"}, How: EraseExpiry, Within: 3 * day, Why: "a session is forgotten half an hour after its last event, a day after its first at the latest (sessions.gap, sessions.longest)"})
	add(Holding{Store: StoreState, Name: "carts", Fields: []string{"visitor_id"}, How: EraseExpiry, Within: 4 * day, Why: "when something was last put into a cart, dropped when it is ordered or abandoned (carts.abandoned_after, two days at most); the changelog's tombstone goes a day later"})
	for _, n := range []string{"fraud.visitor", "fraud.visitor.pending", "fraud.entity", "fraud.entity.pending"} {
		add(Holding{Store: StoreState, Name: n, Fields: []string{"visitor_id", "user_id", "card_fingerprint", "ip_hash"}, How: EraseExpiry, Within: 92 * day, Why: "what rules have counted of a visitor, user, card, address or device; it is dropped when the longest window of a rule is over, 90 days at most"})
	}
	none(StoreState, "the set of rules in force", "control")
	none(StoreState, "stock and sales of products, and their forecasts", "product", "forecast")
	none(StoreState, "counts of tenants by the minute, and what is expected of them", "anomaly.minutes", "anomaly.series", "anomaly.seasons")
	none(StoreState, "items beside items, and how often: sums of many", "rec.together", "rec.popular")
	add(Holding{Store: StoreState, Name: "rec.recent", Fields: []string{"visitor_id", "items looked at"}, How: EraseExpiry, Within: 26 * time.Hour, Why: "the items of the session at hand, dropped after half an hour of silence; the changelog's tombstone goes a day later"})
	none(StoreState, "fingerprints: 128-bit hashes of tenant, source and event id, for the dedup window", "dedup")

	for _, c := range Categories() {
		rows(StoreClickHouse, c.Table(), personalOf(c), "deleted by visitor, user and, in events_identity, previous id; parts are rewritten")
		rows(StoreIceberg, c.Table(), personalOf(c), "files are rewritten without the rows; earlier snapshots and tags go by the physical date, files from the recorded list")
		rows(StoreIceberg, c.Table()+"__quarantine", personalOf(c), "as its table")
		rows(StoreBigQuery, c.Table(), personalOf(c), "DML by digest of rows; time travel keeps deleted rows up to 7 days")
	}
	rows(StoreClickHouse, "failed_events", []string{payload}, "any payload with a subject's id in it")
	rows(StoreClickHouse, "alerts", []string{"visitor_id", "user_id"}, "alerts about the visitor or user up to the request; card and ip are hashes under the tenant's key")
	rows(StoreIceberg, "alerts", []string{"key"}, "alerts about the visitor or user up to the request, as in ClickHouse; card and ip are hashes under the tenant's key")
	rows(StoreIceberg, "alerts__quarantine", []string{"key"}, "as its table")
	rows(StoreIceberg, "failed_events", []string{payload}, "any payload with a subject's id in it")
	rows(StoreIceberg, "failed_events__quarantine", []string{payload}, "as its table")
	add(Holding{Store: StoreClickHouse, Name: "kpi_late", Fields: []string{"event_id"}, How: ErasePseudo, Why: "names events by the producer's id and by offset; with the event erased there is nothing that it leads to"})
	for _, g := range []string{"1s", "1m", "1h", "1d"} {
		pseudo(StoreClickHouse, aggregates, "kpi_"+g, "kpi_items_"+g)
	}
	none(StoreClickHouse, offsets, "event_ledger", "sink_topics")
	none(StoreClickHouse, operations, "schema_migrations", "workflow_runs", "maintenance_runs", "workflow_steps", "lineage_events", "publications", "bigquery_loads", "reconcile_runs", "reconcile_differences", "rule_sets")
	none(StoreClickHouse, "sales of products by the hour, and what was forecast", "forecasts", "demand_hourly")
	none(StoreClickHouse, "numbers about models; a model relates items with items", "models")
	none(StoreClickHouse, "digests under a secret key, and certificates, without ids", "erasures", "erasure_certificates")
	add(
		Holding{Store: StoreClickHouse, Name: "erasure_subjects", Fields: []string{"id"}, How: EraseRequest, Why: "the ids that a request is about, dropped as a partition at its end, and after 30 days in any case"},
		Holding{Store: StoreClickHouse, Name: "system.query_log", Fields: []string{"query"}, How: EraseExpiry, Within: 30 * day, Why: "queries of people may hold ids; the platform's own take them from a table or as parameters"},
	)

	pseudo(StoreRedis, aggregates, "k1:")
	none(StoreRedis, "positions of readers", "p1:")
	add(Holding{Store: StoreRedis, Name: "al1:", Fields: []string{"visitor_id", "user_id"}, How: EraseExpiry, Within: 14 * day, Why: "the last alerts of each tenant, kept for 7 days from when they were written"})
	none(StoreRedis, "ids of alerts that were sent to a destination", "ad1:")
	add(Holding{Store: StoreRedis, Name: "ses:", Fields: []string{"visitor_id"}, How: EraseKeys, Why: "the key of a visitor's current session names the visitor"})
	add(Holding{Store: StoreRedis, Name: "a1:", Fields: []string{"answers"}, How: EraseExpiry, Within: time.Hour, Why: "answers of the API under a hash, a minute by default"})
	none(StoreRedis, "recommendations: items for items", "rec:", "rl:", "rp:")
	none(StoreRedis, "stock, sales and forecasts of products", "inv:")
	add(Holding{Store: StoreRedis, Name: "rv:", Fields: []string{"visitor_id", "items looked at"}, How: EraseKeys, Why: "the items of the session at hand; the key names the visitor, and goes after half an hour in any case"})
	add(Holding{Store: StoreRedis, Name: "keys", Fields: []string{"ids in keys"}, How: EraseKeys, Why: "any key, of whatever kind, that names a person is deleted"})

	add(
		Holding{Store: StoreFile, Name: "gateway/spool", Fields: personalOf(Custom), How: EraseExpiry, Within: day, Why: "events that wait for the broker; it is drained within minutes of its return. What was accepted before a request and delivered after it counts as new"},
		Holding{Store: StoreFile, Name: "erasure/exports", Fields: []string{"everything"}, How: EraseRequest, Why: "archives made for a person, mode 0600, removed when their time is over"},
		Holding{Store: StoreFile, Name: "_maintenance", Fields: []string{"visitor_id"}, How: EraseExpiry, Within: 8 * day, Why: "plans hold names of files; runs that sorting spills go with the sort, and what a crash leaves with the orphans"},
	)
	none(StoreFile, "numbers and names of files", "batch")
	none(StoreFile, "fingerprints, as the state dedup", "stream")
	none(StoreFile, "keys: of tenants, for digests of subjects and for signatures", "gateway/keys.json", "erasure/subject.key", "erasure/signing.key")
	none(StoreFile, "signed certificates: stores, counts, dates", "erasure/certificates")
	none(StoreTemporal, "inputs are ids of requests, tables and days, results are numbers; a test reads the history of an erasure", "histories", "memos", "search attributes")
	none(StoreLog, "messages are static and name no event; a test reads the log of an erasure", "logs", "metrics", "traces", "lineage")
	return out
}

// categoryOfTopic finds the category whose raw or events topic this is.
func categoryOfTopic(topic string) (Category, bool) {
	for _, c := range Categories() {
		if topic == c.RawTopic() || topic == c.EventsTopic() {
			return c, true
		}
	}
	return 0, false
}

// Held finds a place in the inventory.
func Held(store Store, name string) (Holding, bool) {
	for _, h := range Holdings() {
		if h.Store == store && (h.Name == name || store == StoreRedis && strings.HasPrefix(name, h.Name)) {
			return h, true
		}
	}
	return Holding{}, false
}
