package event

import (
	"encoding/hex"
	"strconv"

	"github.com/zeebo/xxh3"
)

// Alert is something that a rule or a model found. It is written twice under one id: on arrival to alerts.fast, provisional, and once the watermark has passed, exactly once, to
// alerts, confirmed. What was only provisional was taken back by what came later.
type Alert struct {
	AlertID        string   `avro:"alert_id" json:"alert_id"` // AlertID
	Kind           string   `avro:"kind" json:"kind"`         // one of the Alert kinds
	Rule           string   `avro:"rule" json:"rule"`
	RuleVersion    int32    `avro:"rule_version" json:"rule_version"`
	Tenant         string   `avro:"tenant" json:"tenant"`
	Entity         string   `avro:"entity" json:"entity"` // what Key names: one of the Entity kinds
	Key            string   `avro:"key" json:"key"`
	Severity       string   `avro:"severity" json:"severity"` // one of the Severities
	Score          float64  `avro:"score" json:"score"`
	Reasons        []string `avro:"reasons" json:"reasons"`
	TriggerEventID string   `avro:"trigger_event_id" json:"trigger_event_id"`
	OccurredAt     int64    `avro:"occurred_at" json:"occurred_at"` // µs, of the trigger: the same in both
	DetectedAt     int64    `avro:"detected_at" json:"detected_at"` // µs
	Confirmed      bool     `avro:"confirmed" json:"confirmed"`
	Details        string   `avro:"details" json:"details"` // JSON, '' if there are none
}

// Kinds of alerts.
const (
	AlertFraud   = "fraud"
	AlertAnomaly = "anomaly"
	AlertStock   = "stock"
	AlertEngine  = "engine"
)

// What an alert is about.
const (
	EntityVisitor = "visitor"
	EntityUser    = "user"
	EntityCard    = "card"
	EntityIP      = "ip"
	EntityDevice  = "device" // a browser as it shows itself at an address
	EntityProduct = "product"
	EntityKPI     = "kpi"
)

// Severities, least first.
const (
	SeverityInfo     = "info"
	SeverityWarn     = "warn"
	SeverityCritical = "critical"
)

// AlertID is the id of the alert that a version of a rule raises for a key at an event, in hex.
func AlertID(rule string, version int32, key, trigger string) string {
	var buf [256]byte
	b := append(append(buf[:0], rule...), Sep)
	b = append(strconv.AppendInt(b, int64(version), 10), Sep)
	b = append(append(append(b, key...), Sep), trigger...)
	sum := xxh3.Hash128(b).Bytes()
	return hex.EncodeToString(sum[:])
}

// AppendKey writes the record key of an alert on both topics: that of its entity, so that alerts about one are in one partition and in order.
func (a *Alert) AppendKey(dst []byte) []byte {
	dst = append(append(dst, a.Tenant...), Sep)
	dst = append(append(dst, a.Entity...), Sep)
	return append(dst, a.Key...)
}
