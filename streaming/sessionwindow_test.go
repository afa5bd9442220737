package streaming

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

type sessionCase struct {
	gap, lateness     int64 // µs
	closedOnly, split bool
}

func drawSessions(r *rand.Rand) (out []sessionCase) {
	for i := range 4 {
		out = append(out, sessionCase{gap: pick[int64](r, 50_000, 300_000, 1_000_000, 4_000_000), lateness: pick[int64](r, 0, 1_500_000, 6_000_000, 30_000_000), closedOnly: r.IntN(2) == 0, split: i%2 == 1})
	}
	return out
}

// visit is an accumulator whose first and last event, by time, say what it is about.
type visit struct {
	n, total    int64
	first, last landing
}

type landing struct {
	at, id int64
	about  byte
}

func (a landing) before(b landing) bool { return a.at < b.at || a.at == b.at && a.id < b.id }

func (v *visit) add(at int64, id string) {
	l := landing{at, number(id), id[len(id)-1]}
	visits{}.Merge(&v, &visit{1, number(id), l, l})
}

func differ(a, b *visit) bool { return a.last.about != b.first.about }

type visits struct{}

func (visits) New() *visit           { return &visit{} }
func (visits) Clone(a *visit) *visit { c := *a; return &c }

func (visits) Merge(into **visit, d *visit) {
	v := *into
	if d.n == 0 {
		return
	}
	if v.n == 0 || d.first.before(v.first) {
		v.first = d.first
	}
	if v.n == 0 || v.last.before(d.last) {
		v.last = d.last
	}
	v.n += d.n
	v.total += d.total
}

func (visits) Append(b []byte, v *visit) []byte {
	for _, x := range []int64{v.n, v.total, v.first.at, v.first.id, int64(v.first.about), v.last.at, v.last.id, int64(v.last.about)} {
		b = binary.AppendVarint(b, x)
	}
	return b
}

func (visits) Decode(b []byte) (*visit, error) {
	var x [8]int64
	for i := range x {
		v, n := binary.Varint(b)
		if n <= 0 {
			return nil, errors.New("cut off")
		}
		x[i], b = v, b[n:]
	}
	return &visit{x[0], x[1], landing{x[2], x[3], byte(x[4])}, landing{x[5], x[6], byte(x[7])}}, nil
}

func (c sessionCase) open(t *Task, store uint16, say func(topic, key, value string), name string) *Sessions[string, *visit] {
	spec := SessionsSpec[string, *visit]{
		Store: store, Gap: time.Duration(c.gap) * time.Microsecond, Lateness: time.Duration(c.lateness) * time.Microsecond, ClosedOnly: c.closedOnly, Keys: strs{}, Values: visits{},
		Emit: func(s Session[string], a *visit) error {
			value := "retracted"
			if !s.Retracted {
				value = fmt.Sprintf("%d %d from %d to %d end %d closed %v", a.n, a.total, s.Start, s.Last, s.End, s.Closed)
			} else if a.n != 0 {
				return errors.New("a retraction has a total")
			}
			say(rowTopic, fmt.Sprintf("%s/%d/%s", name, s.ID, s.Key), value)
			return nil
		},
	}
	if c.split {
		spec.Split = differ
	}
	return OpenSessions(t, spec)
}

// state lists what the sessions hold.
func (w *Sessions[K, A]) state() map[string]string {
	out := map[string]string{}
	n := 0
	for key, k := range w.keys {
		for _, e := range slices.Concat(k.list, k.points, k.owed) {
			n++
			v := ""
			if !e.gone {
				v = fmt.Sprintf("%x", w.spec.Values.Append(nil, e.a))
			}
			out[fmt.Sprintf("%v/%d/%d/%v", key, e.id, e.seq, e.point)] = fmt.Sprintf("%d-%d cut %d gone %v emitted %v changed %v told %v: %s", e.start, e.last, e.cut, e.gone, e.emitted, e.changed, e.told, v)
		}
		if len(k.list)+len(k.points)+len(k.owed) == 0 {
			out[fmt.Sprintf("%v", key)] = "a key with nothing"
		}
	}
	if n != w.n || n != w.size() {
		out["entries"] = fmt.Sprintf("%d, counted %d", n, w.n)
	}
	return out
}

// plainSession is a session of the oracle: its events, one by one.
type plainSession struct {
	id        int64
	evs       []seen // by time and arrival
	cut       int64
	wasClosed bool
}

func (s *plainSession) start() int64 { return s.evs[0].at }
func (s *plainSession) last() int64  { return s.evs[len(s.evs)-1].at }

func (s *plainSession) value() *visit {
	v := &visit{}
	for _, e := range s.evs {
		v.add(e.at, e.id)
	}
	return v
}

