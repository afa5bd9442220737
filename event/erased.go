package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kinds of subject: which id of an event names the person.
const (
	SubjectVisitor = "visitor" // visitor_id, and previous_id of an identify event
	SubjectUser    = "user"    // user_id
)

// SubjectKinds lists the kinds.
func SubjectKinds() []string { return []string{SubjectVisitor, SubjectUser} }

// Subject is a person as one id of a tenant names them.
type Subject struct {
	Tenant string
	Kind   string
	ID     string
}

// Digest stands for a subject in the ledger of erasures: HMAC-SHA256, cut at 128 bits, of tenant 0x1F kind 0x1F id. Only who has the key can tell whose it is, and
// only by trying ids.
type Digest [16]byte

// String is the digest in hex, as the ledger holds it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads the hex form.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("%q is no digest of a subject", s)
	}
	copy(d[:], b)
	return d, nil
}

// SubjectKey is the secret that digests are made with. Whoever takes the ledger needs the same one.
type SubjectKey [32]byte

// ID tells keys apart and says nothing about the key: entries of the ledger carry it, so that nobody matches them with another one.
func (k SubjectKey) ID() string {
	mac := hmac.New(sha256.New, k[:])
	_, _ = mac.Write([]byte("id of this key")) // a hash does not fail
	return hex.EncodeToString(mac.Sum(nil)[:4])
}

// Digest makes the digest of a subject.
func (k SubjectKey) Digest(s Subject) Digest { return newDigester(k).digest(s.Tenant, s.Kind, s.ID) }

// Erasure is one entry of the ledger of erasures: the topic erasures has it under the key AppendKey, the table erasures a row for each of its subjects. It holds no id.
type Erasure struct {
	RequestID   string   `avro:"request_id"`
	Part        int32    `avro:"part"`         // of a request with more than MaxErasureSubjects
	RequestedAt int64    `avro:"requested_at"` // µs
	Cut         string   `avro:"cut"`          // Cut.String
	Key         string   `avro:"key"`          // SubjectKey.ID of the digests' key
	Subjects    []string `avro:"subjects"`     // digests
}

// MaxErasureSubjects bounds an entry, so that its record stays far below what a broker takes.
const MaxErasureSubjects = 4096

// AppendKey writes the record key of an entry: compaction never takes one away.
func (e *Erasure) AppendKey(dst []byte) []byte {
	return fmt.Appendf(append(dst, e.RequestID...), "/%d", e.Part)
}

// Cut says what an erasure takes: of each raw topic, by partition, the offsets below the end that the partition had when the request was taken. Offsets from there on
// are new data.
type Cut map[string][]int64

// String is the cut as JSON, topics in order.
func (c Cut) String() string {
	b, _ := json.Marshal(c) // a map of lists of integers
	return string(b)
}

// ParseCut reads what String wrote.
func ParseCut(s string) (Cut, error) {
	var c Cut
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return nil, fmt.Errorf("cut of an erasure: %w", err)
	}
	return c, nil
}

// Below says whether a raw offset is below the cut.
func (c Cut) Below(topic string, partition int32, offset int64) bool {
	ends := c[topic]
	return partition >= 0 && int(partition) < len(ends) && offset < ends[partition]
}

// raise gives the cut of everything that is below one of both.
func (c Cut) raise(o Cut) Cut {
	out := maps.Clone(c)
	if out == nil {
		out = Cut{}
	}
	for topic, ends := range o {
		have := slices.Clone(out[topic])
		for len(have) < len(ends) {
			have = append(have, 0)
		}
		for p, end := range ends {
			have[p] = max(have[p], end)
		}
		out[topic] = have
	}
	return out
}

// Erased is the ledger of erasures as a filter: every path that writes rows that are not fresh from Kafka's head drops what it names. A nil *Erased drops nothing.
// It is safe for concurrent use once it is complete; Add must not run beside anything else.
type Erased struct {
	key      SubjectKey
	subjects map[Digest]*Cut
	asked    map[Digest]int64 // when each was last asked for
	last     int64            // when any was
	top      Cut              // nothing at or beyond it is dropped, whoever it is: what is fresh costs one look
	cuts     map[string]*Cut
	pool     sync.Pool // *digester
}

// NewErased makes an empty filter.
func NewErased(key SubjectKey) *Erased {
	e := &Erased{key: key, subjects: map[Digest]*Cut{}, asked: map[Digest]int64{}, top: Cut{}, cuts: map[string]*Cut{}}
	e.pool.New = func() any { return newDigester(key) }
	return e
}

// ErrSubjectKey says that an entry of the ledger was made with another key than the filter has: it would match nobody.
var ErrSubjectKey = errors.New("the digests were made with another key")

