package registry

import (
	"slices"
	"strings"
)

// Settings are the compatibility level and the mode, each global and, over that, of a subject.

type levelAnswer struct {
	Level Level `json:"compatibilityLevel"`
}

// levelRequest is the body of a change of the level. The other members are those of newer Confluent registries; they are
// refused rather than taken and not honoured.
type levelRequest struct {
	Level             string `json:"compatibility"`
	Alias             any    `json:"alias"`
	Group             any    `json:"compatibilityGroup"`
	DefaultMetadata   any    `json:"defaultMetadata"`
	OverrideMetadata  any    `json:"overrideMetadata"`
	DefaultRuleSet    any    `json:"defaultRuleSet"`
	OverrideRuleSet   any    `json:"overrideRuleSet"`
	Normalize         *bool  `json:"normalize"`
	CompatibilityName string `json:"compatibilityLevel"` // some clients send what they read
}

type levelSetAnswer struct {
	Level Level `json:"compatibility"`
}

// levelDeletedAnswer has the level under both names, as Confluent's versions and clients differ on it.
type levelDeletedAnswer struct {
	Level Level `json:"compatibilityLevel"`
	Set   Level `json:"compatibility"`
}

type modeAnswer struct {
	Mode Mode `json:"mode"`
}

func (r *Registry) getConfig(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, own := r.state.levels[subject]; !own && subject != "" && !q.flag("defaultToGlobal") {
		return nil, notFound(codeNoSubjectLevel, "Subject '%s' does not have subject-level compatibility configured", subject)
	}
	return levelAnswer{r.level(r.state, subject)}, nil
}

func (r *Registry) putConfig(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	var body levelRequest
	if failure := q.decode(&body); failure != nil {
		return nil, failure
	}
	for name, v := range map[string]any{
		"alias": body.Alias, "compatibilityGroup": body.Group, "defaultMetadata": body.DefaultMetadata,
		"overrideMetadata": body.OverrideMetadata, "defaultRuleSet": body.DefaultRuleSet, "overrideRuleSet": body.OverrideRuleSet,
	} {
		if v != nil && v != "" {
			return nil, errNotPermitted("The setting %s is not supported", name)
		}
	}
	if body.Normalize != nil && *body.Normalize {
		return nil, errNotPermitted("The setting normalize is not supported; send normalize=true with the schema")
	}
	if body.Level == "" {
		body.Level = body.CompatibilityName
	}
	level, err := ParseLevel(body.Level)
	if err != nil {
		return nil, unprocessable(codeInvalidLevel, "Invalid compatibility level. Valid values are %s", strings.ToLower(strings.Join(levelNames(), ", ")))
	}
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		if failure := r.settable(s, subject, len(s.levels), len(s.modes)); failure != nil {
			return nil, nil, failure
		}
		key := recordKey{Type: typeConfig, Subject: subject}
		return []change{{key, configValue{string(level)}}}, levelSetAnswer{level}, nil
	})
}

// settable bounds how many subjects have settings, as they need no schema.
func (r *Registry) settable(s *state, subject string, counts ...int) *apiError {
	if s.subjects[subject] == nil && slices.Max(counts) > r.cfg.MaxSubjects {
		return errNotPermitted("Settings of %d subjects exist, which is the limit", r.cfg.MaxSubjects)
	}
	return nil
}

func (r *Registry) deleteConfig(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		level, own := s.levels[subject]
		if !own && subject != "" {
			return nil, nil, errSubjectNotFound(subject)
		}
		if !own {
			level = r.level(s, "")
			return nil, levelDeletedAnswer{level, level}, nil
		}
		return []change{{key: recordKey{Type: typeConfig, Subject: subject}}}, levelDeletedAnswer{level, level}, nil
	})
}

func (r *Registry) getMode(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, own := r.state.modes[subject]; !own && subject != "" && !q.flag("defaultToGlobal") {
		return nil, notFound(codeNoSubjectMode, "Subject '%s' does not have subject-level mode configured", subject)
	}
	return modeAnswer{r.state.mode(subject)}, nil
}

func (r *Registry) putMode(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	var body struct {
		Mode string `json:"mode"`
	}
	if failure := q.decode(&body); failure != nil {
		return nil, failure
	}
	mode := Mode(strings.ToUpper(body.Mode))
	if !slices.Contains([]Mode{ReadWrite, ReadOnly, Import}, mode) {
		return nil, unprocessable(codeInvalidMode, "Invalid mode. Valid values are READWRITE, READONLY, IMPORT")
	}
	force := q.flag("force")
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		if failure := r.settable(s, subject, len(s.levels), len(s.modes)); failure != nil {
			return nil, nil, failure
		}
		// Schemas that got their ids here must not be mixed with imported ids by accident.
		if mode == Import && s.mode(subject) != Import && !force && (subject == "" && len(s.subjects) > 0 || subject != "" && s.subjects[subject] != nil) {
			return nil, nil, errNotPermitted("Cannot import since found existing subjects; set force=true to do it all the same")
		}
		key := recordKey{Type: typeMode, Subject: subject}
		return []change{{key, modeValue{string(mode)}}}, modeAnswer{mode}, nil
	})
}

func (r *Registry) deleteMode(q *request) (any, *apiError) {
	subject, failure := q.optionalSubject()
	if failure != nil {
		return nil, failure
	}
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		mode, own := s.modes[subject]
		if !own && subject != "" {
			return nil, nil, errSubjectNotFound(subject)
		}
		if !own {
			return nil, modeAnswer{s.mode("")}, nil
		}
		return []change{{key: recordKey{Type: typeMode, Subject: subject}}}, modeAnswer{mode}, nil
	})
}
