package registry

import (
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The records of the topic are Confluent's: a JSON key that says what the record is about, a JSON value or, to delete, none.

const (
	typeSchema        = "SCHEMA"
	typeConfig        = "CONFIG"
	typeMode          = "MODE"
	typeDeleteSubject = "DELETE_SUBJECT"
	typeNoop          = "NOOP"
)

// recordKey is the key of any record. Its encoding is the identity that compaction goes by, so the order and presence of
// members is Confluent's. No subject means global.
type recordKey struct {
	Type    string `json:"keytype"`
	Subject string `json:"subject,omitempty"`
	Version int    `json:"version,omitempty"`
	Magic   int    `json:"magic"`
}

func schemaKey(subject string, version int) recordKey {
	return recordKey{Type: typeSchema, Subject: subject, Version: version, Magic: 1}
}

// schemaValue is the value of a SCHEMA record. SchemaType is absent for Avro. Metadata and RuleSet are never set by this
// registry; they are kept so that rewriting a record of a Confluent registry loses nothing.
type schemaValue struct {
	Subject    string          `json:"subject"`
	Version    int             `json:"version"`
	ID         int             `json:"id"`
	SchemaType string          `json:"schemaType,omitempty"`
	References []Reference     `json:"references,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	RuleSet    json.RawMessage `json:"ruleSet,omitempty"`
	Schema     string          `json:"schema"`
	Deleted    bool            `json:"deleted"`
}

// Reference is a schema's use of a type that another subject's schema defines.
type Reference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

type configValue struct {
	Level string `json:"compatibilityLevel"`
}

type modeValue struct {
	Mode string `json:"mode"`
}

type deleteSubjectValue struct {
	Subject string `json:"subject"`
	Version int    `json:"version"` // versions up to this one are soft-deleted
}

// noopValue rides on a NOOP record, whose value a Confluent registry does not read. It keeps ids unique after the record of
// the highest one was deleted for good and compacted away.
type noopValue struct {
	MaxID int `json:"maxId"`
}

// newRecord encodes a record; value nil is a tombstone.
func newRecord(topic string, key recordKey, value any) (*kgo.Record, error) {
	k, err := marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of a %s record: %w", key.Type, err)
	}
	r := &kgo.Record{Topic: topic, Key: k}
	if value != nil {
		if r.Value, err = marshal(value); err != nil {
			return nil, fmt.Errorf("encoding a %s record: %w", key.Type, err)
		}
	}
	return r, nil
}
