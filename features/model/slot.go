package model

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Slot holds the model in force. Readers never wait: a score that began with one model ends with it. It is safe for concurrent use.
type Slot struct {
	current atomic.Pointer[Model]
	mu      sync.Mutex
	status  SlotStatus
}

// SlotStatus tells what became of the last file.
type SlotStatus struct {
	Version   string    // in force, "" if none is
	LoadedAt  time.Time // when it came into force
	Path      string    // last file tried
	TriedAt   time.Time
	LastError string // why it is not in force, "" if it is
}

// Load reads a model file and puts it in force. A file that cannot be used, or that check (which may be nil) refuses, changes nothing but the status: the model before
// it stays in force. The file of the version in force changes nothing either.
func (s *Slot) Load(path string, now time.Time, check func(*Model) error) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := Open(path)
	if err == nil && check != nil {
		err = check(m)
	}
	s.status.Path, s.status.TriedAt, s.status.LastError = path, now, ""
	if err != nil {
		s.status.LastError = err.Error()
		return false, err
	}
	if m.Version == s.status.Version {
		return false, nil
	}
	s.current.Store(m)
	s.status.Version, s.status.LoadedAt = m.Version, now
	return true, nil
}

// Put puts a model that was parsed elsewhere in force, as a record of the control topic carries one.
func (s *Slot) Put(m *Model, now time.Time) error {
	if m == nil {
		return errors.New("no model")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(m)
	s.status = SlotStatus{Version: m.Version, LoadedAt: now, TriedAt: now}
	return nil
}

// Model is the one in force, nil if none is.
func (s *Slot) Model() *Model { return s.current.Load() }

// Status tells what became of the last file.
func (s *Slot) Status() SlotStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}
