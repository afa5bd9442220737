package registry

import (
	"net/http"
	"strings"

	"github.com/twmb/avro"
)

type registerAnswer struct {
	ID int `json:"id"`
}

// level gives the compatibility level that holds for a subject.
func (r *Registry) level(s *state, subject string) Level {
	if l, ok := s.levels[subject]; ok {
		return l
	}
	if l, ok := s.levels[""]; ok {
		return l
	}
	return Level(strings.ToUpper(r.cfg.Compatibility))
}

func (s *state) mode(subject string) Mode {
	if m, ok := s.modes[subject]; ok {
		return m
	}
	if m, ok := s.modes[""]; ok {
		return m
	}
	return ReadWrite
}

// register gives a schema an id and a version of the subject, or finds those it has.
//
// Ids are global: one schema (see canonical) has one id in all subjects, and an id never changes its meaning.
func (r *Registry) register(q *request) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	c, body, failure := r.candidate(q)
	if failure != nil {
		return nil, failure
	}
	// Most registrations are of a schema that is there: every producer sends one when it starts.
	if body.Version <= 0 {
		r.mu.RLock()
		e := r.state.find(subject, c.identity, false)
		r.mu.RUnlock()
		if e != nil && (body.ID <= 0 || body.ID == e.ID) {
			return registerAnswer{e.ID}, nil
		}
	}
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		return r.decideRegister(s, subject, c, body)
	})
}

func (r *Registry) decideRegister(s *state, subject string, c *candidate, body *schemaRequest) ([]change, any, *apiError) {
	mode := s.mode(subject)
	switch {
	case mode != ReadWrite && mode != Import:
		return nil, nil, errNotPermitted("Subject %s is in read-only mode", subject)
	case body.ID > 0 && mode != Import:
		return nil, nil, errNotPermitted("Subject %s is not in import mode", subject)
	case body.ID <= 0 && mode == Import:
		return nil, nil, errNotPermitted("Subject %s is not in read-write mode", subject)
	}
	if e := s.find(subject, c.identity, false); e != nil && body.Version <= 0 && (body.ID <= 0 || body.ID == e.ID) {
		return nil, registerAnswer{e.ID}, nil
	}
	for _, ref := range c.References {
		if s.entry(ref.Subject, ref.Version) == nil {
			return nil, nil, errInvalidSchema("no schema reference found for subject %q and version %d", ref.Subject, ref.Version)
		}
	}
	all := s.subjects[subject]
	switch {
	case len(all) == 0 && len(s.subjects) >= r.cfg.MaxSubjects:
		return nil, nil, errNotPermitted("There are %d subjects, which is the limit", len(s.subjects))
	case len(all) >= r.cfg.MaxVersions:
		return nil, nil, errNotPermitted("Subject %s has %d versions, which is the limit", subject, len(all))
	}

	v := c.schemaValue
	v.Subject, v.Version = subject, 1
	if len(all) > 0 {
		v.Version = all[len(all)-1].version + 1
	}
	if body.Version > 0 {
		if mode != Import && body.Version != v.Version {
			return nil, nil, errInvalidSchema("Version is not one more than previous version")
		}
		v.Version = body.Version
	}
	if known := s.byText[c.identity]; known != nil {
		v.ID = known.ID
	} else {
		v.ID = s.maxID + 1
	}

	if mode == Import {
		v.ID = body.ID
		if holder := s.byID[v.ID]; holder != nil && holder.identity() != c.identity {
			return nil, nil, errNotPermitted("Overwrite new schema with id %d is not permitted", v.ID)
		}
		if e := s.entry(subject, v.Version); e != nil && (e.ID != v.ID || !e.deleted) {
			return nil, nil, errNotPermitted("Version %d of subject %s exists already", v.Version, subject)
		}
	} else {
		messages, failure := r.incompatible(s, subject, c.compiled, s.live(subject, false))
		if failure != nil {
			return nil, nil, failure
		}
		if messages != nil {
			return nil, nil, errorf(http.StatusConflict, codeIncompatible,
				"Schema being registered is incompatible with an earlier schema for subject \"%s\", details: [%s]", subject, strings.Join(messages, ", "))
		}
	}

	changes := []change{{schemaKey(subject, v.Version), &v}}
	// A schema that comes back after a soft delete gets a new version; its old one is not needed to find the id any more.
	for _, e := range all {
		if e.deleted && e.ID == v.ID && e.version < v.Version && len(s.referencedBy(subject, e.version)) == 0 {
			changes = append(changes, change{key: schemaKey(subject, e.version)})
		}
	}
	return changes, registerAnswer{v.ID}, nil
}

// incompatible compares a schema with versions of a subject under the subject's level.
func (r *Registry) incompatible(s *state, subject string, next *avro.Schema, versions []*entry) ([]string, *apiError) {
	level := r.level(s, subject)
	if level == None {
		return nil, nil
	}
	var old []earlier
	for _, e := range versions {
		compiled, err := s.schema(e.stored)
		if err != nil {
			return nil, errInvalidSchema("it cannot be compared with version %d of subject %s: %s", e.version, subject, err)
		}
		old = append(old, earlier{e.version, e.Schema, compiled})
	}
	return level.check(next, old), nil
}

// checkAnswer is what the compatibility endpoints say; messages are there only when asked for.
type checkAnswer struct {
	Is       bool     `json:"is_compatible"`
	Messages []string `json:"messages,omitempty"`
}

// checkAll checks against the versions that the subject's level looks at.
func (r *Registry) checkAll(q *request) (any, *apiError) {
	return r.checkAgainst(q, func(s *state, subject string) ([]*entry, *apiError) {
		return s.live(subject, false), nil
	})
}

// checkVersion checks against one version. As with Confluent, anything fits the latest version of a subject without versions.
func (r *Registry) checkVersion(q *request) (any, *apiError) {
	version, failure := q.version()
	if failure != nil {
		return nil, failure
	}
	return r.checkAgainst(q, func(s *state, subject string) ([]*entry, *apiError) {
		if version == latest && len(s.live(subject, false)) == 0 {
			return nil, nil
		}
		e, failure := s.version(subject, version, false)
		return []*entry{e}, failure
	})
}

func (r *Registry) checkAgainst(q *request, versions func(*state, string) ([]*entry, *apiError)) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	_, failure = versions(r.state, subject) // unknown versions are told before the schema is looked at
	r.mu.RUnlock()
	if failure != nil {
		return nil, failure
	}
	c, _, failure := r.candidate(q)
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	against, failure := versions(r.state, subject)
	if failure != nil {
		return nil, failure
	}
	messages, failure := r.incompatible(r.state, subject, c.compiled, against)
	if failure != nil {
		return nil, failure
	}
	a := checkAnswer{Is: messages == nil}
	if q.flag("verbose") {
		a.Messages = messages
	}
	return a, nil
}
