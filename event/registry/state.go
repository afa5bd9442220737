package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/avro"
)

// Mode says whether schemas may be registered.
type Mode string

// The modes of Confluent's registry that this one has. Import lets a caller choose ids and checks no compatibility: it is for
// copying another registry's schemas.
const (
	ReadWrite Mode = "READWRITE"
	ReadOnly  Mode = "READONLY"
	Import    Mode = "IMPORT"
)

// state is the view of the topic. It is a pure function of the records applied, in their order, so that every instance that
// has read as far agrees on it. The caller synchronises.
type state struct {
	subjects map[string][]*entry // in order of version; a subject without versions is absent
	byID     map[int]*stored     // schemas that some version uses
	byText   map[string]*stored  // by identity; the first id where a topic gives a text several
	maxID    int
	levels   map[string]Level // "" is the global one
	modes    map[string]Mode
	// rejected are the keys whose latest record lost against an earlier one: see applySchema.
	rejected map[recordKey]time.Time // value: the record's time
}

// stored is one schema: what an id stands for.
type stored struct {
	schemaValue // Subject, Version and Deleted are those of the first use
	uses        map[use]struct{}
	compiled    atomic.Pointer[avro.Schema]
}

// use is a version of a subject.
type use struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// entry is one version of a subject.
type entry struct {
	version int
	deleted bool
	*stored
}

func newState() *state {
	return &state{
		subjects: map[string][]*entry{},
		byID:     map[int]*stored{},
		byText:   map[string]*stored{},
		levels:   map[string]Level{},
		modes:    map[string]Mode{},
		rejected: map[recordKey]time.Time{},
	}
}

// identity is what makes two schemas one: their canonical text and what it refers to.
func (v *schemaValue) identity() string {
	id, err := marshal([]any{v.SchemaType, v.Schema, v.References, v.Metadata, v.RuleSet})
	if err != nil { // only invalid RawMessage can fail, and that was parsed from JSON
		return v.SchemaType + "\x00" + v.Schema
	}
	return string(id)
}

// apply takes the next record. An error means a record that is not in Confluent's format; it changes nothing.
func (s *state) apply(rawKey, value []byte, at time.Time) error {
	var key recordKey
	if err := json.Unmarshal(rawKey, &key); err != nil {
		return fmt.Errorf("reading a record's key: %w", err)
	}
	switch key.Type {
	case typeSchema:
		key.Magic = 1 // older records of Confluent have 0
		if value == nil {
			s.remove(key.Subject, key.Version)
			delete(s.rejected, key)
			return nil
		}
		v := &schemaValue{}
		if err := json.Unmarshal(value, v); err != nil {
			return fmt.Errorf("reading a schema record: %w", err)
		}
		if v.Subject != key.Subject || v.Version != key.Version || v.Version < 1 || v.ID < 0 || v.Schema == "" {
			return errors.New("a schema record's value does not fit its key")
		}
		if v.SchemaType == "AVRO" {
			v.SchemaType = ""
		}
		s.applySchema(key, v, at)
	case typeDeleteSubject:
		var v deleteSubjectValue
		if value == nil {
			return nil
		}
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("reading a delete-subject record: %w", err)
		}
		for _, e := range s.subjects[v.Subject] {
			if e.version <= v.Version {
				e.deleted = true
			}
		}
	case typeConfig:
		var v configValue
		if value == nil {
			delete(s.levels, key.Subject)
			return nil
		}
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("reading a config record: %w", err)
		}
		level, err := ParseLevel(v.Level)
		if err != nil {
			return fmt.Errorf("reading a config record: %w", err)
		}
		s.levels[key.Subject] = level
	case typeMode:
		var v modeValue
		if value == nil {
			delete(s.modes, key.Subject)
			return nil
		}
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("reading a mode record: %w", err)
		}
		s.modes[key.Subject] = Mode(v.Mode)
	case typeNoop:
		if value == nil {
			return nil
		}
		var v noopValue
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("reading a noop record: %w", err)
		}
		s.maxID = max(s.maxID, v.MaxID)
	default:
		return fmt.Errorf("unknown record type %q", key.Type)
	}
	return nil
}

// applySchema takes a SCHEMA record. Two instances may have written without seeing each other, so the reader decides, and the
// first record wins: one that gives a used id to another schema, or a live version another id, is rejected. The key of a
// rejected record is noted, because compaction keeps a key's latest record and would later turn the decision around; the
// writer that finds it noted writes the winner again.
func (s *state) applySchema(key recordKey, v *schemaValue, at time.Time) {
	identity := v.identity()
	old := s.entry(v.Subject, v.Version)
	have, bound := s.byID[v.ID]
	if bound && have.identity() != identity || old != nil && !old.deleted && old.ID != v.ID {
		s.rejected[key] = at
		return
	}
	delete(s.rejected, key)
	s.maxID = max(s.maxID, v.ID)
	if old != nil {
		if old.ID == v.ID {
			old.deleted = v.Deleted
			return
		}
		s.remove(v.Subject, v.Version)
	}
	if !bound {
		have = &stored{schemaValue: *v, uses: map[use]struct{}{}}
		s.byID[v.ID] = have
		if _, taken := s.byText[identity]; !taken {
			s.byText[identity] = have
		}
	}
	have.uses[use{v.Subject, v.Version}] = struct{}{}
	list := s.subjects[v.Subject]
	place, _ := slices.BinarySearchFunc(list, v.Version, func(e *entry, n int) int { return e.version - n })
	s.subjects[v.Subject] = slices.Insert(list, place, &entry{version: v.Version, deleted: v.Deleted, stored: have})
}