// Add takes one entry of the ledger. Entries may come in any order and again.
func (e *Erased) Add(entry Erasure) error {
	if own := e.key.ID(); entry.Key != own {
		return fmt.Errorf("erasure %s: %w: %s, not %s", entry.RequestID, ErrSubjectKey, entry.Key, own)
	}
	cut := e.cuts[entry.Cut]
	if cut == nil {
		c, err := ParseCut(entry.Cut)
		if err != nil {
			return fmt.Errorf("erasure %s: %w", entry.RequestID, err)
		}
		cut = &c
		e.cuts[entry.Cut] = cut
		e.top = e.top.raise(c)
	}
	e.last = max(e.last, entry.RequestedAt)
	for _, s := range entry.Subjects {
		d, err := ParseDigest(s)
		if err != nil {
			return fmt.Errorf("erasure %s: %w", entry.RequestID, err)
		}
		e.asked[d] = max(e.asked[d], entry.RequestedAt)
		switch have := e.subjects[d]; have {
		case nil:
			e.subjects[d] = cut
		case cut:
		default: // asked for again
			both := have.raise(*cut)
			text := both.String()
			if e.cuts[text] == nil {
				e.cuts[text] = &both
			}
			e.subjects[d] = e.cuts[text]
		}
	}
	return nil
}

// Clone gives a filter of the same entries that can be added to while this one is in use.
func (e *Erased) Clone() *Erased {
	out := NewErased(e.key)
	maps.Copy(out.subjects, e.subjects)
	maps.Copy(out.asked, e.asked)
	out.last = e.last
	maps.Copy(out.cuts, e.cuts)
	out.top = e.top.raise(nil)
	return out
}

// Len is how many subjects are erased.
func (e *Erased) Len() int {
	if e == nil {
		return 0
	}
	return len(e.subjects)
}

// Below says whether a raw offset is below any cut: what is not need not be looked at more closely.
func (e *Erased) Below(rawTopic string, rawPartition int32, rawOffset int64) bool {
	return e != nil && e.top.Below(rawTopic, rawPartition, rawOffset)
}

// Drops says whether a row is of an erased subject and below its cut.
func (e *Erased) Drops(tenant, visitorID, userID, rawTopic string, rawPartition int32, rawOffset int64) bool {
	if !e.Below(rawTopic, rawPartition, rawOffset) {
		return false
	}
	return e.drops(tenant, SubjectVisitor, visitorID, rawTopic, rawPartition, rawOffset) || e.drops(tenant, SubjectUser, userID, rawTopic, rawPartition, rawOffset)
}

// DropsEvent is Drops for an event of events.*. An identify event is also dropped for the id that the visitor was known by before.
func (e *Erased) DropsEvent(v *Event) bool {
	if !e.Below(v.RawTopic, v.RawPartition, v.RawOffset) {
		return false
	}
	return e.Drops(v.Tenant, v.VisitorID, v.UserID, v.RawTopic, v.RawPartition, v.RawOffset) || e.DropsPrevious(v.Tenant, v.PreviousID, v.RawTopic, v.RawPartition, v.RawOffset)
}

// DropsPrevious says whether the previous_id of an identify event is an erased subject's: it may have been a visitor's or a user's.
func (e *Erased) DropsPrevious(tenant, previousID, rawTopic string, rawPartition int32, rawOffset int64) bool {
	return e.Drops(tenant, previousID, previousID, rawTopic, rawPartition, rawOffset)
}

// DropsFailed is Drops for a failed event. Nobody knows which part of a payload that was not understood is an id: any text in it that is a subject's id counts.
func (e *Erased) DropsFailed(f *Failed) bool {
	return e.DropsPayload(f.Tenant, f.Payload, f.RawTopic, f.RawPartition, f.RawOffset)
}

// DropsPayload is DropsFailed by column.
func (e *Erased) DropsPayload(tenant, payload, rawTopic string, rawPartition int32, rawOffset int64) bool {
	if !e.Below(rawTopic, rawPartition, rawOffset) {
		return false
	}
	for s := range mayBeIDs(payload) {
		if e.Drops(tenant, s, s, rawTopic, rawPartition, rawOffset) {
			return true
		}
	}
	return false
}

// Names says whether an id is an erased subject's of any kind, whatever the offset: for keys of caches, which have none.
func (e *Erased) Names(tenant, id string) bool {
	if e == nil || id == "" || len(e.subjects) == 0 {
		return false
	}
	d := e.pool.Get().(*digester)
	defer e.pool.Put(d)
	for _, kind := range SubjectKinds() {
		if e.subjects[d.digest(tenant, kind, id)] != nil {
			return true
		}
	}
	return false
}

