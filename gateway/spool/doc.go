// Package spool keeps accepted records on local disk while the broker cannot take them. It stands beside the gateway's producers: what they cannot deliver in
// time is appended here, fsynced, and acknowledged; a drainer hands it on, in order, when the broker is back.
//
// Every process has a folder of its own under the root, locked while it lives, with numbered segment files of checksummed frames. A folder whose lock is free
// belongs to a process that is gone: the next one adopts it. Delivery out of the spool is at least once: the position up to which a folder is drained is
// written after the broker has acknowledged, so a crash in between delivers again. What is acknowledged survives the process and the machine, not the loss of
// the volume.
package spool

import (
	"errors"
	"fmt"
	"time"
)

// Record is one Kafka record.
type Record struct {
	Topic     string
	Partition int32
	Key       []byte
	Value     []byte
	Headers   []Header
	SpooledAt time.Time // set by Append
}

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// ErrFull says that the spool has no room for a record. Another record may still fit: see Append.
var ErrFull = errors.New("spool is full")

// Config is how a spool keeps its records.
type Config struct {
	Dir          string        `koanf:"dir" desc:"root folder of the spool, on a volume that outlives the process"`
	MaxBytes     int64         `koanf:"max_bytes" desc:"most bytes kept, the folders of earlier processes included"`
	SegmentBytes int64         `koanf:"segment_bytes" desc:"size at which a new segment file is begun"`
	MaxAge       time.Duration `koanf:"max_age" desc:"age from which on a record is marked and the spool warns; nothing is ever dropped for its age"`
	AdoptEvery   time.Duration `koanf:"adopt_every" desc:"how often to look for folders of processes that are gone"`
}

// DefaultConfig is a spool of 4 GiB; Dir has no default.
func DefaultConfig() Config {
	return Config{MaxBytes: 4 << 30, SegmentBytes: 64 << 20, MaxAge: 6 * time.Hour, AdoptEvery: 15 * time.Second}
}

// Validate reports every problem.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: is missing"))
	}
	if c.SegmentBytes < 1<<10 {
		errs = append(errs, fmt.Errorf("segment_bytes: %d is below 1024", c.SegmentBytes))
	}
	if c.MaxBytes < c.SegmentBytes {
		errs = append(errs, fmt.Errorf("max_bytes: %d is below segment_bytes %d", c.MaxBytes, c.SegmentBytes))
	}
	if c.MaxAge <= 0 {
		errs = append(errs, fmt.Errorf("max_age: %v is not above 0", c.MaxAge))
	}
	if c.AdoptEvery <= 0 {
		errs = append(errs, fmt.Errorf("adopt_every: %v is not above 0", c.AdoptEvery))
	}
	return errors.Join(errs...)
}
