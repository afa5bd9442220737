// Package fault gives user-visible errors a fixed id and a remedy. It is a leaf: any package may use it.
//
// An id never changes its meaning and is never given again; docs/errors.md lists them all.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ID names one kind of user-visible error, such as "MR-GW-001".
type ID string

// Entry is what the catalogue knows of an id.
type Entry struct {
	ID     ID
	Title  string // what happened, in a few words
	Remedy string // what the reader can do about it
}

// Error carries an id along a chain of wrapped errors.
type Error struct {
	id  ID
	err error
}

// Error implements error: the cause, then the id in brackets.
func (e *Error) Error() string { return fmt.Sprintf("%s [%s]", e.err, e.id) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.err }

// ID is the error's id.
func (e *Error) ID() ID { return e.id }

// New wraps err with id. A nil err stays nil, so that it can wrap a call's result.
func New(id ID, err error) error {
	if err == nil {
		return nil
	}
	return &Error{id: id, err: err}
}

// Newf is New(id, fmt.Errorf(format, a...)).
func Newf(id ID, format string, a ...any) error {
	return &Error{id: id, err: fmt.Errorf(format, a...)}
}

// IDOf gives the outermost id in err's chain.
func IDOf(err error) (ID, bool) {
	var e *Error
	if errors.As(err, &e) {
		return e.id, true
	}
	return "", false
}

// Lookup finds the catalogue's entry of id.
func Lookup(id ID) (Entry, bool) {
	i := slices.IndexFunc(catalog[:], func(e Entry) bool { return e.ID == id })
	if i < 0 {
		return Entry{}, false
	}
	return catalog[i], true
}

// Remedy is the catalogue's advice for id, "" if the id is unknown.
func Remedy(id ID) string {
	e, _ := Lookup(id)
	return e.Remedy
}

// Catalog lists every id, sorted.
func Catalog() []Entry {
	out := slices.Clone(catalog[:])
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}
