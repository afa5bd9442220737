package simulate

import (
	"bufio"
	"fmt"
	"math/big"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"

	"millrace/event"
	"millrace/internal/fault"
)

// Summary is what a run's gateway acknowledged. acknowledged = distinct_ids + duplicates + malformed (+ without_id, for imports), always.
type Summary struct {
	Acknowledged   int64               `json:"acknowledged"`   // events in acknowledged batches, copies and malformed ones included
	DistinctIDs    int64               `json:"distinct_ids"`   // distinct ids among the valid ones
	IDHash         string              `json:"id_hash"`        // sum mod 2^64 of xxhash64(event_id) over those ids, 16 hex digits
	ByName         map[string]int64    `json:"by_name"`        // of those ids
	ByCategory     map[string]int64    `json:"by_category"`    // of those ids
	RevenueMicros  map[string]*big.Int `json:"revenue_micros"` // by currency: value of those ids that are purchases
	Duplicates     int64               `json:"duplicates"`     // valid events whose id had been acknowledged before
	Late           int64               `json:"late"`           // of those ids, the ones that were sent a minute or more after they happened
	Malformed      int64               `json:"malformed"`      // events made so that they must become failed events
	Unacknowledged int64               `json:"unacknowledged"` // events sent whose outcome is not known

	MalformedByReason map[string]int64 `json:"malformed_by_reason,omitempty"`
	OutOfOrder        int64            `json:"out_of_order,omitempty"`
	Fraudulent        int64            `json:"fraudulent,omitempty"`
	WithoutID         int64            `json:"without_id,omitempty"` // import: events to which the gateway gives an id
	Rejected          int64            `json:"rejected,omitempty"`   // import: rows that are no events and were not sent
	Rejects           []Reject         `json:"rejects,omitempty"`    // import: the first of them
	Seed              uint64           `json:"seed,omitempty"`
	Retries           int64            `json:"retries"` // requests beyond one a batch
	ElapsedSeconds    float64          `json:"elapsed_seconds"`
	Interrupted       bool             `json:"interrupted"` // ended before it was done
}

// book counts what was acknowledged. It is safe for use by several goroutines.
type book struct {
	mu     sync.Mutex
	first  func(seq, hash uint64) bool // whether an id is acknowledged for the first time
	names  []string
	flaws  []flaw
	coins  []string // currencies
	ledger *ledger

	sum     Summary
	hash    uint64
	counts  []int64 // by names
	flawed  []int64 // by flaws
	revenue []event.Sum
}

func newBook(names, coins []string, flaws []flaw, first func(seq, hash uint64) bool, ledger *ledger) *book {
	return &book{first: first, names: names, coins: coins, flaws: flaws, ledger: ledger, counts: make([]int64, len(names)), flawed: make([]int64, len(flaws)), revenue: make([]event.Sum, len(coins))}
}

// acknowledged books a batch whose request was answered with success.
func (b *book) acknowledged(x *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sum.Acknowledged += int64(len(x.records))
	from := uint32(0)
	for i := range x.records {
		r := &x.records[i]
		id := x.ids[from:x.ends[i]]
		from = x.ends[i]
		if r.class == malformed {
			b.sum.Malformed++
			b.flawed[r.name]++
			continue
		}
		if len(id) == 0 {
			b.sum.WithoutID++
			b.count(r)
			continue
		}
		hash := xxhash.Sum64(id)
		if !b.first(r.seq, hash) {
			b.sum.Duplicates++
			continue
		}
		b.sum.DistinctIDs++
		b.hash += hash
		b.count(r)
		b.ledger.add(id)
	}
}

// count books what is only counted once for an event.
func (b *book) count(r *record) {
	b.counts[r.name]++
	if b.names[r.name] == event.NamePurchase {
		b.revenue[r.currency] = b.revenue[r.currency].AddMicros(r.value)
	}
	if r.late {
		b.sum.Late++
	}
	if r.shuffled {
		b.sum.OutOfOrder++
	}
	if r.fraud {
		b.sum.Fraudulent++
	}
}

// unknown books a batch of which nobody knows what became of it.
func (b *book) unknown(x *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sum.Unacknowledged += int64(len(x.records))
}

// newName gives a name its number. A simulation's names are all known beforehand.
func (b *book) newName(name string) uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names = append(b.names, name)
	b.counts = append(b.counts, 0)
	return uint32(len(b.names) - 1)
}

// newCoin gives a currency its number.
func (b *book) newCoin(code string) uint16 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.coins = append(b.coins, code)
	b.revenue = append(b.revenue, event.Sum{})
	return uint16(len(b.coins) - 1)
}

// summary closes the books.
func (b *book) summary() Summary {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sum
	s.IDHash = fmt.Sprintf("%016x", b.hash)
	s.ByName, s.ByCategory, s.RevenueMicros, s.MalformedByReason = map[string]int64{}, map[string]int64{}, map[string]*big.Int{}, map[string]int64{}
	for i, n := range b.counts {
		if n > 0 {
			s.ByName[b.names[i]] += n
			s.ByCategory[event.CategoryOf(b.names[i]).String()] += n
		}
	}
	for i, v := range b.revenue {
		if !v.IsZero() {
			s.RevenueMicros[b.coins[i]] = v.Big()
		}
	}
	for i, n := range b.flawed {
		if n > 0 {
			s.MalformedByReason[b.flaws[i].reason] += n
		}
	}
	return s
}

// bitset is a set of dense numbers: one bit each.
type bitset []uint64

// add puts n into the set and says whether it is new.
func (b *bitset) add(n, _ uint64) bool {
	word := int(n / 64)
	for word >= len(*b) {
		*b = append(*b, 0)
	}
	bit := uint64(1) << (n % 64)
	if (*b)[word]&bit != 0 {
		return false
	}
	(*b)[word] |= bit
	return true
}

// ledger is the file of acknowledged ids. A nil ledger writes nothing.
type ledger struct {
	file *os.File
	w    *bufio.Writer
	err  error // the first
}

func openLedger(path string) (*ledger, error) {
	if path == "" {
		return nil, nil // none is wanted
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fault.Newf("MR-SIM-004", "creating the ledger: %w", err)
	}
	return &ledger{file: f, w: bufio.NewWriterSize(f, 1<<16)}, nil
}

func (l *ledger) add(id []byte) {
	if l == nil || l.err != nil {
		return
	}
	if _, l.err = l.w.Write(id); l.err == nil {
		l.err = l.w.WriteByte('\n')
	}
}

// close says whether every id is in the file.
func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	if l.err == nil {
		l.err = l.w.Flush()
	}
	if err := l.file.Close(); l.err == nil {
		l.err = err
	}
	if l.err != nil {
		return fault.Newf("MR-SIM-004", "writing the ledger: %w", l.err)
	}
	return nil
}
