package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/avro"
)

// Level is a compatibility level: which earlier schemas of its subject a new schema is checked against, and in which direction.
type Level string

// The levels of Confluent's registry. Backward: the new schema reads what the old ones wrote. Forward: the old ones read what
// the new schema writes. Full: both. Transitive: against every earlier version, else against the latest.
const (
	None               Level = "NONE"
	Backward           Level = "BACKWARD"
	BackwardTransitive Level = "BACKWARD_TRANSITIVE"
	Forward            Level = "FORWARD"
	ForwardTransitive  Level = "FORWARD_TRANSITIVE"
	Full               Level = "FULL"
	FullTransitive     Level = "FULL_TRANSITIVE"
)

func levels() []Level {
	return []Level{None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive}
}

func levelNames() []string {
	var names []string
	for _, l := range levels() {
		names = append(names, string(l))
	}
	return names
}

// ParseLevel reads a level; case does not matter.
func ParseLevel(s string) (Level, error) {
	l := Level(strings.ToUpper(s))
	if !slices.Contains(levels(), l) {
		return "", fmt.Errorf("%q is not a compatibility level (one of %s)", s, strings.Join(levelNames(), ", "))
	}
	return l, nil
}

func (l Level) transitive() bool { return strings.HasSuffix(string(l), "_TRANSITIVE") }
func (l Level) backward() bool   { return strings.HasPrefix(string(l), "BACKWARD") || l.full() }
func (l Level) forward() bool    { return strings.HasPrefix(string(l), "FORWARD") || l.full() }
func (l Level) full() bool       { return strings.HasPrefix(string(l), "FULL") }

// earlier is one version that a new schema is checked against.
type earlier struct {
	version int
	text    string
	schema  *avro.Schema
}

// check compares next with the earlier versions, oldest first, and gives Confluent-style messages; none means compatible.
// It stops at the newest version that does not fit, as one is enough to refuse and the checks of a long history are not free.
func (l Level) check(next *avro.Schema, versions []earlier) []string {
	if l == None || len(versions) == 0 {
		return nil
	}
	if !l.transitive() {
		versions = versions[len(versions)-1:]
	}
	for _, old := range slices.Backward(versions) {
		var messages []string
		if l.backward() {
			if err := avro.CheckCompatibility(old.schema, next); err != nil {
				messages = append(messages, fmt.Sprintf("{errorType:'INCOMPATIBLE', description:'The new schema cannot read data written with version %d: %s'}", old.version, err))
			}
		}
		if l.forward() {
			if err := avro.CheckCompatibility(next, old.schema); err != nil {
				messages = append(messages, fmt.Sprintf("{errorType:'INCOMPATIBLE', description:'Version %d cannot read data written with the new schema: %s'}", old.version, err))
			}
		}
		if messages != nil {
			return append(messages,
				fmt.Sprintf("{oldSchemaVersion: %d}", old.version),
				fmt.Sprintf("{oldSchema: '%s'}", old.text),
				fmt.Sprintf("{compatibility: '%s'}", l))
		}
	}
	return nil
}
