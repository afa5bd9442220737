package lakehouse

import (
	"errors"
	"fmt"
)

// Why an append was refused. Each is found with errors.Is on a ConflictError.
var (
	ErrGap        = errors.New("the table is behind the range: rows between would be lost")
	ErrOverlap    = errors.New("the table is ahead of the range: rows would be stored twice")
	ErrRegression = errors.New("the range ends before it begins: an offset never goes backwards")
)

// ConflictError says that the head of a table is not where the range to be appended begins. Nothing was committed.
type ConflictError struct {
	Table     string
	TopicID   string
	Partition int32
	Head      int64 // next offset by the table's head
	Lo, Hi    int64 // the range that was to be appended
	Kind      error // ErrGap, ErrOverlap or ErrRegression
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("appending offsets [%d, %d) of topic id %s partition %d to table %s, whose head is at %d: %v", e.Lo, e.Hi, e.TopicID, e.Partition, e.Table, e.Head, e.Kind)
}

// Unwrap gives the kind.
func (e *ConflictError) Unwrap() error { return e.Kind }

// RowError says that one row cannot be stored as it is. The writer has not taken it and goes on with others.
type RowError struct {
	Column string // of the table, "" if it is the whole row
	Err    error
}

// Error implements error.
func (e *RowError) Error() string {
	if e.Column == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("column %s: %v", e.Column, e.Err)
}

// Unwrap gives the cause.
func (e *RowError) Unwrap() error { return e.Err }
