package streaming

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// onTheWay is what a record takes from the end of its producer's linger to the merge, most times. It is all that is waited for an input of an earlier stage: that does not
// linger, and what it writes in one transaction can be read in all of its topics at once.
const onTheWay = 5 * time.Millisecond

// merger orders the records of a task's inputs by (timestamp, topic, offset): it holds back a record while an input that has none to
// offer might still bring an earlier one. An input with lag is waited for as long as it takes; one without, from the record's arrival for as long as its
// producers may hold records back, at most MergeWait.
type merger struct {
	t        *Task
	q        []queue
	rank     []int           // place of each input in the order of topic names
	wait     []time.Duration // for each input
	buffered int
}

// queue is what was read of one input and not processed.
type queue struct {
	recs    []*kgo.Record
	head    int
	batches []arrival // non-empty while records are buffered
	next    int64     // offset after the last record read, -1 before the first
	end     int64     // the last stable offset that is known
}

// arrival says when the records up to index upto (exclusive) were read.
type arrival struct {
	upto int
	at   time.Time
}

func (m *merger) init(t *Task) {
	m.t, m.wait = t, make([]time.Duration, len(t.in))
	m.q = make([]queue, len(t.in))
	m.rank = make([]int, len(t.in))
	names := slices.Sorted(slices.Values(t.top.Inputs))
	for i, topic := range t.top.Inputs {
		m.rank[i] = slices.Index(names, topic)
		m.q[i].next = -1
		m.wait[i] = t.cfg.MergeWait
		if linger, ok := t.top.Linger[topic]; ok {
			m.wait[i] = min(m.wait[i], linger+onTheWay)
		}
		if t.top.Upstream[topic] > 0 {
			m.wait[i] = min(m.wait[i], onTheWay)
		}
	}
}

// start sets where an input begins and how far it reaches now.
func (m *merger) start(in int, next, end int64) { m.q[in].next, m.q[in].end = next, end }

// offer takes records of an input in offset order, and its last stable offset as the broker gave it with them.
func (m *merger) offer(in int, recs []*kgo.Record, end int64, now time.Time) {
	q := &m.q[in]
	q.end = max(q.end, end)
	for len(recs) > 0 && recs[0].Offset < q.next {
		recs = recs[1:]
	}
	if len(recs) == 0 {
		return
	}
	if q.head > 0 && (q.head == len(q.recs) || len(q.recs)+len(recs) > cap(q.recs)) {
		n := copy(q.recs, q.recs[q.head:])
		clear(q.recs[n:])
		q.recs = q.recs[:n]
		for i := range q.batches {
			q.batches[i].upto -= q.head
		}
		q.head = 0
	}
	q.recs = append(q.recs, recs...)
	q.batches = append(q.batches, arrival{len(q.recs), now})
	q.next = recs[len(recs)-1].Offset + 1
	m.buffered += len(recs)
}

// heads finds the two inputs with the earliest records (-1: there is none), how long those that have none are waited for, and whether one of these is lagging: there is
// something to be read.
func (m *merger) heads() (best, second int, wait time.Duration, lagging bool) {
	best, second = -1, -1
	for i := range m.q {
		q := &m.q[i]
		switch {
		case q.head == len(q.recs):
			wait = max(wait, m.wait[i])
			lagging = lagging || q.next < q.end
		case best < 0 || m.less(i, best):
			best, second = i, best
		case second < 0 || m.less(i, second):
			second = i
		}
	}
	return best, second, wait, lagging
}

// pick chooses the input whose head is next, and how many of its records may be processed before another choice; 0: none may yet.
func (m *merger) pick(now time.Time) (in, n int) {
	best, second, wait, lagging := m.heads()
	if best < 0 || lagging {
		return 0, 0
	}
	q := &m.q[best]
	limit := q.batches[0].upto
	if now.Sub(q.batches[0].at) < wait {
		return 0, 0
	}
	if second < 0 {
		return best, limit - q.head
	}
	other := m.q[second].recs[m.q[second].head]
	before := m.rank[best] < m.rank[second]
	n = 1
	for q.head+n < limit {
		if c := q.recs[q.head+n].Timestamp.Compare(other.Timestamp); c > 0 || c == 0 && !before {
			break
		}
		n++
	}
	return best, n
}

func (m *merger) less(i, j int) bool {
	if c := m.q[i].recs[m.q[i].head].Timestamp.Compare(m.q[j].recs[m.q[j].head].Timestamp); c != 0 {
		return c < 0
	}
	return m.rank[i] < m.rank[j]
}

// take removes the head of an input.
func (m *merger) take(in int) *kgo.Record {
	q := &m.q[in]
	r := q.recs[q.head]
	q.recs[q.head] = nil
	q.head++
	m.buffered--
	if q.head == q.batches[0].upto {
		q.batches = q.batches[1:]
		if len(q.batches) == 0 {
			q.recs, q.head, q.batches = q.recs[:0], 0, nil
		}
	}
	return r
}

// caughtUp: everything there is to read of the input has been processed.
func (m *merger) caughtUp(in int) bool {
	q := &m.q[in]
	return q.head == len(q.recs) && q.next >= q.end
}

func (m *merger) held(in int) int { return len(m.q[in].recs) - m.q[in].head }

// wake is when the next record may be processed although an input is empty; false if nothing waits for time alone.
func (m *merger) wake() (time.Time, bool) {
	best, _, wait, lagging := m.heads()
	if best < 0 || lagging {
		return time.Time{}, false
	}
	return m.q[best].batches[0].at.Add(wait), true
}

// reset forgets what is buffered: the inputs are read again from the committed offsets.
func (m *merger) reset() {
	for i := range m.q {
		end := m.q[i].end
		m.q[i] = queue{next: m.t.in[i].committed, end: end}
	}
	m.buffered = 0
}
