package registry

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/avro"
)

// schemaRequest is the body of a request about a schema.
type schemaRequest struct {
	Schema     string      `json:"schema"`
	SchemaType string      `json:"schemaType"`
	References []Reference `json:"references"`
	Metadata   any         `json:"metadata"`
	RuleSet    any         `json:"ruleSet"`
	ID         int         `json:"id"`
	Version    int         `json:"version"`
}

// candidate is a schema of a request, understood.
type candidate struct {
	schemaValue // Schema, References
	compiled    *avro.Schema
	identity    string
}

// candidate reads the schema of the body. It runs beside other requests, outside the writer.
func (r *Registry) candidate(q *request) (*candidate, *schemaRequest, *apiError) {
	body := &schemaRequest{}
	if failure := q.decode(body); failure != nil {
		return nil, nil, failure
	}
	switch {
	case body.SchemaType != "" && !strings.EqualFold(body.SchemaType, "AVRO"):
		return nil, nil, errInvalidSchema("schema type %q is not supported; this registry has AVRO only", body.SchemaType)
	case body.Metadata != nil || body.RuleSet != nil:
		return nil, nil, unprocessable(codeInvalidRuleset, "Data contracts (metadata, ruleSet) are not supported; send the schema without them")
	case strings.TrimSpace(body.Schema) == "":
		return nil, nil, errInvalidSchema("Empty schema")
	case len(body.References) > maxReferences:
		return nil, nil, errInvalidSchema("more than %d references", maxReferences)
	}
	c := &candidate{}
	r.mu.RLock()
	for _, ref := range body.References {
		subject, failure := checkSubject(ref.Subject)
		if failure != nil {
			r.mu.RUnlock()
			return nil, nil, failure
		}
		ref.Subject = subject
		e, failure := r.state.version(subject, ref.Version, true)
		if failure != nil {
			r.mu.RUnlock()
			return nil, nil, errInvalidSchema("no schema reference found for subject %q and version %d", ref.Subject, ref.Version)
		}
		ref.Version = e.version // -1 is the latest now, for good
		c.References = append(c.References, ref)
	}
	texts, err := r.state.closure(c.References)
	r.mu.RUnlock()
	if err != nil {
		return nil, nil, errInvalidSchema("%s", err)
	}
	given, err := parse(body.Schema, texts)
	if err != nil {
		return nil, nil, errInvalidSchema("%s", shorten(err.Error()))
	}
	if c.Schema, err = canonical(body.Schema, q.flag("normalize")); err != nil {
		return nil, nil, errInvalidSchema("%s", shorten(err.Error()))
	}
	// What is stored must mean what was sent.
	if c.compiled, err = parse(c.Schema, texts); err != nil || string(c.compiled.Canonical()) != string(given.Canonical()) {
		return nil, nil, errInvalidSchema("it has no unambiguous string form")
	}
	c.identity = c.schemaValue.identity()
	return c, body, nil
}

// shorten bounds what of a hostile schema comes back in a message.
func shorten(s string) string {
	if len(s) > 1000 {
		s = strings.ToValidUTF8(s[:1000], "") + "…"
	}
	return s
}

// idAnswer is a schema by its id. Type is absent for Avro.
type idAnswer struct {
	Type       string      `json:"schemaType,omitempty"`
	Schema     string      `json:"schema"`
	References []Reference `json:"references,omitempty"`
	MaxID      *int        `json:"maxId,omitempty"`
}

// versionAnswer is a version of a subject.
type versionAnswer struct {
	Subject    string      `json:"subject"`
	Version    int         `json:"version"`
	ID         int         `json:"id"`
	Type       string      `json:"schemaType,omitempty"`
	References []Reference `json:"references,omitempty"`
	Schema     string      `json:"schema"`
}

func (e *entry) answer(subject string) versionAnswer {
	return versionAnswer{subject, e.version, e.ID, e.SchemaType, e.References, e.Schema}
}

func (r *Registry) root(*request) (any, *apiError) { return struct{}{}, nil }

func (r *Registry) listTypes(*request) (any, *apiError) { return []string{"AVRO"}, nil }

func (r *Registry) listContexts(*request) (any, *apiError) { return []string{"."}, nil }

func (r *Registry) deleteContext(q *request) (any, *apiError) {
	return nil, errNotPermitted("Context '%s' cannot be deleted: this registry has the default context only, and that one stays", q.args[0])
}

// getGUID answers for an id that only newer Confluent registries give: no schema has one here.
func (r *Registry) getGUID(q *request) (any, *apiError) {
	return nil, notFound(codeSchemaNotFound, "Schema %s not found", q.args[0])
}

// subjectNames lists the subjects that the request can see, in order.
func (s *state) subjectNames(q *request) []string {
	prefix := strings.TrimPrefix(strings.TrimPrefix(q.query.Get("subjectPrefix"), ":*:"), ":.:")
	deleted, only := q.flag("deleted"), q.flag("deletedOnly", "deleted_only")
	names := []string{}
	for _, name := range slices.Sorted(maps.Keys(s.subjects)) {
		alive := len(s.live(name, false)) > 0
		if strings.HasPrefix(name, prefix) && (only && !alive || !only && (alive || deleted)) {
			names = append(names, name)
		}
	}
	return names
}