// remove forgets a version, and its schema with the last use.
func (s *state) remove(subject string, version int) {
	e := s.entry(subject, version)
	if e == nil {
		return
	}
	list := slices.DeleteFunc(s.subjects[subject], func(o *entry) bool { return o == e })
	if len(list) == 0 {
		delete(s.subjects, subject)
	} else {
		s.subjects[subject] = list
	}
	delete(e.uses, use{subject, version})
	if len(e.uses) > 0 {
		return
	}
	delete(s.byID, e.ID)
	identity := e.identity()
	if s.byText[identity] != e.stored {
		return
	}
	delete(s.byText, identity)
	for _, other := range s.byID { // another id of the same text, of a topic that a mirror wrote
		if first := s.byText[identity]; other.identity() == identity && (first == nil || other.ID < first.ID) {
			s.byText[identity] = other
		}
	}
}

// entry finds a version, soft-deleted or not; nil if there is none.
func (s *state) entry(subject string, version int) *entry {
	list := s.subjects[subject]
	if at, ok := slices.BinarySearchFunc(list, version, func(e *entry, n int) int { return e.version - n }); ok {
		return list[at]
	}
	return nil
}

// holds tells whether a schema that was written is what the view has in its place. That its key is not among the rejected ones
// would not tell: the other instance may have repaired it by now.
func (s *state) holds(c change) bool {
	v, ok := c.value.(*schemaValue)
	if !ok {
		return true // the latest record of another kind always stands
	}
	e := s.entry(v.Subject, v.Version)
	return e != nil && e.ID == v.ID && e.identity() == v.identity()
}

// live lists the versions of a subject, oldest first; deleted adds the soft-deleted ones.
func (s *state) live(subject string, deleted bool) []*entry {
	var out []*entry
	for _, e := range s.subjects[subject] {
		if deleted || !e.deleted {
			out = append(out, e)
		}
	}
	return out
}

// version resolves a version of a request; latest is the newest that the request can see.
func (s *state) version(subject string, version int, deleted bool) (*entry, *apiError) {
	list := s.live(subject, deleted)
	if len(list) == 0 {
		return nil, errSubjectNotFound(subject)
	}
	if version == latest {
		return list[len(list)-1], nil
	}
	if e := s.entry(subject, version); e != nil && (deleted || !e.deleted) {
		return e, nil
	}
	return nil, errVersionNotFound(version)
}

// find gives the newest version of a subject that has this schema.
func (s *state) find(subject, identity string, deleted bool) *entry {
	for _, e := range slices.Backward(s.live(subject, deleted)) {
		if e.identity() == identity {
			return e
		}
	}
	return nil
}

// referencedBy lists the ids of schemas in use that refer to a version, in order.
func (s *state) referencedBy(subject string, version int) []int {
	ids := []int{}
	for id, st := range s.byID {
		if !slices.ContainsFunc(st.References, func(r Reference) bool { return r.Subject == subject && r.Version == version }) {
			continue
		}
		for u := range st.uses {
			if e := s.entry(u.Subject, u.Version); e != nil && !e.deleted {
				ids = append(ids, id)
				break
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// closure lists the texts that references reach, each after those it needs itself.
func (s *state) closure(refs []Reference) ([]string, error) {
	var texts []string
	seen := map[use]bool{}
	var walk func([]Reference) error
	walk = func(refs []Reference) error {
		for _, r := range refs {
			u := use{r.Subject, r.Version}
			if seen[u] {
				continue
			}
			seen[u] = true
			if len(seen) > maxRefClosure {
				return fmt.Errorf("more than %d schemas are reached through references", maxRefClosure)
			}
			e := s.entry(r.Subject, r.Version)
			if e == nil {
				return fmt.Errorf("no schema reference found for subject %q and version %d", r.Subject, r.Version)
			}
			if err := walk(e.References); err != nil {
				return err
			}
			texts = append(texts, e.Schema)
		}
		return nil
	}
	return texts, walk(refs)
}

// schema compiles what a version holds, once.
func (s *state) schema(st *stored) (*avro.Schema, error) {
	if c := st.compiled.Load(); c != nil {
		return c, nil
	}
	if st.SchemaType != "" {
		return nil, fmt.Errorf("schema %d is of type %s, which this registry cannot compare", st.ID, st.SchemaType)
	}
	texts, err := s.closure(st.References)
	if err != nil {
		return nil, err
	}
	c, err := parse(st.Schema, texts)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", st.ID, err)
	}
	st.compiled.Store(c)
	return c, nil
}

// parse compiles a schema that may use the types of others.
func parse(text string, references []string) (*avro.Schema, error) {
	if len(references) == 0 {
		return avro.Parse(text)
	}
	var cache avro.SchemaCache
	for _, r := range references {
		if _, err := cache.Parse(r); err != nil {
			return nil, fmt.Errorf("in a referenced schema: %w", err)
		}
	}
	return cache.Parse(text)
}
