package registry

// A soft delete hides a version but keeps its id readable, because data written with it lives on; a permanent one, which must
// follow a soft one, forgets it.

// deleteVersion deletes one version and answers its number.
func (r *Registry) deleteVersion(q *request) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	version, failure := q.version()
	if failure != nil {
		return nil, failure
	}
	permanent := q.flag("permanent")
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		if failure := s.writable(subject); failure != nil {
			return nil, nil, failure
		}
		// The latest of a permanent delete may be a soft-deleted version; that of a soft one may not.
		e, failure := s.version(subject, version, permanent || version != latest)
		switch {
		case failure != nil:
			return nil, nil, failure
		case !permanent && e.deleted:
			return nil, nil, notFound(codeVersionDeleted, "Subject '%s' Version %d was soft deleted. Set permanent=true to delete permanently", subject, e.version)
		case permanent && !e.deleted:
			return nil, nil, notFound(codeVersionNotDeleted, "Subject '%s' Version %d was not deleted first before being permanently deleted", subject, e.version)
		}
		if ids := s.referencedBy(subject, e.version); len(ids) > 0 {
			return nil, nil, unprocessable(codeReferenceExists, "Subject %s version %d is referenced by schemas %v", subject, e.version, ids)
		}
		if permanent {
			return []change{s.keepMaxID(), {key: schemaKey(subject, e.version)}}, e.version, nil
		}
		gone := e.value(subject)
		gone.Deleted = true
		changes := []change{{schemaKey(subject, e.version), gone}}
		if len(s.live(subject, false)) == 1 {
			changes = append(changes, s.dropSettings(subject)...)
		}
		return changes, e.version, nil
	})
}

// deleteSubject deletes all versions and answers their numbers.
func (r *Registry) deleteSubject(q *request) (any, *apiError) {
	subject, failure := q.subject()
	if failure != nil {
		return nil, failure
	}
	permanent := q.flag("permanent")
	return r.submit(q.Context(), func(s *state) ([]change, any, *apiError) {
		if failure := s.writable(subject); failure != nil {
			return nil, nil, failure
		}
		all, live := s.live(subject, true), s.live(subject, false)
		switch {
		case len(all) == 0:
			return nil, nil, errSubjectNotFound(subject)
		case permanent && len(live) > 0:
			return nil, nil, notFound(codeSubjectNotDeleted, "Subject '%s' was not deleted first before being permanently deleted", subject)
		case !permanent && len(live) == 0:
			return nil, nil, notFound(codeSubjectDeleted, "Subject '%s' was soft deleted. Set permanent=true to delete permanently", subject)
		}
		affected := live
		if permanent {
			affected = all
		}
		numbers := []int{}
		for _, e := range affected {
			if ids := s.referencedBy(subject, e.version); len(ids) > 0 {
				return nil, nil, unprocessable(codeReferenceExists, "Subject %s version %d is referenced by schemas %v", subject, e.version, ids)
			}
			numbers = append(numbers, e.version)
		}
		if !permanent {
			key := recordKey{Type: typeDeleteSubject, Subject: subject}
			changes := []change{{key, deleteSubjectValue{subject, numbers[len(numbers)-1]}}}
			return append(changes, s.dropSettings(subject)...), numbers, nil
		}
		changes := []change{s.keepMaxID()}
		for _, n := range numbers {
			changes = append(changes, change{key: schemaKey(subject, n)})
		}
		return changes, numbers, nil
	})
}

func (s *state) writable(subject string) *apiError {
	if m := s.mode(subject); m != ReadWrite && m != Import {
		return errNotPermitted("Subject %s is in read-only mode", subject)
	}
	return nil
}

// keepMaxID is written before records go for good, so that the highest id is not given again after compaction.
func (s *state) keepMaxID() change {
	return change{recordKey{Type: typeNoop}, noopValue{s.maxID}}
}

// dropSettings deletes the level and mode of a subject whose last version goes.
func (s *state) dropSettings(subject string) []change {
	var changes []change
	if _, ok := s.levels[subject]; ok {
		changes = append(changes, change{key: recordKey{Type: typeConfig, Subject: subject}})
	}
	if _, ok := s.modes[subject]; ok {
		changes = append(changes, change{key: recordKey{Type: typeMode, Subject: subject}})
	}
	return changes
}