// oracle holds every session as the list of its events and goes by the definition.
func (c sessionCase) oracle(name string, evs []seen, final int64, out map[string]string) (said []Outcome) {
	sessions := map[string][]*plainSession{}
	waiting := []seen{}
	byTime := func(a, b seen) int {
		if a.at != b.at {
			return int(min(1, max(-1, a.at-b.at)))
		}
		return a.n - b.n
	}
	end := func(s *plainSession) int64 {
		if s.cut != never {
			return s.cut
		}
		return s.last() + c.gap
	}
	closed := func(s *plainSession, watermark int64) bool { return s.cut != never || s.last()+c.gap < watermark }
	row := func(s *plainSession, watermark int64) {
		s.wasClosed = s.wasClosed || closed(s, watermark)
		if v := s.value(); !c.closedOnly || s.wasClosed {
			out[fmt.Sprintf("%s/%d/%s", name, s.id, s.evs[0].key)] = fmt.Sprintf("%d %d from %d to %d end %d closed %v", v.n, v.total, s.start(), s.last(), end(s), closed(s, watermark))
		}
	}
	splits := func(a, b *plainSession) bool { return c.split && differ(a.value(), b.value()) }
	neighbours := func(l []*plainSession, at int64) (left, right *plainSession) {
		for _, s := range l {
			if s.start() <= at {
				left = s
			} else if right == nil {
				right = s
			}
		}
		if left != nil && at-left.last() > c.gap {
			left = nil
		}
		if right != nil && (right.start()-at > c.gap || left != nil && at <= left.last()) {
			right = nil
		}
		return left, right
	}
	place := func(e seen, watermark int64) {
		l := sessions[e.key]
		left, right := neighbours(l, e.at)
		own := &plainSession{id: e.at, evs: []seen{e}, cut: never}
		put := func(s *plainSession) {
			s.evs = append(s.evs, e)
			slices.SortFunc(s.evs, byTime)
		}
		target := own
		switch {
		case left != nil && e.at <= left.last():
			put(left)
			target = left
		case left != nil && !splits(left, own):
			put(left)
			target = left
			if right != nil && left.cut == never {
				if splits(left, right) {
					left.cut = right.start()
				} else {
					left.evs, left.cut = append(left.evs, right.evs...), right.cut
					l = slices.DeleteFunc(l, func(s *plainSession) bool { return s == right })
				}
			}
		case right != nil && !splits(own, right):
			put(right)
			target = right
			if left != nil {
				left.cut = e.at
			}
		default:
			for slices.ContainsFunc(l, func(s *plainSession) bool { return s.id == own.id }) {
				own.id++
			}
			if right != nil {
				own.cut = right.start()
			}
			if left != nil {
				left.cut = e.at
			}
			l = append(l, own)
		}
		for _, s := range []*plainSession{target, left} {
			if s != nil && closed(s, watermark) {
				s.wasClosed = true
			}
		}
		slices.SortFunc(l, func(a, b *plainSession) int { return int(min(1, max(-1, a.start()-b.start()))) })
		sessions[e.key] = l
	}
	advance := func(watermark int64) {
		slices.SortStableFunc(waiting, byTime)
		for len(waiting) > 0 && waiting[0].at < watermark {
			place(waiting[0], watermark)
			waiting = waiting[1:]
		}
		for key, l := range sessions {
			sessions[key] = slices.DeleteFunc(l, func(s *plainSession) bool {
				s.wasClosed = s.wasClosed || closed(s, watermark)
				if end(s)+c.lateness >= watermark {
					return false
				}
				row(s, watermark)
				return true
			})
		}
	}
	for _, e := range evs {
		left, right := neighbours(sessions[e.key], e.at)
		switch {
		case left == nil && right == nil && e.at+c.gap+c.lateness < e.before:
			said = append(said, Dropped)
		case left != nil && closed(left, e.before), right != nil && closed(right, e.before), left == nil && right == nil && e.at+c.gap < e.before:
			said = append(said, Late)
		default:
			said = append(said, OnTime)
		}
		switch {
		case said[len(said)-1] == Dropped:
		case c.split && e.at >= e.before:
			waiting = append(waiting, e)
		default:
			place(e, e.before)
		}
		if e.after != e.before {
			advance(e.after)
		}
	}
	advance(final)
	for _, l := range sessions {
		for _, s := range l {
			row(s, final)
		}
	}
	return said
}

// retractedFirst: a session that has become part of another is retracted before that other is emitted. (One that has expired is not
// retracted, though a later one may grow over it.)
func retractedFirst(h *Harness) error {
	type span struct {
		from, to int64
		under    string // another was emitted over it
	}
	now := map[string]map[string]*span{}
	for _, r := range h.Outputs(rowTopic) {
		k := string(r.Key)
		if k[0] != 's' {
			continue
		}
		name, rest, _ := strings.Cut(k, "/")
		id, key, _ := strings.Cut(rest, "/")
		of := now[name+key]
		if of == nil {
			of = map[string]*span{}
			now[name+key] = of
		}
		if string(r.Value) == "retracted" {
			if of[id] == nil || of[id].under != "" {
				return fmt.Errorf("%s is retracted, of what stands %+v", k, of[id])
			}
			delete(of, id)
			continue
		}
		var n, total int64
		x := &span{}
		if _, err := fmt.Sscanf(string(r.Value), "%d %d from %d to %d", &n, &total, &x.from, &x.to); err != nil {
			return err
		}
		for other, y := range of {
			if other != id && x.from <= y.to && y.from <= x.to {
				y.under = id
			}
		}
		of[id] = x
	}
	return nil
}