func (r *Registry) listSubjects(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return either(page(q, r.state.subjectNames(q)))
}

// either makes an answer of a typed result and its failure.
func either[T any](v T, failure *apiError) (any, *apiError) {
	if failure != nil {
		return nil, failure
	}
	return v, nil
}

func (r *Registry) listSchemas(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []versionAnswer{}
	prefix := strings.TrimPrefix(strings.TrimPrefix(q.query.Get("subjectPrefix"), ":*:"), ":.:")
	for _, name := range slices.Sorted(maps.Keys(r.state.subjects)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		list := r.state.live(name, q.flag("deleted"))
		if q.flag("latestOnly") && len(list) > 1 {
			list = list[len(list)-1:]
		}
		for _, e := range list {
			out = append(out, e.answer(name))
		}
	}
	return either(page(q, out))
}

func (r *Registry) listVersions(q *request) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	only := q.flag("deletedOnly", "deleted_only")
	list := r.state.live(subject, only || q.flag("deleted"))
	if len(list) == 0 {
		return nil, errSubjectNotFound(subject)
	}
	numbers := []int{}
	for _, e := range list {
		if e.deleted || !only {
			numbers = append(numbers, e.version)
		}
	}
	return either(page(q, numbers))
}

// versionOf finds the version that the path names.
func (r *Registry) versionOf(q *request, deleted bool) (string, *entry, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return "", nil, failure
	}
	version, failure := q.version()
	if failure != nil {
		return "", nil, failure
	}
	e, failure := r.state.version(subject, version, deleted)
	return subject, e, failure
}

func (r *Registry) getVersion(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	subject, e, failure := r.versionOf(q, q.flag("deleted"))
	if failure != nil {
		return nil, failure
	}
	return e.answer(subject), nil
}

func (r *Registry) getVersionText(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, e, failure := r.versionOf(q, q.flag("deleted"))
	if failure != nil {
		return nil, failure
	}
	return text(e.Schema), nil
}

func (r *Registry) getReferencedBy(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	subject, e, failure := r.versionOf(q, true)
	if failure != nil {
		return nil, failure
	}
	return either(page(q, r.state.referencedBy(subject, e.version)))
}

// schemaOf finds the schema whose id the path names; a soft-deleted one too, as data written with it lives on. A subject in the
// query, which chooses a context at Confluent's, changes nothing.
func (r *Registry) schemaOf(q *request) (*stored, *apiError) {
	id, failure := q.id()
	if failure != nil {
		return nil, failure
	}
	st := r.state.byID[id]
	if st == nil {
		return nil, notFound(codeSchemaNotFound, "Schema %d not found", id)
	}
	return st, nil
}

func (r *Registry) getID(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	st, failure := r.schemaOf(q)
	if failure != nil {
		return nil, failure
	}
	a := idAnswer{Type: st.SchemaType, Schema: st.Schema, References: st.References}
	if q.flag("fetchMaxId") {
		highest := r.state.maxID
		a.MaxID = &highest
	}
	return a, nil
}

func (r *Registry) getIDText(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	st, failure := r.schemaOf(q)
	if failure != nil {
		return nil, failure
	}
	return text(st.Schema), nil
}

// usesOf lists where the schema of the path is in use, in order.
func (r *Registry) usesOf(q *request) ([]use, *apiError) {
	st, failure := r.schemaOf(q)
	if failure != nil {
		return nil, failure
	}
	subject := strings.TrimPrefix(q.query.Get("subject"), ":.:")
	uses := []use{}
	for u := range st.uses {
		e := r.state.entry(u.Subject, u.Version)
		if (q.flag("deleted") || !e.deleted) && (subject == "" || subject == u.Subject) {
			uses = append(uses, u)
		}
	}
	slices.SortFunc(uses, func(a, b use) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), a.Version-b.Version)
	})
	return uses, nil
}

func (r *Registry) getIDVersions(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	uses, failure := r.usesOf(q)
	if failure != nil {
		return nil, failure
	}
	return either(page(q, uses))
}

func (r *Registry) getIDSubjects(q *request) (any, *apiError) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	uses, failure := r.usesOf(q)
	if failure != nil {
		return nil, failure
	}
	names := []string{}
	for _, u := range uses {
		if !slices.Contains(names, u.Subject) {
			names = append(names, u.Subject)
		}
	}
	return either(page(q, names))
}

// lookup tells whether a schema is registered under a subject.
func (r *Registry) lookup(q *request) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	known := len(r.state.live(subject, q.flag("deleted"))) > 0
	r.mu.RUnlock()
	if !known {
		return nil, errSubjectNotFound(subject)
	}
	c, _, failure := r.candidate(q)
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.state.find(subject, c.identity, q.flag("deleted"))
	if e == nil {
		return nil, notFound(codeSchemaNotFound, "Schema not found")
	}
	return e.answer(subject), nil
}