// liveMemory is how long what the stream keeps of a visitor for serving may hold what came before a request: a session lasts a day at most.
const liveMemory = 24 * time.Hour

// NamesLive is Names for what is served live of a person and was written at a time in µs. It has no raw offset and may hold what came before the request as long as the
// session goes on, so it says yes until a day after the request.
func (e *Erased) NamesLive(tenant, id string, at int64) bool {
	if e == nil || id == "" || len(id) > MaxIDBytes || len(e.subjects) == 0 || at > e.last+liveMemory.Microseconds() {
		return false
	}
	d := e.pool.Get().(*digester)
	defer e.pool.Put(d)
	for _, kind := range SubjectKinds() {
		if asked, ok := e.asked[d.digest(tenant, kind, id)]; ok && at <= asked+liveMemory.Microseconds() {
			return true
		}
	}
	return false
}

// DropsAlert says whether an alert is about an erased subject and of before the request. Alerts have no raw offset, so this goes by time.
func (e *Erased) DropsAlert(a *Alert) bool {
	if e == nil || len(e.subjects) == 0 || a.Entity != EntityVisitor && a.Entity != EntityUser || a.Key == "" || len(a.Key) > MaxIDBytes {
		return false
	}
	kind := SubjectVisitor
	if a.Entity == EntityUser {
		kind = SubjectUser
	}
	d := e.pool.Get().(*digester)
	at, ok := e.asked[d.digest(a.Tenant, kind, a.Key)]
	e.pool.Put(d)
	return ok && a.OccurredAt <= at
}

func (e *Erased) drops(tenant, kind, id, topic string, partition int32, offset int64) bool {
	if id == "" || len(id) > MaxIDBytes {
		return false
	}
	d := e.pool.Get().(*digester)
	cut := e.subjects[d.digest(tenant, kind, id)]
	e.pool.Put(d)
	return cut != nil && cut.Below(topic, partition, offset)
}

// digester makes digests. Rows of one visitor come together, so it remembers the last digest of each kind.
type digester struct {
	mac  hash.Hash
	buf  []byte
	sum  []byte
	last [2]struct {
		key    string
		digest Digest
	}
}

func newDigester(key SubjectKey) *digester { return &digester{mac: hmac.New(sha256.New, key[:])} }

func (d *digester) digest(tenant, kind, id string) Digest {
	d.buf = append(d.buf[:0], tenant...)
	d.buf = append(d.buf, Sep)
	d.buf = append(d.buf, kind...)
	d.buf = append(d.buf, Sep)
	d.buf = append(d.buf, id...)
	last := &d.last[0]
	if kind == SubjectUser {
		last = &d.last[1]
	}
	if last.key == string(d.buf) {
		return last.digest
	}
	d.mac.Reset()
	_, _ = d.mac.Write(d.buf) // a hash does not fail
	d.sum = d.mac.Sum(d.sum[:0])
	last.key = string(d.buf)
	copy(last.digest[:], d.sum)
	return last.digest
}

// mayBeIDs gives each text of a payload that may be an id: what stands between two neighbouring quotes, and every run of letters, digits and the signs that are common
// in ids. In JSON these are all texts and numbers without escapes; in what is broken JSON, or none, still most.
func mayBeIDs(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		give := func(id string) bool { return id == "" || len(id) > MaxIDBytes || yield(id) }
		for at := strings.IndexByte(s, '"'); at >= 0; {
			n := strings.IndexByte(s[at+1:], '"')
			if n < 0 {
				break
			}
			if !give(strings.TrimRight(s[at+1:at+1+n], "\\")) { // the quotes of JSON within JSON
				return
			}
			at += 1 + n
		}
		for word := range strings.FieldsFuncSeq(s, func(r rune) bool {
			return r < 0x80 && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-_.@:|", r)
		}) {
			if !give(word) {
				return
			}
			if bare := strings.Trim(word, ".:|@"); bare != word && !give(bare) { // a number behind a colon
				return
			}
		}
	}
}

// Validate reports every problem of a subject.
func (s Subject) Validate() error {
	var errs []error
	if s.Tenant == "" {
		errs = append(errs, errors.New("tenant: is missing"))
	}
	if !slices.Contains(SubjectKinds(), s.Kind) {
		errs = append(errs, fmt.Errorf("kind: %q is not one of %s", s.Kind, strings.Join(SubjectKinds(), ", ")))
	}
	switch {
	case s.ID == "":
		errs = append(errs, errors.New("id: is missing"))
	case len(s.ID) > MaxIDBytes:
		errs = append(errs, fmt.Errorf("id: has %d bytes, more than the %d of any id", len(s.ID), MaxIDBytes))
	}
	return errors.Join(errs...)
}
