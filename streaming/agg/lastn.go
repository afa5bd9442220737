package agg

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// Entry is one value of a LastN.
type Entry struct {
	At    int64  // event time
	Order uint64 // among equal times: whatever the caller tells its events apart by, such as input and offset
	Value string
}

func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Value, b.Value))
}

// LastN is the n latest values by event time; equal times by Order, then by value. The zero value is of no use: LastNAgg.New makes one.
type LastN struct {
	n       int
	entries []Entry // oldest first
}

// Add takes a value in.
func (l *LastN) Add(e Entry) {
	if len(l.entries) == l.n && compareEntries(e, l.entries[0]) <= 0 {
		return
	}
	e.Value = strings.Clone(e.Value) // it may be a part of a record
	i := len(l.entries)
	for i > 0 && compareEntries(e, l.entries[i-1]) < 0 {
		i--
	}
	if len(l.entries) < l.n {
		l.entries = slices.Insert(l.entries, i, e)
		return
	}
	copy(l.entries, l.entries[1:i])
	l.entries[i-1] = e
}

// Entries are the values, oldest first. They must not be changed.
func (l *LastN) Entries() []Entry { return l.entries }

// Last is the latest value.
func (l *LastN) Last() (Entry, bool) {
	if len(l.entries) == 0 {
		return Entry{}, false
	}
	return l.entries[len(l.entries)-1], true
}

// LastNAgg handles LastNs of N values. N may change from version to version of a store.
type LastNAgg struct{ N int }

// New is empty.
func (x LastNAgg) New() *LastN { return &LastN{n: min(max(x.N, 1), math.MaxInt32)} }

// Clone shares no memory with a.
func (LastNAgg) Clone(a *LastN) *LastN { return &LastN{n: a.n, entries: slices.Clone(a.entries)} }

// Merge takes delta's values in.
func (LastNAgg) Merge(into **LastN, delta *LastN) {
	l := *into
	if len(l.entries) == 0 || len(delta.entries) == 1 {
		for _, e := range delta.entries {
			l.Add(e)
		}
		return
	}
	l.entries = append(l.entries, delta.entries...)
	slices.SortFunc(l.entries, compareEntries)
	l.trim()
}

func (l *LastN) trim() {
	if over := len(l.entries) - l.n; over > 0 {
		l.entries = slices.Clone(l.entries[over:])
	}
}

// Append writes a.
func (LastNAgg) Append(dst []byte, a *LastN) []byte {
	dst = binary.AppendUvarint(append(dst, version), uint64(len(a.entries)))
	last := int64(0)
	for _, e := range a.entries {
		dst = binary.AppendUvarint(binary.AppendVarint(dst, e.At-last), e.Order) // a step may wrap, and wraps back
		dst = append(binary.AppendUvarint(dst, uint64(len(e.Value))), e.Value...)
		last = e.At
	}
	return dst
}

// Decode reads what Append wrote.
func (x LastNAgg) Decode(src []byte) (*LastN, error) {
	r := read("last values", src)
	l := x.New()
	n := r.length(3)
	at := int64(0)
	for i := 0; i < n && r.err == nil; i++ {
		at += r.varint()
		e := Entry{At: at, Order: r.uvarint()}
		e.Value = string(r.bytes(r.length(1)))
		if i > 0 && r.err == nil && compareEntries(e, l.entries[i-1]) < 0 {
			r.fail("values out of order")
			break
		}
		l.entries = append(l.entries, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	l.trim()
	return l, nil
}
